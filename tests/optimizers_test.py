"""The optimizers against plain numpy and against Keras' own."""

import numpy as np
import pytest
import tensorflow as tf

from tfda import experiment, methods, optimizers


def _variables(*values):
  return [tf.Variable(value, dtype=tf.float32) for value in values]


def _random(shapes, seed=0):
  random = np.random.default_rng(seed)
  return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def _rate(step):
  """A learning rate that changes at every step."""
  return 0.1 / (1.0 + 0.5 * step)


def test_example_from_the_module():
  (w,) = _variables(1.0)
  optimizer = optimizers.make('sgd', 0.1, momentum=0.9, weight_decay=0.5)
  optimizer.build([w])
  optimizer.set_multipliers([(w, 2.0)])
  # g = 1 + 0.5 * 1 = 1.5, v = -2 * 0.1 * 1.5 = -0.3
  optimizer.apply_gradients([(tf.constant(1.0), w)])
  np.testing.assert_allclose(w, 0.7, rtol=1e-6)
  # g = 1 + 0.5 * 0.7 = 1.35, v = 0.9 * -0.3 - 2 * 0.1 * 1.35 = -0.54
  optimizer.apply_gradients([(tf.constant(1.0), w)])
  np.testing.assert_allclose(w, 0.16, rtol=1e-5)


@pytest.mark.parametrize('nesterov', [False, True])
@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('in_a_graph', [False, True])
def test_sgd_against_numpy(nesterov, momentum, in_a_graph):
  shapes, multipliers, decay = [(3, 2), (2,), (4,)], [1.0, 20.0, 0.5], 0.05
  weights = [w.astype(np.float64) for w in _random(shapes)]
  velocities = [np.zeros(shape) for shape in shapes]
  variables = _variables(*weights)

  progress = tf.Variable(0.0)
  schedule = optimizers.ProgressSchedule(
    lambda p: 0.1 / (1.0 + 0.5 * p), lambda: progress
  )
  optimizer = optimizers.make('sgd', schedule, momentum, nesterov, decay)
  optimizer.build(variables)
  # The second keeps the default of 1, so name the others alone.
  optimizer.set_multipliers(
    [(v, m) for v, m in zip(variables, multipliers) if m != 1.0]
  )

  def apply(gradients):
    optimizer.apply_gradients(zip(gradients, variables))

  if in_a_graph:
    apply = tf.function(apply)
  for step in range(10):
    progress.assign(step)
    gradients = _random(shapes, seed=step + 1)
    apply([tf.constant(g) for g in gradients])
    for i, (gradient, multiplier) in enumerate(zip(gradients, multipliers)):
      g = gradient + decay * weights[i]
      scaled = multiplier * _rate(step) * g
      velocities[i] = momentum * velocities[i] - scaled
      if nesterov and momentum:
        # The look-ahead: one more momentum step from the new velocity.
        weights[i] = weights[i] + momentum * velocities[i] - scaled
      else:
        weights[i] = weights[i] + velocities[i]
    for variable, weight in zip(variables, weights):
      np.testing.assert_allclose(variable, weight, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
  'ours, stock',
  [
    (
      lambda rate: optimizers.make('sgd', rate, momentum=0.9),
      lambda rate: tf.keras.optimizers.SGD(rate, momentum=0.9),
    ),
    (
      lambda rate: optimizers.make('sgd', rate, momentum=0.9, nesterov=True),
      lambda rate: tf.keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    ),
    (
      lambda rate: optimizers.make('sgd', rate, momentum=0.0),
      lambda rate: tf.keras.optimizers.SGD(rate),
    ),
    (
      lambda rate: optimizers.make('adam', rate),
      lambda rate: tf.keras.optimizers.Adam(rate),
    ),
  ],
  ids=['momentum', 'nesterov', 'plain', 'adam'],
)
@pytest.mark.parametrize('multipliers', [False, True])
def test_without_multipliers_it_is_keras_bit_for_bit(ours, stock, multipliers):
  shapes = [(4, 3), (3,)]
  mine, theirs = _variables(*_random(shapes)), _variables(*_random(shapes))
  ours, stock = ours(0.05), stock(0.05)
  ours.build(mine)
  if multipliers:
    ours.set_multipliers([(v, 1.0) for v in mine])
  for step in range(5):
    gradients = [tf.constant(g) for g in _random(shapes, seed=step + 1)]
    ours.apply_gradients(zip(gradients, mine))
    stock.apply_gradients(zip(gradients, theirs))
    for a, b in zip(mine, theirs):
      np.testing.assert_array_equal(a, b)


