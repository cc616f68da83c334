"""A convolution whose gradients are faster on a CPU.

TensorFlow 2.15's CPU kernels for the two gradients of a convolution are slower
than its forward kernel. Both gradients are convolutions themselves:

  y[n, p, o]  = sum_{a, i}  x[n, p + a - r, i] k[a, i, o]
  dx[n, p, i] = sum_{a, o} dy[n, p + a - r, o] k[-a, i, o]      kernel flipped
  dk[a, i, o] = sum_{n, p}  x[n, p + a - r, i] dy[n, p, o]      batch as channel

(one spatial axis written, r = (size - 1) / 2, or 0 without padding), so the
forward kernel can do them; a kernel of size 1 is a matrix, and so are its
gradients' products.
benchmarks/convolution.py measures what that saves. On a GPU the stock gradients
are the fast ones and are used.
"""

import tensorflow as tf


def convolve(images, kernel, padding='SAME'):
  """Convolution with stride 1.

  Args:
    images: [B, H, W, I].
    kernel: [size, size, I, O], size odd if padding is SAME.
    padding: SAME or VALID.

  Returns:
    [B, H, W, O], or less by size - 1 in height and width; values and gradients
    are those of tf.nn.conv2d.
  """
  last = kernel.shape[0] - 1
  radius = last // 2 if padding == 'SAME' else 0
  # In half precision a variable that casts itself, which is no argument below.
  kernel = tf.convert_to_tensor(kernel)

  @tf.custom_gradient  # Which makes tensors of all arguments.
  def convolved(images, kernel):
    def matrix_gradient(upstream):
      rows, matrix = _rows(upstream), _rows(kernel)
      to_images = tf.matmul(rows, matrix, transpose_b=True)
      to_kernel = tf.matmul(_rows(images), rows, transpose_a=True)
      return (
        tf.reshape(to_images, tf.shape(images)),
        tf.reshape(to_kernel, kernel.shape),
      )

    def gradient(upstream):
      flipped = tf.transpose(kernel[::-1, ::-1], [0, 1, 3, 2])
      to_images = tf.nn.conv2d(upstream, flipped, 1, _padding(last - radius))
      to_kernel = tf.nn.conv2d(
        tf.transpose(images, [3, 1, 2, 0]),
        tf.transpose(upstream, [1, 2, 0, 3]),
        1,
        _padding(radius),
      )
      return to_images, tf.transpose(to_kernel, [1, 2, 0, 3])

    outputs = tf.nn.conv2d(images, kernel, 1, padding)
    return outputs, gradient if last else matrix_gradient

  return convolved(images, kernel)


def _padding(width):
  return [[0, 0], [width, width], [width, width], [0, 0]]


def _rows(x):
  """[..., D] -> [N, D]."""
  return tf.reshape(x, [-1, x.shape[-1]])


class Conv2D(tf.keras.layers.Conv2D):
  """Keras' Conv2D that uses `convolve` where it applies, on CPUs."""

  def convolution_op(self, inputs, kernel):
    applies = (
      self.padding in ('same', 'valid')
      and self.data_format == 'channels_last'
      and self.groups == 1
      and set(self.strides) == set(self.dilation_rate) == {1}
      and self.kernel_size[0] == self.kernel_size[1]
      and (self.kernel_size[0] % 2 == 1 or self.padding == 'valid')
      and not tf.config.list_logical_devices('GPU')
    )
    if applies:
      return convolve(inputs, kernel, self.padding.upper())
    return super().convolution_op(inputs, kernel)


def with_fast_gradients(network):
  """A copy of a functional model, of new weights, with `Conv2D` of this file.

  For networks that others have made; names of layers and weights stay.
  """

  def copy(layer):
    made = Conv2D if type(layer) is tf.keras.layers.Conv2D else type(layer)
    return made.from_config(layer.get_config())

  # Not a subclass, which might be made otherwise.
  plain = tf.keras.Model(network.input, network.output, name=network.name)
  return tf.keras.models.clone_model(plain, clone_function=copy)
