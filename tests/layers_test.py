"""The layers: values and gradients against numpy and stock TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from tfda.layers import (
  convolution,
  discriminators,
  dropout,
  gradient_reversal,
  noise,
  perceptron,
  preprocessing,
)


def _normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture
def mixed_float16():
  policy = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy('mixed_float16')
  yield
  tf.keras.mixed_precision.set_global_policy(policy)


class _GivenNoise:
  """Noise of known values, the same for every draw."""

  def __init__(self, values):
    self.values = tf.constant(values, tf.float32)

  def uniform(self, shape):
    np.testing.assert_array_equal(shape, self.values.shape)
    return self.values


def _noise(seed=1, step=5, rows=4, **replica):
  return noise.Noise(seed, tf.constant(step, tf.int64), rows, **replica)


# gradient_reversal


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64'])
@pytest.mark.parametrize('scale', [0.5, 0.0, 2.0])
def test_reverse_gradient(dtype, scale):
  # The docstring's: y = reverse_gradient(x, 0.5), loss = 3 y: -0.5 * 3 = -1.5
  x = tf.constant([[1.0, -2.0], [0.25, 7.0]], dtype)
  scale = tf.constant(scale)
  with tf.GradientTape() as tape:
    tape.watch([x, scale])
    y = gradient_reversal.reverse_gradient(x, scale)
    loss = tf.reduce_sum(3.0 * y)
  to_x, to_scale = tape.gradient(loss, [x, scale])
  assert y.dtype == to_x.dtype == x.dtype
  np.testing.assert_array_equal(y, x)
  np.testing.assert_array_equal(to_x, np.full([2, 2], -3.0 * float(scale)))
  assert to_scale is None


def test_reverse_gradient_in_a_graph_and_on_a_path():
  x = tf.Variable([1.0, 2.0])

  @tf.function
  def gradient(scale):
    with tf.GradientTape() as tape:
      # Only what goes through the layer is reversed: 2 x - 0.1 * 4 x^3.
      loss = tf.reduce_sum(
        x**2 + gradient_reversal.reverse_gradient(x, scale) ** 4
      )
    return tape.gradient(loss, x)

  expected = [2.0 - 0.1 * 4.0, 4.0 - 0.1 * 32.0]
  np.testing.assert_allclose(gradient(tf.constant(0.1)), expected, rtol=1e-6)


# noise


def test_noise_depends_on_seed_step_and_draw_alone():
  shape = [4, 3]
  first = _noise().uniform(shape)
  np.testing.assert_array_equal(first, _noise().uniform(shape))
  drawn = _noise()
  others = [
    _noise(step=6).uniform(shape),
    _noise(step=4).uniform(shape),
    _noise(seed=2).uniform(shape),
    _noise(seed=0).uniform(shape),
    [drawn.uniform(shape), drawn.uniform(shape)][1],
  ]
  for other in others:
    assert (first.numpy() != other.numpy()).all()
  # The next draw is not the next seed's or the next step's first one.
  for i, a in enumerate(others):
    for b in others[:i]:
      assert (np.asarray(a) != np.asarray(b)).all()


def test_noise_is_the_same_in_a_graph():
  @tf.function
  def draw(step):
    source = noise.Noise(3, step, 4)
    return source.uniform([8, 2]), source.uniform([8, 5])

  by_hand = noise.Noise(3, tf.constant(9, tf.int64), 4)
  first, second = draw(tf.constant(9, tf.int64))
  np.testing.assert_array_equal(first, by_hand.uniform([8, 2]))
  np.testing.assert_array_equal(second, by_hand.uniform([8, 5]))


@pytest.mark.parametrize('seed', [20240131, 2**31 - 1, 2**32 - 1])
def test_noise_of_a_large_seed(seed):
  draw = tf.function(lambda step: noise.Noise(seed, step, 2).uniform([2, 8]))
  values = draw(tf.constant(1, tf.int64)).numpy()
  assert (values >= 0.0).all() and (values < 1.0).all()
  other = noise.Noise(seed - 1, tf.constant(1, tf.int64), 2).uniform([2, 8])
  assert (values != other.numpy()).all()


@pytest.mark.parametrize('streams', [1, 2])
@pytest.mark.parametrize('trailing', [[5], [2, 3, 4]])
def test_two_replicas_draw_what_one_draws(streams, trailing):
  replicas, rows = 2, 3
  whole = _noise(rows=replicas * rows).uniform(
    [streams * replicas * rows, *trailing]
  )
  # Each stream's global batch is cut into halves, not the concatenation.
  whole = whole.numpy().reshape([streams, replicas, rows, *trailing])
  for replica in range(replicas):
    part = _noise(rows=rows, replica=replica, replicas=replicas).uniform(
      [streams * rows, *trailing]
    )
    np.testing.assert_array_equal(
      part, whole[:, replica].reshape([streams * rows, *trailing])
    )


def test_noise_is_uniform():
  values = _noise(rows=100).uniform([100, 1000]).numpy()
  assert values.min() >= 0.0
  assert values.max() < 1.0
  # 10,000 of 100,000 in every tenth, give or take 5 standard deviations (95).
  counts = np.histogram(values, bins=10, range=(0.0, 1.0))[0]
  assert np.abs(counts - 10000).max() < 5 * 95
  # Rows and columns are independent.
  assert len(np.unique(values[:, 0])) == 100
  assert len(np.unique(values[0])) > 990


# dropout


def test_dropout_with_given_noise():
  layer = dropout.Dropout(0.25)
  given = _GivenNoise([[0.0, 0.2499, 0.25, 0.9]])
  x = tf.constant([[3.0, 6.0, 9.0, -12.0]])
  with tf.GradientTape() as tape:
    tape.watch(x)
    y = layer(x, noise=given, training=True)
  # Below the rate is dropped; the others are divided by 1 - 0.25.
  np.testing.assert_allclose(y, [[0.0, 0.0, 12.0, -16.0]], rtol=1e-6)
  np.testing.assert_allclose(
    tape.gradient(y, x), [[0.0, 0.0, 4 / 3, 4 / 3]], rtol=1e-6
  )


@pytest.mark.parametrize('rate', [0.2, 0.5, 0.9])
@pytest.mark.parametrize('stateless', [True, False])
def test_dropout_keeps_rate_and_mean(rate, stateless):
  x = tf.ones([100, 1000])
  source = _noise(rows=100) if stateless else None
  y = dropout.Dropout(rate)(x, noise=source, training=True).numpy()
  # 100,000 draws: 5 standard deviations of the dropped share.
  tolerance = 5.0 * np.sqrt(rate * (1.0 - rate) / 1e5)
  np.testing.assert_allclose((y == 0.0).mean(), rate, atol=tolerance)
  np.testing.assert_allclose(y[y != 0.0], 1.0 / (1.0 - rate), rtol=1e-6)
  np.testing.assert_allclose(y.mean(), 1.0, atol=tolerance / (1.0 - rate))


def test_dropout_is_the_identity_at_inference_and_at_rate_0():
  x = tf.constant(_normal(4, 3))
  np.testing.assert_array_equal(dropout.Dropout(0.9)(x, noise=_noise()), x)
  np.testing.assert_array_equal(dropout.Dropout(0.9)(x, training=False), x)
  np.testing.assert_array_equal(
    dropout.Dropout(0.0)(x, noise=_noise(), training=True), x
  )


def test_dropout_in_half_precision(mixed_float16):
  y = dropout.Dropout(0.5)(tf.ones([4, 8]), noise=_noise(), training=True)
  assert y.dtype == tf.float16
  assert set(np.unique(y)) == {0.0, 2.0}


@pytest.mark.parametrize('rate', [-0.1, 1.0, 1.5, float('nan')])
def test_dropout_refuses_a_bad_rate(rate):
  with pytest.raises(ValueError, match='rate'):
    dropout.Dropout(rate)


def test_dropout_config_round_trip():
  layer = dropout.Dropout(0.3, name='drop')
  copy = dropout.Dropout.from_config(layer.get_config())
  assert (copy.rate, copy.name) == (0.3, 'drop')


# perceptron, discriminators


def _set_weights(layer, seed=0):
  """Gives every weight random numbers, biases too."""
  random = np.random.default_rng(seed)
  layer.set_weights(
    [random.normal(0.0, 0.5, w.shape) for w in layer.get_weights()]
  )


def _forward(x, weights, masks=None):
  """numpy's MLP: kernel, bias, kernel, bias, ...; ReLU between."""
  pairs = list(zip(weights[::2], weights[1::2]))
  for i, (kernel, bias) in enumerate(pairs):
    x = x @ kernel + bias
    if i < len(pairs) - 1:
      x = np.maximum(x, 0.0)
      if masks is not None:
        x = x * masks[i]
  return x