def test_adam_multiplier_scales_the_update():
  start = _random([(3, 2)])[0]
  fast, slow = _variables(start, start)
  optimizer = optimizers.make('adam', 0.01)
  optimizer.build([fast, slow])
  optimizer.set_multipliers([(fast, 10.0)])
  for step in range(4):
    gradient = tf.constant(_random([(3, 2)], seed=step + 1)[0])
    optimizer.apply_gradients([(gradient, fast), (gradient, slow)])
    # Adam's moments do not depend on the variable: ten times each update.
    np.testing.assert_allclose(
      fast - start, 10.0 * (slow - start), rtol=1e-3, atol=1e-6
    )
    # Its first step has the size of the learning rate.
    if step == 0:
      np.testing.assert_allclose(np.abs(slow - start), 0.01, rtol=1e-3)


def test_momentum_and_epsilon_of_adam():
  # Kingma & Ba 2015, end of Section 2: alpha_t = alpha sqrt(1 - b2^t) /
  # (1 - b1^t), and epsilon beside the root of the uncorrected v.
  weight = tf.Variable([3.0])
  optimizer = optimizers.make('adam', 0.01, momentum=0.5, epsilon=1e-3)
  m = v = 0.0
  expected = 3.0
  for t, gradient in enumerate([0.02, -0.01, 0.03], start=1):
    optimizer.apply_gradients([(tf.constant([gradient]), weight)])
    m = 0.5 * m + 0.5 * gradient
    v = 0.999 * v + 0.001 * gradient**2
    rate = 0.01 * np.sqrt(1.0 - 0.999**t) / (1.0 - 0.5**t)
    expected -= rate * m / (np.sqrt(v) + 1e-3)
    np.testing.assert_allclose(weight, [expected], rtol=1e-6)


def test_adam_weight_decay_is_coupled():
  (w,) = _variables([4.0, -4.0])
  optimizer = optimizers.make('adam', 0.01, weight_decay=0.5)
  optimizer.build([w])
  # g = 1 + 2 and 1 - 2: Adam's first step is -0.01 sign(g).
  optimizer.apply_gradients([(tf.constant([1.0, 1.0]), w)])
  np.testing.assert_allclose(w, [3.99, -3.99], rtol=1e-5)


def test_learning_rate_property_and_setter():
  (w,) = _variables(1.0)
  optimizer = optimizers.make('sgd', 0.1, momentum=0.0)
  optimizer.build([w])
  optimizer.set_multipliers([(w, 10.0)])
  np.testing.assert_allclose(optimizer.learning_rate, 0.1)
  np.testing.assert_allclose(optimizer.rate(0.5), 0.1)
  optimizer.learning_rate = 0.01
  optimizer.apply_gradients([(tf.constant(1.0), w)])
  np.testing.assert_allclose(w, 1.0 - 10.0 * 0.01, rtol=1e-6)
  # After an update it is the plain rate again.
  np.testing.assert_allclose(optimizer.learning_rate, 0.01)


def test_progress_schedule_ignores_the_update_counter():
  (w,) = _variables(0.0)
  progress = tf.Variable(0.0)
  schedule = optimizers.ProgressSchedule(lambda p: 1.0 - p, lambda: progress)
  optimizer = optimizers.make('sgd', schedule, momentum=0.0)
  optimizer.build([w])
  for value, expected in ((0.0, -1.0), (0.0, -2.0), (0.75, -2.25)):
    progress.assign(value)
    optimizer.apply_gradients([(tf.constant(1.0), w)])
    np.testing.assert_allclose(w, expected)
  np.testing.assert_allclose(optimizer.rate(0.25), 0.75)
  np.testing.assert_allclose(optimizer.learning_rate, 0.25)


# experiment.make_optimizer


def _model(progress=0.0, **changed):
  """An Experiment, its model at this progress, and its optimizer."""
  settings = experiment.Experiment(method='dann', image_size=8, **changed)
  model = experiment.build(settings, methods.load('dann').Config(), 3)
  model.progress = lambda: tf.constant(progress)
  return model, experiment.make_optimizer(settings, model)


def _moved(model, optimizer):
  """How far one step with unit gradients moves each trainable variable."""
  variables = model.trainable_variables
  before = [v.numpy() for v in variables]
  optimizer.apply_gradients([(tf.ones_like(v), v) for v in variables])
  return [v.numpy() - old for v, old in zip(variables, before)]


@pytest.mark.parametrize('name', ['sgd', 'adam'])
@pytest.mark.parametrize('bottleneck', [0, 4])
def test_make_optimizer_multiplies_new_layers_and_biases(name, bottleneck):
  model, optimizer = _model(
    optimizer=name,
    bottleneck=bottleneck,
    learning_rate=0.001,
    new_layer_multiplier=10.0,
    bias_multiplier=2.0,
  )
  old = {v.ref() for v in model.backbone.trainable_variables}
  # 2 convolutions; bottleneck, 3 layers of the classifier, 2 of the
  # discriminator; a kernel and a bias each.
  variables = model.trainable_variables
  assert (len(old), len(variables)) == (4, 16 if bottleneck else 14)
  # Unit gradients: SGD and Adam both begin with one learning rate.
  for variable, moved in zip(variables, _moved(model, optimizer)):
    factor = 1.0 if variable.ref() in old else 10.0
    factor *= 2.0 if len(variable.shape) == 1 else 1.0
    np.testing.assert_allclose(
      moved, np.full(moved.shape, -0.001 * factor), rtol=1e-3
    )


