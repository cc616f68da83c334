"""SAFN and HAFN: Eq. 2-3 by hand, how norms grow, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda.methods import safn


def make(replicas=1, **config):
  return harness.Run(
    harness.settings('safn', bottleneck=6), safn.Config(**config), replicas
  )


def first_batch(run):
  return next(iter(run.batches(0, 1)))


def norms(run, batch):
  return [
    np.linalg.norm(np.float64(run.model.features(batch[side]['image'])), axis=1)
    for side in ('source', 'target')
  ]


def test_feature_norms_example():
  features = np.array([[3.0, 4.0], [0.0, 0.0]])
  values, (gradient,) = numeric.gradients(safn.feature_norms, features)
  np.testing.assert_allclose(values, [5.0, 0.0], rtol=1e-12)
  np.testing.assert_allclose(gradient, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-12)


def test_stepwise_loss_example():
  value, (gradient,) = numeric.gradients(
    lambda x: safn.stepwise_loss(x, 0.5), np.array([5.0, 7.0])
  )
  np.testing.assert_allclose(value, 0.25, rtol=1e-12)
  np.testing.assert_allclose(gradient, [-0.5, -0.5], rtol=1e-12)


def test_stepwise_loss_against_finite_differences():
  """With the norms at theta_0 held."""
  features = np.random.default_rng(0).normal(0.0, 2.0, [5, 3])
  held = np.linalg.norm(features, axis=1)

  def by_hand(x):
    return np.mean((held + 1.5 - np.linalg.norm(x, axis=1)) ** 2)

  value, (gradient,) = numeric.gradients(
    lambda x: safn.stepwise_loss(safn.feature_norms(x), 1.5), features
  )
  np.testing.assert_allclose(value, by_hand(features), rtol=1e-12)
  np.testing.assert_allclose(
    gradient, numeric.finite_differences(by_hand, features), atol=1e-8
  )


@pytest.mark.parametrize('dtype', [tf.float16, tf.float32])
def test_feature_norms_at_extremes(dtype):
  """Of squares beyond float16's 65504, and of nothing."""
  features = tf.constant([[3e4, 4e4], [6e-8, 0.0], [0.0, 0.0]], dtype)
  with tf.GradientTape() as tape:
    tape.watch(features)
    value = safn.feature_norms(features)
  assert value.dtype == tf.float32
  np.testing.assert_allclose(value[0], 5e4, rtol=1e-3)
  gradient = tape.gradient(value, features).numpy()
  np.testing.assert_allclose(gradient[:2], [[0.6, 0.8], [1.0, 0.0]], rtol=1e-2)
  np.testing.assert_array_equal(gradient[2], [0.0, 0.0])


def test_objective_of_safn_is_equation_3():
  """Its value tells only Delta_r; its gradient, how norms grow."""
  run = make(norm_weight=0.5, step=2.0, entropy_weight=0.1)
  model, batch = run.model, first_batch(run)
  variable = model.bottleneck.bias
  with tf.GradientTape() as tape:
    total, terms = model.objective(batch, tf.constant(0.5))
  gradient = tape.gradient(total, variable)
  of_source, of_target = norms(run, batch)
  np.testing.assert_allclose(terms['norm'], 4.0, rtol=1e-6)
  np.testing.assert_allclose(terms['source_norm'], of_source.mean(), rtol=1e-5)
  np.testing.assert_allclose(terms['target_norm'], of_target.mean(), rtol=1e-5)
  logits = [np.float64(model(batch[s]['image'])) for s in ('source', 'target')]
  labels = batch['source']['label'].numpy()
  label = numeric.cross_entropy(labels, logits[0])
  rows = numeric.softmax(logits[1])
  entropy = -(rows * np.log(rows)).sum(axis=1).mean()
  np.testing.assert_allclose(terms['entropy'], entropy, rtol=1e-5)
  np.testing.assert_allclose(
    total, label + 0.5 * 4.0 + 0.1 * entropy, rtol=1e-5
  )
  alone = make(norm_weight=0.0, step=2.0, entropy_weight=0.1)
  with tf.GradientTape() as tape:
    other, _ = alone.model.objective(batch, tf.constant(0.5))
  rest = tape.gradient(other, alone.model.bottleneck.bias)
  features = np.concatenate(
    [
      np.float64(model.features(batch[s]['image']))
      for s in ('source', 'target')
    ]
  )
  unit = features / np.linalg.norm(features, axis=1, keepdims=True)
  # 2 Delta_r / (n_s + n_t), lambda.
  expected = rest - 0.5 * 2 * 2.0 * unit.sum(axis=0) / 16
  np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-5)


def test_objective_of_hafn_is_equation_2():
  run = make(growth='hard', norm_weight=0.5, radius=3.0)
  batch = first_batch(run)
  total, terms = run.model.objective(batch, tf.constant(0.5))
  means = [x.mean() for x in norms(run, batch)]
  norm = sum((mean - 3.0) ** 2 for mean in means)
  np.testing.assert_allclose(terms['norm'], norm, rtol=1e-5)
  np.testing.assert_allclose(total, terms['label'] + 0.5 * norm, rtol=1e-5)


def test_hafn_s_means_are_over_all_replicas():
  one, two = (make(n, growth='hard', radius=3.0) for n in (1, 2))
  terms = one.train(1, traced=False)
  for name, value in two.train(1, traced=False).items():
    assert value == pytest.approx(terms[name], abs=1e-5), name
  for ours, theirs in zip(two.weights(), one.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_norms_grow_in_training_and_the_toy_is_as_with_source_only():
  """Source only has 0.58, and mean norms of 3.1 and 2.5."""
  run = harness.Run(
    harness.settings('safn', steps=300, batch_size=32),
    safn.Config(norm_weight=0.015),
  )
  terms = run.train(300)
  assert terms['source_norm'] > 6.0 and terms['target_norm'] > 5.0
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.56
