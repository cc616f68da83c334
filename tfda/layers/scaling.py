"""A learned scale and offset per channel."""

import tensorflow as tf


class ScaleAndOffset(tf.keras.layers.Layer):
  """x * scale + offset over the last axis; what a batch normalisation ends in.

  On its own it can be shared by normalisations with statistics of their own.
  """

  def build(self, input_shape):
    shape = [input_shape[-1]]
    self.scale = self.add_weight(name='scale', shape=shape, initializer='ones')
    self.offset = self.add_weight(
      name='offset', shape=shape, initializer='zeros'
    )
    super().build(input_shape)

  def call(self, x):
    return x * self.scale + self.offset
