"""The gradient reversal layer of Ganin & Lempitsky 2015, Eq. 7-8."""

import tensorflow as tf


@tf.custom_gradient
def reverse_gradient(x, scale):
  """The identity whose gradient is multiplied by -scale.

  For example y = reverse_gradient(x, 0.5), loss = 3 y: y = x and
  dloss/dx = -1.5. No gradient flows to scale.

  Args:
    x: a tensor of any shape.
    scale: scalar, lambda in the paper. 0 cuts the gradient.

  Returns:
    A tensor equal to x.
  """
  scale = tf.cast(scale, x.dtype)

  def gradient(upstream):
    return -scale * upstream, None

  return tf.identity(x), gradient