@pytest.mark.parametrize('hidden_units', [(), (7,), (7, 5)])
def test_perceptron_against_numpy(hidden_units):
  layer = perceptron.Perceptron(hidden_units, 3)
  x = _normal(6, 4)
  layer(x)
  _set_weights(layer)
  widths = [4, *hidden_units, 3]
  assert [w.shape for w in layer.get_weights()] == [
    shape for a, b in zip(widths, widths[1:]) for shape in ((a, b), (b,))
  ]
  expected = _forward(x, layer.get_weights())
  np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_perceptron_drops_in_every_hidden_layer():
  layer = perceptron.Perceptron((7, 5), 3, dropout_rate=0.4)
  x = _normal(4, 6)
  layer(x)
  _set_weights(layer)
  y = layer(x, noise=_noise(), training=True)
  again = _noise()
  masks = [(again.uniform([4, width]).numpy() >= 0.4) / 0.6 for width in (7, 5)]
  expected = _forward(x, layer.get_weights(), masks)
  np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
  # At inference nothing is dropped.
  expected = _forward(x, layer.get_weights())
  for _ in range(2):
    np.testing.assert_allclose(
      layer(x, noise=_noise()), expected, rtol=1e-4, atol=1e-5
    )


def test_perceptron_activations_are_those_of_every_layer():
  """In training after dropout, as the next layer sees them."""
  layer = perceptron.Perceptron((7, 5), 3, dropout_rate=0.4)
  x = _normal(4, 6)
  layer(x)
  _set_weights(layer)
  weights = layer.get_weights()
  outputs = layer.activations(x, noise=_noise(), training=True)
  assert [y.shape[1] for y in outputs] == [7, 5, 3]
  np.testing.assert_array_equal(
    outputs[-1], layer(x, noise=_noise(), training=True)
  )
  keep = _noise().uniform([4, 7]).numpy() >= 0.4
  first = np.maximum(x @ weights[0] + weights[1], 0.0) * keep / 0.6
  np.testing.assert_allclose(outputs[0], first, rtol=1e-4, atol=1e-5)


