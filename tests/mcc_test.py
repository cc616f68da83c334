"""MCC: Eq. 1-8 by hand, extremes, two replicas, and the toy problem."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda.methods import mcc


def confusion(logits, temperature, weights=None):
  """Eq. 1-7 as they are printed; W if it is to be another's."""
  y = numeric.softmax(logits / temperature)
  count, classes = y.shape
  if weights is None:
    certainty = 1 + np.exp((y * np.log(y)).sum(axis=1))  # Eq. 3-4
    weights = count * certainty / certainty.sum()
  c = np.zeros([classes, classes])
  for j in range(classes):
    for k in range(classes):
      c[j, k] = sum(y[i, j] * weights[i] * y[i, k] for i in range(count))
  for j in range(classes):
    c[j] /= c[j].sum()  # Eq. 6
  off = [c[j, k] for j in range(classes) for k in range(classes) if j != k]
  return sum(off) / classes, weights


def test_class_confusion_example():
  logits = [[math.log(3.0), 0.0], [0.0, 0.0]]
  value = mcc.class_confusion(logits, temperature=1.0)
  np.testing.assert_allclose(value, 0.4666, atol=5e-5)
  np.testing.assert_allclose(
    value, confusion(np.array(logits), 1.0)[0], rtol=1e-6
  )


@pytest.mark.parametrize('temperature', [0.7, 2.5])
def test_class_confusion_against_loops(temperature):
  """And its gradient, in which W is a constant."""
  logits = np.random.default_rng(0).normal(0.0, 3.0, [5, 4])
  value, (gradient,) = numeric.gradients(
    lambda x: mcc.class_confusion(x, temperature), logits
  )
  expected, weights = confusion(logits, temperature)
  np.testing.assert_allclose(value, expected, rtol=1e-10)
  by_hand = numeric.finite_differences(
    lambda x: confusion(x, temperature, weights)[0], logits
  )
  np.testing.assert_allclose(gradient, by_hand, atol=1e-8)
  through = numeric.finite_differences(
    lambda x: confusion(x, temperature)[0], logits
  )
  assert np.abs(through - by_hand).max() > 1e-4


@pytest.mark.parametrize('dtype', [tf.float16, tf.float32])
def test_class_confusion_at_extreme_logits(dtype):
  """All is certain; the third class has no image and counts as confused."""
  logits = tf.constant([[6e4, 0, 0], [0, 6e4, 0], [6e4, 0, 0]], dtype)
  with tf.GradientTape() as tape:
    tape.watch(logits)
    value = mcc.class_confusion(logits)
  assert value.dtype == tf.float32
  np.testing.assert_allclose(value, 1 / 3, rtol=1e-6)
  assert np.isfinite(tape.gradient(value, logits).numpy()).all()


def test_class_confusion_of_one_prediction_for_all_is_that_prediction():
  """C~_jj is then Y_j whatever W is: the mean of 1 - Y_j."""
  value = mcc.class_confusion(tf.tile([[1.0, 0.0, -1.0]], [4, 1]))
  np.testing.assert_allclose(value, 2 / 3, rtol=1e-6)
  with pytest.raises(ValueError, match='rank'):
    mcc.class_confusion([0.0, 1.0])


def test_objective_is_equation_8():
  run = harness.Run(
    harness.settings('mcc'), mcc.Config(confusion_weight=0.7, temperature=2.0)
  )
  batch = next(iter(run.batches(0, 1)))
  total, terms = run.model.objective(batch, tf.constant(0.5))
  source, target = (
    np.float64(run.model(batch[side]['image'])) for side in ('source', 'target')
  )
  label = numeric.cross_entropy(batch['source']['label'].numpy(), source)
  expected, _ = confusion(target, 2.0)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['confusion'], expected, rtol=1e-5)
  np.testing.assert_allclose(total, label + 0.7 * expected, rtol=1e-5)


def test_classes_are_confused_in_the_batch_of_all_replicas():
  """In the graph of a step, too; the conformance tests run it eagerly."""
  one, two = (
    harness.Run(harness.settings('mcc'), replicas=replicas)
    for replicas in (1, 2)
  )
  terms = one.train(2)
  for name, value in two.train(2).items():
    assert value == pytest.approx(terms[name], abs=1e-5), name
  for ours, theirs in zip(two.weights(), one.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_is_above_source_only_on_the_toy_problem():
  """At 0.58. Certain predictions may be of the nuisance: it solves no more."""
  run = harness.Run(
    harness.settings('mcc', steps=300, batch_size=32),
    mcc.Config(confusion_weight=3.0),
  )
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.62
