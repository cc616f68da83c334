"""The discriminator of features and predictions: by hand, and on average."""

import numpy as np
import pytest
import tensorflow as tf

from tfda.layers import conditioning, noise


def normal(*shape, seed=0):
  random = np.random.default_rng(seed)
  return random.normal(size=shape).astype(np.float32)


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def made(features, classes, hidden_units=(5,), **more):
  layer = conditioning.ConditionalDiscriminator(
    classes, hidden_units, 0.0, **more
  )
  layer.build([None, features])
  for i, weight in enumerate(layer.trainable_weights):
    weight.assign(0.5 * normal(*weight.shape, seed=i + 1))
  return layer


def test_example():
  layer = made(2, 2)
  # softmax([0, ln 3]) = [1/4, 3/4]
  seen = layer.condition([[2.0, 3.0]], [[0.0, np.log(3.0)]])
  np.testing.assert_allclose(seen, [[0.5, 0.75, 1.5, 2.25]], rtol=1e-6)


def test_logits_and_gradient_by_hand():
  """Backwards through ReLU and outer product; g is a constant."""
  layer, f, z = made(4, 3), normal(6, 4), normal(6, 3, seed=9)
  kernel, bias, last, last_bias = (
    w.numpy().astype(np.float64) for w in layer.trainable_weights
  )
  g = softmax(z.astype(np.float64))
  products = np.zeros([6, 12])
  for i in range(6):
    for k in range(3):
      for d in range(4):
        products[i, 4 * k + d] = g[i, k] * f[i, d]
  before = products @ kernel + bias
  expected = (np.maximum(before, 0.0) @ last + last_bias)[:, 0]
  to_products = ((before > 0.0) * last[:, 0]) @ kernel.T
  to_features = np.zeros([6, 4])
  for k in range(3):
    to_features += g[:, k : k + 1] * to_products[:, 4 * k : 4 * k + 4]

  features, class_logits = tf.constant(f), tf.constant(z)
  with tf.GradientTape() as tape:
    tape.watch([features, class_logits])
    logits = layer(features, class_logits)
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
  gradient, none = tape.gradient(logits, [features, class_logits])
  np.testing.assert_allclose(gradient, to_features, rtol=1e-4, atol=1e-5)
  assert none is None


@pytest.mark.parametrize(
  'width, random_width, products',
  [(2048, 50, 4096), (2049, 50, 50), (2049, 0, 4098)],
)
def test_random_mixtures_stand_for_more_than_4096_products(
  width, random_width, products
):
  layer = made(width, 2, random_width=random_width)
  assert layer.trainable_weights[0].shape == [products, 5]
  assert len(layer.non_trainable_weights) == (2 if products == 50 else 0)


def test_random_mixtures_by_hand_and_their_inner_products():
  """Those of the outer products on average: <f, f'> <g, g'>."""
  width = 20_000
  layer = made(400, 11, (1,), random_width=width)
  f, z = normal(2, 400) + 0.5, normal(2, 11, seed=1)
  of_features, of_classes = (w.numpy() for w in layer.non_trainable_weights)
  seen = layer.condition(f, z).numpy()
  expected = (f @ of_features) * (softmax(z) @ of_classes) / np.sqrt(width)
  np.testing.assert_allclose(seen, expected, rtol=1e-3, atol=1e-3)
  inner = (f @ f.T) * (softmax(z) @ softmax(z).T)
  # Means of `width` products of four normal numbers: 3 / sqrt(d) = 0.02 off.
  np.testing.assert_allclose(seen @ seen.T, inner, atol=0.06 * inner.max())


def test_products_of_half_precision_do_not_overflow():
  """300 x 300 is above the largest float16, in the random mixtures too."""
  policy = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy('mixed_float16')
  try:
    for layer in (made(4, 2), made(2100, 2, random_width=8)):
      width = 4 if not layer.is_random else 2100
      features = tf.fill([3, width], tf.constant(300.0, tf.float16))
      logits = layer(features, [[1e4, -1e4]] * 3)
      assert logits.dtype == tf.float32
      assert np.isfinite(logits).all()
  finally:
    tf.keras.mixed_precision.set_global_policy(policy)


def test_config_round_trip():
  layer = conditioning.ConditionalDiscriminator(3, [7], 0.25, 11, name='d')
  copy = conditioning.ConditionalDiscriminator.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  assert copy.random_width == 11
  f, z = normal(6, 4), normal(6, 3)
  layer.build([None, 4]), copy.build([None, 4])
  copy.set_weights(layer.get_weights())
  trained = [
    x(f, z, noise=noise.Noise(0, 1, 6), training=True) for x in (layer, copy)
  ]
  np.testing.assert_array_equal(*trained)
  assert np.abs(trained[0] - layer(f, z)).max() > 0.0
