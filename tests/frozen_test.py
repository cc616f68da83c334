"""Stored features of a frozen part: the same training, from the middle on."""

import csv
import glob
import json
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfda
from tests import harness
from tfda import backbones, errors, experiment
from tfda.data import frozen
from tfda.methods import local_feature_patterns


@pytest.fixture
def mobilenet():
  backbone = harness.calibrated('mobilenet')
  backbone.freeze_until('conv_pw_5')
  return backbone


def _images(count, size=32):
  random = np.random.default_rng(0)
  return random.integers(0, 256, [count, size, size, 3]).astype(np.uint8)


@pytest.mark.parametrize(
  'name, layer, shape',
  [
    ('mobilenet', 'conv_pw_5', (4, 4, 256)),
    pytest.param(
      *('resnet50', 'v2_stack_2_block6_out', (2, 2, 1024)),
      marks=pytest.mark.slow,
    ),
    ('vgg16', 'block4_pool', (2, 2, 512)),
  ],
)
def test_cut_network_is_the_network(name, layer, shape):
  backbone = harness.calibrated(name)
  backbone.freeze_until(layer)
  images = tf.constant(_images(3))
  # In graphs, as the prefix is: eager kernels round in another way.
  before = tf.function(backbone.feature_map)(images)
  # It tells images from each other, or any two halves would do.
  assert np.std(before, axis=0).mean() > 1e-3
  weights = [w.name for w in backbone.weights]
  trainable = len(backbone.trainable_weights)
  backbone.cut_at(layer)
  stored = backbone.prefix(images)
  assert stored.shape == (3, *shape)
  assert backbone.is_stored(stored) and not backbone.is_stored(images)
  atol = 1e-5 * np.abs(before).max()
  for inputs in (stored, images):
    joined = tf.function(backbone.feature_map)(inputs)
    np.testing.assert_allclose(joined, before, rtol=1e-5, atol=atol)
  assert [w.name for w in backbone.weights] == weights
  assert len(backbone.trainable_weights) == trainable > 0
  of_prefix = {w.ref() for w in backbone.prefix_weights()}
  assert not of_prefix & {w.ref() for w in backbone.trainable_weights}


@pytest.mark.parametrize(
  'name, layer', [('resnet18', 'v2_stack_1_block1_1_conv')]
)
def test_cut_inside_a_residual_block_is_refused(name, layer):
  backbone = backbones.load(name, requested_size=32)
  with pytest.raises(errors.UsageError, match='cannot be cut there'):
    backbone.cut_at(layer)


def test_cut_behind_statistics_of_each_domain_is_refused():
  backbone = backbones.load('dann_mnist_domain_norm')
  with pytest.raises(errors.UsageError, match='cannot be cut there'):
    backbone.cut_at('pool1')


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, layer, count',
  [
    ('four_conv', 'conv1', 2),
    ('mobilenet', 'conv_pw_11_relu', 4),
    ('resnet18', 'v2_stack_2_block2_out', 5),
    ('vgg16', 'block4_pool', 3),
  ],
)
def test_maps_of_layers_behind_the_cut(name, layer, count):
  backbone = harness.calibrated(name)
  backbone.freeze_until(layer)
  domains = ['target']
  if name == 'mobilenet':
    backbone.separate_batch_norm()
    domains.append('source')
    backbone(_images(3), training=True, domain='source')
  images, layers = tf.constant(_images(3)), backbone.alignable_layers
  assert len(layers) == count  # None of the frozen part.
  front = backbone.network.layers[1].name
  before = {
    domain: backbone.feature_maps(images, [front, *layers], domain=domain)
    for domain in domains
  }
  backbone.cut_at(layer)
  stored = backbone.prefix(images)
  # Made in a trace, as in training.
  traced = tf.function(backbone.feature_maps, autograph=False)
  for domain in domains:
    for inputs in (stored, images):
      maps = traced(inputs, layers, domain=domain)
      for ours, expected in zip(maps, before[domain][1:]):
        assert np.std(expected, axis=0).mean() > 1e-6
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
  # What lies in the stored part is to be had of images alone.
  maps = backbone.feature_maps(images, [front])
  np.testing.assert_array_equal(maps[0], before['target'][0])
  for name in (front, layer):
    with pytest.raises(errors.UsageError) as refused:
      backbone.feature_maps(stored, [*layers, name])
    assert str(refused.value) == (
      f'{name}: {backbone.name} has it in the part up to '
      f'--freeze_until={layer}, whose outputs alone --cache_features stores; '
      'name layers behind it'
    )


