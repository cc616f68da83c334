"""Input scaling that travels with the model."""

import numpy as np
import tensorflow as tf


class Normalise(tf.keras.layers.Layer):
  """(image - mean) * scale per channel, with the mean kept as a weight.

  The mean is measured on the training images (`measure`) or known from
  pre-training; as a weight it is in every checkpoint and every export.

  Args:
    mean: 3 numbers in 0..255, the mean to start with.
    scale: 3 numbers, or one for all channels.
  """

  def __init__(self, mean=(0.0, 0.0, 0.0), scale=1.0 / 255.0, **kwargs):
    kwargs['dtype'] = tf.float32  # Its own config names it too.
    super().__init__(**kwargs)
    self.initial_mean = tuple(mean)
    self.scale = scale
    self.mean = self.add_weight(
      name='mean',
      shape=[3],
      initializer=tf.constant_initializer(self.initial_mean),
      trainable=False,
    )

  def measure(self, *image_sets):
    """Sets the mean to that of the sets' means, each set weighing the same.

    Args:
      *image_sets: uint8 arrays [N, H, W, 3], in memory or on disk; N may
        differ.
    """
    means = [_mean(images) for images in image_sets]
    self.mean.assign(sum(means) / len(means))

  def call(self, images):
    return (tf.cast(images, tf.float32) - self.mean) * self.scale

  def get_config(self):
    return {
      **super().get_config(),
      'mean': self.initial_mean,
      'scale': self.scale,
    }


def _mean(images):
  """Mean per channel, of a part at a time: the set may be on disk."""
  parts = (images[i : i + 1000] for i in range(0, len(images), 1000))
  # Whole images first: over three axes at once, NumPy takes 15 times longer.
  rows = (part.reshape(len(part), -1).sum(0, dtype=np.int64) for part in parts)
  total = sum(rows).reshape(-1, 3).sum(axis=0)
  return total / np.prod(images.shape[:3], dtype=np.int64)
