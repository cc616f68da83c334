"""The flag files: all load, and those of small data at hand run."""

import csv
import glob
import json
import os

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests import tiny_run
from tfda import flag_config, methods
from tools import train, translate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ALL = sorted(
  os.path.relpath(path, ROOT)
  for path in glob.glob(os.path.join(ROOT, 'flags', '*', '*.flags'))
)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def _loaded(path):
  """The Experiment of a flag file; the Translation where the name says so."""
  flags = [f'--flagfile={path}']
  if os.path.basename(path).startswith('translation'):
    translation, words = flag_config.parse_translation(flags)
  else:
    translation = None
    experiment, config, _, words = flag_config.parse_experiment(flags)
    assert isinstance(config, methods.load(experiment.method).Config)
  assert not words
  return translation or experiment


@pytest.mark.parametrize('path', ALL)
def test_flag_file_loads_and_says_what_it_is(path):
  experiment = _loaded(path)
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


def _settings(path):
  experiment, config, _, _ = flag_config.parse_experiment(
    [f'--flagfile=flags/{path}.flags']
  )
  return experiment, config


@pytest.mark.parametrize(
  'pair, backbone, alpha, dropout',
  [
    # No annealing between MNIST and SVHN; dropout and max-norm in their net.
    ('svhn2mnist', 'dann_svhn', 0, 0.5),
    ('mnist2svhn', 'dann_svhn', 0, 0.5),
    ('syn_numbers2svhn', 'dann_svhn', 10, 0.5),
    ('syn_signs2gtsrb', 'dann_gtsrb', 10, 0.0),
  ],
)
def test_dann_on_digits_and_signs_is_the_paper_s(
  pair, backbone, alpha, dropout
):
  run, config = _settings(f'{pair}/dann')
  assert f'{run.source}2{run.target}' == pair
  assert (run.backbone, run.batch_size, run.momentum) == (backbone, 64, 0.9)
  assert (run.learning_rate, run.learning_rate_alpha) == (0.01, alpha)
  assert run.classifier_dropout == config.discriminator_dropout == dropout
  assert (run.max_norm > 0) == (dropout > 0)
  assert (config.domain_weight, config.gamma) == (1.0, 10.0)


@pytest.mark.parametrize(
  'pair', ['amazon2webcam', 'dslr2webcam', 'webcam2dslr']
)
def test_dann_on_office_is_that_of_the_released_code(pair):
  run, config = _settings(f'office31_{pair}/dann')
  assert (run.backbone, run.bottleneck, run.batch_size) == ('resnet50', 256, 64)
  assert (run.learning_rate, run.new_layer_multiplier) == (0.001, 10)
  assert run.bias_multiplier == 2  # x20 in new layers.
  assert (run.resize, run.image_size) == (256, 224)
  assert run.augmentation == 'crop_flip'
  assert (config.domain_weight, config.discriminator_dropout) == (0.1, 0.5)


@pytest.mark.parametrize(
  'name, blocks, filters, batch',
  [('translation', 9, 64, 100), ('translation_small', 4, 16, 32)],
)
def test_translation_of_digits_does_not_change_them(
  name, blocks, filters, batch
):
  run = _loaded(f'flags/mnist2mnist_m/{name}.flags')
  assert (run.residual_blocks, run.filters) == (blocks, filters)
  assert (run.batch_size, run.steps, run.image_size) == (batch, 20_000, 32)
  assert (run.cycle_weight, run.identity_weight) == (1.0, 0.0)
  assert (run.augmentation, run.resize) == ('none', None)
  assert (run.discriminator_layers, run.pool_size) == (3, 50)
  assert (run.learning_rate, run.momentum, run.decay_from) == (2e-4, 0.5, 0.5)


def test_translation_of_office_is_cyclegan_s():
  run = _loaded('flags/office31_amazon2webcam/translation.flags')
  # Zhu et al. 2017, Section 4 and 7, and its code.
  assert (run.residual_blocks, run.filters, run.batch_size) == (9, 64, 1)
  assert (run.discriminator_layers, run.discriminator_filters) == (5, 64)
  assert (run.cycle_weight, run.identity_weight) == (10.0, 5.0)
  assert (run.resize, run.image_size) == (286, 256)
  assert run.augmentation == 'crop_flip'
  assert (run.learning_rate, run.momentum, run.decay_from) == (2e-4, 0.5, 0.5)
  assert run.pool_size == 50


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
    'flags/svhn2mnist/source_only.flags',
    'flags/mnist2svhn/train_on_target.flags',
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