def test_perceptron_normalises_before_the_relu():
  layer = perceptron.Perceptron((5,), 2, batch_norm=True)
  x = 3.0 * _normal(16, 4) + 1.0
  layer(x)
  hidden, normalise, output = (
    layer._hidden[0],
    layer._normalise[0],
    layer._output,
  )
  _set_weights(hidden)
  _set_weights(output, 1)
  a = x @ hidden.kernel.numpy() + hidden.bias.numpy()

  def after(normalised):
    relu = np.maximum(normalised, 0.0)
    return relu @ output.kernel.numpy() + output.bias.numpy()

  # A fresh layer has moving mean 0 and variance 1; Keras' epsilon is 1e-3.
  np.testing.assert_allclose(
    layer(x), after(a / np.sqrt(1.001)), rtol=1e-4, atol=1e-4
  )
  by_batch = (a - a.mean(0)) / np.sqrt(a.var(0) + 1e-3)
  np.testing.assert_allclose(
    layer(x, training=True), after(by_batch), rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(
    normalise.moving_mean, 0.1 * a.mean(0), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    normalise.moving_variance, 0.9 + 0.1 * a.var(0), rtol=1e-4
  )


def test_perceptron_config_round_trip():
  layer = perceptron.Perceptron((7, 5), 3, 0.4, True, name='mlp')
  copy = perceptron.Perceptron.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  x = _normal(4, 6)
  layer(x), copy(x)
  _set_weights(layer)
  copy.set_weights(layer.get_weights())
  np.testing.assert_array_equal(
    copy(x, noise=_noise(), training=True),
    layer(x, noise=_noise(), training=True),
  )


def test_domain_discriminator_against_numpy():
  layer = discriminators.DomainDiscriminator((7, 5), dropout_rate=0.5)
  x = _normal(6, 4)
  layer(x)
  _set_weights(layer)
  expected = _forward(x, layer.get_weights())
  assert expected.shape == (6, 1)
  first = layer(x)
  assert first.shape == [6]
  np.testing.assert_allclose(first, expected[:, 0], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(layer(x), first)
  trained = layer(x, noise=_noise(rows=6), training=True)
  assert (trained.numpy() != first.numpy()).any()
  np.testing.assert_array_equal(
    layer(x, noise=_noise(rows=6), training=True), trained
  )


def test_domain_discriminator_of_one_image_keeps_its_batch():
  layer = discriminators.DomainDiscriminator((3,))
  assert layer(_normal(1, 4)).shape == [1]


def test_domain_discriminator_is_trainable_in_every_weight():
  layer = discriminators.DomainDiscriminator((7, 5), dropout_rate=0.0)
  x = _normal(6, 4)
  layer(x)
  _set_weights(layer)
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(layer(x, training=True) ** 2)
  gradients = tape.gradient(loss, layer.trainable_variables)
  assert len(gradients) == 6
  assert all(np.abs(gradient).max() > 0.0 for gradient in gradients)


def test_domain_discriminator_in_half_precision(mixed_float16):
  layer = discriminators.DomainDiscriminator((7, 5))
  x = _normal(6, 4)
  logits = layer(x)
  assert logits.dtype == tf.float32
  assert all(w.dtype == tf.float32 for w in layer.weights)
  expected = _forward(x, layer.get_weights())[:, 0]
  np.testing.assert_allclose(logits, expected, atol=2e-2)
  assert layer(x, noise=_noise(rows=6), training=True).dtype == tf.float32


def test_domain_discriminator_stable_defaults_and_config():
  layer = discriminators.DomainDiscriminator()
  assert layer.hidden_units == (1024, 1024)
  assert layer.dropout_rate == 0.5
  layer = discriminators.DomainDiscriminator(
    hidden_units=[7, 5], dropout_rate=0.25, name='domain'
  )
  copy = discriminators.DomainDiscriminator.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  x = _normal(6, 4)
  layer(x), copy(x)
  _set_weights(layer)
  copy.set_weights(layer.get_weights())
  np.testing.assert_array_equal(
    copy(x, noise=_noise(rows=6), training=True),
    layer(x, noise=_noise(rows=6), training=True),
  )


# convolution


@pytest.mark.parametrize(
  'padding, size, height, width',
  [
    ('SAME', size, *shape)
    for size in (1, 3, 5)
    for shape in ((9, 7), (8, 8), (5, 6), (3, 2))
  ]
  + [('VALID', size, 9, 8) for size in (1, 3, 4, 7, 8)],
)
def test_convolve_is_conv2d(padding, size, height, width):
  images = tf.constant(_normal(4, height, width, 3))
  kernel = tf.constant(0.3 * _normal(size, size, 3, 6, seed=1))
  less = size - 1 if padding == 'VALID' else 0
  upstream = tf.constant(_normal(4, height - less, width - less, 6, seed=2))

  def results(function):
    with tf.GradientTape() as tape:
      tape.watch([images, kernel])
      y = function(images, kernel)
    return [y, *tape.gradient(y, [images, kernel], upstream)]

  ours = results(lambda x, k: convolution.convolve(x, k, padding))
  stock = results(lambda x, k: tf.nn.conv2d(x, k, 1, padding))
  for mine, theirs in zip(ours, stock):
    assert mine.shape == theirs.shape
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * scale)


def test_convolve_gradients_by_hand():
  # One row, one channel: y = [2 x0 + 3 x1, x0 + 2 x1] with kernel (1, 2, 3)
  # in the middle row of 3x3; the loss is y0 + 10 y1.
  images = tf.constant([[[[5.0], [7.0]]]])
  kernel = np.zeros([3, 3, 1, 1], np.float32)
  kernel[1, :, 0, 0] = [1.0, 2.0, 3.0]
  kernel = tf.constant(kernel)
  with tf.GradientTape() as tape:
    tape.watch([images, kernel])
    y = convolution.convolve(images, kernel)
    loss = y[0, 0, 0, 0] + 10.0 * y[0, 0, 1, 0]
  to_images, to_kernel = tape.gradient(loss, [images, kernel])
  np.testing.assert_allclose(np.ravel(y), [2 * 5 + 3 * 7, 5 + 2 * 7])
  np.testing.assert_allclose(np.ravel(to_images), [2 + 10, 3 + 20])
  expected = np.zeros([3, 3])
  # k0 meets x0 in y1; k1 meets x0 in y0 and x1 in y1; k2 meets x1 in y0.
  expected[1] = [10 * 5, 5 + 10 * 7, 7]
  np.testing.assert_allclose(to_kernel[:, :, 0, 0], expected)


def test_network_with_fast_gradients_is_the_network():
  layers = tf.keras.layers
  inputs = layers.Input([8, 8, 3])
  x = layers.Conv2D(4, 3, strides=2, name='strided')(inputs)
  x = layers.BatchNormalization(name='norm')(x)
  x = layers.Conv2D(5, 1, padding='same', name='pointwise')(x)
  network = tf.keras.Model(inputs, x, name='theirs')
  ours = convolution.with_fast_gradients(network)
  assert [w.name for w in ours.weights] == [w.name for w in network.weights]
  assert type(ours.get_layer('pointwise')) is convolution.Conv2D
  assert type(ours.get_layer('norm')) is layers.BatchNormalization
  ours.set_weights(network.get_weights())
  images = _normal(2, 8, 8, 3)
  np.testing.assert_array_equal(ours(images), network(images))


def test_convolve_second_derivative():
  images = tf.constant(_normal(2, 5, 7, 2))
  kernel = tf.constant(_normal(3, 3, 2, 3, seed=1))

  def penalties(function):
    # The gradient of a squared gradient norm, to both inputs.
    with tf.GradientTape() as outer:
      outer.watch([images, kernel])
      with tf.GradientTape() as inner:
        inner.watch([images, kernel])
        loss = tf.reduce_sum(function(images, kernel) ** 3)
      first = inner.gradient(loss, [images, kernel])
      norm = sum(tf.reduce_sum(g**2) for g in first)
    return outer.gradient(norm, [images, kernel])

  ours = penalties(convolution.convolve)
  stock = penalties(lambda x, k: tf.nn.conv2d(x, k, 1, 'SAME'))
  for mine, theirs in zip(ours, stock):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(
  'options',
  [
    {'kernel_size': 3, 'padding': 'same'},
    {'kernel_size': 5, 'padding': 'same'},
    {'kernel_size': 3, 'padding': 'valid'},
    {'kernel_size': 4, 'padding': 'valid'},
    {'kernel_size': 3, 'padding': 'same', 'strides': 2},
    {'kernel_size': 4, 'padding': 'same'},
    {'kernel_size': (3, 5), 'padding': 'same'},
    {'kernel_size': 3, 'padding': 'same', 'dilation_rate': 2},
  ],
)
def test_conv2d_layer_equals_keras(options):
  x = tf.constant(_normal(3, 9, 11, 4))
  ours = convolution.Conv2D(6, **options)
  stock = tf.keras.layers.Conv2D(6, **options)
  ours(x), stock(x)
  _set_weights(ours)
  stock.set_weights(ours.get_weights())

  @tf.function
  def results(layer):
    with tf.GradientTape() as tape:
      tape.watch(x)
      loss = tf.reduce_sum(layer(x) ** 2)
    return [layer(x), *tape.gradient(loss, [x, layer.kernel, layer.bias])]

  for mine, theirs in zip(results(ours), results(stock)):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * scale)


