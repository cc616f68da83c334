"""The report in a browser: headless Chromium (Debian's, by selenium)."""

import pathlib

import numpy as np
import pytest

from tests import browser, saved_outputs
from tfda.evaluation import report

pytestmark = [pytest.mark.slow, browser.needed]


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """The address of a report of three runs, two of them of the same settings."""
  root = tmp_path_factory.mktemp('runs')
  runs = []
  for name, seed, shift in [
    ('source_only', 0, 4.0),
    ('dann', 0, 1.0),
    ('dann', 1, 2.0),
  ]:
    made = saved_outputs.outputs(shift, count=80, seed=seed)
    random = np.random.default_rng(seed)
    for side in ('source', 'target'):
      made.arrays[f'{side}_images'] = random.integers(
        256, size=(30, 8, 8, 3), dtype=np.uint8
      )
    path = root / name / f'seed{seed}'
    runs.append(
      saved_outputs.write_run(
        path, made, 0.5, method=name, seed=seed, backbone='small', steps=20
      )
    )
    (path / 'metrics.csv').write_text(
      'step,loss/label,accuracy/source,accuracy/target\n'
      '10,2.0,0.5,0.4\n20,1.0,0.9,0.5\n'
    )
  return pathlib.Path(report.write(runs, str(root / 'page.html'))).as_uri()


@pytest.mark.parametrize('width, dark', [(1200, False), (360, True)])
def test_page_is_whole_asks_for_nothing_and_has_no_errors(page, width, dark):
  with browser.opened(width, dark) as driver:
    driver.get(page)
    asked = browser.requests(driver)
    assert page in asked
    assert [x for x in asked if x != page and not x.startswith('data:')] == []
    assert browser.complaints(driver) == []
    images = driver.execute_script(
      'return [...document.images].map(x => [x.alt, x.naturalWidth])'
    )
    # Charts: 2 accuracies, 3 losses; a run: 24 + 24 + 12 images, 4 pictures.
    assert len(images) >= 5 + 3 * (60 + 4)
    for alt, natural_width in images:
      assert alt and natural_width > 0, alt
    # Nothing but what is in a box that scrolls is wider than the screen.
    assert driver.execute_script('return document.body.scrollWidth') <= width
    background = driver.execute_script(
      'return getComputedStyle(document.body).backgroundColor'
    )
    assert background == ('rgb(20, 23, 27)' if dark else 'rgb(255, 255, 255)')


def test_keyboard_reaches_links_and_boxes_and_shows_where_it_is(page):
  from selenium.webdriver.common import keys

  with browser.opened() as driver:
    driver.get(page)
    reached = []
    for _ in range(14):
      driver.switch_to.active_element.send_keys(keys.Keys.TAB)
      reached.append(
        driver.execute_script(
          'const x = document.activeElement, s = getComputedStyle(x);'
          'return [x.getAttribute("href") || x.getAttribute("role"),'
          ' s.outlineStyle]'
        )
      )
    assert reached[0][0] == '#main' and reached[1][0] == '#runs'
    assert 'region' in [name for name, _ in reached]
    assert {style for _, style in reached} == {'solid'}


def test_accessibility_tree_has_landmarks_and_named_tables(page):
  with browser.opened() as driver:
    driver.get(page)
    nodes = driver.execute_cdp_cmd('Accessibility.getFullAXTree', {})['nodes']
  named = [
    (node['role']['value'], node.get('name', {}).get('value', ''))
    for node in nodes
    if not node['ignored']
  ]
  roles = [role for role, _ in named]
  for landmark in ('banner', 'navigation', 'main'):
    assert roles.count(landmark) == 1, landmark
  for role in ('table', 'image', 'region'):
    names = [name for found, name in named if found == role]
    assert names and all(names), role
