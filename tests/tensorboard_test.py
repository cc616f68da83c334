"""TensorBoard: what runs have written is shown, in a browser too."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import pytest
import tensorflow as tf

from tests import browser, tiny_run
from tfda import summaries

pytestmark = pytest.mark.slow

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
  """Where TensorBoard shows a run, and what another one says of itself."""
  runs = tmp_path_factory.mktemp('runs')
  shutil.copytree(tiny_run.path(tmp_path_factory), runs / 'first')
  writer = tf.summary.create_file_writer(str(runs / 'second' / 'logs'))
  with writer.as_default():
    summaries.write_settings('--method=gsda\n--seed=7\n')
    tf.summary.scalar('accuracy/target', 0.25, step=3)
    summaries.write_end()
  writer.close()
  process = subprocess.Popen(
    [
      *(sys.executable, '-m', 'tensorboard.main', '--port=0'),
      *('--load_fast=false', '--logdir', str(runs)),
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


def test_settings_and_figures_of_runs_are_side_by_side(address):
  asked = {
    'experimentName': '',
    'allowedStatuses': ['STATUS_UNKNOWN', 'STATUS_SUCCESS', 'STATUS_RUNNING'],
    'colParams': [],
    'startIndex': 0,
    'sliceSize': 100,
  }
  request = urllib.request.Request(
    f'{address}data/plugin/hparams/session_groups',
    json.dumps(asked).encode(),
    {'Content-Type': 'application/json'},
  )
  found, end = {}, time.monotonic() + 60.0
  while len(found) < 2 and time.monotonic() < end:
    time.sleep(0.5)
    with urllib.request.urlopen(request) as response:
      groups = json.load(response).get('sessionGroups', [])
    found = {
      group['hparams']['method']: (
        group['hparams']['seed'],
        {m['name']['tag'] for m in group['metricValues']},
      )
      for group in groups
      if group.get('metricValues')
    }
  assert found['dann'][0] == 0.0 and found['gsda'][0] == 7.0
  assert all('accuracy/target' in tags for _, tags in found.values())


@browser.needed
@pytest.mark.parametrize(
  'tab, shown',
  [
    ('hparams', ['method', 'seed', 'accuracy/target', 'dann', 'gsda']),
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
