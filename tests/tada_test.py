"""TADA: Eq. 2-10 by hand, the paper's variants, the export, the toy problem."""

import glob
import os

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import flag_config
from tfda.evaluation import attention as attention_maps
from tfda.methods import tada
from tfda.serving import export

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FACTOR = 2 / (1 + np.exp(-10 * 0.3)) - 1  # DANN's Eq. 14 at progress 0.3.


def make(config=None, **changed):
  """A run of small discriminators whose weights tell the domains apart."""
  config = config or tada.Config(region_units=5)
  run = harness.Run(harness.settings('tada', bottleneck=6, **changed), config)
  random = np.random.default_rng(0)
  for part in (run.model.regions, run.model.discriminator):
    for weight in part.weights if part else []:
      weight.assign(weight + random.normal(0.0, 0.3, weight.shape))
  return run


def first_batch(run):
  return next(iter(run.batches(0, 1)))


def differentiate(run, progress=0.3):
  """(gradients of the objective, total, terms)."""
  with tf.GradientTape() as tape:
    total, terms = run.model.objective(first_batch(run), tf.constant(progress))
  variables = run.model.trainable_variables
  gradients = tape.gradient(total, variables, unconnected_gradients='zero')
  return gradients, total, terms


def parts(model):
  """The variables of G_f, G_b, G_y, G_d and G_d^k."""
  return [
    part.trainable_variables
    for part in (
      model.backbone,
      model.bottleneck,
      model.classifier,
      model.discriminator,
      model.regions,
    )
  ]


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def binary(p):
  """H of an outcome of probability p."""
  return -p * np.log(p) - (1 - p) * np.log(1 - p)


def mlp(x, weights):
  """Layers of weights [kernel, bias, ...] with ReLU between."""
  for i in range(0, len(weights), 2):
    x = x @ weights[i] + weights[i + 1]
    x = np.maximum(x, 0.0) if i + 2 < len(weights) else x
  return x


def values(layer):
  return [weight.numpy().astype(np.float64) for weight in layer.weights]


