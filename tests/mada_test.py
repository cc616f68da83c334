"""MADA: Eq. 3-5 by hand, class by class, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import flag_config
from tfda.methods import mada

FACTOR = np.tanh(5 * 0.3)  # DANN's Eq. 14 at progress 0.3.


@pytest.fixture(scope='module')
def run():
  """A run whose discriminators tell the domains apart."""
  config = mada.Config(domain_weight=0.7, discriminator_units=5)
  made = harness.Run(harness.settings('mada'), config)
  random = np.random.default_rng(0)
  for weight in made.model.discriminators.weights:
    weight.assign(weight + random.normal(0.0, 0.3, weight.shape))
  return made


def both(batch):
  return tf.concat([batch['source']['image'], batch['target']['image']], 0)


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def heads(model):
  """Kernels and offsets of each class's discriminator."""
  weights = model.discriminators.weights
  return [[w[k] for w in weights] for k in range(2)]


def test_domain_loss_and_its_gradient_in_numpy(run):
  """Backwards through the layers; y^k is a constant."""
  random = np.random.default_rng(1)
  width = run.model.feature_width
  f, z = random.normal(size=[16, width]), random.normal(size=[16, 2])
  y, expected, to_features = softmax(z), 0.0, np.zeros([16, width])
  d = np.array([1.0] * 8 + [0.0] * 8)  # The source is 1.
  for k, weights in enumerate(heads(run.model)):
    kernels = [w.numpy().astype(np.float64) for w in weights[::2]]
    offsets = [w.numpy().astype(np.float64) for w in weights[1::2]]
    x, masks = y[:, k : k + 1] * f, []
    for i, (kernel, offset) in enumerate(zip(kernels, offsets)):
      x = x @ kernel + offset
      if i < 2:
        masks.append(x > 0)
        x = x * masks[-1]
    q = 1 / (1 + np.exp(-x[:, 0]))
    expected -= np.sum(d * np.log(q) + (1 - d) * np.log(1 - q)) / 16
    delta = (q - d)[:, np.newaxis] / 16
    for kernel, mask in zip(kernels[:0:-1], masks[::-1]):
      delta = (delta @ kernel.T) * mask
    to_features += y[:, k : k + 1] * (delta @ kernels[0].T)
  features = tf.constant(f, tf.float32)
  logits = tf.constant(z, tf.float32)
  with tf.GradientTape() as tape:
    tape.watch([features, logits])
    loss = run.model._domain_loss(features, logits, None)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  gradient, none = tape.gradient(loss, [features, logits])
  np.testing.assert_allclose(gradient, to_features, rtol=1e-3, atol=1e-6)
  assert none is None


def test_updates_are_those_of_equation_5(run):
  """From separate tapes and without a reversal layer."""
  model, batch = run.model, next(iter(run.batches(0, 1)))
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(both(batch))
    p = tf.nn.softmax(model.classifier(features))
    rows = tf.one_hot(batch['source']['label'], 2)
    label = -tf.reduce_mean(tf.reduce_sum(rows * tf.math.log(p[:8]), axis=1))
    domain = 0.0
    for k in range(2):
      scaled = tf.constant(p.numpy()[:, k : k + 1]) * features
      of_class = tf.pad(scaled[tf.newaxis], [[k, 1 - k], [0, 0], [0, 0]])
      q = tf.sigmoid(model.discriminators(of_class)[k])
      domain -= tf.reduce_sum(tf.math.log(q[:8])) / 16
      domain -= tf.reduce_sum(tf.math.log(1 - q[8:])) / 16
    minimised, maximised = label - FACTOR * 0.7 * domain, 0.7 * domain
  expected = tape.gradient(minimised, model.backbone.trainable_variables)
  expected += tape.gradient(label, model.classifier.trainable_variables)
  expected += tape.gradient(maximised, model.discriminators.trainable_variables)
  with tf.GradientTape() as tape:
    total, terms = model.objective(batch, tf.constant(0.3))
  ours = tape.gradient(total, model.trainable_variables)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['domain'], domain, rtol=1e-5)
  np.testing.assert_allclose(total, label + 0.7 * domain, rtol=1e-5)
  assert len(ours) == len(expected)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_class_that_is_not_predicted_pulls_at_no_feature(run):
  features = tf.random.stateless_normal([16, run.model.feature_width], [0, 1])
  certain = tf.constant([[1e4, -1e4]] * 16)
  kernel = run.model.discriminators.weights[0]
  with tf.GradientTape() as tape:
    tape.watch(features)
    loss = run.model._domain_loss(features, certain, None)
  to_features, to_kernel = tape.gradient(loss, [features, kernel])
  assert np.isfinite(to_features).all() and np.abs(to_features).max() > 0.0
  assert np.abs(to_kernel[0]).max() > 0.0
  np.testing.assert_array_equal(to_kernel[1], np.zeros(kernel.shape[1:]))


def test_domain_loss_at_extreme_features(run):
  for scale in (1e6, 0.0):
    features = tf.fill([16, run.model.feature_width], scale)
    with tf.GradientTape() as tape:
      tape.watch(features)
      loss = run.model._domain_loss(features, tf.zeros([16, 2]), None)
    assert np.isfinite(loss)
    assert np.isfinite(tape.gradient(loss, features)).all()


def test_solves_the_toy_problem():
  run = harness.toy('mada')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


def test_recipe_for_office_is_that_of_the_released_network():
  run, config, _, _ = flag_config.parse_experiment(
    ['--flagfile=flags/office31_amazon2webcam/mada.flags']
  )
  assert config == mada.Config(discriminator_dropout=0.5)
  assert (run.batch_size, run.bias_multiplier, run.bottleneck) == (64, 2, 256)
