"""CycleGAN: losses, pool, steps by hand; runs, and what other tools see."""

import json
import os
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf

from tests import data_files, harness, tiny_run
from tfda import cyclegan, errors, run_directory, translation
from tfda.data import domains, files, translated
from tfda.evaluation import translations
from tfda.layers import image_pool, instance_norm, reflection_padding
from tfda.serving import translator
from tools import evaluate, report, translate

pytestmark = pytest.mark.usefixtures('graphs_as_traced')

SIZE = 8
TINY = {
  'image_size': SIZE,
  'filters': 2,
  'residual_blocks': 1,
  'discriminator_filters': 2,
  'discriminator_layers': 3,
  'pool_size': 3,
  'batch_size': 2,
  'steps': 4,
}


def model(seed=0, **changed):
  """A tiny CycleGAN at its first step."""
  settings = translation.Translation(**{**TINY, 'seed': seed, **changed})
  made = translation.build(settings)
  made.begin_phase(translation.make_phase(settings, made), 0)
  return made


def batch(step=0, size=2):
  return {
    side: {
      'image': tf.constant(
        data_files.noise(size, SIZE, SIZE, 3, seed=[step, i])
      )
    }
    for i, side in enumerate(cyclegan.SIDES)
  }


# Losses.


def test_losses_of_the_docstrings():
  judged = tf.constant([0.5, 1.0])
  assert float(cyclegan.adversarial_loss(judged, True)) == 0.125
  assert float(cyclegan.adversarial_loss(judged, False)) == 0.625
  fake = tf.constant([0.5, 0.0])
  assert float(cyclegan.discriminator_loss(judged, fake)) == 0.125
  restored = tf.constant([0.5, -1.0])
  images = tf.constant([0.0, 1.0])
  assert float(cyclegan.reconstruction_loss(images, restored)) == 1.25


def test_losses_by_numpy():
  one, other = np.random.default_rng(0).normal(size=[2, 3, 4, 4, 1])
  np.testing.assert_allclose(
    cyclegan.discriminator_loss(one, other),
    ((one - 1) ** 2).mean() / 2 + (other**2).mean() / 2,
  )
  np.testing.assert_allclose(
    cyclegan.reconstruction_loss(one, other), np.abs(one - other).mean()
  )


def test_pixels_survive_scaling():
  pixels = np.arange(256, dtype=np.uint8)
  scaled = cyclegan.scaled(pixels)
  assert (float(scaled[0]), float(scaled[255])) == (-1.0, 1.0)
  np.testing.assert_array_equal(cyclegan.unscaled(scaled), pixels)
  np.testing.assert_array_equal(
    cyclegan.unscaled(tf.constant([-2.0, 2.0])), [0, 255]
  )


# Layers.


def test_reflection_padding_of_the_docstring():
  layer = reflection_padding.ReflectionPadding(2)
  row = tf.reshape(tf.range(1.0, 4.0), [1, 1, 3, 1])
  image = tf.tile(row, [1, 3, 1, 1])
  padded = type(layer).from_config(layer.get_config())(image)
  assert padded.shape == [1, 7, 7, 1]
  for line in padded[0, :, :, 0]:
    np.testing.assert_array_equal(line, [3, 2, 1, 2, 3, 2, 1])


def test_instance_norm_by_numpy():
  x = np.random.default_rng(0).normal(3.0, 2.0, [2, 4, 5, 3])
  x = x.astype(np.float32)
  layer = instance_norm.instance_norm()
  mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
  expected = (x - mean) / np.sqrt(variance + 1e-5)
  for training_ in (False, True):
    found = layer(x, training=training_)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert not layer.weights


# The pool.


class Pool:
  """CycleGAN's image pool as its code has it, an image at a time."""

  def __init__(self, size):
    self.size, self.images = size, []

  def query(self, images, draws):
    shown = []
    for image, (swap, which) in zip(images, draws):
      if len(self.images) < self.size:
        self.images.append(image)
        shown.append(image)
      elif swap < 0.5:
        place = int(which * self.size)
        shown.append(self.images[place])
        self.images[place] = image
      else:
        shown.append(image)
    return np.stack(shown)