def test_conv2d_layer_uses_convolve_where_it_applies(monkeypatch):
  used = []

  def convolve(images, kernel, padding):
    used.append(kernel.shape[0])
    return tf.nn.conv2d(images, kernel, 1, padding)

  monkeypatch.setattr(convolution, 'convolve', convolve)
  monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind: [])
  x = _normal(1, 8, 8, 2)
  convolution.Conv2D(2, 3, padding='same')(x)
  convolution.Conv2D(2, 5, padding='same')(x)
  convolution.Conv2D(2, 4, padding='valid')(x)
  assert used == [3, 5, 4]
  convolution.Conv2D(2, 3, 2, padding='same')(x)
  convolution.Conv2D(2, 4, padding='same')(x)
  convolution.Conv2D(2, 3, padding='same', groups=2)(x)
  # On a GPU the stock gradients are the fast ones.
  monkeypatch.setattr(tf.config, 'list_logical_devices', lambda kind: [kind])
  convolution.Conv2D(2, 3, padding='same')(x)
  assert used == [3, 5, 4]


# preprocessing


def test_normalise_by_hand():
  layer = preprocessing.Normalise((100.0, 50.0, 0.0), (0.5, 0.1, 2.0))
  images = np.array([[[[110, 50, 3], [0, 255, 0]]]], np.uint8)
  np.testing.assert_allclose(
    layer(images), [[[[5.0, 0.0, 6.0], [-50.0, 20.5, 0.0]]]], rtol=1e-6
  )
  assert layer(images).dtype == tf.float32
  # Without settings: 0..255 to 0..1.
  np.testing.assert_allclose(
    preprocessing.Normalise()(np.array([[[[0, 51, 255]]]], np.uint8)),
    [[[[0.0, 0.2, 1.0]]]],
    rtol=1e-6,
  )


