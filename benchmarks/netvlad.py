"""What NetVLAD costs beside the matrix products that it contains.

  python -m benchmarks.netvlad

runs the layer forward and backward on feature maps [64, 14, 14, 512] with 32
patterns (VGG16's conv5_3, the published K), and the six products alone, two
forward and four backward, interleaved. Prints milliseconds, of the clock and of
all threads' work, and the ratios of their minima: the target is at most 1.5. Of
the memory: by how much the process grows in a step, and the largest tensor of
the graph, beside the size of a tensor [64, 14 * 14, 32, 512], which there must
be none of.
"""

import json
import platform
import statistics
import time

import numpy as np
import tensorflow as tf

from tfda import run_directory
from tfda.layers import netvlad

_ROUNDS = 30
_BATCH, _SIDE, _DEPTH, _PATTERNS = 64, 14, 512, 32


def _layer_step(layer, features, upstream):
  @tf.function
  def step():
    with tf.GradientTape() as tape:
      tape.watch(features)
      encoding = layer(features)
    return tape.gradient(encoding, [features, layer.patterns], upstream)

  return step


def _products_step(features, patterns, shares, sums):
  rows = tf.reshape(features, [-1, _DEPTH])
  images = tf.reshape(features, [_BATCH, -1, _DEPTH])
  flat_shares = tf.reshape(shares, [-1, _PATTERNS])

  @tf.function
  def step():
    return (
      tf.matmul(rows, patterns, transpose_b=True),  # Distances.
      tf.matmul(shares, images, transpose_a=True),  # Residuals.
      tf.matmul(shares, sums),  # And the gradients of both.
      tf.matmul(images, sums, transpose_b=True),
      tf.matmul(flat_shares, patterns),
      tf.matmul(flat_shares, rows, transpose_a=True),
    )

  return step


def _largest_tensor(step):
  graph = step.get_concrete_function().graph
  return max(
    (output.shape.num_elements() or 0) * output.dtype.size
    for operation in graph.get_operations()
    for output in operation.outputs
  )


def _peak_growth(step):
  """MiB by which a step raises the resident memory at most (Linux)."""

  def resident(name):
    with open('/proc/self/status') as file:
      (line,) = [line for line in file if line.startswith(name)]
    return int(line.split()[1]) / 1024

  with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')  # The peak so far is forgotten.
  before = resident('VmRSS')
  step()
  return resident('VmHWM') - before


def main():
  random = np.random.default_rng(0)

  def normal(*shape):
    return tf.constant(random.normal(size=shape), tf.float32)

  layer = netvlad.NetVLAD(_PATTERNS)
  layer.build([None, _SIDE, _SIDE, _DEPTH])
  centres = 5.0 + normal(_PATTERNS, _DEPTH)
  layer.patterns.assign(centres)
  chosen = random.integers(_PATTERNS, size=[_BATCH, _SIDE, _SIDE])
  features = tf.gather(centres, chosen)
  features += 2.0 * normal(_BATCH, _SIDE, _SIDE, _DEPTH)
  shares = tf.nn.softmax(normal(_BATCH, _SIDE**2, _PATTERNS))
  sums = normal(_BATCH, _PATTERNS, _DEPTH)
  steps = {
    'products': _products_step(features, centres, shares, sums),
    'layer': _layer_step(layer, features, tf.reshape(sums, [_BATCH, -1])),
  }
  for step in steps.values():
    step()
  growth = _peak_growth(steps['layer'])
  clock = {name: [] for name in steps}
  work = {name: [] for name in steps}
  for _ in range(_ROUNDS):
    for name, step in steps.items():
      start, started = time.perf_counter(), time.process_time()
      step()[0].numpy()
      clock[name].append(1e3 * (time.perf_counter() - start))
      work[name].append(1e3 * (time.process_time() - started))

  def ratio(times):
    return round(min(times['layer']) / min(times['products']), 2)

  mib = 2**20
  print(
    json.dumps(
      {
        **{
          name: {
            'min_ms': round(min(clock[name]), 1),
            'median_ms': round(statistics.median(clock[name]), 1),
            'min_work_ms': round(min(work[name]), 1),
          }
          for name in steps
        },
        'ratio': ratio(clock),
        'ratio_of_work': ratio(work),
        'peak_growth_mib': round(growth, 1),
        'features_mib': round(features.shape.num_elements() * 4 / mib, 1),
        'largest_tensor_mib': round(_largest_tensor(steps['layer']) / mib, 1),
        'explicit_tensor_mib': round(
          _BATCH * _SIDE**2 * _PATTERNS * _DEPTH * 4 / mib, 1
        ),
        'machine': platform.processor() or platform.machine(),
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