@pytest.mark.parametrize('size, count', [(1, 1), (3, 2), (4, 9), (50, 7)])
def test_pool_is_the_code_s(size, count):
  random = np.random.default_rng(size)
  ours, theirs = image_pool.ImagePool(size, [2]), Pool(size)
  for step in range(12):
    images = random.normal(size=[count, 2]).astype(np.float32)
    draws = random.random([count, 2]).astype(np.float32)
    shown = ours.exchange(
      tf.constant(images), tf.constant(step * count, tf.int64), draws
    )
    np.testing.assert_array_equal(shown, theirs.query(images, draws))
    kept = ours.images.numpy()
    np.testing.assert_array_equal(kept[: len(theirs.images)], theirs.images)
    assert not kept[len(theirs.images) :].any()


def test_pool_of_the_docstring():
  pool = image_pool.ImagePool(1, [])
  draws = np.array([[0.9, 0.0], [0.1, 0.0], [0.9, 0.0], [0.1, 0.0]], np.float32)
  shown = pool.exchange(
    tf.constant([1.0, 2.0, 3.0, 4.0]), tf.constant(0, tf.int64), draws
  )
  np.testing.assert_array_equal(shown, [1.0, 1.0, 3.0, 2.0])
  assert pool.images.numpy() == [4.0]


def test_pool_hands_out_the_past_half_the_time():
  pool, random = image_pool.ImagePool(50, []), np.random.default_rng(0)
  past = 0
  for step in range(41):
    images = tf.range(100.0) + 100.0 * step
    draws = random.random([100, 2]).astype(np.float32)
    shown = pool.exchange(images, tf.constant(100 * step, tf.int64), draws)
    other = shown.numpy() != images.numpy()
    assert step > 0 or not other[:50].any()  # Until it is full.
    past += other.sum()
  assert abs(past / 4050 - 0.5) < 0.03


def test_no_pool_hands_out_what_it_is_given():
  pool = image_pool.ImagePool(0, [2])
  images = tf.ones([3, 2])
  assert pool.exchange(images, tf.constant(0, tf.int64), None) is images


# Networks.


def _convolutions(network):
  return [
    (layer.filters, layer.kernel_size[0], layer.strides[0])
    for layer in network.layers
    if isinstance(layer, (tf.keras.layers.Conv2D))
  ]


def test_generator_is_the_paper_s():
  found = _convolutions(cyclegan.generator(64, 9))
  block = [(256, 3, 1)] * 2
  assert found == [
    *[(64, 7, 1), (128, 3, 2), (256, 3, 2)],
    *(9 * block),
    *[(128, 3, 2), (64, 3, 2)],
    (3, 7, 1),
  ]


@pytest.mark.parametrize(
  'layers, filters, strides, patch',
  [
    (5, [64, 128, 256, 512, 1], [2, 2, 2, 1, 1], 70),
    (4, [64, 128, 256, 1], [2, 2, 1, 1], 34),
    (3, [64, 128, 1], [2, 1, 1], 16),
  ],
)
def test_discriminator_judges_patches(layers, filters, strides, patch):
  network = cyclegan.discriminator(64, layers)
  found = _convolutions(network)
  assert found == [(f, 4, s) for f, s in zip(filters, strides)]
  seen, step = 1, 1
  for _, size, stride in found:
    seen, step = seen + (size - 1) * step, step * stride
  assert seen == patch
  names = [type(layer).__name__ for layer in network.layers]
  assert names.count('InstanceNormalization') == layers - 2
  assert names.index('LeakyReLU') < names.index('InstanceNormalization')
  for size in (32, 28, 65):
    side = cyclegan.patches(size, layers)
    assert network.compute_output_shape([1, size, size, 3]) == (
      1,
      side,
      side,
      1,
    )


def test_weights_begin_as_the_paper_s():
  made = model(filters=16, discriminator_filters=16)
  kernels = [v for v in made.trainable_variables if 'kernel' in v.name]
  for kernel in kernels:
    assert abs(np.mean(kernel)) < 4 * 0.02 / np.sqrt(np.size(kernel))
  assert np.std(np.concatenate([np.ravel(k) for k in kernels])) == (
    pytest.approx(0.02, rel=0.02)
  )
  # No two layers drew the same.
  firsts = [float(np.ravel(kernel)[0]) for kernel in kernels]
  assert len(set(firsts)) == len(kernels)
  for bias in (v for v in made.trainable_variables if 'bias' in v.name):
    assert not bias.numpy().any()