def test_normalise_is_float32_in_half_precision(mixed_float16):
  # float16 has steps of 1/8 at this size: 200.0625 would become 200.
  layer = preprocessing.Normalise((200.0,) * 3, 1.0)
  y = layer(tf.fill([1, 1, 1, 3], 200.0625))
  assert y.dtype == tf.float32
  np.testing.assert_allclose(y, np.full([1, 1, 1, 3], 0.0625))


def test_normalise_measures_sets_of_any_size_alike():
  few = np.zeros([1, 2, 2, 3], np.uint8)
  few[..., 0] = 200
  few[0, 0, 0] = [100, 40, 8]
  many = np.full([9, 2, 2, 3], 25, np.uint8)
  layer = preprocessing.Normalise()
  layer.measure(few, many)
  # Means of `few`: (100 + 3 * 200) / 4 = 175, 40 / 4 = 10, 8 / 4 = 2.
  np.testing.assert_allclose(
    layer.mean, [(175 + 25) / 2, (10 + 25) / 2, (2 + 25) / 2], rtol=1e-6
  )
  np.testing.assert_allclose(
    layer(np.full([1, 1, 1, 3], 100, np.uint8)).numpy().ravel(),
    [0.0, 82.5 / 255.0, 86.5 / 255.0],
    atol=1e-6,
  )


