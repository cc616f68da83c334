"""What GSDA's discriminators and their synchronisation cost.

  python -m benchmarks.gsda [quick]

takes the alignment part of a step, forward and backward, on 36 + 36 features of
256 numbers: L^g + L^l + L^syn by 31 + 6 + 1 discriminators 256-1024-1024-1 with
dropout 0.5. Compared, interleaved, are the layer with its own gradient of
slopes, the same layer under two nested tapes, and a loop over separate
discriminators, with the matrix products that the first contains and a product
of square matrices, by whose rate `bare_ms` is what those take; all of it with
the allocator of the C library and with TensorFlow's pool
(TF_CPU_ALLOCATOR_USE_BFC=true), which does not map 200 MB of gradients anew in
every step. Then the seconds that tracing takes, and with the pool time and
memory by the number of heads, drawn in gsda.png. Prints JSON. `quick` is a
small setting, without a drawing.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tfda import losses, run_directory
from tfda.layers import discriminators, noise
from tfda.methods import gsda

# Rows of both domains, width of the features, hidden units; side of the square.
_PAPER = (72, 256, 1024), 2048
_QUICK = (8, 16, 32), 256
# Classes and groups: half of Office-31, Office-31, Office-Home, its double, and
# a set of 345 classes.
_OFFICE = (31, 6)
_SIZES = ((15, 3), _OFFICE, (65, 13), (130, 26), (345, 20))
_ROUNDS = 7
_POOL = 'TF_CPU_ALLOCATOR_USE_BFC'


class _TwoTapes(discriminators.MultiHeadDiscriminator):
  """The same with the slopes from an inner tape."""

  def call(self, features, noise=None, training=False, slopes=False):
    del slopes
    tiled = tf.tile(features[tf.newaxis], [self.num_heads, 1, 1])
    with tf.GradientTape() as tape:
      tape.watch(tiled)
      logits = super().call(tiled, noise=noise, training=training)
    return logits, tape.gradient(logits, tiled)


class _Loop(discriminators.MultiHeadDiscriminator):
  """The same with a DomainDiscriminator for every head."""

  def build(self, input_shape):
    self._separate = []
    for _ in range(self.num_heads):
      one = discriminators.DomainDiscriminator(
        self.hidden_units, self.dropout_rate
      )
      one.build(input_shape)
      self._separate.append(one)
    self.built = True

  def call(self, features, noise=None, training=False, slopes=False):
    del slopes
    results = []
    for one in self._separate:
      with tf.GradientTape() as tape:
        tape.watch(features)
        logits = one(features, noise=noise, training=training)
      results.append((logits, tape.gradient(logits, features)))
    return [tf.stack(values) for values in zip(*results)]


_FORMS = {
  'layer': discriminators.MultiHeadDiscriminator,
  'two_tapes': _TwoTapes,
  'loop': _Loop,
}


def _alignment(form, size, setting):
  """A tf.function of the alignment part of a step, and its inputs."""
  (classes, groups), (rows, width, units) = size, setting
  heads = _FORMS[form](1 + groups + classes, (units, units), 0.5)
  heads.build([None, width])
  class_to_group = gsda.partition(classes, groups)
  steps = tf.Variable(0, dtype=tf.int64)
  of_class = tf.nn.softmax(tf.random.normal([classes, rows]), axis=0)
  of_group = tf.math.unsorted_segment_sum(of_class, class_to_group, groups)
  p = tf.concat([tf.ones([1, rows]), of_group, of_class], axis=0)

  @tf.function
  def step(features, p):
    draws = noise.Noise(0, steps.assign_add(1), rows // 2)
    with tf.GradientTape() as tape:
      tape.watch(features)
      alignments, norms, to_features = heads.compare_domains(features, p, draws)
      domain, group, class_ = tf.split(norms, [1, groups, classes])
      loss = tf.reduce_sum(alignments) + losses.gradient_synchronization(
        domain, group[:, tf.newaxis], class_[:, tf.newaxis], class_to_group
      )
    weights = heads.trainable_variables
    return to_features, tape.gradient(loss, [features, *weights])

  return step, (tf.random.normal([rows, width]), p)


def _products(size, setting):
  """The products of the layer, of tensors that lie ready; their operations."""
  heads, (rows, width, units) = 1 + sum(size), setting
  tensors, operations = [], 0
  for inputs, outputs in ((width, units), (units, units), (units, 1)):
    shapes = ([rows, inputs], [inputs, outputs], [rows, outputs])
    tensors.append([tf.random.normal([heads, *shape]) for shape in shapes])
    # Forward, slopes, kernels; the vectors u of all but the last layer.
    operations += (3 + (outputs > 1)) * 2 * heads * rows * inputs * outputs

  @tf.function
  def step(tensors):
    results = []
    for x, kernel, upstream in tensors:
      results += [
        tf.matmul(x, kernel),
        tf.matmul(kernel, upstream, transpose_b=True),
        tf.matmul(x, upstream, transpose_a=True),
      ]
      if kernel.shape[-1] > 1:
        results.append(tf.matmul(x + 1.0, kernel))  # Not the same as above.
    return results

  return step, (tensors,), operations


def step_figures(setting, side):
  """Milliseconds of the forms of a step, and of the products in the first."""
  variants = {form: _alignment(form, _OFFICE, setting) for form in _FORMS}
  products, tensors, operations = _products(_OFFICE, setting)
  square = tf.random.normal([side, side])
  variants['products'] = products, tensors
  variants['square'] = tf.function(tf.matmul), (square, square)
  milliseconds = {name: [] for name in variants}
  for i in range(_ROUNDS + 1):
    for name, (step, inputs) in variants.items():
      start = time.perf_counter()
      step(*inputs)
      if i > 0:  # Tracing, and warm caches.
        milliseconds[name].append(1e3 * (time.perf_counter() - start))
  rate = 2 * side**3 / min(milliseconds['square'])  # Operations a millisecond.
  bare = operations / rate
  return {
    **{
      name: {
        'min_ms': round(min(values), 1),
        'median_ms': round(statistics.median(values), 1),
      }
      for name, values in milliseconds.items()
    },
    'gflops_of_square': round(rate / 1e6, 1),
    'bare_ms': round(bare, 1),
    'layer_over_bare': round(min(milliseconds['layer']) / bare, 2),
    'loop_over_layer': round(
      min(milliseconds['loop']) / min(milliseconds['layer']), 2
    ),
  }


def tracing_seconds(form, size, setting):
  """How long it takes to make the graph of a step."""
  step, inputs = _alignment(form, size, setting)
  start = time.perf_counter()
  step.get_concrete_function(*inputs)
  return round(time.perf_counter() - start, 2)


def size_figures(size, setting):
  """Minimum milliseconds of a step, and MB that steps add to the peak."""
  before = _peak()
  step, inputs = _alignment('layer', size, setting)
  seconds = []
  for _ in range(4):
    start = time.perf_counter()
    step(*inputs)
    seconds.append(time.perf_counter() - start)
  return {
    'min_ms': round(1e3 * min(seconds), 1),
    'memory_mb': round(_peak() - before),
  }


def _peak():
  """Peak resident memory of this process in MB, as Linux counts it."""
  # Not getrusage: a process started by a larger one begins with its peak.
  with open('/proc/self/status') as status:
    (line,) = [line for line in status if line.startswith('VmHWM')]
  return int(line.split()[1]) / 1e3


def _in_new_process(function, *arguments, **environment):
  words = ', '.join(map(repr, arguments))
  code = (
    'import json\nfrom benchmarks import gsda\n'
    f'print(json.dumps(gsda.{function.__name__}({words})))\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    env={**os.environ, **environment},
  )
  return json.loads(done.stdout)


def _draw(by_heads, path):
  """Time and memory over the number of heads, each with a straight line."""
  from matplotlib import figure as figures

  figure = figures.Figure((8, 3.2), layout='constrained', dpi=140)
  heads = [int(count) for count in by_heads]
  for axes, name, label, unit in zip(
    figure.subplots(1, 2),
    ('min_ms', 'memory_mb'),
    ('time of a step in ms', 'memory at the peak in MB'),
    ('ms', 'MB'),
  ):
    values = [row[name] for row in by_heads.values()]
    slope, start = np.polyfit(heads, values, 1)
    ends = np.array([0, heads[-1]])
    axes.plot(ends, start + slope * ends, '--', color='#999999', linewidth=1)
    axes.plot(heads, values, 'o', color='#0072B2')
    axes.set(xlabel='discriminators', ylabel=label, xlim=0, ylim=0)
    axes.set_title(f'{slope:.1f} {unit} a discriminator', fontsize=10)
    axes.grid(alpha=0.3)
  figure.savefig(path)


def main():
  quick = 'quick' in sys.argv
  setting, side = _QUICK if quick else _PAPER
  sizes = _SIZES[:2] if quick else _SIZES
  by_heads = {
    str(1 + sum(size)): _in_new_process(
      size_figures, size, setting, **{_POOL: 'true'}
    )
    for size in sizes
  }
  figures = {
    'rows, width, units': setting,
    'step': {
      name: _in_new_process(step_figures, setting, side, **{_POOL: pools})
      for name, pools in (('pool', 'true'), ('c_library', 'false'))
    },
    'tracing_seconds': {
      'loop': _in_new_process(tracing_seconds, 'loop', _OFFICE, setting),
      **{
        f'layer, {1 + sum(size)} heads': _in_new_process(
          tracing_seconds, 'layer', size, setting
        )
        for size in sizes
      },
    },
    'by_heads': by_heads,
    'commit': run_directory.commit(),
  }
  if not quick:
    _draw(by_heads, f'{os.path.splitext(__file__)[0]}.png')
  print(json.dumps(figures, indent=1))


if __name__ == '__main__':
  main()