def test_translation_is_deterministic_and_of_every_image_alone():
  made = model()
  images = data_files.noise(3, SIZE, SIZE, 3)
  whole = made.translate(images, 'source_to_target')
  again = made.translate(images, 'source_to_target')
  np.testing.assert_array_equal(whole, again)
  alone = made.translate(images[1:2], 'source_to_target')
  np.testing.assert_array_equal(whole[1:2], alone)
  network = made.generators['source_to_target']
  by_hand = cyclegan.unscaled(network(cyclegan.scaled(images), training=True))
  np.testing.assert_allclose(whole, by_hand, atol=1.0)
  many = np.concatenate([images] * 400)  # More than go through at once.
  np.testing.assert_array_equal(
    made.translate(many, 'source_to_target'), np.concatenate([whole] * 400)
  )
  other = made.translate(images, 'target_to_source')
  assert (whole != other).any()


# The step.


def _by_hand(made, steps, cycle=10.0, identity=5.0):
  """Steps of Section 4, a network and a loss at a time; {side: Pool} after."""
  mean, square, size = tf.reduce_mean, tf.square, tf.abs
  forward = made.generators['source_to_target']
  backward = made.generators['target_to_source']
  judges = made.discriminators
  adam = {
    name: tf.keras.optimizers.Adam(beta_1=0.5, epsilon=1e-8)
    for name in ('generators', *cyclegan.SIDES)
  }
  pools = {side: Pool(made.pools[side].images.shape[0]) for side in judges}
  for step in range(steps):
    for optimizer in adam.values():
      optimizer.learning_rate = 2e-4 * (1.0 - step / TINY['steps'])
    x, y = (
      tf.cast(batch(step)[side]['image'], tf.float32) / 127.5 - 1.0
      for side in cyclegan.SIDES
    )
    with tf.GradientTape() as tape:
      fake_y, fake_x = forward(x), backward(y)
      loss = (
        mean(square(judges['target'](fake_y) - 1.0))
        + mean(square(judges['source'](fake_x) - 1.0))
        + cycle * mean(size(backward(fake_y) - x))
        + cycle * mean(size(forward(fake_x) - y))
        + identity * mean(size(forward(y) - y))
        + identity * mean(size(backward(x) - x))
      )
    variables = forward.trainable_variables + backward.trainable_variables
    gradients = tape.gradient(loss, variables)
    adam['generators'].apply_gradients(zip(gradients, variables))
    for side, real, fake in ('source', x, fake_x), ('target', y, fake_y):
      key = made.seed + zlib.crc32(f'pool of {side}'.encode())
      draws = tf.random.stateless_uniform(
        [2, 2], tf.constant([key, step], tf.int64)
      )
      shown = pools[side].query(fake.numpy(), draws.numpy())
      with tf.GradientTape() as tape:
        loss = 0.5 * (
          mean(square(judges[side](real) - 1.0))
          + mean(square(judges[side](shown)))
        )
      variables = judges[side].trainable_variables
      gradients = tape.gradient(loss, variables)
      adam[side].apply_gradients(zip(gradients, variables))
  return pools


def test_steps_are_those_by_hand():
  # A pool of one, and a rate that falls from the first step: both tell.
  changed = {'pool_size': 1, 'decay_from': 0.0}
  ours, theirs = model(**changed), model(**changed)
  before = [v.numpy() for v in ours.trainable_variables]
  for step in range(2):
    ours.train_step(batch(step))
  pools = _by_hand(theirs, 2)
  for one, other, start in zip(
    ours.trainable_variables, theirs.trainable_variables, before
  ):
    assert (one.numpy() != start).any(), one.name
    np.testing.assert_allclose(one, other, atol=1e-6, err_msg=one.name)
  for side, pool in pools.items():
    np.testing.assert_allclose(ours.pools[side].images, pool.images, atol=1e-5)
  assert int(ours.step) == 2


