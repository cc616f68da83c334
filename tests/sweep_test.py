"""Sweeps: what is drawn, processes that run, fail and are stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import tiny_run
from tests.saved_outputs import outputs, write_run
from tfda import errors, flag_config, sweep
from tools import sweep as tool

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# A tool that only pretends to train: a run with a flag's value as its score.
TRAIN = """
import json, os, sys
flags = dict(
  line[2:].strip().split('=', 1)
  for line in open(sys.argv[1].split('=', 1)[1])
  if line.startswith('--')
)
if flags['seed'] == '13':
  print('error: unlucky')
  sys.exit(1)
os.makedirs(flags['run_dir'])
figures = {
  'source_accuracy': 1.0,
  'information_maximisation': float(flags['learning_rate']),
}
with open(os.path.join(flags['run_dir'], 'results.json'), 'w') as file:
  json.dump({'validators': figures, 'threads': os.environ}, file, default=dict)
"""


def test_axes_are_lists_and_ranges():
  assert sweep.axis('backbone=a,b') == ('backbone', ['a', 'b'])
  assert sweep.axis('seed=3') == ('seed', ['3'])
  # A path with a colon is no range.
  assert sweep.axis('source=folder:a') == ('source', ['folder:a'])
  name, rate = sweep.axis('learning_rate=1e-3:1e-1:log')
  assert name == 'learning_rate'
  # As often in each of the two decades.
  np.testing.assert_allclose(rate.ppf([0.0, 0.5, 1.0]), [1e-3, 1e-2, 1e-1])
  _, momentum = sweep.axis('momentum=0.5:0.9')
  np.testing.assert_allclose(momentum.ppf([0.0, 0.5, 1.0]), [0.5, 0.7, 0.9])
  _, steps = sweep.axis('steps=100:102:int')
  np.testing.assert_allclose(
    steps.pmf([99, 100, 102, 103]), [0, 1 / 3, 1 / 3, 0]
  )
  for wrong in ('a', 'a=', '=1,2', 'a=2:1', 'a=0:1:log'):
    with pytest.raises(errors.UsageError, match='--over='):
      sweep.axis(wrong)


def test_lists_are_a_grid_unless_there_are_to_be_fewer():
  overs = ['x=1,2,3', 'y=a,b']
  grid = sweep.trials(overs)
  assert len(grid) == 6 and {'x': '3', 'y': 'a'} in grid
  fewer = sweep.trials(overs, count=4)
  assert len(fewer) == 4 and all(trial in grid for trial in fewer)
  assert sweep.trials(overs, count=9) == grid
  with pytest.raises(errors.UsageError, match='--trials=N is needed'):
    sweep.trials(['x=1:2'])
  with pytest.raises(errors.UsageError, match='--over=NAME=VALUES is needed'):
    sweep.trials([])


def test_more_trials_begin_with_the_same_ones():
  overs = ['learning_rate=1e-3:1e-1:log', 'backbone=a,b', 'steps=1:99:int']
  few, many = (sweep.trials(overs, count) for count in (3, 8))
  assert many[:3] == few and len(many) == 8
  assert sweep.trials(overs, 3, seed=1) != few
  for trial in many:
    assert 1e-3 <= float(trial['learning_rate']) <= 1e-1
    assert trial['steps'] == str(int(trial['steps']))


def test_names_are_of_files_and_all_different():
  assert sweep.name_of({'a': '0.01', 'b': 'x'}) == 'a=0.01,b=x'
  one, other = (
    sweep.name_of({'source': f'folder:/{200 * "x"}/{end}'}) for end in 'ab'
  )
  assert one != other and '/' not in one and len(one) < 140


@pytest.fixture
def pretended(tmp_path, monkeypatch):
  """A package of a tool that pretends to train; `sweep` finds it by name."""
  (tmp_path / 'pretended').mkdir()
  (tmp_path / 'pretended' / '__init__.py').write_text('')
  (tmp_path / 'pretended' / 'train.py').write_text(TRAIN)
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  monkeypatch.setattr(tool, '__package__', 'pretended')
  return tmp_path


def test_sweep_picks_goes_on_and_tells_of_failures(
  pretended, monkeypatch, capsys
):
  words = [
    f'--run_dir={pretended}/sweep',
    '--over=learning_rate=0.1,0.3',
    '--over=seed=12,13',
    '--jobs=2',
  ]
  assert tiny_run.call(tool, monkeypatch, *words) == 0
  out = capsys.readouterr().out
  assert '4 trials, 2 at a time' in out
  assert out.count('failed (error: unlucky; all of it: ') == 2
  assert out.splitlines()[-1] == 'the choice: --learning_rate=0.3 --seed=12'
  run = pretended / 'sweep' / 'learning_rate=0.3,seed=12'
  with open(run / 'results.json') as file:
    threads = json.load(file)['threads']
  assert threads['OMP_NUM_THREADS'] == str(max(1, os.cpu_count() // 2))
  # Its flag file is whole: it replays the run.
  one, _ = flag_config.read(f'{run}.flags')
  assert (one.learning_rate, one.seed, one.run_dir) == (0.3, 12, str(run))

  # Again, with one more value: what is finished is left alone.
  before = os.stat(run / 'results.json').st_mtime_ns
  words[1] = '--over=learning_rate=0.1,0.3,0.5'
  assert tiny_run.call(tool, monkeypatch, *words) == 0
  out = capsys.readouterr().out
  assert os.stat(run / 'results.json').st_mtime_ns == before
  assert out.splitlines()[-1] == 'the choice: --learning_rate=0.5 --seed=12'


def test_nothing_finished_is_an_error(pretended, monkeypatch, capsys):
  words = [f'--run_dir={pretended}/sweep', '--over=seed=13']
  assert tiny_run.call(tool, monkeypatch, *words) == 1
  assert 'error: no trial was finished' in capsys.readouterr().err


@pytest.mark.parametrize(
  'words, told',
  [
    (['--over=lerning_rate=1,2'], 'lerning_rate'),
    (['--over=steps=0,1'], '--steps=0 is below 1'),
    (['--over=seed=1', '--validator=entropy'], 'did you mean target_entropy'),
    (['--over=seed=1', '--trials=0'], '--trials=0 is below 1'),
    ([], '--over=NAME=VALUES is needed'),
  ],
)
def test_wrong_words_start_nothing(words, told, pretended, monkeypatch, capsys):
  code = tiny_run.call(
    tool, monkeypatch, f'--run_dir={pretended}/sweep', *words
  )
  error = capsys.readouterr().err
  assert code == 2 and told in error and error.count('\n') == 1
  assert not (pretended / 'sweep').exists()


def test_default_folder_is_that_of_the_flag_file(
  pretended, monkeypatch, capsys
):
  flags = pretended / 'flags' / 'a2b' / 'dann.flags'
  flags.parent.mkdir(parents=True)
  flags.write_text('--method=dann\n--over=seed=1\n--over=learning_rate=1,2\n')
  monkeypatch.chdir(pretended)
  assert tiny_run.call(tool, monkeypatch, f'--flagfile={flags}') == 0
  found = os.listdir(pretended / 'runs' / 'a2b' / 'dann' / 'sweep')
  assert 'seed=1,learning_rate=2' in found
  capsys.readouterr()


def test_processes_are_stopped_and_waited_for(tmp_path):
  """As on Ctrl-C, which ends the loop over them."""
  code = (
    'import signal, sys, time\n'
    'def stop(*_):\n'
    '  print("saved", flush=True)\n'
    '  sys.exit(0)\n'
    'signal.signal(signal.SIGTERM, stop)\n'
    'print("ready", flush=True)\n'
    'time.sleep(60)\n'
  )
  slow, quick, never = (str(tmp_path / name) for name in ('s', 'q', 'n'))
  wait = (
    f'import time\nwhile "ready" not in open({slow!r}).read(): time.sleep(.01)'
  )
  commands = {
    slow: [sys.executable, '-c', code],
    quick: [sys.executable, '-c', wait],
    never: [sys.executable, '-c', code],
  }
  running = sweep.run(commands, jobs=2)
  assert next(running) == (quick, 0)
  running.close()
  with open(slow) as file:
    assert file.read().split() == ['ready', 'saved']
  assert not os.path.exists(never)


@pytest.mark.slow
def test_real_sweep_is_stopped_and_goes_on(tmp_path):
  command = [
    *(sys.executable, '-m', 'tools.sweep', '--source=optdigits'),
    *('--target=optdigits_m', '--image_size=8', '--batch_size=8', '--steps=80'),
    *('--log_every=10', '--evaluate_every=40', '--checkpoint_every=10'),
    *('--over=learning_rate=0.01', f'--run_dir={tmp_path}/sweep'),
  ]
  stopped = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
  metrics = tmp_path / 'sweep' / 'learning_rate=0.01' / 'metrics.csv'
  while not metrics.exists() and stopped.poll() is None:
    time.sleep(0.01)
  stopped.send_signal(signal.SIGTERM)
  assert stopped.wait() == 130
  run = str(metrics.parent)
  assert not os.path.exists(f'{run}/results.json')
  assert os.path.exists(f'{run}/checkpoints/checkpoint')
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.endswith('the choice: --learning_rate=0.01\n')
  with open(f'{run}.log') as file:
    assert 'going on at step' in file.read()


def test_interval_of_the_ranking_is_of_the_runs(pretended, monkeypatch, capsys):
  path = pretended / 'sweep' / 'seed=1'
  write_run(path, outputs())
  words = [f'--run_dir={pretended}/sweep', '--over=seed=1', '--resamples=20']
  assert tiny_run.call(tool, monkeypatch, *words) == 0
  row = capsys.readouterr().out.splitlines()[2]
  assert ' to ' in row and row.endswith(str(path))
