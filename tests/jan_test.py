"""JAN: Eq. 7-9 by hand, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda.methods import jan


def kernel(rows):
  """The mean of five Gaussians for every pair of rows."""
  squares = np.array([[((x - y) ** 2).sum() for y in rows] for x in rows])
  mean = squares.sum() / (squares.size - len(rows))
  return np.mean([np.exp(-squares / mean / 2.0**u) for u in range(-2, 3)], 0)


def joint_mmd(layers):
  """Eq. 7-8 of layers [2n, D]; five times it, as the kernels are sums."""
  product = 5 * np.prod([kernel(rows) for rows in layers], axis=0)
  n = len(product) // 2
  within = product[:n, :n].mean() + product[n:, n:].mean()
  return within - 2 * product[:n, n:].mean()


@pytest.mark.parametrize('bottleneck', [0, 6])
def test_objective_is_equation_9(bottleneck):
  run = harness.Run(
    harness.settings('jan', bottleneck=bottleneck),
    jan.Config(joint_mmd_weight=0.4),
  )
  batch = next(iter(run.batches(0, 1)))
  total, terms = run.model.objective(batch, tf.constant(0.3))
  outputs = [
    run.model.infer(batch[side]['image']) for side in ('source', 'target')
  ]
  features, logits = (
    np.concatenate([np.float64(x[name]) for x in outputs])
    for name in ('features', 'logits')
  )
  label = numeric.cross_entropy(batch['source']['label'].numpy(), logits[:8])
  distance = joint_mmd([features, numeric.softmax(logits)])
  factor = 2 / (1 + np.exp(-10 * 0.3)) - 1
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['joint_mmd'], distance, rtol=1e-4)
  np.testing.assert_allclose(total, label + 0.4 * factor * distance, rtol=1e-4)


def test_predictions_are_matched_through_the_softmax():
  """The gradient to the logits' bias, number by number."""
  run = harness.Run(harness.settings('jan'), jan.Config(joint_mmd_weight=2.0))
  model, batch = run.model, next(iter(run.batches(0, 1)))
  images = tf.concat([batch[s]['image'] for s in ('source', 'target')], axis=0)
  features = np.float64(model.features(images))
  labels = batch['source']['label'].numpy()
  logits = np.float64(model.classifier(tf.constant(features, tf.float32)))

  # The bandwidth is a constant for the gradient: that of the untouched bias.
  squares = [((x - y) ** 2).sum() for x in numeric.softmax(logits)
             for y in numeric.softmax(logits)]  # fmt: skip
  mean = sum(squares) / (16 * 15)

  def total(bias):
    rows = numeric.softmax(logits + bias)
    squares = np.array([[((x - y) ** 2).sum() for y in rows] for x in rows])
    of_softmax = np.mean(
      [np.exp(-squares / mean / 2.0**u) for u in range(-2, 3)], 0
    )
    product = 5 * kernel(features) * of_softmax
    within = product[:8, :8].mean() + product[8:, 8:].mean()
    distance = within - 2 * product[:8, 8:].mean()
    label = numeric.cross_entropy(labels, logits[:8] + bias)
    return label + 2.0 * np.tanh(5 * 0.3) * distance

  bias = model.classifier.weights[-1]
  with tf.GradientTape() as tape:
    value, _ = model.objective(batch, tf.constant(0.3))
  np.testing.assert_allclose(value, total(np.zeros(2)), rtol=1e-4)
  np.testing.assert_allclose(
    tape.gradient(value, bias),
    numeric.finite_differences(total, np.zeros(2)),
    rtol=1e-3,
    atol=1e-5,
  )


def test_solves_the_toy_problem():
  run = harness.toy('jan')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
