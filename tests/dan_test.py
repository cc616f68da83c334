"""DAN: Eq. 4 by hand, the layers that are aligned, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda.methods import dan


def mmd(source, target):
  """Eq. 1-2 pair by pair, with the bandwidths of the released code."""
  rows = np.concatenate([source, target])
  count = len(rows)
  squares = [[((x - y) ** 2).sum() for y in rows] for x in rows]
  mean = np.sum(squares) / (count**2 - count)
  kernel = sum(
    np.exp(-np.array(squares) / (mean * 2.0**u)) for u in range(-2, 3)
  )
  n = len(source)
  within = kernel[:n, :n].mean() + kernel[n:, n:].mean()
  return within - 2 * kernel[:n, n:].mean()


def layers(model, images):
  """Outputs of the bottleneck and of the classifier's layers, by numpy."""
  x = np.float64(model.features(images))
  weights = [np.float64(w) for w in model.classifier.get_weights()]
  outputs = [] if model.bottleneck is None else [x]
  for kernel, bias in zip(weights[::2], weights[1::2]):
    x = x @ kernel + bias
    if len(bias) != 2:
      x = np.maximum(x, 0.0)
    outputs.append(x)
  return outputs


@pytest.mark.parametrize('bottleneck, count', [(0, 3), (6, 4)])
def test_objective_is_equation_4_over_the_fully_connected_layers(
  bottleneck, count
):
  run = harness.Run(
    harness.settings('dan', bottleneck=bottleneck), dan.Config(mmd_weight=0.4)
  )
  batch = next(iter(run.batches(0, 1)))
  total, terms = run.model.objective(batch, tf.constant(0.5))
  source, target = (
    layers(run.model, batch[side]['image']) for side in ('source', 'target')
  )
  assert len(source) == count  # FC100-100-2, behind a bottleneck or not.
  label = numeric.cross_entropy(batch['source']['label'].numpy(), source[-1])
  distance = sum(mmd(*pair) for pair in zip(source, target))
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['mmd'], distance, rtol=1e-4)
  np.testing.assert_allclose(total, label + 0.4 * distance, rtol=1e-4)


def test_gradient_is_that_of_the_label_loss_and_of_each_layer_s_mmd():
  """By the outputs of the last layer, from a tape of their own."""
  run = harness.Run(harness.settings('dan'), dan.Config(mmd_weight=0.4))
  model, batch = run.model, next(iter(run.batches(0, 1)))
  bias = model.classifier.weights[-1]
  with tf.GradientTape() as tape:
    total, _ = model.objective(batch, tf.constant(0.5))
  gradient = tape.gradient(total, bias)
  # A bias moves both domains alike: the MMD of the logits does not see it.
  logits = np.float64(model(batch['source']['image']))
  rows = numeric.softmax(logits) - np.eye(2)[batch['source']['label'].numpy()]
  np.testing.assert_allclose(gradient, rows.mean(axis=0), atol=1e-5)
  # The layer before does by way of the layers behind it.
  hidden = model.classifier.weights[2]
  with tf.GradientTape(persistent=True) as tape:
    outputs = [
      model.classifier.activations(model.features(batch[side]['image']))
      for side in ('source', 'target')
    ]
    label = tf.reduce_mean(
      tf.nn.sparse_softmax_cross_entropy_with_logits(
        batch['source']['label'], outputs[0][-1]
      )
    )
    distance = 0.0
    for source, target in zip(*outputs):
      rows = tf.concat([source, target], axis=0)
      squares = tf.reduce_sum((rows[:, None] - rows) ** 2, axis=-1)
      mean = tf.stop_gradient(tf.reduce_sum(squares)) / (16 * 15)
      kernel = sum(tf.exp(-squares / (mean * 2.0**u)) for u in range(-2, 3))
      distance += tf.reduce_mean(kernel[:8, :8] + kernel[8:, 8:])
      distance -= 2 * tf.reduce_mean(kernel[:8, 8:])
  expected = tape.gradient(label, hidden) + 0.4 * tape.gradient(
    distance, hidden
  )
  with tf.GradientTape() as tape:
    total, _ = model.objective(batch, tf.constant(0.5))
  np.testing.assert_allclose(
    tape.gradient(total, hidden), expected, rtol=1e-3, atol=1e-6
  )


def test_solves_the_toy_problem():
  run = harness.toy('dan')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
