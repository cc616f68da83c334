"""RTN: Eq. 1-6 by hand, its ablations, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda.methods import rtn


def make(**config):
  return harness.Run(
    harness.settings('rtn', bottleneck=6), rtn.Config(**config)
  )


def first_batch(run):
  return next(iter(run.batches(0, 1)))


def mmd(rows):
  """Of [2n, D], pair by pair, with five kernels around the mean distance."""
  squares = np.array([[((x - y) ** 2).sum() for y in rows] for x in rows])
  mean = squares.sum() / (squares.size - len(rows))
  kernel = sum(np.exp(-squares / mean / 2.0**u) for u in range(-2, 3))
  n = len(rows) // 2
  within = kernel[:n, :n].mean() + kernel[n:, n:].mean()
  return within - 2 * kernel[:n, n:].mean()


def test_fused_example():
  np.testing.assert_array_equal(
    rtn.fused([[1.0, 2.0]], [[3.0, 5.0]]), [[3.0, 5.0, 6.0, 10.0]]
  )


def test_fused_against_numpy_and_in_half_precision():
  random = np.random.default_rng(0)
  features, logits = random.normal(size=[4, 3]), random.normal(size=[4, 2])

  def by_hand(x, y):
    rows = [np.outer(a, b).ravel() for a, b in zip(x, y)]
    return (np.array(rows) ** 3).sum()  # Any scalar.

  value, gradients = numeric.gradients(
    lambda x, y: tf.reduce_sum(rtn.fused(x, y) ** 3), features, logits
  )
  np.testing.assert_allclose(value, by_hand(features, logits), rtol=1e-12)
  np.testing.assert_allclose(
    gradients[0],
    numeric.finite_differences(lambda x: by_hand(x, logits), features),
    atol=1e-7,
  )
  np.testing.assert_allclose(
    gradients[1],
    numeric.finite_differences(lambda y: by_hand(features, y), logits),
    atol=1e-7,
  )
  half = tf.constant([[300.0, 0.0]], tf.float16)
  np.testing.assert_array_equal(rtn.fused(half, half), [[9e4, 0, 0, 0]])
  with pytest.raises(ValueError, match='rank'):
    rtn.fused(tf.zeros([2, 3, 4]), tf.zeros([2, 3]))


@pytest.mark.parametrize('residual', [True, False])
def test_objective_is_equation_6(residual):
  run = make(residual=residual, entropy_weight=0.2, mmd_weight=0.7)
  model, batch = run.model, first_batch(run)
  if residual:  # Larger than it begins.
    random = np.random.default_rng(0)
    for weight in model.residual.weights:
      weight.assign(random.normal(0.0, 0.5, weight.shape))
  total, terms = model.objective(batch, tf.constant(0.5))
  outputs = [model.infer(batch[s]['image']) for s in ('source', 'target')]
  features, logits = (
    np.concatenate([np.float64(x[name]) for x in outputs])
    for name in ('features', 'logits')
  )
  of_source = logits[:8]
  if residual:
    first, first_bias, second, second_bias = model.residual.get_weights()
    hidden = np.maximum(of_source @ first + first_bias, 0.0)
    of_source = of_source + hidden @ second + second_bias  # Eq. 4
  label = numeric.cross_entropy(batch['source']['label'].numpy(), of_source)
  rows = numeric.softmax(logits[8:])
  entropy = -(rows * np.log(rows)).sum(axis=1).mean()
  products = [np.outer(x, y).ravel() for x, y in zip(features, logits)]
  distance = mmd(np.array(products))
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['entropy'], entropy, rtol=1e-5)
  np.testing.assert_allclose(terms['mmd'], distance, rtol=1e-4)
  np.testing.assert_allclose(
    total, label + 0.2 * entropy + 0.7 * distance, rtol=1e-5
  )


def test_label_loss_reaches_the_residual_and_the_entropy_does_not():
  run = make(mmd_weight=0.0)
  batch = first_batch(run)
  with tf.GradientTape(persistent=True) as tape:
    _, terms = run.model.objective(batch, tf.constant(0.5))
  residual = run.model.residual.weights
  for gradient in tape.gradient(terms['label'], residual):
    assert np.abs(gradient.numpy()).max() > 0.0
  assert tape.gradient(terms['entropy'], residual) == [None] * 4


def test_residual_begins_small_and_is_not_in_the_ablation():
  assert make(residual=False).model.residual is None
  residual = make().model.residual
  assert [w.shape for w in residual.weights] == [(2, 2), (2,), (2, 2), (2,)]
  logits = np.float32([[5.0, -5.0], [3.0, 1.0]])
  assert 0.0 < np.abs(residual(logits)).max() < 0.02


def test_solves_the_toy_problem():
  run = harness.toy('rtn')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
