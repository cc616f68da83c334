"""WDGRL: critic, penalty and its second derivative by hand, the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import experiment, flag_config
from tfda.layers import discriminators
from tfda.methods import wdgrl


def make(**changed):
  config = wdgrl.Config(domain_weight=0.7, **changed)
  run = harness.Run(harness.settings('wdgrl'), config)
  with run.strategy.scope():
    run.model.begin_phase(run.phases[0], 0)
  return run, next(iter(run.batches(0, 1)))


def test_penalty_example_and_gradient_by_hand():
  penalty = wdgrl.gradient_penalty([[3.0, 4.0], [0.0, 0.0]])
  np.testing.assert_allclose(penalty, 8.5, rtol=1e-5)
  slopes = np.random.default_rng(0).normal(size=[6, 3])
  lengths = np.sqrt((slopes**2).sum(axis=1))
  x = tf.constant(slopes)
  with tf.GradientTape() as tape:
    tape.watch(x)
    penalty = wdgrl.gradient_penalty(x)
  np.testing.assert_allclose(penalty, np.mean((lengths - 1) ** 2), rtol=1e-6)
  expected = 2 * (1 - 1 / lengths)[:, np.newaxis] * slopes / 6
  np.testing.assert_allclose(tape.gradient(penalty, x), expected, rtol=1e-6)


@pytest.mark.parametrize(
  'dtype, scale', [('float32', 0.0), ('float32', 1e15), ('float16', 300.0)]
)
def test_penalty_of_extreme_slopes(dtype, scale):
  x = tf.fill([4, 100], tf.cast(scale, dtype))
  with tf.GradientTape() as tape:
    tape.watch(x)
    penalty = wdgrl.gradient_penalty(x)
  assert penalty.dtype == tf.float32
  np.testing.assert_allclose(penalty, (10 * scale - 1) ** 2, rtol=1e-4)
  assert np.isfinite(tape.gradient(penalty, x)).all()


def test_second_derivative_by_hand():
  """Of the penalty to the critic's weights, by the rules for one hidden layer.

  df/dh = W (m * v), m where the ReLU is open; with g the penalty's gradient to
  it, those to v and W are m * (W^T g) and g (m * v)^T, and none to the offsets.
  """
  critic = discriminators.MultiHeadDiscriminator(
    1, (5,), 0.0, output_bias=False, dtype='float64'
  )
  critic.build([None, 3])
  random = np.random.default_rng(0)
  for weight in critic.weights:
    weight.assign(random.normal(size=weight.shape))
  h = random.normal(size=[7, 3])
  kernel, offset, last = (w.numpy()[0] for w in critic.trainable_weights)
  assert last.shape == (5, 1)

  def slopes_of(kernel, last):
    return ((h @ kernel + offset > 0) * last[:, 0]) @ kernel.T

  def penalty_of(kernel, last):
    lengths = np.sqrt((slopes_of(kernel, last) ** 2).sum(axis=1))
    return np.mean((lengths - 1) ** 2)

  slopes = slopes_of(kernel, last)
  lengths = np.sqrt((slopes**2).sum(axis=1, keepdims=True))
  g = 2 * (1 - 1 / lengths) * slopes / 7
  is_open = (h @ kernel + offset > 0).astype(float)
  to_last = (is_open * (g @ kernel)).sum(axis=0)
  to_kernel = g.T @ (is_open * last[:, 0])

  with tf.GradientTape() as tape:
    _, found = critic(tf.constant(h), slopes=True)
    penalty = wdgrl.gradient_penalty(found[0])
  np.testing.assert_allclose(found[0], slopes, rtol=1e-9)
  np.testing.assert_allclose(penalty, penalty_of(kernel, last), rtol=1e-6)
  gradients = tape.gradient(penalty, critic.trainable_weights)
  np.testing.assert_allclose(gradients[0][0], to_kernel, rtol=1e-6)
  np.testing.assert_allclose(gradients[2][0, :, 0], to_last, rtol=1e-6)
  np.testing.assert_array_equal(gradients[1], np.zeros([1, 1, 5]))
  step = np.zeros_like(kernel)
  step[1, 2] = 1e-6
  slope = penalty_of(kernel + step, last) - penalty_of(kernel - step, last)
  np.testing.assert_allclose(to_kernel[1, 2], slope / 2e-6, rtol=1e-5)


def test_step_is_that_of_algorithm_1():
  """The critic moves first; its new values move features and classifier."""
  run, batch = make(critic_steps=1)
  model = run.model
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  ours = model._phase.trainable
  before = [variable.numpy() for variable in ours]
  weights = [tf.Variable(w[0]) for w in model.critic.trainable_weights]
  # dann_mnist's discriminator has one hidden layer; there is no last offset.
  assert [w.shape.as_list() for w in weights] == [
    [192, 100],
    [1, 100],
    [100, 1],
  ]

  def critic(h):
    return (tf.nn.relu(h @ weights[0] + weights[1]) @ weights[2])[:, 0]

  h = model.features(images)
  shares = model.noise(batch).uniform([8, 1])
  points = tf.concat([h, shares * h[:8] + (1 - shares) * h[8:]], axis=0)
  with tf.GradientTape() as tape:
    with tf.GradientTape() as inner:
      inner.watch(points)
      values = critic(points)
    slopes = inner.gradient(values, points)
    penalty = tf.reduce_mean((tf.norm(slopes, axis=1) - 1) ** 2)
    distance = tf.reduce_mean(values[:8]) - tf.reduce_mean(values[8:16])
    loss = 10.0 * penalty - distance
  for weight, gradient in zip(weights, tape.gradient(loss, weights)):
    weight.assign_sub(0.01 * gradient)
  with tf.GradientTape() as tape:
    h = model.features(images)
    rows = tf.one_hot(batch['source']['label'], 2)
    p = tf.nn.softmax(model.classifier(h[:8]))
    label = -tf.reduce_mean(tf.reduce_sum(rows * tf.math.log(p), axis=1))
    values = critic(h)
    distance = tf.reduce_mean(values[:8]) - tf.reduce_mean(values[8:])
    total = label + 0.7 * distance
  gradients = tape.gradient(total, ours)

  terms = model.train_step(batch)
  for ours_now, expected in zip(model.critic.trainable_weights, weights):
    np.testing.assert_allclose(ours_now[0], expected, rtol=1e-3, atol=1e-6)
  np.testing.assert_allclose(terms['penalty'], penalty, rtol=1e-4)
  np.testing.assert_allclose(terms['distance'], distance, rtol=1e-3, atol=1e-6)
  np.testing.assert_allclose(terms['total'], total, rtol=1e-4)
  for variable, start, gradient in zip(ours, before, gradients):
    np.testing.assert_allclose(
      variable.numpy() - start, -0.01 * gradient, rtol=2e-2, atol=1e-7
    )


def test_points_between_are_drawn_anew_each_time():
  run, batch = make()
  noise = run.model.noise(batch)
  h = tf.concat([tf.ones([8, 192]), tf.zeros([8, 192])], axis=0)
  critic, drawn = run.model.critic, []

  def seen(points, slopes=False):
    drawn.append(points.numpy())
    return critic(points, slopes=slopes)

  run.model.critic = seen
  for _ in range(2):
    run.model._criticise(h, noise)
  for points in drawn:
    np.testing.assert_array_equal(points[:16], h)
    # Each between its two images, at one share of the way.
    assert (points[16:] == points[16:, :1]).all()
    assert points[16:].min() >= 0.0 and points[16:].max() <= 1.0
  assert (drawn[0][16:] != drawn[1][16:]).all()


def test_optimizers_count_the_critic_s_steps():
  run, batch = make(critic_steps=3)
  run.model.train_step(batch)
  assert [int(o.iterations) for o in run.optimizers] == [1, 3]
  assert int(run.model.step) == 1


def test_half_precision_scales_the_loss_of_both_players():
  settings = harness.settings('wdgrl', mixed_precision='float16')
  with experiment.precision(settings):
    run = harness.Run(settings, wdgrl.Config(critic_steps=2))
    run.model.begin_phase(run.phases[0], 0)
    batch = next(iter(run.batches(0, 1)))
    terms = tf.function(run.model.train_step, autograph=False)(batch)
  assert np.isfinite(list(terms.values())).all()
  assert all(np.isfinite(v).all() for v in run.model.trainable_variables)
  scaled = tf.keras.mixed_precision.LossScaleOptimizer
  assert all(isinstance(optimizer, scaled) for optimizer in run.optimizers)


def test_settings_are_those_of_the_released_code():
  _, config, _, _ = flag_config.parse_experiment(
    ['--flagfile=flags/mnist2mnist_m/wdgrl.flags']
  )
  assert config == wdgrl.Config()
  assert (config.domain_weight, config.penalty_weight) == (0.1, 10.0)
  assert config.critic_steps == 5


def test_solves_the_toy_problem():
  run = harness.toy('wdgrl')
  run.train(100)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