def _domain(name='d', count=5, size=36):
  domain = harness.toy_domain('source', 'train', count)
  return type(domain)(
    name, 'train', _images(count, size), domain.labels, ('a', 'b')
  )


def test_features_are_stored_once_and_found_again(mobilenet, tmp_path):
  mobilenet.cut_at('conv_pw_5')
  calls = []
  prefix = mobilenet.prefix
  mobilenet.prefix = lambda images: calls.append(1) or prefix(images)
  domain = _domain()
  arguments = mobilenet, 'crop_flip', 3, str(tmp_path)
  first = frozen.cached(domain, *arguments)
  assert first.features.shape == (15, 4, 4, 256) and len(calls) == 1
  again = frozen.cached(domain, *arguments)
  assert len(calls) == 1
  np.testing.assert_array_equal(again.features[:], first.features[:])
  # The first of three is that of the centre; the others are other crops.
  centres = domain.images[:, 2:34, 2:34]
  np.testing.assert_allclose(
    first.inputs()[:], prefix(tf.constant(centres)), atol=1e-5
  )
  copies = first.features[:].reshape(5, 3, -1)
  assert (np.abs(copies[:, 1] - copies[:, 0]).max(axis=1) > 0).all()
  assert (np.abs(copies[:, 1] - copies[:, 2]).max(axis=1) > 0).any()


def test_other_images_weights_or_crops_are_other_features(mobilenet, tmp_path):
  mobilenet.cut_at('conv_pw_5')
  domain = _domain()
  key = frozen._key(domain, mobilenet, 'crop_flip', 3)
  assert frozen._key(_domain('another name'), mobilenet, 'crop_flip', 3) == key
  assert frozen._key(domain, mobilenet, 'resized_crop', 3) != key
  assert frozen._key(domain, mobilenet, 'crop_flip', 2) != key
  domain.images[4, 0, 0, 0] ^= 1
  assert frozen._key(domain, mobilenet, 'crop_flip', 3) != key
  domain.images[4, 0, 0, 0] ^= 1
  # A weight behind the cut does not matter, one before it does.
  mobilenet.suffix.trainable_variables[0].assign_add(
    tf.ones_like(mobilenet.suffix.trainable_variables[0])
  )
  assert frozen._key(domain, mobilenet, 'crop_flip', 3) == key
  mobilenet.prefix_weights()[-1].assign_add(
    tf.ones_like(mobilenet.prefix_weights()[-1])
  )
  assert frozen._key(domain, mobilenet, 'crop_flip', 3) != key


def test_features_of_another_layer_are_other_features():
  """Of a ReLU too, which has the weights and the shape of its convolution."""
  keys = set()
  for layer in ('conv1', 'relu1'):
    backbone = backbones.load('dann_mnist')
    for weight in backbone.network.weights:
      weight.assign(tf.ones_like(weight))
    backbone.cut_at(layer)
    keys.add(frozen._key(_domain(size=28), backbone, 'none', 1))
  assert len(keys) == 2


def _folder(root, shift):
  random = np.random.default_rng(shift)
  for name, colour in (('dark', 60), ('light', 180)):
    (root / name).mkdir(parents=True)
    for i in range(10):
      pixels = random.normal(colour + shift, 30, [40, 40, 3])
      pixels = np.clip(pixels, 0, 255).astype(np.uint8)
      Image.fromarray(pixels).save(root / name / f'{i}.png')
  return f'folder:{root}'


