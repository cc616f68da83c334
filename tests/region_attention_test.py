"""Region discriminators and local attention (TADA, Eq. 2-4), by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfda.layers import noise, region_attention

LN2, LN3 = math.log(2.0), math.log(3.0)


def _normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _regions(height=2, width=3, depth=4, dropout_rate=0.0):
  layer = region_attention.RegionDiscriminators((5, 6), dropout_rate)
  layer.build([None, height, width, depth])
  for i, weight in enumerate(layer.weights):
    weight.assign(_normal(*weight.shape, seed=i))
  return layer


# local_attention


def test_attention_is_1_at_certainty_and_lowest_at_probability_one_half():
  logits = tf.constant([[[-1e4, -LN3, 0.0], [LN3, 3.0, 1e4]]])
  attention = region_attention.local_attention(logits).numpy()
  np.testing.assert_allclose(attention[0, [0, 1], [0, 2]], 1.0)
  np.testing.assert_allclose(attention[0, 0, 2], 1 - LN2, rtol=1e-6)
  assert attention.min() == attention[0, 0, 2]
  # The docstring's: 1 + 3/4 ln 3/4 + 1/4 ln 1/4.
  expected = 1 + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
  np.testing.assert_allclose(attention[0, [0, 1], [1, 0]], expected, rtol=1e-6)
  np.testing.assert_allclose(
    [attention[0, 0, 1], attention[0, 0, 2]], [0.4377, 0.3069], atol=5e-5
  )


def test_attention_grows_with_certainty_of_either_domain():
  logits = np.linspace(0.0, 8.0, 30)
  attention = region_attention.local_attention(logits).numpy()
  assert (np.diff(attention) > 0).all()
  np.testing.assert_allclose(
    region_attention.local_attention(-logits), attention, rtol=1e-10
  )


def test_uncertain_attention_is_the_entropy():
  logits = tf.constant([0.0, LN3, -1e4])
  attention = region_attention.local_attention(logits, uncertain=True)
  expected = [LN2, 2 * LN2 - 0.75 * LN3, 0.0]
  np.testing.assert_allclose(attention, expected, rtol=1e-6)


# attend


def test_attend_is_residual():
  feature_map = tf.constant([[[[2.0, -1.0], [3.0, 0.0]]]])  # [1, 1, 2, 2]
  attended = region_attention.attend(feature_map, [[[0.5, 0.0]]])
  # (1 + 0.5) f and (1 + 0) f
  np.testing.assert_allclose(attended, [[[[3.0, -1.5], [3.0, 0.0]]]])


def test_attend_keeps_the_precision_of_the_feature_map():
  half = tf.ones([2, 3, 3, 4], tf.float16)
  attended = region_attention.attend(half, tf.fill([2, 3, 3], 0.25))
  assert attended.dtype == tf.float16
  np.testing.assert_array_equal(attended, np.full([2, 3, 3, 4], 1.25))


# RegionDiscriminators


def test_every_region_has_a_discriminator_of_its_own():
  layer = _regions()
  feature_map = _normal(7, 2, 3, 4, seed=9)
  logits = layer(feature_map).numpy()
  assert logits.shape == (7, 2, 3)
  kernels = [w.numpy() for w in layer.weights if 'kernel' in w.name]
  biases = [w.numpy() for w in layer.weights if 'bias' in w.name]
  assert [k.shape for k in kernels] == [(6, 4, 5), (6, 5, 6), (6, 6, 1)]
  for row in range(2):
    for column in range(3):
      k = 3 * row + column
      x = feature_map[:, row, column]
      x = np.maximum(x @ kernels[0][k] + biases[0][k], 0.0)
      x = np.maximum(x @ kernels[1][k] + biases[1][k], 0.0)
      x = x @ kernels[2][k] + biases[2][k]
      np.testing.assert_allclose(
        logits[:, row, column], x[:, 0], rtol=1e-4, atol=1e-4
      )


def test_loss_of_a_region_touches_its_discriminator_and_features_alone():
  layer = _regions()
  feature_map = tf.constant(_normal(7, 2, 3, 4, seed=9))
  with tf.GradientTape() as tape:
    tape.watch(feature_map)
    loss = tf.reduce_mean(tf.nn.softplus(layer(feature_map)[:, 1, 0]))
  to_map, *to_weights = tape.gradient(
    loss, [feature_map, *layer.trainable_variables]
  )
  assert len(to_weights) == 6
  for gradient in to_weights:
    magnitude = np.abs(gradient.numpy()).sum(axis=(1, 2))
    assert magnitude[3] > 0
    np.testing.assert_array_equal(np.delete(magnitude, 3), 0.0)
  magnitude = np.abs(to_map.numpy()).sum(axis=(0, 3))
  assert magnitude[1, 0] > 0
  assert np.count_nonzero(magnitude) == 1


def test_dropout_is_that_of_two_replicas_and_off_at_inference():
  layer = _regions(dropout_rate=0.5)
  feature_map = _normal(8, 2, 3, 4)
  whole = layer(feature_map, noise=noise.Noise(0, 3, 8), training=True)
  halves = [
    layer(
      feature_map[4 * i : 4 * i + 4],
      noise=noise.Noise(0, 3, 4, replica=i, replicas=2),
      training=True,
    )
    for i in range(2)
  ]
  np.testing.assert_allclose(tf.concat(halves, axis=0), whole, atol=1e-5)
  np.testing.assert_array_equal(layer(feature_map), layer(feature_map))
  assert np.abs(whole - layer(feature_map)).max() > 0.1


def test_logits_are_float32_in_half_precision():
  policy = tf.keras.mixed_precision.global_policy()
  tf.keras.mixed_precision.set_global_policy('mixed_float16')
  try:
    layer = _regions()
  finally:
    tf.keras.mixed_precision.set_global_policy(policy)
  feature_map = _normal(2, 2, 3, 4)
  logits = layer(feature_map)
  assert logits.dtype == tf.float32
  np.testing.assert_allclose(logits, _regions()(feature_map), atol=0.1)


def test_config_round_trip():
  layer = region_attention.RegionDiscriminators([7, 8], 0.25, name='regions')
  copy = region_attention.RegionDiscriminators.from_config(layer.get_config())
  assert copy.get_config() == layer.get_config()
  copy.build([None, 2, 2, 3])
  # Four regions: 3 * 7 + 7, 7 * 8 + 8 and 8 + 1 weights each.
  assert copy.count_params() == 4 * (28 + 64 + 9)


@pytest.mark.parametrize('side', [1, 5])
def test_number_of_discriminators_follows_the_feature_map(side):
  layer = _regions(side, side)
  assert {w.shape[0] for w in layer.weights} == {side**2}
  assert layer(_normal(3, side, side, 4)).shape == [3, side, side]
