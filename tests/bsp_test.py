"""BSP: the spectral penalty by NumPy's decomposition, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import flag_config
from tfda.methods import bsp, cdan


def test_example():
  rows = [[3.0, 0.0], [0.0, 4.0]]
  np.testing.assert_allclose(bsp.spectral_penalty(rows), 16.0, rtol=1e-6)
  np.testing.assert_allclose(bsp.spectral_penalty(rows, 2), 25.0, rtol=1e-6)
  # There are no more than two.
  np.testing.assert_allclose(bsp.spectral_penalty(rows, 5), 25.0, rtol=1e-6)


@pytest.mark.parametrize('shape', [(6, 4), (4, 9)])
@pytest.mark.parametrize('count', [1, 3])
def test_penalty_and_gradient_by_numpy(shape, count):
  features = np.random.default_rng(0).normal(1.0, 2.0, shape)
  u, sigma, v = np.linalg.svd(features, full_matrices=False)
  x = tf.constant(features)
  with tf.GradientTape() as tape:
    tape.watch(x)
    penalty = bsp.spectral_penalty(x, count)
  np.testing.assert_allclose(penalty, (sigma[:count] ** 2).sum(), rtol=1e-9)
  # d sigma_i^2 / dF = 2 sigma_i u_i v_i^T.
  expected = 2 * (u[:, :count] * sigma[:count]) @ v[:count]
  gradient = tape.gradient(penalty, x).numpy()
  np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9)

  def largest(x):
    return (np.linalg.svd(x, compute_uv=False)[:count] ** 2).sum()

  for i in ((0, 0), (shape[0] - 1, 2)):
    step = np.zeros(shape)
    step[i] = 1e-6
    slope = (largest(features + step) - largest(features - step)) / 2e-6
    np.testing.assert_allclose(gradient[i], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('scale', [0.0, 1e-15, 1e12])
def test_penalty_of_extreme_and_of_equal_features(scale):
  """Equal rows have one singular value, equal orthogonal ones all alike."""
  for rows, squared in ((np.ones([3, 5]), 15.0), (np.eye(4), 1.0)):
    x = tf.constant(scale * rows, tf.float32)
    with tf.GradientTape() as tape:
      tape.watch(x)
      penalty = bsp.spectral_penalty(x)
    np.testing.assert_allclose(penalty, squared * scale**2, rtol=1e-5)
    assert np.isfinite(tape.gradient(penalty, x)).all()


def test_penalty_of_half_precision_is_summed_in_float32():
  x = tf.fill([8, 100], tf.constant(300.0, tf.float16))
  penalty = bsp.spectral_penalty(x)
  assert penalty.dtype == tf.float32
  np.testing.assert_allclose(penalty, 800 * 300.0**2, rtol=1e-5)


def test_penalty_is_of_the_rows_of_all_replicas():
  features = np.random.default_rng(1).normal(size=[8, 5]).astype(np.float32)
  sigma = np.linalg.svd(features, compute_uv=False)
  x = tf.constant(features)
  with tf.GradientTape() as tape:
    tape.watch(x)
    whole = bsp.spectral_penalty(x)
  strategy = tf.distribute.MirroredStrategy(
    ['CPU:0', 'CPU:1'], tf.distribute.ReductionToOneDevice()
  )
  halves = strategy.experimental_distribute_values_from_function(
    lambda context: x[4 * context.replica_id_in_sync_group :][:4]
  )

  @tf.function
  def of_replica(rows):
    with tf.GradientTape() as inner:
      inner.watch(rows)
      penalty = bsp.spectral_penalty(rows)
    return penalty, inner.gradient(penalty, rows)

  parts = strategy.run(of_replica, [halves])
  penalties, gradients = map(strategy.experimental_local_results, parts)
  np.testing.assert_allclose(whole, sigma[0] ** 2, rtol=1e-5)
  np.testing.assert_allclose(np.mean(penalties), whole, rtol=1e-5)
  # The mean over replicas is differentiated: each has half of the gradient.
  np.testing.assert_allclose(
    np.concatenate(gradients) / 2, tape.gradient(whole, x), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('conditioning', ['none', 'multilinear_entropy'])
def test_objective_is_that_of_cdan_and_the_penalty(conditioning):
  more = {'conditioning': conditioning, 'domain_weight': 0.7}
  config = bsp.Config(spectral_weight=0.01, singular_values=2, **more)
  ours = harness.Run(harness.settings('bsp'), config)
  theirs = harness.Run(harness.settings('cdan'), cdan.Config(**more))
  batch = next(iter(ours.batches(0, 1)))
  features = ours.model.features(
    tf.concat([batch['source']['image'], batch['target']['image']], 0)
  ).numpy()
  penalty = sum(
    (np.linalg.svd(part, compute_uv=False)[:2] ** 2).sum()
    for part in (features[:8], features[8:])
  )
  with tf.GradientTape() as tape:
    total, terms = ours.model.objective(batch, tf.constant(0.3))
  gradients = tape.gradient(total, ours.model.trainable_variables)
  with tf.GradientTape(persistent=True) as tape:
    expected, _ = theirs.model.objective(batch, tf.constant(0.3))
  np.testing.assert_allclose(terms['spectral'], penalty, rtol=1e-4)
  np.testing.assert_allclose(total, expected + 0.01 * penalty, rtol=1e-5)
  # It reaches the features alone.
  count = len(ours.model.backbone.trainable_variables)
  others = tape.gradient(expected, theirs.model.trainable_variables)
  for i, (a, b) in enumerate(zip(gradients, others)):
    if i < count:
      assert np.abs(a - b).max() > 1e-5
    else:
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_solves_the_toy_problem():
  run = harness.toy('bsp')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


def test_settings_for_office_are_the_paper_s():
  for name, conditioning in (
    ('bsp', 'multilinear_entropy'),
    ('bsp_dann', 'none'),
  ):
    run, config, _, _ = flag_config.parse_experiment(
      [f'--flagfile=flags/office31_amazon2webcam/{name}.flags']
    )
    assert config == bsp.Config(
      conditioning=conditioning, discriminator_dropout=0.5, random_width=0
    )
    assert (config.spectral_weight, config.singular_values) == (1e-4, 1)
    assert (run.batch_size, run.learning_rate) == (36, 0.0003)
