"""Headless Chromium for the tests of pages."""

import contextlib
import json
import shutil

import pytest

DRIVER = shutil.which('chromedriver')
needed = pytest.mark.skipif(
  DRIVER is None,
  reason='no chromedriver: apt-get install chromium chromium-driver',
)


@contextlib.contextmanager
def opened(width=1200, dark=False):
  """A WebDriver that logs what a page asks for and complains of."""
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  for argument in ('headless=new', 'no-sandbox', 'disable-dev-shm-usage'):
    options.add_argument(f'--{argument}')
  options.set_capability(
    'goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'}
  )
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  try:
    driver.set_page_load_timeout(120)
    driver.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {
        'width': width,
        'height': 800,
        'deviceScaleFactor': 1,
        'mobile': width < 600,
      },
    )
    scheme = 'dark' if dark else 'light'
    driver.execute_cdp_cmd(
      'Emulation.setEmulatedMedia',
      {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
    )
    yield driver
  finally:
    driver.quit()


def requests(driver):
  """The addresses that pages have asked for since it was last asked."""
  entries = [
    json.loads(entry['message'])['message']
    for entry in driver.get_log('performance')
  ]
  return [
    entry['params']['request']['url']
    for entry in entries
    if entry['method'] == 'Network.requestWillBeSent'
  ]


def complaints(driver):
  """Warnings and errors of the console."""
  return [
    entry['message']
    for entry in driver.get_log('browser')
    if entry['level'] in ('WARNING', 'SEVERE')
  ]
