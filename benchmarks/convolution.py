"""What layers/convolution.py saves on a CPU.

  python -m benchmarks.convolution

runs the DANN paper's MNIST feature extractor forward and backward on 128
images, with TensorFlow's gradients and with ours, interleaved. Prints minimum
and median milliseconds and the largest difference of the gradients.
"""

import json
import statistics
import time

import numpy as np
import tensorflow as tf

from tfda import run_directory
from tfda.layers import convolution

_ROUNDS = 30


def stock(images, kernel):
  """`convolve` with the gradients of TensorFlow."""
  return tf.nn.conv2d(images, kernel, 1, 'SAME')


def _step(convolve, images, kernels):
  @tf.function
  def step():
    with tf.GradientTape() as tape:
      tape.watch(kernels)
      x = images
      for kernel in kernels:
        x = tf.nn.max_pool2d(tf.nn.relu(convolve(x, kernel)), 2, 2, 'SAME')
      loss = tf.reduce_sum(x**2)
    return tape.gradient(loss, kernels)

  return step


def main():
  random = np.random.default_rng(0)
  images = tf.constant(random.normal(size=[128, 28, 28, 3]), tf.float32)
  kernels = [
    tf.constant(random.normal(0, 0.1, shape), tf.float32)
    for shape in ([5, 5, 3, 32], [5, 5, 32, 48])
  ]
  steps = {
    'stock': _step(stock, images, kernels),
    'ours': _step(convolution.convolve, images, kernels),
  }
  gradients = {name: step() for name, step in steps.items()}
  difference = max(
    float(tf.reduce_max(tf.abs(a - b)) / tf.reduce_max(tf.abs(b)))
    for a, b in zip(gradients['ours'], gradients['stock'])
  )
  milliseconds = {name: [] for name in steps}
  for _ in range(_ROUNDS):
    for name, step in steps.items():
      start = time.perf_counter()
      step()[0].numpy()
      milliseconds[name].append(1e3 * (time.perf_counter() - start))
  print(
    json.dumps(
      {
        **{
          name: {
            'min_ms': round(min(values), 1),
            'median_ms': round(statistics.median(values), 1),
          }
          for name, values in milliseconds.items()
        },
        'largest_relative_difference': difference,
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