@pytest.fixture(scope='module')
def one_of_each(tmp_path_factory):
  """One image a class: Office-31 in its other layout, Office-Home, VisDA."""
  shared = (
    'back_pack bike calculator headphones keyboard laptop_computer monitor '
    'mouse mug projector'
  )
  root = tmp_path_factory.mktemp('one_of_each')

  def draw(path):
    path.parent.mkdir(parents=True)
    Image.fromarray(_numbers(30, 40, 3)).save(path)

  for domain in ('amazon', 'webcam'):
    for name in [*shared.split(), *(f'other_{i}' for i in range(21))]:
      draw(root / 'office31' / domain / name / 'frame_0.jpg')
  for domain in ('Art', 'Clipart'):
    for i in range(65):
      draw(root / 'office_home' / domain / f'Class_{i:02}' / '00001.jpg')
  for split in ('train', 'validation'):
    folder = root / 'visda2017' / split
    listed = [f'class_{i:02}/image.jpg {i}\n' for i in range(12)]
    for line in listed:
      draw(folder / line.split()[0])
    (folder / 'image_list.txt').write_text(''.join(listed))
  return root


@pytest.mark.slow
@pytest.mark.parametrize(
  'path, classes',
  [
    ('office31_amazon2webcam/gsda', 31),
    ('office_home_art2clipart/gsda', 65),
    ('visda2017_train2validation/gsda', 12),
    ('office31_amazon2webcam/tada', 31),
  ],
)
def test_rows_of_resnet50_run(
  path, classes, one_of_each, tmp_path, monkeypatch
):
  """On images of 64x64, with all discriminators at their size."""
  small = ['--image_size=64', '--resize=72']
  results = _run(
    f'flags/{path}.flags', one_of_each, tmp_path, monkeypatch, *small
  )
  assert results['backbone'] == 'resnet50'
  assert results['images']['target_test'] == classes
  assert len(results['per_class_accuracy']['target']) == classes


@pytest.mark.slow
def test_office_is_translated_and_its_attention_aligned(
  data_dir, tmp_path, monkeypatch
):
  """By generators and a ResNet-50 of their size, on images of 64x64."""
  folder = 'flags/office31_amazon2webcam'
  small = ['--image_size=64', '--resize=72']
  code = tiny_run.call(
    translate,
    monkeypatch,
    f'--flagfile={folder}/translation.flags',
    f'--data_dir={data_dir}',
    f'--run_dir={tmp_path}/translation',
    f'--cache_dir={tmp_path}/cache',
    '--steps=2',
    '--classifier_steps=1',
    *small,
  )
  assert code == 0
  results = _run(
    f'{folder}/attention_alignment.flags',
    data_dir,
    tmp_path,
    monkeypatch,
    f'--translation={tmp_path}/translation',
    '--steps=5',
    '--log_every=1',
    '--attention_alignment.refresh_every=2',
    '--attention_alignment.posterior_threshold=0',
    *small,
  )
  assert results['images']['source_to_target_train'] == 6
  assert set(results['pictures']) == {'attention_source', 'attention_target'}
  with open(tmp_path / 'run' / 'metrics.csv') as file:
    rows = list(csv.DictReader(file))
  for term in ('posterior', 'attention', 'kept'):  # Behind the source network.
    values = [float(row[f'loss/{term}']) for row in rows]
    assert values[0] == 0.0 and min(values[1:]) > 0.0
  # As at first, in every second of four steps.
  rates = [float(row['learning_rate']) for row in rows[1:]]
  assert rates[1] == rates[3] == pytest.approx(3e-4, rel=1e-6)
  assert rates[0] == rates[2] < rates[1]


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, left', [('gsda_partial', 10), ('local_feature_patterns_31to25', 25)]
)
def test_partial_office_runs(name, left, one_of_each, tmp_path, monkeypatch):
  path = f'flags/office31_amazon2webcam/{name}.flags'
  more = []
  if 'patterns' in name:
    # VGG16 at its size takes minutes for the pictures alone.
    more = ['--image_size=64', '--resize=72', '--steps=5', '--log_every=1']
  results = _run(path, one_of_each, tmp_path, monkeypatch, *more)
  if 'patterns' in name:  # One step, two and two.
    with open(tmp_path / 'run' / 'metrics.csv') as file:
      rows = list(csv.DictReader(file))
    for term, begins in ('sparsity', 2), ('holistic', 4), ('local', 4):
      values = {int(row['step']): float(row[f'loss/{term}']) for row in rows}
      assert len(values) == 5
      for step, value in values.items():
        assert (value > 0.0) == (step >= begins), (term, step)
  assert results['images']['source_test'] == 31
  assert results['images']['target_train'] == left
  assert results['images']['target_test'] == left
  of_class = results['per_class_accuracy']['target'].values()
  assert len(of_class) == 31 and list(of_class).count(None) == 31 - left


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