def test_make_optimizer_anneals_the_learning_rate_by_progress():
  model, optimizer = _model(
    progress=0.2,
    learning_rate=0.01,
    learning_rate_alpha=15.0,
    learning_rate_beta=0.5,
  )
  # 0.01 / (1 + 15 * 0.2)^0.5 = 0.005
  for moved in _moved(model, optimizer):
    np.testing.assert_allclose(moved, np.full(moved.shape, -0.005), rtol=1e-3)
  np.testing.assert_allclose(optimizer.learning_rate, 0.005, rtol=1e-6)
  # At p = 1: 0.01 / 16^0.5
  np.testing.assert_allclose(optimizer.rate(1.0), 0.0025, rtol=1e-6)


def test_make_optimizer_passes_momentum_nesterov_and_decay():
  model, optimizer = _model(
    learning_rate=0.1, momentum=0.5, nesterov=True, weight_decay=0.25
  )
  for variable in model.trainable_variables:
    variable.assign(tf.fill(variable.shape, 2.0))
  # g = 1 + 0.25 * 2 = 1.5, v = -0.15; Nesterov: 0.5 v - 0.15 = -0.225
  for moved in _moved(model, optimizer):
    np.testing.assert_allclose(moved, np.full(moved.shape, -0.225), rtol=1e-5)


def test_make_optimizer_in_float16_scales_the_loss():
  model, optimizer = _model(
    mixed_precision='float16', learning_rate=0.01, new_layer_multiplier=2.0
  )
  assert isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
  variable = model.classifier.trainable_variables[0]
  before = variable.numpy()
  scaled = optimizer.get_scaled_loss(tf.ones_like(variable))
  assert float(tf.reduce_min(scaled)) > 1000.0
  gradients = optimizer.get_unscaled_gradients([scaled])
  optimizer.apply_gradients(zip(gradients, [variable]))
  np.testing.assert_allclose(
    variable.numpy() - before, np.full(before.shape, -0.02), rtol=1e-3
  )
  # A step that overflowed is skipped.
  before = variable.numpy()
  optimizer.apply_gradients([(scaled * np.inf, variable)])
  np.testing.assert_array_equal(variable, before)


def test_gradients_beyond_the_norm_are_scaled_down_together():
  # (3, 4) and 12 have the norm 13 together; clipped to 6.5 they are halved.
  variables = [tf.Variable([1.0, 1.0]), tf.Variable(1.0)]
  gradients = [tf.constant([3.0, 4.0]), tf.constant(12.0)]
  optimizer = optimizers.make('sgd', 0.1, momentum=0.0, clip_norm=6.5)
  optimizer.build(variables)
  optimizer.apply_gradients(zip(gradients, variables))
  np.testing.assert_allclose(variables[0], [0.85, 0.8], rtol=1e-6)
  np.testing.assert_allclose(variables[1], 0.4, rtol=1e-6)
  # A norm of 13 is not beyond 14.
  optimizer = optimizers.make('sgd', 0.1, momentum=0.0, clip_norm=14.0)
  optimizer.build(variables)
  optimizer.apply_gradients(zip(gradients, variables))
  np.testing.assert_allclose(variables[1], -0.8, rtol=1e-6)


def test_max_norm_scales_the_weights_of_a_unit_down():
  # Units with incoming weights (3, 4) and (0.3, 0.4): norms 5 and 0.5.
  dense = tf.Variable([[3.0, 0.3], [4.0, 0.4]])
  heads = tf.Variable([[[3.0], [4.0]], [[0.3], [0.4]]])
  kernel = tf.Variable(tf.reshape([3.0, 0.3, 4.0, 0.4], [1, 2, 1, 2]))
  bias = tf.Variable([5.0])
  variables = [dense, heads, kernel, bias]
  optimizer = optimizers.make('sgd', 1.0, max_norm=2.0)
  optimizer.build(variables)
  optimizer.apply_gradients([(tf.zeros_like(v), v) for v in variables])
  np.testing.assert_allclose(dense, [[1.2, 0.3], [1.6, 0.4]], rtol=1e-6)
  np.testing.assert_allclose(
    heads[:, :, 0], [[1.2, 1.6], [0.3, 0.4]], rtol=1e-6
  )
  np.testing.assert_allclose(
    tf.reshape(kernel, [4]), [1.2, 0.3, 1.6, 0.4], rtol=1e-6
  )
  np.testing.assert_allclose(bias, [5.0])
