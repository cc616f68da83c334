"""TensorBoard in a browser: what a run has written is shown."""

import re
import subprocess
import sys
import time

import pytest

from tests import browser, tiny_run

pytestmark = [pytest.mark.slow, browser.needed]

# All text, of shadow trees and frames of this page too.
_TEXT = """
const walk = x => [
  x.nodeType == 3 ? x.data : '',
  ...(x.shadowRoot ? [walk(x.shadowRoot)] : []),
  ...(x.tagName == 'IFRAME' && x.contentDocument
      ? [walk(x.contentDocument.body)] : []),
  ...[...x.childNodes].map(walk)].join(' ');
return walk(document.body);
"""


@pytest.fixture(scope='module')
def address(tmp_path_factory):
  """Where TensorBoard shows a run."""
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'tensorboard.main', '--port=0'),
      *('--load_fast=false', '--logdir', tiny_run.path(tmp_path_factory)),
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )
  said = []
  try:
    for line in process.stderr:
      said.append(line)
      found = re.search(r'http://\S+', line)
      if found:
        break
    assert found, ''.join(said)
    yield found.group(0)
  finally:
    process.kill()
    process.wait()


@pytest.mark.parametrize(
  'tab, shown',
  [
    ('hparams', ['method', 'seed', 'accuracy/target', 'dann']),
    ('custom_scalars', ['accuracy', 'validator', 'schedules', 'speed']),
    ('projector', ['features of both domains', 'predicted']),
  ],
)
def test_tab_shows_the_run(address, tab, shown):
  with browser.opened() as driver:
    driver.get(f'{address}#{tab}')
    end = time.monotonic() + 60.0
    missing = shown
    while missing and time.monotonic() < end:
      time.sleep(0.5)
      text = driver.execute_script(_TEXT)
      missing = [x for x in shown if x not in text]
    assert not missing, f'{missing} is not in: {" ".join(text.split())[:2000]}'