def test_total_is_the_weighted_sum_of_the_terms():
  made = model(cycle_weight=3.0, identity_weight=0.5)
  own = {s: cyclegan.scaled(b['image']) for s, b in batch().items()}
  total, terms, _ = made.objective(**own)
  expected = sum(
    terms[f'generator_{s}']
    + 3 * terms[f'cycle_{s}']
    + terms[f'identity_{s}'] / 2
    for s in cyclegan.SIDES
  )
  np.testing.assert_allclose(total, expected, rtol=1e-6)
  means = made.train_step(batch())
  assert set(means) == {'total', *made.LOSS_TERMS}
  np.testing.assert_allclose(means['cycle_source'], terms['cycle_source'])


@pytest.mark.parametrize('term', ['cycle_source', 'cycle_target'])
def test_each_cycle_term_reaches_both_generators(term):
  made = model(identity_weight=0.0)
  own = {s: cyclegan.scaled(b['image']) for s, b in batch().items()}
  with tf.GradientTape() as tape:
    _, terms, _ = made.objective(**own)
  assert float(terms['identity_source']) == 0.0
  networks = list(made.generators.values())
  variables = [network.trainable_variables for network in networks]
  for of_network in tape.gradient(terms[term], variables):
    for gradient in of_network:
      assert np.abs(gradient.numpy()).max() > 0.0


@pytest.mark.slow
def test_two_replicas_equal_one():
  one = model(pool_size=1)
  settings = translation.Translation(**{**TINY, 'pool_size': 1})
  strategy = tf.distribute.MirroredStrategy(
    ['CPU:0', 'CPU:1'], tf.distribute.ReductionToOneDevice()
  )
  with strategy.scope():
    two = translation.build(settings)
    two.begin_phase(translation.make_phase(settings, two), 0)
  for step in range(2):
    whole = batch(step)
    one.train_step(whole)

    def part(context, whole=whole):
      rows = slice(context.replica_id_in_sync_group, None, 2)
      return tf.nest.map_structure(lambda x: x[rows], whole)

    parts = strategy.experimental_distribute_values_from_function(part)
    strategy.run(two.train_step, [parts])
  for ours, theirs in zip(two.variables, one.variables):
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
  for side in cyclegan.SIDES:
    np.testing.assert_allclose(
      two.pools[side].images.numpy(), one.pools[side].images, atol=1e-4
    )


# What is measured.


def test_grey_correlation():
  greys = np.array([0, 100, 200], np.uint8)
  image = np.repeat(greys.reshape(1, 1, 3, 1), 3, axis=-1)
  assert translations.grey_correlation(image, image) == pytest.approx(1.0)
  inverted = 255 - image
  assert translations.grey_correlation(image, inverted) == pytest.approx(-1.0)
  flat = np.full_like(image, 7)
  assert translations.grey_correlation(image, flat) == 0.0
  # The mean over images: 1, -1 and 0.
  three = np.concatenate([image] * 3)
  mixed = np.concatenate([image, inverted, flat])
  assert translations.grey_correlation(three, mixed) == pytest.approx(0.0)


def test_spread_of_the_docstring():
  made, real = (
    np.array(greys, np.uint8).reshape(3, 1, 1, 1)
    for greys in ([10, 10, 40], [0, 100, 200])
  )
  assert translations.spread(made, real) == pytest.approx(0.15)
  assert translations.spread(made[:1].repeat(3, 0), real) == 0.0


class Made:
  """In the place of a model: a function of images."""

  image_size = SIZE
  SCORES = cyclegan.CycleGAN.SCORES

  def __init__(self, function):
    self.generators = dict.fromkeys(cyclegan.DIRECTIONS)
    self._function = function

  def translate(self, images, direction):
    del direction
    return self._function(images)