def reference(model, batch, uncertain=False):
  """Eq. 2-8 in NumPy, from the feature map on."""
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  f = model.backbone.feature_map(images).numpy().astype(np.float64)
  assert f.shape == (16, 2, 2, 48)
  d = np.array([1.0] * 8 + [0.0] * 8)  # The source is 1.

  # Kernels first, then biases, of all regions.
  weights = [
    w
    for i in range(3)
    for kind in ('kernel', 'bias')
    for w in model.regions.weights
    if f'{kind}{i}' in w.name
  ]
  probability, losses = np.zeros([16, 2, 2]), []
  for k in range(4):
    region = [w.numpy().astype(np.float64)[k] for w in weights]
    q = 1 / (1 + np.exp(-mlp(f[:, k // 2, k % 2], region)[:, 0]))
    probability[:, k // 2, k % 2] = q
    losses.append(-np.sum(d * np.log(q) + (1 - d) * np.log(1 - q)))
  local = sum(losses) / (4 * 16)  # Eq. 2: 1 / (K n)
  w = binary(probability) if uncertain else 1 - binary(probability)  # Eq. 3
  h = (1 + w[..., np.newaxis]) * f  # Eq. 4
  kernel, bias = values(model.bottleneck)
  g = h.reshape([16, 2 * 2 * 48]) @ kernel + bias
  q = 1 / (1 + np.exp(-mlp(g, values(model.discriminator))[:, 0]))
  whole = -np.mean(d * np.log(q) + (1 - d) * np.log(1 - q))  # Eq. 5
  m = 1 + binary(q)  # Eq. 6
  p = softmax(mlp(g, values(model.classifier)))
  entropy = -np.sum(m[:, np.newaxis] * p * np.log(p)) / 16  # Eq. 7
  labels = batch['source']['label'].numpy()
  label = -np.mean(np.log(p[np.arange(8), labels]))  # Eq. 8
  terms = {'label': label, 'entropy': entropy, 'global': whole, 'local': local}
  return terms, w


@pytest.mark.parametrize('uncertain', [False, True])
def test_terms_are_those_of_equations_2_to_9(uncertain):
  config = tada.Config(
    local_attention='uncertain' if uncertain else 'certain',
    region_units=5,
    entropy_weight=0.3,
    domain_weight=0.7,
  )
  run = make(config)
  expected, _ = reference(run.model, first_batch(run), uncertain)
  _, total, terms = differentiate(run)
  assert set(terms) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(
    total,
    expected['label']
    + 0.3 * expected['entropy']
    + 0.7 * (expected['global'] + expected['local']),
    rtol=1e-4,
  )


def forward(model, batch, detach):
  """Eq. 2-8 without a reversal layer: L_y, L_h, L_g + L_l."""
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  domain = tf.constant([1.0] * 8 + [0.0] * 8)

  def cross_entropy(logits):
    truth = tf.reshape(domain, [16] + [1] * (len(logits.shape) - 1))
    q = tf.sigmoid(logits)
    return -tf.reduce_mean(
      truth * tf.math.log(q) + (1 - truth) * tf.math.log(1 - q)
    )

  def entropy(logits):
    q = tf.sigmoid(tf.stop_gradient(logits) if detach else logits)
    return -q * tf.math.log(q) - (1 - q) * tf.math.log(1 - q)

  f = model.backbone.feature_map(images)
  region_logits = model.regions(f)
  h = (2 - entropy(region_logits))[..., tf.newaxis] * f
  g = model.bottleneck(tf.reshape(h, [16, -1]))
  image_logits = model.discriminator(g)
  p = tf.nn.softmax(model.classifier(g))
  m = 1 + entropy(image_logits)
  rows = tf.one_hot(batch['source']['label'], 2)
  label = -tf.reduce_mean(tf.reduce_sum(rows * tf.math.log(p[:8]), axis=1))
  attentive = -tf.reduce_mean(m * tf.reduce_sum(p * tf.math.log(p), axis=1))
  return (
    label,
    attentive,
    cross_entropy(image_logits),
    cross_entropy(region_logits),
  )


@pytest.mark.parametrize('letter', [False, True])
def test_updates_are_those_of_equation_10(letter):
  """Each player's gradient; the reversed ones reach the features once.

  Args:
    letter: attention_gradient, where w and m are differentiated too, and the
      discriminators ascend what depends on them.
  """
  run = make(tada.Config(region_units=5, attention_gradient=letter))
  model, batch = run.model, first_batch(run)
  with tf.GradientTape(persistent=True) as tape:
    label, entropy, whole, local = forward(model, batch, detach=not letter)
    plain = label + 0.1 * entropy
    minimised = plain - FACTOR * (whole + local)  # Eq. 9
    # What G_d and G_d^k descend: their own loss, and -C where C has w and m.
    image_loss = whole - plain if letter else whole
    region_loss = local - plain + FACTOR * whole if letter else local
  features, bottleneck, classifier, discriminator, regions = parts(model)
  expected = (
    tape.gradient(minimised, features)
    + tape.gradient(minimised, bottleneck)
    + tape.gradient(plain, classifier)
    + tape.gradient(image_loss, discriminator)
    + tape.gradient(region_loss, regions)
  )
  ours, _, _ = differentiate(run)
  assert len(ours) == len(expected) == len(model.trainable_variables)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_attention_is_a_weight_that_is_not_differentiated():
  """Without domain losses nothing reaches the discriminators, unless asked."""
  for letter in (False, True):
    config = tada.Config(
      region_units=5, domain_weight=0.0, attention_gradient=letter
    )
    run = make(config)
    gradients, _, _ = differentiate(run)
    *_, discriminator, regions = parts(run.model)
    reached = [
      np.abs(gradient).max() > 0
      for gradient in gradients[-len(discriminator + regions) :]
    ]
    assert all(reached) if letter else not any(reached)


@pytest.mark.parametrize('letter', [False, True])
def test_a_loss_of_the_features_alone_leaves_the_attention_as_it_is(letter):
  """As that of labelled target images."""
  run = make(tada.Config(region_units=5, attention_gradient=letter))
  images = first_batch(run)['target']['image']
  weights = run.model.regions.trainable_variables
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(run.model.features(images, training=True) ** 2)
  for gradient in tape.gradient(loss, weights):
    assert (gradient is not None) == letter


def test_local_variant_has_the_plain_entropy_and_no_global_discriminator():
  run = make(tada.Config(attention='local', region_units=5))
  assert run.model.discriminator is None
  _, total, terms = differentiate(run)
  batch = first_batch(run)
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  p = softmax(run.model(images).numpy().astype(np.float64))
  entropy = -np.mean(np.sum(p * np.log(p), axis=1))
  np.testing.assert_allclose(terms['entropy'], entropy, rtol=1e-5)
  assert float(terms['global']) == 0.0
  assert float(terms['local']) > 0.1
  np.testing.assert_allclose(
    total, terms['label'] + 0.1 * entropy + terms['local'], rtol=1e-5
  )


def test_global_variant_is_the_network_without_local_attention():
  run = make(tada.Config(attention='global'))
  assert run.model.regions is None
  _, _, terms = differentiate(run)
  images = first_batch(run)['target']['image']
  outputs = run.model.infer(images)
  assert set(outputs) == {'logits', 'features'}
  pooled = run.model.backbone(images)
  np.testing.assert_allclose(
    outputs['features'], run.model.bottleneck(pooled), atol=1e-5
  )
  assert float(terms['local']) == 0.0
  assert float(terms['global']) > 0.1


def test_inference_attends_without_a_domain_label():
  run = make()
  batch = first_batch(run)
  _, w = reference(run.model, batch)
  for domain, expected in (('source', w[:8]), ('target', w[8:])):
    outputs = run.model.infer(batch[domain]['image'])
    np.testing.assert_allclose(outputs['attention'], expected, atol=1e-5)
    np.testing.assert_allclose(
      outputs['logits'], run.model(batch[domain]['image']), atol=1e-5
    )


def test_without_adaptation_it_is_source_only_with_dropout_too():
  settings = {'classifier_dropout': 0.5, 'bottleneck': 6, 'steps': 4}
  ours = harness.Run(
    harness.settings('tada', **settings), tada.WITHOUT_ADAPTATION
  )
  theirs = harness.Run(harness.settings('source_only', **settings))
  ours.train(4)
  theirs.train(4)
  for a, b in zip(ours.weights(), theirs.weights()):
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
  'backbone, size, regions',
  [('dann_mnist', 28, 49), ('dann_svhn', 20, 25), ('mobilenet', 64, 4)],
)
def test_regions_follow_the_backbone_s_feature_map(backbone, size, regions):
  run = harness.Run(
    harness.settings('tada', backbone=backbone, image_size=size),
    tada.Config(attention='local', region_units=3),
  )
  # In x 3 + 3, 3 x 3 + 3, 3 + 1 weights for each.
  depth = run.model.backbone.feature_map_shape[-1]
  weights = regions * (3 * depth + 3 + 12 + 4)
  assert run.model.regions.count_params() == weights
  images = tf.zeros([2, size, size, 3])
  side = int(regions**0.5)
  assert run.model.infer(images)['attention'].shape == [2, side, side]


def test_region_discriminators_have_two_layers_of_the_backbone_s_width():
  """2048-1024-1024-1 for ResNet-50; here 48-100-100-1."""
  run = harness.Run(harness.settings('tada'))
  shapes = sorted(w.shape.as_list() for w in run.model.regions.weights)
  assert shapes == sorted(
    [[4, 48, 100], [4, 1, 100], [4, 100, 100], [4, 1, 100], [4, 100, 1]]
    + [[4, 1, 1]]
  )


def test_statistics_of_each_domain_are_those_of_its_images():
  run = make(backbone='dann_mnist_domain_norm')
  batch = first_batch(run)
  backbone = run.model.backbone
  for weight in backbone.source_network.get_layer('batch_norm1').weights:
    weight.assign(weight + 0.5)
  images = batch['target']['image']
  attention = {
    domain: run.model.infer(images, domain=domain)['attention'].numpy()
    for domain in ('source', 'target')
  }
  for domain, found in attention.items():
    logits = run.model.regions(backbone.feature_map(images, False, domain))
    p = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(found, 1 - binary(p), atol=1e-5)
  assert np.abs(attention['source'] - attention['target']).max() > 1e-3


def test_export_has_the_attention_and_no_global_discriminator(tmp_path):
  run = make()
  path = export.save(run.model, ['level', 'upright'], str(tmp_path))
  module = tf.saved_model.load(path)
  assert 'attention' in module.signatures
  batch = first_batch(run)
  _, w = reference(run.model, batch)
  images = tf.cast(batch['target']['image'], tf.float32)
  served = module.signatures['attention'](images=images)
  assert {'label', 'probabilities', 'attention'} <= set(served)
  np.testing.assert_allclose(served['attention'], w[8:], atol=1e-5)
  plain = module.signatures['serving_default'](images=images)
  assert set(served) - set(plain) == {'attention'}
  for name, value in plain.items():
    np.testing.assert_array_equal(served[name], value)
  p = softmax(run.model.infer(images)['logits'].numpy())
  np.testing.assert_allclose(served['probabilities'], p, atol=1e-5)
  # Images of any size, as with the first signature.
  larger = tf.zeros([3, 20, 31, 3])
  served = module.signatures['attention'](images=larger)
  assert served['attention'].shape == [3, 2, 2]
  needed = {w.ref() for w in run.model.inference_weights()}
  assert {w.ref() for w in run.model.regions.weights} <= needed
  assert not {w.ref() for w in run.model.discriminator.weights} & needed


def test_pictures_are_of_the_attention_to_test_images(monkeypatch):
  run = make()
  drawn = []
  monkeypatch.setattr(attention_maps, 'draw', lambda *x: drawn.append(x))
  rows = np.random.default_rng(0).permutation(512)[:8]
  batch = {}
  for side in ('source', 'target'):
    test = run.data[side, 'test']
    images, labels = test.images[rows], tf.constant(test.labels[rows])
    batch[side] = {'image': tf.constant(images), 'label': labels}
  _, w = reference(run.model, batch)
  made = run.model.pictures(run.data)
  assert list(made) == ['attention_source', 'attention_target']
  for side, expected in (('source', w[:8]), ('target', w[8:])):
    picture = made[f'attention_{side}']
    assert picture.watched
    assert picture.caption() == (
      f'Attention w to 2 x 2 regions of 8 {side} test images: the image, w, '
      f'and both. w is {expected.min():.3f} to {expected.max():.3f}, '
      f'{expected.mean():.3f} on average.'
    )
    picture.draw()
    images, maps = drawn.pop()
    np.testing.assert_array_equal(images, batch[side]['image'])
    np.testing.assert_allclose(maps, expected, atol=1e-5)
  run = make(tada.Config(attention='global'))
  assert run.model.pictures(run.data) == {}


def test_export_without_local_attention_has_no_such_signature(tmp_path):
  run = make(tada.Config(attention='global'))
  path = export.save(run.model, ['level', 'upright'], str(tmp_path))
  assert 'attention' not in tf.saved_model.load(path).signatures


def test_solves_the_toy_problem():
  run = harness.toy('tada')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


# Flag files.


def flag_files(pair, name):
  found = glob.glob(os.path.join(ROOT, 'flags', pair, f'{name}.flags'))
  return sorted(os.path.relpath(path, ROOT) for path in found)


def published(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    return float(file.readline().split(': ')[1].split()[0].rstrip('.'))


@pytest.mark.parametrize(
  'pair, name, count, average',
  [
    # The last columns of Tables 1 and 2.
    ('office31_*', 'tada_local', 6, 84.5),
    ('office31_*', 'tada_global', 6, 86.7),
    ('office31_*', 'tada', 6, 88.4),
    ('office_home_*', 'tada_local', 12, 63.9),
    ('office_home_*', 'tada_global', 12, 65.7),
    ('office_home_*', 'tada', 12, 67.6),
  ],
)
def test_flag_files_are_the_rows_of_the_paper_s_tables(
  pair, name, count, average
):
  figures = [published(path) for path in flag_files(pair, name)]
  assert len(figures) == count
  np.testing.assert_allclose(np.mean(figures), average, atol=0.051)


def test_recipe_is_the_paper_s(monkeypatch):
  monkeypatch.chdir(ROOT)
  for variant, attention in (
    ('tada', 'both'),
    ('tada_local', 'local'),
    ('tada_global', 'global'),
  ):
    path = f'flags/office31_amazon2webcam/{variant}.flags'
    settings, config, _, _ = flag_config.parse_experiment(
      [f'--flagfile={path}']
    )
    assert settings.method == 'tada'
    assert (settings.source, settings.target) == (
      'office31/amazon',
      'office31/webcam',
    )
    # Section "Setup".
    assert config == tada.Config(attention=attention)
    assert (config.entropy_weight, config.domain_weight) == (0.1, 1.0)
    assert settings.backbone == 'resnet50'
    assert (settings.optimizer, settings.momentum) == ('sgd', 0.95)
    assert settings.new_layer_multiplier == 10
    assert settings.bottleneck == 256
