"""Dropout with stateless masks."""

import tensorflow as tf


class Dropout(tf.keras.layers.Layer):
  """Inverted dropout that draws its mask from a `noise.Noise`.

  It drops in training only. Without `noise` it is Keras' dropout, whose masks
  come from a hidden generator and cannot be drawn again after an interruption:
  fine for a layer on its own, not in a method.
  """

  def __init__(self, rate, row_axis=0, **kwargs):
    """Makes the layer.

    Args:
      rate: share of the inputs that are dropped, in [0, 1).
      row_axis: 0, or 1 for inputs [heads, B, D].
      **kwargs: of every Keras layer.
    """
    super().__init__(**kwargs)
    if not 0.0 <= rate < 1.0:
      raise ValueError(f'rate must be in [0, 1), not {rate}')
    self.rate = rate
    self.row_axis = row_axis

  def call(self, x, noise=None, training=False):
    if not training or self.rate == 0.0:
      return x
    if noise is None:
      return tf.nn.dropout(x, self.rate)
    if self.row_axis == 0:
      uniform = noise.uniform(tf.shape(x))
    else:
      heads, rows, width = tf.unstack(tf.shape(x))
      uniform = noise.uniform([rows, heads, width])
      uniform = tf.transpose(uniform, [1, 0, 2])
    keep = uniform >= self.rate
    return tf.where(keep, x / (1.0 - self.rate), tf.zeros_like(x))

  def get_config(self):
    return {
      **super().get_config(),
      'rate': self.rate,
      'row_axis': self.row_axis,
    }
