"""MDD: the margin disparity by hand, its players' updates, the toy problem."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import flag_config
from tfda.methods import mdd

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LN3 = np.log(3.0)


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def test_example():
  disparity = mdd.margin_disparity([0, 1], [[LN3, 0.0]] * 2, margin=4.0)
  np.testing.assert_allclose(disparity, 5 * np.log(4 / 3), rtol=1e-6)
  np.testing.assert_allclose(disparity, 1.4384, atol=5e-5)


def test_disparity_and_gradient_by_hand():
  random = np.random.default_rng(0)
  logits, k = random.normal(0.0, 2.0, [8, 5]), random.integers(5, size=8)
  sigma = softmax(logits)
  of_k, one_hot = sigma[np.arange(8), k], np.eye(5)[k]
  expected = np.mean(-3.0 * np.log(of_k[:4])) + np.mean(-np.log(1 - of_k[4:]))
  x = tf.constant(logits)
  with tf.GradientTape() as tape:
    tape.watch(x)
    disparity = mdd.margin_disparity(k, x, margin=3.0)
  np.testing.assert_allclose(disparity, expected, rtol=1e-9)
  # d/dz of -ln sigma_k is sigma - e_k; of -ln(1 - sigma_k), sigma_k / (1 -
  # sigma_k) (e_k - sigma).
  odds = (of_k / (1 - of_k))[:, np.newaxis]
  slopes = np.concatenate(
    [3.0 * (sigma - one_hot)[:4], (odds * (one_hot - sigma))[4:]]
  )
  np.testing.assert_allclose(tape.gradient(disparity, x), slopes / 4, rtol=1e-7)


def test_equal_classifiers_at_the_margin_cannot_be_improved():
  """On equal domains the best sigma_k is gamma / (1 + gamma) (Section 4)."""
  x = tf.constant([[np.log(4.0), 0.0]] * 2)
  with tf.GradientTape() as tape:
    tape.watch(x)
    disparity = mdd.margin_disparity([0, 0], x, margin=4.0)
  gradient = tape.gradient(disparity, x).numpy()
  np.testing.assert_allclose(gradient.sum(axis=0), [0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize('classes', [2, 4])
def test_disparity_at_extreme_logits(classes):
  logits = tf.one_hot([0, 1, 0, 1], classes) * 2e4 - 1e4
  with tf.GradientTape() as tape:
    tape.watch(logits)
    disparity = mdd.margin_disparity([0, 0, 0, 0], logits, margin=4.0)
  # Right and wrong by 2e4 on the source, then certain and wrong on the target.
  np.testing.assert_allclose(disparity, (4 * 2e4 + 2e4) / 2, rtol=1e-4)
  gradient = tape.gradient(disparity, logits).numpy()
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_updates_are_those_of_the_two_players():
  """From separate tapes and without a reversal layer."""
  config = mdd.Config(margin=2.0, adversarial_weight=0.5)
  run = harness.Run(harness.settings('mdd'), config)
  model, batch = run.model, next(iter(run.batches(0, 1)))
  eta = 0.5 * np.tanh(5 * 0.3)
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  k = model(images).numpy().argmax(axis=1)
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(images)
    rows = tf.one_hot(batch['source']['label'], 2)
    sigma = tf.nn.softmax(model.classifier(features))
    label = -tf.reduce_mean(
      tf.reduce_sum(rows * tf.math.log(sigma[:8]), axis=1)
    )
    sigma = tf.nn.softmax(model.adversary(features))
    of_k = tf.reduce_sum(tf.one_hot(k, 2) * sigma, axis=1)
    discrepancy = tf.reduce_mean(
      tf.math.log(1 - of_k[8:])
    ) + 2.0 * tf.reduce_mean(tf.math.log(of_k[:8]))
    minimised, maximised = label + eta * discrepancy, -discrepancy
  expected = tape.gradient(minimised, model.backbone.trainable_variables)
  expected += tape.gradient(label, model.classifier.trainable_variables)
  expected += tape.gradient(maximised, model.adversary.trainable_variables)
  with tf.GradientTape() as tape:
    total, terms = model.objective(batch, tf.constant(0.3))
  ours = tape.gradient(total, model.trainable_variables)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['disparity'], -discrepancy, rtol=1e-5)
  assert len(ours) == len(expected)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_adversary_has_the_classifier_s_layers_and_weights_of_its_own():
  settings = harness.settings('mdd', classifier_dropout=0.25)
  model = harness.Run(settings).model
  shapes = [w.shape for w in model.adversary.weights]
  assert shapes == [w.shape for w in model.classifier.weights]
  assert model.adversary.dropout_rate == 0.25
  kernels = model.adversary.weights[0], model.classifier.weights[0]
  assert np.abs(kernels[0] - kernels[1]).max() > 0.0


def test_recipe_for_office_is_that_of_the_released_code(monkeypatch):
  monkeypatch.chdir(ROOT)
  run, config, _, _ = flag_config.parse_experiment(
    ['--flagfile=flags/office31_amazon2webcam/mdd.flags']
  )
  assert config == mdd.Config(margin=4.0, adversarial_weight=0.1)
  assert (run.learning_rate, run.new_layer_multiplier) == (0.0004, 10)
  assert run.learning_rate_alpha == 0.001 / 5 * run.steps
  assert (run.bottleneck, run.nesterov, run.weight_decay) == (1024, True, 5e-4)


def test_solves_the_toy_problem():
  run = harness.toy('mdd')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