def _trained(tmp_path, name, source, target, config=None, **changed):
  run = experiment.train(
    experiment.Experiment(
      **{
        'method': 'dann',
        'source': source,
        'target': target,
        'backbone': 'dann_mnist',
        'freeze_until': 'pool1',
        'batch_size': 4,
        'steps': 3,
        'log_every': 1,
        'cache_dir': str(tmp_path / 'cache'),
        'run_dir': str(tmp_path / name),
        **changed,
      }
    ),
    config,
  )
  with open(f'{run}/metrics.csv') as file:
    return run, list(csv.DictReader(file))


@pytest.mark.parametrize(
  'name',
  [
    'dann_mnist',
    pytest.param('local_feature_patterns', marks=pytest.mark.slow),
    pytest.param('mobilenet', marks=pytest.mark.slow),
  ],
)
def test_training_behind_the_cut_has_the_losses_of_the_frozen_run(
  name, tmp_path
):
  source = _folder(tmp_path / 'source', 0)
  target = _folder(tmp_path / 'target', 20)
  more = {}
  if name == 'mobilenet':
    weights = str(tmp_path / 'weights.h5')
    harness.calibrated('mobilenet').network.save_weights(weights)
    # The cut of flags/base/icons.flags.
    more = {
      'backbone': 'mobilenet',
      'backbone_weights': weights,
      'image_size': 32,
      'freeze_until': 'conv_pw_11',
    }
  if name == 'local_feature_patterns':
    config = local_feature_patterns.Config(
      num_patterns=4, local_units_1=6, local_units_2=5
    )
    more = {'method': name, 'config': config}
  plain, plain_rows = _trained(tmp_path, 'plain', source, target, **more)
  behind, rows = _trained(
    tmp_path, 'behind', source, target, cache_features=1, **more
  )
  assert len(rows) == len(plain_rows) == 3
  for ours, theirs in zip(rows, plain_rows):
    terms = [name for name in ours if name.startswith('loss/')]
    assert len(terms) > 2
    for term in terms:
      assert float(ours[term]) == pytest.approx(float(theirs[term]), abs=1e-5)
  results = []
  for run in (plain, behind):
    with open(f'{run}/results.json') as file:
      results.append(json.load(file))
  assert results[0]['accuracy'] == results[1]['accuracy']
  # Both are whole models from image to label.
  image = str(tmp_path / 'target' / 'dark' / '0.png')
  ours, theirs = (
    tfda.load(run).predict([image]).probabilities for run in (behind, plain)
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_training_on_stored_crops_resumes(tmp_path, capsys):
  source = _folder(tmp_path / 'source', 0)
  target = _folder(tmp_path / 'target', 20)

  def train():
    run, rows = _trained(
      tmp_path,
      'crops',
      source,
      target,
      cache_features=2,
      augmentation='crop_flip',
      resize=32,
      steps=4,
      checkpoint_every=2,
    )
    last = tf.train.load_checkpoint(f'{run}/checkpoints')
    weights = {
      key: last.get_tensor(key)
      for key in last.get_variable_to_shape_map()
      if key.startswith('model/')
    }
    return run, rows, weights

  run, rows, weights = train()
  # As if it had been killed behind its second step.
  os.remove(f'{run}/results.json')
  for path in glob.glob(f'{run}/checkpoints/ckpt-4.*'):
    os.remove(path)
  _, again, resumed = train()
  assert 'going on at step 2' in capsys.readouterr().out
  assert [row['step'] for row in again] == ['1', '2', '3', '4']
  for row, before in zip(again[2:], rows[2:]):
    expected = float(before['loss/label'])
    assert float(row['loss/label']) == pytest.approx(expected, rel=1e-5)
  assert len(weights) > 10 and set(weights) == set(resumed)
  for key, value in weights.items():
    np.testing.assert_allclose(
      resumed[key], value, rtol=1e-5, atol=1e-6, err_msg=key
    )


def test_no_layer_of_that_name(tmp_path):
  source = _folder(tmp_path / 'source', 0)
  with pytest.raises(errors.UsageError, match='did you mean pool1'):
    _trained(
      tmp_path, 'x', source, source, freeze_until='pol1', cache_features=1
    )
