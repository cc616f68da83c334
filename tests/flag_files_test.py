"""The flag files: all load, and those of small data at hand run."""

import glob
import json
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests import tiny_run
from tfda import flag_config, methods
from tools import train

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALL = sorted(
  os.path.relpath(path, ROOT)
  for path in glob.glob(os.path.join(ROOT, 'flags', '*', '*.flags'))
)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', ALL)
def test_flag_file_loads_and_says_what_it_is(path):
  experiment, config, _, words = flag_config.parse_experiment(
    [f'--flagfile={path}']
  )
  assert not words
  assert isinstance(config, methods.load(experiment.method).Config)
  expected = os.path.splitext(os.path.relpath(path, 'flags'))[0]
  assert experiment.run_dir == os.path.join('runs', expected, 'seed0')
  with open(path, encoding='utf-8') as file:
    assert file.readline().startswith('# ')
  if path.startswith('flags/base/'):
    return
  # flags/<source>2<target>/: a set's part is after an underscore, and the
  # target's set is left out if it is the source's.
  (source_set, source), (target_set, target) = (
    (name.split('/') if '/' in name else ('', name))
    for name in (experiment.source, experiment.target)
  )
  parts = [source_set, source] if source_set else [source]
  assert source_set == target_set
  folder = f'{"_".join(parts)}2{target}'.lower().replace(' ', '_')
  assert os.path.basename(os.path.dirname(path)) == folder


def _numbers(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Small files in the layouts of the data sets."""
  root = tmp_path_factory.mktemp('data')
  labels = np.arange(20) % 10
  np.savez(
    root / 'mnist.npz',
    x_train=_numbers(20, 28, 28),
    y_train=labels,
    x_test=_numbers(10, 28, 28),
    y_test=labels[:10],
  )
  for name, zero in (('', 10), ('synth_', 0)):
    for split, count in (('train', 20), ('test', 10)):
      y = np.where(labels[:count] == 0, zero, labels[:count])
      scipy.io.savemat(
        root / f'{name}{split}_32x32.mat',
        {'X': _numbers(32, 32, 3, count), 'y': y[:, np.newaxis]},
      )
  # Five tracks of ten frames of every sign.
  np.savez(
    root / 'gtsrb.npz', x=_numbers(2150, 32, 32, 3), y=np.repeat(range(43), 50)
  )
  for split in ('train', 'test'):
    for sign in range(43):
      folder = root / 'syn_signs' / split / f'{sign:02}'
      folder.mkdir(parents=True)
      Image.fromarray(_numbers(40, 40, 3)).save(folder / '0.png')
  for domain in ('amazon', 'dslr', 'webcam'):
    for name in ('bike', 'mug'):
      folder = root / 'office31' / domain / 'images' / name
      folder.mkdir(parents=True)
      for i in range(3):
        image = Image.fromarray(_numbers(30, 40, 3, seed=i))
        image.save(folder / f'frame_{i}.jpg')
  return root


def _run(path, data_dir, tmp_path, monkeypatch, *more):
  code = tiny_run.call(
    train,
    monkeypatch,
    f'--flagfile={path}',
    f'--data_dir={data_dir}',
    f'--run_dir={tmp_path}/run',
    f'--cache_dir={tmp_path}/cache',
    '--steps=2',
    '--batch_size=4',
    *more,
  )
  assert code == 0
  with open(tmp_path / 'run' / 'results.json') as file:
    return json.load(file)


@pytest.mark.slow
@pytest.mark.parametrize(
  'path',
  [
    'flags/syn_numbers2svhn/dann.flags',
    'flags/svhn2mnist/dann.flags',
    'flags/mnist2svhn/dann.flags',
    'flags/syn_signs2gtsrb/dann.flags',
    'flags/syn_signs2gtsrb/train_on_target.flags',
    'flags/syn_signs2gtsrb/dann_semi_supervised.flags',
  ],
)
def test_digits_and_signs_run(path, data_dir, tmp_path, monkeypatch):
  more = ['--target_labelled=128'] if 'semi' in path else []
  results = _run(path, data_dir, tmp_path, monkeypatch, *more)
  classes = 43 if 'gtsrb' in path else 10
  assert len(results['per_class_accuracy']['target']) == classes
  # A fifth of 2,150 is for test; where 128 are shown, all others of training.
  images = {'gtsrb': 430, 'svhn': 10, 'mnist': 10}[results['target']]
  assert results['images']['target_test'] == (1592 if more else images)


@pytest.mark.slow
@pytest.mark.parametrize(
  'pair', ['amazon2webcam', 'dslr2webcam', 'webcam2dslr']
)
def test_office_runs(pair, data_dir, tmp_path, monkeypatch):
  path = f'flags/office31_{pair}/dann.flags'
  results = _run(path, data_dir, tmp_path, monkeypatch)
  assert results['backbone'] == 'resnet50'
  assert results['transductive'] == {'source': True, 'target': True}
  assert results['images']['target_test'] == 6