def test_normalise_measures_images_of_a_large_set_exactly():
  # A float32 running sum over these would stop growing.
  images = np.full([3000, 28, 28, 3], 200, np.uint8)
  layer = preprocessing.Normalise()
  layer.measure(images)
  np.testing.assert_allclose(layer.mean, [200.0] * 3, rtol=1e-6)


def test_normalise_mean_is_a_weight_that_is_not_trained():
  layer = preprocessing.Normalise((1.0, 2.0, 3.0))
  assert layer.trainable_weights == []
  np.testing.assert_array_equal(layer.get_weights()[0], [1.0, 2.0, 3.0])
  layer.set_weights([np.array([5.0, 6.0, 7.0])])
  np.testing.assert_allclose(
    layer(tf.fill([1, 1, 1, 3], 7.0))[0, 0, 0],
    [2 / 255, 1 / 255, 0.0],
    rtol=1e-6,
  )


def test_normalise_config_round_trip():
  layer = preprocessing.Normalise((1.0, 2.0, 3.0), (0.1, 0.2, 0.3), name='in')
  copy = preprocessing.Normalise.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  x = tf.fill([1, 1, 1, 3], 7.0)
  np.testing.assert_array_equal(copy(x), layer(x))


# MultiHeadDiscriminator.


def _heads(dropout_rate=0.0):
  layer = discriminators.MultiHeadDiscriminator(3, [5, 4], dropout_rate)
  layer.build([None, 6])
  return layer


def test_multi_head_discriminator_is_its_heads_one_by_one():
  layer = _heads()
  random = np.random.default_rng(0)
  for weight in layer.weights:
    weight.assign(random.normal(size=weight.shape))
  features = random.normal(size=[7, 6]).astype(np.float32)
  logits = layer(features).numpy()
  assert logits.shape == (3, 7)
  kernels = [w.numpy() for w in layer.weights if 'kernel' in w.name]
  biases = [w.numpy() for w in layer.weights if 'bias' in w.name]
  for head in range(3):
    x = features
    for i in range(3):
      x = x @ kernels[i][head] + biases[i][head]
      x = np.maximum(x, 0.0) if i < 2 else x
    np.testing.assert_allclose(logits[head], x[:, 0], rtol=1e-5, atol=1e-5)
  # One batch a head.
  apart = np.stack([features, 2 * features, features[::-1]])
  np.testing.assert_allclose(layer(apart)[0], logits[0], atol=1e-5)
  np.testing.assert_allclose(layer(apart)[2], logits[2, ::-1], atol=1e-5)


def test_multi_head_discriminator_loss_of_a_head_touches_that_head_alone():
  layer = _heads()
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(layer(tf.ones([2, 6]))[1])
  for gradient in tape.gradient(loss, layer.trainable_variables):
    magnitude = np.abs(gradient.numpy()).sum(axis=(1, 2))
    assert magnitude[1] > 0
    assert magnitude[0] == magnitude[2] == 0


