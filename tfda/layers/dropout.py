"""Dropout with stateless masks."""

import tensorflow as tf


class Dropout(tf.keras.layers.Layer):
  """Inverted dropout that draws its mask from a `noise.Noise`.

  It drops in training only. Without `noise` it is Keras' dropout, whose masks
  come from a hidden generator and cannot be drawn again after an interruption:
  fine for a layer on its own, not in a method.
  """

  def __init__(self, rate, **kwargs):
    super().__init__(**kwargs)
    if not 0.0 <= rate < 1.0:
      raise ValueError(f'rate must be in [0, 1), not {rate}')
    self.rate = rate

  def call(self, x, noise=None, training=False):
    if not training or self.rate == 0.0:
      return x
    if noise is None:
      return tf.nn.dropout(x, self.rate)
    keep = noise.uniform(tf.shape(x)) >= self.rate
    return tf.where(keep, x / (1.0 - self.rate), tf.zeros_like(x))

  def get_config(self):
    return {**super().get_config(), 'rate': self.rate}
