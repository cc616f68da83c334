"""The tools as a user meets them: the demo, the command, wrong input."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests import tiny_run
from tools import demo, train

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TINY = """# Tiny.
--source=optdigits
--target=optdigits_m
--image_size=8
--batch_size=8
--steps=4
--log_every=2
--evaluate_every=2
--checkpoint_every=2
"""


def run(tool, arguments, monkeypatch, capsys):
  """(exit code, standard output, standard error) of a tool in this process."""
  code = tiny_run.call(tool, monkeypatch, *arguments)
  return (code, *capsys.readouterr())


@pytest.mark.slow
def test_demo_ends_with_table_and_paths(tmp_path, monkeypatch, capsys):
  flags = tmp_path / 'flags'
  flags.mkdir()
  for name, method in [
    ('source_only', 'source_only'),
    ('dann_tuned', 'dann'),
    ('train_on_target', 'train_on_target'),
  ]:
    (flags / f'{name}.flags').write_text(f'{TINY}--method={method}\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(demo, '_PAIR', 'flags')
  code, out, _ = run(demo, ['--full', '--seed=3'], monkeypatch, capsys)
  assert code == 0
  rows = [line.split() for line in out.splitlines()]
  for name in ('source_only', 'dann_tuned', 'train_on_target'):
    (row,) = [row for row in rows if row and row[0] == name]
    assert len(row) == 5 and row[1].endswith('%') and row[2].endswith('%')
  paths = {row[0]: row[-1] for row in rows if len(row) > 1}
  assert os.path.exists(paths['report'])
  assert os.path.exists(os.path.join(paths['SavedModel'], 'saved_model.pb'))
  assert os.path.isdir(paths['TensorBoard'])
  # Again: nothing is trained anew.
  _, again, _ = run(demo, ['--full', '--seed=3'], monkeypatch, capsys)
  assert 'step 2:' not in again


@pytest.mark.parametrize(
  'words, told',
  [
    (['--lerning_rate=1'], 'learning_rate'),
    (['--method=dannn'], 'dann'),
    (['--source=mnist_smaple'], 'mnist_sample'),
    (['--backbone=dann_mnits'], 'dann_mnist'),
    (['--source=mnist'], '--data_dir'),
    (['--source=mnist', '--data_dir=/nowhere'], '/nowhere'),
    (['--source=folder:/nowhere'], '/nowhere'),
    (['--steps=many'], 'steps'),
    (['--steps=0'], '--steps=0 is below 1'),
    ([f'--seed={2**32}'], '--seed'),
    (['--backbone=mobilenet', '--image_size=16'], '--image_size=16'),
    (['--flagfile=tfda/data/mnist_sample.npz'], '--flagfile'),
    (['--flagfile=/nowhere.flags'], '/nowhere.flags'),
    (['--backbone_weights=/nowhere.h5'], '/nowhere.h5'),
    (['--freeze_until=conv9'], 'conv1'),
    (['stray'], 'stray'),
  ],
)
def test_wrong_words_give_one_line_and_write_nothing(
  words, told, tmp_path, monkeypatch, capsys
):
  run_dir = tmp_path / 'run'
  tiny = [word for word in TINY.splitlines() if word.startswith('--')]
  arguments = [*tiny, f'--run_dir={run_dir}', *words]
  code, out, err = run(train, arguments, monkeypatch, capsys)
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1
  assert told in err
  assert out == '' and not run_dir.exists()


def test_diverging_training_fails_in_one_line(tmp_path, monkeypatch, capsys):
  tiny = [word for word in TINY.splitlines() if word.startswith('--')]
  arguments = [*tiny, '--learning_rate=1e30', f'--run_dir={tmp_path}/run']
  code, _, err = run(train, arguments, monkeypatch, capsys)
  assert code == 1
  last = [line for line in err.splitlines() if line.startswith('error')]
  assert len(last) == 1 and 'not finite at step' in last[0]


def test_help_shows_every_group(monkeypatch, capsys):
  code, out, _ = run(train, ['--help'], monkeypatch, capsys)
  assert code == 0
  for text in ('experiment:', 'dann:', '--dann.gamma=', 'default: 10.0'):
    assert text in out


@pytest.mark.slow
def test_wheel_holds_tfda_alone_and_its_command_runs(tmp_path):
  subprocess.run(
    [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '.']
    + ['--wheel-dir', str(tmp_path)],
    cwd=ROOT,
    check=True,
  )
  (wheel,) = tmp_path.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    archive.extractall(tmp_path / 'installed')
  assert {n.split('/')[0] for n in names if '.dist-info/' not in n} == {'tfda'}
  for needed in ('tools/train.py', 'data/mnist_sample.npz'):
    assert f'tfda/{needed}' in names
  code = 'from tfda.command_line import main; main()'
  environment = {**os.environ, 'PYTHONPATH': str(tmp_path / 'installed')}

  def command(*words):
    return subprocess.run(
      [sys.executable, '-c', code, *words],
      cwd=tmp_path,
      env=environment,
      capture_output=True,
      text=True,
    )

  assert 'train' in command('--help').stdout
  wrong = command('trian')
  assert wrong.returncode == 2 and 'did you mean train' in wrong.stderr
  tiny = [word for word in TINY.splitlines() if word.startswith('--')]
  trained = command('train', *tiny, '--run_dir=run')
  assert trained.returncode == 0, trained.stderr
  assert (tmp_path / 'run' / 'results.json').exists()