def test_multi_head_discriminator_starts_as_wide_as_one_head():
  layer = discriminators.MultiHeadDiscriminator(50, [100])
  layer.build([None, 200])
  # Glorot: uniform up to sqrt(6 / 300) = 0.1414.
  largest = np.abs(layer.weights[0].numpy()).max()
  assert 0.14 < largest <= 0.1414214
  assert (layer.weights[0][0].numpy() != layer.weights[0][1].numpy()).any()


def test_multi_head_discriminator_without_an_offset_of_the_logits():
  layer = discriminators.MultiHeadDiscriminator(2, [5], output_bias=False)
  layer.build([None, 6])
  shapes = [w.shape.as_list() for w in layer.trainable_weights]
  assert shapes == [[2, 6, 5], [2, 1, 5], [2, 5, 1]]
  np.testing.assert_array_equal(layer(tf.zeros([3, 6])), np.zeros([2, 3]))
  copy = discriminators.MultiHeadDiscriminator.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  assert not copy.output_bias


def test_multi_head_discriminator_drops_alike_on_one_replica_and_two():
  layer = _heads(dropout_rate=0.5)
  features = np.random.default_rng(0).normal(size=[8, 6]).astype(np.float32)
  whole = layer(features, noise=noise.Noise(0, 3, 8), training=True)
  halves = [
    layer(
      features[4 * i : 4 * i + 4],
      noise=noise.Noise(0, 3, 4, replica=i, replicas=2),
      training=True,
    )
    for i in range(2)
  ]
  np.testing.assert_allclose(tf.concat(halves, axis=1), whole, atol=1e-6)
  assert np.abs(whole - layer(features)).max() > 0


@pytest.mark.parametrize('apart', [False, True])
@pytest.mark.parametrize('dropout_rate', [0.0, 0.5])
def test_multi_head_discriminator_slopes_are_those_of_two_tapes(
  apart, dropout_rate
):
  """Values, and the gradients of a loss of both logits and slopes."""
  layer = discriminators.MultiHeadDiscriminator(
    3, [5, 4], dropout_rate, dtype='float64'
  )
  layer.build([None, 6])
  random = np.random.default_rng(1)
  for weight in layer.weights:
    weight.assign(random.normal(size=weight.shape))
  features = tf.constant(random.normal(size=[3, 8, 6] if apart else [8, 6]))
  inputs = [features, *layer.trainable_variables]

  def gradients(logits_and_slopes):
    with tf.GradientTape() as tape:
      tape.watch(features)
      logits, slopes = logits_and_slopes(noise.Noise(0, 3, 8))
      lengths = tf.sqrt(tf.reduce_sum(slopes**2, axis=2) + 1e-12)
      loss = tf.reduce_sum(tf.sigmoid(logits) * lengths) + slopes[1, 2, 3]
    return [logits, slopes, *tape.gradient(loss, inputs)]

  def with_two_tapes(draws):
    tiled = features if apart else tf.tile(features[tf.newaxis], [3, 1, 1])
    with tf.GradientTape() as tape:
      tape.watch(tiled)
      logits = layer(tiled, noise=draws, training=True)
    return logits, tape.gradient(logits, tiled)

  ours = gradients(
    lambda draws: layer(features, noise=draws, training=True, slopes=True)
  )
  for mine, theirs in zip(ours, gradients(with_two_tapes)):
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
    assert np.abs(mine).max() > 1e-3


def test_multi_head_discriminator_slopes_in_half_precision(mixed_float16):
  layer = _heads()
  logits, slopes = layer(tf.ones([2, 6]), slopes=True)
  assert logits.dtype == slopes.dtype == tf.float32
  assert slopes.shape == [3, 2, 6]
  kernels = [w.numpy() for w in layer.weights if 'kernel' in w.name]
  # Of one head by hand: its ReLUs are open or shut.
  x, matrix = np.ones(6), np.eye(6)
  for kernel in kernels:
    matrix = matrix @ kernel[1]
    x = x @ kernel[1]
    if kernel is not kernels[-1]:
      matrix, x = matrix * (x > 0), np.maximum(x, 0.0)
  np.testing.assert_allclose(slopes[1, 0], matrix[:, 0], atol=5e-3)
