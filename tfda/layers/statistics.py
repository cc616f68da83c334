"""Batch normalisation with statistics of one domain."""

import tensorflow as tf


class OwnStatistics(tf.keras.layers.BatchNormalization):
  """Another layer's normalisation with a mean and variance of its own.

  The scale and the offset are the other's: what is learned stays shared, and
  there is no making it from a config alone.
  """

  def __init__(self, other):
    """other: a built BatchNormalization; its statistics are the first here."""
    super().__init__(
      other.axis,
      other.momentum,
      other.epsilon,
      center=False,
      scale=False,
      synchronized=other.synchronized,
      name=other.name,
    )
    self.shared_scale, self.shared_offset = other.gamma, other.beta
    self._first = [
      w.numpy() for w in (other.moving_mean, other.moving_variance)
    ]

  def build(self, input_shape):
    super().build(input_shape)
    self.moving_mean.assign(self._first[0])
    self.moving_variance.assign(self._first[1])
    del self._first

  def call(self, inputs, training=None):
    normalised = super().call(inputs, training=training)
    dtype = normalised.dtype
    scale = tf.cast(self.shared_scale, dtype)
    return normalised * scale + tf.cast(self.shared_offset, dtype)
