"""CDAN: Eq. 1-3 and the weights of CDAN+E by hand, and the toy problem."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import flag_config
from tfda.methods import cdan

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FACTOR = np.tanh(5 * 0.3)  # DANN's Eq. 14 at progress 0.3.


def make(conditioning, **changed):
  """A run whose discriminator tells the domains apart."""
  config = cdan.Config(conditioning=conditioning, domain_weight=0.7)
  run = harness.Run(harness.settings('cdan', **changed), config)
  random = np.random.default_rng(0)
  for weight in run.model.discriminator.weights:
    weight.assign(weight + random.normal(0.0, 0.3, weight.shape))
  return run


def differentiate(run, batch):
  with tf.GradientTape() as tape:
    total, terms = run.model.objective(batch, tf.constant(0.3))
  return tape.gradient(total, run.model.trainable_variables), total, terms


@pytest.mark.parametrize(
  'conditioning', ['none', 'multilinear', 'multilinear_entropy']
)
def test_terms_and_updates_are_those_of_equations_1_to_3(conditioning):
  """From separate tapes, without a reversal layer."""
  run = make(conditioning)
  model, batch = run.model, next(iter(run.batches(0, 1)))
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  discriminator = model.discriminator
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(images)
    logits = model.classifier(features)
    g = tf.nn.softmax(logits)
    rows = tf.one_hot(batch['source']['label'], 2)
    label = -tf.reduce_mean(
      tf.reduce_sum(rows * tf.math.log(g[:8]), axis=1)
    )  # Eq. 1
    if conditioning == 'none':
      seen = discriminator(features)
    else:
      constant = tf.constant(g.numpy())
      products = [constant[:, k : k + 1] * features for k in range(2)]
      seen = discriminator._discriminator(tf.concat(products, axis=1))
    probability = tf.sigmoid(seen)
    entropy = -tf.reduce_sum(g * tf.math.log(g), axis=1)
    w = 1.0 + tf.exp(-entropy)
    if conditioning != 'multilinear_entropy':
      w = tf.ones([16])
    means = [w.numpy()[:8].mean(), w.numpy()[8:].mean()]
    domain = -0.5 * (
      tf.reduce_mean(w[:8] * tf.math.log(probability[:8])) / means[0]
      + tf.reduce_mean(w[8:] * tf.math.log(1 - probability[8:])) / means[1]
    )  # Eq. 2, halved
    minimised = label - FACTOR * 0.7 * domain  # Eq. 3
    maximised = 0.7 * domain
  expected = tape.gradient(minimised, model.backbone.trainable_variables)
  expected += tape.gradient(minimised, model.classifier.trainable_variables)
  expected += tape.gradient(maximised, discriminator.trainable_variables)
  ours, total, terms = differentiate(run, batch)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['domain'], domain, rtol=1e-5)
  np.testing.assert_allclose(total, label + 0.7 * domain, rtol=1e-5)
  assert len(ours) == len(expected)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_weights_example_and_numpy():
  np.testing.assert_allclose(cdan.certainty_weights([[0.0, 0.0]]), [1.5])
  logits = np.random.default_rng(0).normal(0.0, 2.0, [7, 4])
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  entropy = -(p * np.log(p)).sum(axis=1)
  x = tf.constant(logits)
  with tf.GradientTape() as tape:
    tape.watch(x)
    weights = cdan.certainty_weights(x)
  np.testing.assert_allclose(weights, 1 + np.exp(-entropy), rtol=1e-9)
  # dH/dz = -p (ln p + H), so dw/dz = exp(-H) p (ln p + H).
  slope = np.exp(-entropy)[:, None] * p * (np.log(p) + entropy[:, None])
  np.testing.assert_allclose(tape.gradient(weights, x), slope, rtol=1e-6)


def test_weights_and_loss_at_extreme_logits():
  logits = tf.constant([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0], [1e4, 1e4]])
  domain_logits = tf.constant([1e4, -1e4, -1e4, 1e4])
  with tf.GradientTape() as tape:
    tape.watch([logits, domain_logits])
    weights = cdan.certainty_weights(logits)
    loss = cdan._weighted_domain_loss(domain_logits, weights)
  np.testing.assert_allclose(weights, [2.0, 2.0, 1.5, 1.5], rtol=1e-6)
  np.testing.assert_allclose(loss, (0.0 + 1e4 + 0.0 + 1e4) / 4, rtol=1e-6)
  for gradient in tape.gradient(loss, [logits, domain_logits]):
    assert np.isfinite(gradient).all()


def test_two_replicas_weigh_as_one():
  """The mean of w is over the images of both."""
  settings = harness.settings('cdan')
  config = cdan.Config(conditioning='multilinear_entropy')
  one = harness.Run(settings, config)
  two = harness.Run(settings, config, replicas=2)
  terms = [run.train(2, traced=False) for run in (one, two)]
  for name, value in terms[0].items():
    assert terms[1][name] == pytest.approx(value, abs=1e-5)
  for ours, theirs in zip(two.weights(), one.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_solves_the_toy_problem():
  run = harness.toy('cdan')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


def test_recipe_for_office_is_that_of_the_released_code(monkeypatch):
  monkeypatch.chdir(ROOT)
  for name, conditioning in (
    ('cdan', 'multilinear'),
    ('cdan_e', 'multilinear_entropy'),
  ):
    run, config, _, _ = flag_config.parse_experiment(
      [f'--flagfile=flags/office31_amazon2webcam/{name}.flags']
    )
    assert (run.backbone, run.bottleneck, run.batch_size) == (
      *('resnet50', 256),
      36,
    )
    assert (run.learning_rate, run.new_layer_multiplier) == (0.001, 10)
    assert run.nesterov and run.weight_decay == 1e-3
    assert config == cdan.Config(
      conditioning, discriminator_dropout=0.5, random_width=0
    )
    assert (config.domain_weight, config.gamma) == (1.0, 10.0)
