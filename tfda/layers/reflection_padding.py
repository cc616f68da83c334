"""Padding with the mirrored image, which a generator's borders need."""

import tensorflow as tf


class ReflectionPadding(tf.keras.layers.Layer):
  """[B, H, W, C] -> [B, H + 2 width, W + 2 width, C].

  The border itself is not repeated: 1 2 3 becomes 3 2 1 2 3 2 1 with width 2.

  Args:
    width: pixels on every side, less than H and W.
  """

  def __init__(self, width, **kwargs):
    super().__init__(**kwargs)
    self.width = width

  def call(self, images):
    sides = [self.width, self.width]
    return tf.pad(images, [[0, 0], sides, sides, [0, 0]], 'REFLECT')

  def get_config(self):
    return {**super().get_config(), 'width': self.width}