@pytest.mark.parametrize(
  'function, wrong',
  [
    (lambda images: images, []),
    (lambda images: 255 - images, ['inverts colours'] * 2),
    (lambda images: images[:1].repeat(len(images), 0), ['collapses'] * 2),
  ],
)
def test_warnings_of_what_is_wrong(function, wrong):
  images = data_files.noise(40, SIZE, SIZE, 3)
  domain = domains.Domain('noise', 'test', images, None, ())
  data = {(side, 'test'): domain for side in cyclegan.SIDES}
  found = translations.scores(Made(function), data)
  assert list(found) == list(cyclegan.CycleGAN.SCORES)
  kept = {'source': 0.9, 'source_to_target': 0.6, 'target': None}
  lines = list(translations.warnings(found, kept, 0.5))
  assert len(lines) == len(wrong)
  for line, words in zip(lines, wrong):
    assert words in line and '\n' not in line
  kept = {'source': 0.9, 'source_to_target': 0.4, 'target': 0.3}
  (lost,) = list(translations.warnings(found, kept, 0.5))[len(wrong) :]
  assert 'lose labels' in lost and '40.0%' in lost and '\n' not in lost
  told = '40.0% of translations (90.0% of the source, 30.0% of the target)'
  assert told in lost


# Runs.


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Two domains of class folders with splits; no two images are the same."""
  root = tmp_path_factory.mktemp('folders')
  for i, side in enumerate(cyclegan.SIDES):
    for j, split in enumerate(('train', 'test')):
      for k, name in enumerate(('bike', 'mug')):
        for n in range(3 + i):
          image = data_files.noise(10, 12, 3, seed=[i, j, k, n])
          data_files.write(root / side / split / name / f'{n}.png', image)
  return root


def settings(folders, run_dir, **changed):
  return translation.Translation(
    **{
      **TINY,
      'source': f'folder:{folders}/source',
      'target': f'folder:{folders}/target',
      'run_dir': str(run_dir),
      'cache_dir': f'{folders}/cache',
      'log_every': 1,
      'evaluate_every': 2,
      'checkpoint_every': 2,
      'classifier_steps': 1,
      'label_threshold': 1.0,
      **changed,
    }
  )


@pytest.fixture(scope='module')
def finished(folders, tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'finished'
  return translation.train(settings(folders, path))


def _checkpoint(run_dir):
  reader = tf.train.load_checkpoint(os.path.join(run_dir, 'checkpoints'))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith(('seconds', 'save_counter', '_CHECKPOINTABLE'))
  }


def _restored(folders, run_dir):
  made = translation.build(settings(folders, run_dir))
  path = tf.train.latest_checkpoint(os.path.join(run_dir, 'checkpoints'))
  tf.train.Checkpoint(model=made).restore(path).expect_partial()
  return made


@pytest.mark.slow
def test_run_that_goes_on_ends_with_the_same_bits(folders, finished, tmp_path):
  resumed = tmp_path / 'run'
  shutil.copytree(finished, resumed)
  os.remove(resumed / 'results.json')
  for direction in cyclegan.DIRECTIONS:
    shutil.rmtree(resumed / direction)
  # As if it had been killed after its second step.
  for path in (resumed / 'checkpoints').glob('ckpt-4.*'):
    path.unlink()
  translation.train(settings(folders, resumed))
  ours, theirs = _checkpoint(resumed), _checkpoint(finished)
  assert set(ours) == set(theirs)
  assert sum('pool' in name and 'images' in name for name in ours) == 2
  for name, value in theirs.items():
    np.testing.assert_array_equal(ours[name], value, err_msg=name)
  rows = [
    run_directory.RunDirectory(str(path)).read_metrics()
    for path in (resumed, finished)
  ]
  assert [row['step'] for row in rows[0]] == [1, 2, 3, 4]
  for one, other in zip(*rows):
    for clock in ('seconds', 'images_per_second'):
      one.pop(clock), other.pop(clock)
    assert one == other


def test_translated_domains_read_back(folders, finished):
  made = _restored(folders, finished)
  for direction, (here, _) in cyclegan.DIRECTIONS.items():
    for split in files.SPLITS:
      began = domains.load(f'folder:{folders}/{here}', split, SIZE)
      found = domains.load(f'translated:{finished}/{direction}', split, SIZE)
      np.testing.assert_array_equal(
        found.images, made.translate(began.images, direction)
      )
      assert not found.transductive
      if here == 'source':
        np.testing.assert_array_equal(found.labels, began.labels)
        assert found.class_names == ('bike', 'mug')
      else:
        assert found.labels is None and found.class_names == ()


def test_translated_domain_of_another_size_is_resized(finished, tmp_path):
  reading = files.Reading(str(tmp_path))
  name = f'translated:{finished}/source_to_target'
  for _ in range(2):  # Made, and found.
    found = domains.load(name, 'train', 6, None, reading)
    own = domains.load(name, 'train', SIZE).images
    expected = tf.image.resize(own, [6, 6], antialias=True)
    np.testing.assert_allclose(found.images, expected, atol=0.501)


def test_transductive_domain_is_written_once(tmp_path):
  images = data_files.noise(3, SIZE, SIZE, 3)
  began = domains.Domain(
    'began', 'train', images, np.array([1, 0, 1]), ('bike', 'mug'), True
  )
  path = str(tmp_path)
  translated.write(path, began, SIZE, lambda: [images[:2], images[2:]], True)
  for split in files.SPLITS:
    found = domains.load(f'translated:{path}', split, SIZE)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [1, 0, 1] and found.labels.dtype == np.int32
    assert found.transductive and found.class_names == ('bike', 'mug')


def test_results_say_how_labels_are_preserved(folders, finished, capsys):
  with open(os.path.join(finished, 'results.json')) as file:
    results = json.load(file)
  assert (results['method'], results['steps']) == ('cyclegan', 4)
  preserved = results['label_preservation']
  assert set(preserved) == {*cyclegan.SIDES, *cyclegan.DIRECTIONS}
  # The same by the tool, on the domain that it reads.
  with pytest.MonkeyPatch.context() as patch:
    code = tiny_run.call(
      evaluate,
      patch,
      f'--run_dir={finished}/classifier',
      f'--domain=translated:{finished}/source_to_target',
    )
  assert code == 0
  assert f'{preserved["source_to_target"]:.2%}' in capsys.readouterr().out
  assert 'lose labels' in results['warnings'][-1]
  assert set(results['scores']) == set(cyclegan.CycleGAN.SCORES)
  assert results['images'] == {
    'source_train': 6,
    'source_test': 6,
    'target_train': 8,
    'target_test': 8,
  }


def test_pairs_are_shown(finished):
  tags = set()
  logs = os.path.join(finished, 'logs')
  for name in os.listdir(logs):
    for event in tf.compat.v1.train.summary_iterator(os.path.join(logs, name)):
      tags.update(value.tag for value in event.summary.value)
  for direction in cyclegan.DIRECTIONS:
    assert f'pictures/pairs_{direction}' in tags
    assert f'spread/{direction}' in tags
    path = os.path.join(finished, 'pictures', f'pairs_{direction}.png')
    with open(path, 'rb') as file:
      # Three rows of up to eight images.
      height, width, _ = tf.io.decode_png(file.read()).shape
      assert width / height == pytest.approx(6 / 3, rel=0.4)
  assert {'loss/cycle_source', 'learning_rate'} <= tags


def test_exported_generators_translate(folders, finished):
  made = _restored(folders, finished)
  for direction in cyclegan.DIRECTIONS:
    path = os.path.join(finished, 'export', direction, '1')
    loaded = tf.saved_model.load(path)
    serve = loaded.signatures['serving_default']
    images = data_files.noise(3, SIZE, SIZE, 3)
    served = serve(images=tf.constant(images, tf.float32))['translated']
    ours = made.translate(images, direction)
    np.testing.assert_allclose(served, ours, atol=1.0)
    larger = tf.zeros([1, 12, 20, 3])
    assert serve(images=larger)['translated'].shape == [1, 12, 20, 3]
    needed = len(made.generators[direction].variables)
    saved = tf.train.list_variables(f'{path}/variables/variables')
    assert len([n for n, _ in saved if 'CHECKPOINTABLE' not in n]) == needed


def test_finished_run_is_left_alone_and_other_settings_refused(
  folders, finished
):
  before = os.stat(os.path.join(finished, 'results.json')).st_mtime_ns
  translation.train(settings(folders, finished, log_every=7))
  after = os.stat(os.path.join(finished, 'results.json')).st_mtime_ns
  assert before == after
  with pytest.raises(errors.UsageError, match='--filters was 2, is 3;'):
    translation.train(settings(folders, finished, filters=3))


@pytest.mark.slow
def test_translations_that_were_deleted_are_made_again(
  folders, finished, tmp_path
):
  """In a run that was moved, too, and judged by another threshold."""
  moved = tmp_path / 'moved'
  shutil.copytree(finished, moved)
  deleted = moved / 'target_to_source'
  shutil.rmtree(deleted)
  translation.train(settings(folders, moved, label_threshold=0.0))
  ours, theirs = (
    domains.load(f'translated:{run}/target_to_source', 'test', SIZE)
    for run in (moved, finished)
  )
  np.testing.assert_array_equal(ours.images, theirs.images)
  with open(moved / 'results.json') as file:
    warned = json.load(file)['warnings']
  assert not any('labels' in line for line in warned)


def test_run_of_another_tool_is_named(finished, monkeypatch, capsys):
  judged = os.path.join(finished, 'classifier')
  for tool, path, told in (
    (evaluate, finished, 'of a run of tools.translate, not of tools.train'),
    (translate, judged, 'of a run of tools.train, not of tools.translate'),
    (report, finished, 'no accuracy'),
  ):
    words = [path] if tool is report else [f'--run_dir={path}']
    assert tiny_run.call(tool, monkeypatch, *words) == 2
    err = capsys.readouterr().err
    assert told in err and err.count('\n') == 1


@pytest.mark.parametrize(
  'words, told',
  [
    (['--image_size=30'], '28 and 32 are multiples of 4'),
    (
      ['--image_size=8', '--discriminator_layers=5'],
      '--discriminator_layers=5',
    ),
    (['--decay_from=1'], '--decay_from=1.0 is above 0.99'),
    (['--cycle_wieght=1'], 'cycle_weight'),
    (['--backbone=dann_mnits'], 'dann_mnist'),
    (['--backbone_weights=/nowhere.h5'], '/nowhere.h5'),
    (['--resize=16'], '--resize=16 is below the image size, 32'),
    (['--source=folder:/nowhere'], '/nowhere'),
    (['--source=translated:/nowhere'], 'translated:/nowhere: no translated'),
    (['--source=translatd:x'], 'translated:'),
    (['stray'], 'stray'),
  ],
)
def test_wrong_words_give_one_line_and_write_nothing(
  words, told, tmp_path, monkeypatch, capsys
):
  arguments = [f'--run_dir={tmp_path}/run', '--source=optdigits', *words]
  assert tiny_run.call(translate, monkeypatch, *arguments) == 2
  out, err = capsys.readouterr()
  assert err.startswith('error: ') and err.count('\n') == 1
  assert told in err
  assert out == '' and not os.path.exists(tmp_path / 'run')


def test_source_without_labels_is_refused(folders, tmp_path):
  flat = f'folder:{folders}/source/train/mug'
  with pytest.raises(errors.UsageError, match='has no class folders'):
    translation.train(settings(folders, tmp_path / 'run', source=flat))


def test_pairs_are_of_the_first_image_to_the_last(monkeypatch):
  """Where images are in the order of their classes, not of one alone."""
  drawn = []
  monkeypatch.setattr(translations, 'draw', drawn.append)
  data = {
    (side, 'test'): harness.toy_domain(side, 'test', 20)
    for side in cyclegan.SIDES
  }
  translations.show(model(), data)['pairs_source_to_target'].draw()
  ((images, _, _),) = drawn
  chosen = [0, 2, 5, 8, 10, 13, 16, 19]
  np.testing.assert_array_equal(images, data['source', 'test'].images[chosen])


def test_generator_that_cannot_be_written_says_so_in_a_line(tmp_path):
  (tmp_path / 'file').write_text('')
  path = str(tmp_path / 'file' / '1')
  with pytest.raises(errors.RunError) as refused:
    translator.save(cyclegan.generator(2, 0), path)
  message = str(refused.value)
  assert message.startswith(f'{path}: the generator could not be written: ')
  assert '\n' not in message
