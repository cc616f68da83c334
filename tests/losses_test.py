"""The losses: worked examples, plain numpy, gradients, extremes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfda import losses

LN2 = math.log(2.0)
LN3 = math.log(3.0)


def _logits(*shape, seed=0):
  return np.random.default_rng(seed).normal(0.0, 3.0, shape)


def _softmax(logits):
  e = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def _sigmoid(x):
  return 1.0 / (1.0 + np.exp(-x))


def _gradients(function, *inputs):
  """The value, and its gradient to every input; float64."""
  inputs = [tf.constant(x) for x in inputs]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    value = function(*inputs)
  return value.numpy(), [g.numpy() for g in tape.gradient(value, inputs)]


def _finite_differences(function, x, step=1e-6):
  """The gradient of a numpy function of one array, number by number."""
  gradient = np.zeros_like(x)
  for i in np.ndindex(x.shape):
    moved = x.copy()
    moved[i] += step
    above = function(moved)
    moved[i] -= 2.0 * step
    gradient[i] = (above - function(moved)) / (2.0 * step)
  return gradient


# label_loss


def test_label_loss_examples():
  # softmax([ln 3, 0]) = [3/4, 1/4]
  loss = losses.label_loss([0], [[LN3, 0.0]])
  np.testing.assert_allclose(loss, 0.2877, atol=5e-5)
  loss = losses.label_loss([1], [[LN3, 0.0]])
  np.testing.assert_allclose(loss, math.log(4.0), rtol=1e-6)
  for classes in (2, 10):
    loss = losses.label_loss([0, 1], tf.zeros([2, classes]))
    np.testing.assert_allclose(loss, math.log(classes), rtol=1e-6)


def test_label_loss_is_the_mean_over_the_batch():
  labels = np.array([2, 0, 1, 1, 2])
  logits = _logits(5, 3)
  expected = np.mean([-np.log(_softmax(r)[y]) for r, y in zip(logits, labels)])
  value, (gradient,) = _gradients(
    lambda x: losses.label_loss(labels, x), logits
  )
  np.testing.assert_allclose(value, expected, rtol=1e-12)
  # d/dlogits of the cross-entropy of one row is softmax - one-hot.
  closed_form = (_softmax(logits) - np.eye(3)[labels]) / 5.0
  np.testing.assert_allclose(gradient, closed_form, rtol=1e-9, atol=1e-15)


def test_label_loss_at_extreme_logits():
  logits = np.array([[1e4, -1e4], [1e4, -1e4]])
  value, (gradient,) = _gradients(
    lambda x: losses.label_loss([0, 1], x), logits
  )
  np.testing.assert_allclose(value, (0.0 + 2e4) / 2.0)
  np.testing.assert_allclose(gradient, [[0.0, 0.0], [0.5, -0.5]], atol=1e-12)


def test_label_loss_checks_ranks():
  for logits in (tf.zeros([3]), tf.zeros([3, 2, 2])):
    with pytest.raises(ValueError, match='rank'):
      losses.label_loss([0, 1, 0], logits)
  with pytest.raises(ValueError):
    losses.label_loss([[0], [1], [0]], tf.zeros([3, 2]))


# domain_loss


def test_domain_loss_examples():
  # Source 1/2 and target 3/4 for "source": (ln 2 + ln 4) / 2
  loss = losses.domain_loss([0.0], [LN3])
  np.testing.assert_allclose(loss, 1.0397, atol=5e-5)
  loss = losses.domain_loss(tf.zeros([3]), tf.zeros([5]))
  np.testing.assert_allclose(loss, LN2, rtol=1e-6)
  # The source is 1: a positive logit is right there and wrong on the target.
  # -ln(3/4) and -ln(1/4)
  right = losses.domain_loss([LN3], [-LN3])
  wrong = losses.domain_loss([-LN3], [LN3])
  np.testing.assert_allclose(right, math.log(4.0 / 3.0), rtol=1e-6)
  np.testing.assert_allclose(wrong, math.log(4.0), rtol=1e-6)


def test_domain_loss_weighs_the_domains_alike():
  source, target = _logits(3, seed=1), _logits(7, seed=2)
  expected = 0.5 * (
    np.mean(-np.log(_sigmoid(source)))
    + np.mean(-np.log(1.0 - _sigmoid(target)))
  )
  value, gradients = _gradients(losses.domain_loss, source, target)
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  # d/dx of the binary cross-entropy is sigmoid(x) - label.
  np.testing.assert_allclose(
    gradients[0], 0.5 * (_sigmoid(source) - 1.0) / 3.0, rtol=1e-9
  )
  np.testing.assert_allclose(
    gradients[1], 0.5 * _sigmoid(target) / 7.0, rtol=1e-9
  )


def test_domain_loss_at_extreme_logits():
  extremes = np.array([1e4, -1e4])
  value, (source, target) = _gradients(losses.domain_loss, extremes, extremes)
  # One of two is wrong by 1e4 in each domain.
  np.testing.assert_allclose(value, 0.5 * (5e3 + 5e3))
  np.testing.assert_allclose(source, [0.0, -0.25], atol=1e-12)
  np.testing.assert_allclose(target, [0.25, 0.0], atol=1e-12)


def test_domain_loss_checks_ranks():
  good = tf.zeros([4])
  for bad in (tf.zeros([4, 1]), tf.zeros([])):
    with pytest.raises(ValueError, match='rank'):
      losses.domain_loss(bad, good)
    with pytest.raises(ValueError, match='rank'):
      losses.domain_loss(good, bad)


# entropy


def test_entropy_examples():
  # -(1/2 ln 1/2 + 2 * 1/4 ln 1/4) = 1/2 ln 2 + ln 2
  entropy = losses.entropy([[LN2, 0.0, 0.0]])
  np.testing.assert_allclose(entropy, [1.5 * LN2], rtol=1e-6)
  np.testing.assert_allclose(entropy, [1.0397], atol=5e-5)
  for classes in (2, 31):
    entropy = losses.entropy(tf.fill([classes], 3.0))
    np.testing.assert_allclose(entropy, math.log(classes), rtol=1e-6)


def test_entropy_against_numpy():
  logits = _logits(2, 4, 5)
  p = _softmax(logits)
  value = losses.entropy(logits).numpy()
  np.testing.assert_allclose(value, -(p * np.log(p)).sum(-1), rtol=1e-10)
  assert (value > 0.0).all() and (value < math.log(5.0)).all()
  # A constant on all logits changes nothing.
  np.testing.assert_allclose(losses.entropy(logits + 50.0), value, rtol=1e-10)


def test_entropy_gradient():
  logits = _logits(3, 4, seed=5)

  def reference(x):
    p = _softmax(x)
    return -(p * np.log(p)).sum()

  _, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.entropy(x)), logits
  )
  np.testing.assert_allclose(
    gradient, _finite_differences(reference, logits), atol=1e-7
  )


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
def test_entropy_at_extreme_logits(dtype):
  logits = np.array(
    [[1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype
  )
  value, (gradient,) = _gradients(
    lambda x: tf.reduce_sum(losses.entropy(x)), logits
  )
  tolerance = 2e-3 if dtype == 'float16' else 1e-6
  np.testing.assert_allclose(
    losses.entropy(logits), [0.0, LN2, LN3], atol=tolerance
  )
  np.testing.assert_allclose(value, LN2 + LN3, atol=2 * tolerance)
  np.testing.assert_allclose(gradient, np.zeros([3, 3]), atol=tolerance)


def test_entropy_of_a_scalar_is_refused():
  with pytest.raises(ValueError, match='rank'):
    losses.entropy(1.0)
