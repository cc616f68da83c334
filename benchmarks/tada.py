"""What TADA's region discriminators cost.

  python -m benchmarks.tada [layer] [step] [quick]

layer: 49 discriminators 2048-1024-1024-1 forward and backward on the 7x7x2048
feature maps of 16 + 16 and of 32 + 32 images: the layer, the batched matrix
products that it contains, and a loop over 49 stacks of dense layers,
interleaved; and how far each pushes up the peak of the memory of a process of
its own. Their weights, 616 MB, have to be read twice and their gradient written
once: `stream` does no more than that. step: a training step with ResNet-50 on
8 + 8 and on 16 + 16 images of 224x224, with both attentions, with the global
one, and without any (6 GB). Prints minimum and median milliseconds, and the
minimum of CPU time, which other programs disturb less; ratios are of minima.
quick is a small setting of either.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tfda import experiment, methods, run_directory
from tfda.layers import region_attention

# Side and depth of the feature map, hidden units; images of both domains.
_PAPER = (7, 2048, 1024), (32, 64)
_QUICK = (3, 256, 128), (8,)
_ROUNDS = 7
_STEP_ROUNDS = 3


def _layer(feature_map, units):
  """Gradients of the sum of squared logits to the map and the weights."""
  layer = region_attention.RegionDiscriminators((units, units))
  layer.build(feature_map.shape)

  def step():
    with tf.GradientTape() as tape:
      tape.watch(feature_map)
      loss = tf.reduce_sum(layer(feature_map) ** 2)
    return tape.gradient(loss, [feature_map, *layer.trainable_variables])

  return step


def _products(feature_map, units):
  """What any of them has to multiply, on tensors that lie ready."""
  rows, side, _, depth = feature_map.shape
  layers = []
  for inputs, outputs in ((depth, units), (units, units), (units, 1)):
    x, kernel, upstream = (
      tf.random.normal([side * side, *shape])
      for shape in ([rows, inputs], [inputs, outputs], [rows, outputs])
    )
    layers.append((x, tf.Variable(kernel), upstream))

  def step():
    results = []
    for x, kernel, upstream in layers:
      results += [
        tf.matmul(x, kernel),
        tf.matmul(x, upstream, transpose_a=True),
        # The gradient to x, transposed: the form that is fast on a CPU.
        tf.matmul(kernel, upstream, transpose_b=True),
      ]
    return results

  return step


def _loop(feature_map, units):
  """A stack of Keras' dense layers for every region, one after another."""
  side, depth = feature_map.shape[1], feature_map.shape[-1]
  stacks = [
    tf.keras.Sequential(
      [
        tf.keras.layers.Dense(units, 'relu'),
        tf.keras.layers.Dense(units, 'relu'),
        tf.keras.layers.Dense(1),
      ]
    )
    for _ in range(side * side)
  ]
  for stack in stacks:
    stack.build([None, depth])
  weights = [w for stack in stacks for w in stack.trainable_variables]

  def step():
    with tf.GradientTape() as tape:
      tape.watch(feature_map)
      loss = sum(
        tf.reduce_sum(stack(feature_map[:, k // side, k % side]) ** 2)
        for k, stack in enumerate(stacks)
      )
    return tape.gradient(loss, [feature_map, *weights])

  return step


def _stream(feature_map, units):
  """The weights read twice and as many numbers written once."""
  side, depth = feature_map.shape[1], feature_map.shape[-1]
  shapes = ([depth, units], [units, units], [units, 1])
  kernels = [tf.Variable(tf.ones([side * side, *shape])) for shape in shapes]

  def step():
    # A reduction reads all of a kernel; what is written depends on it.
    return [kernel * tf.reduce_max(kernel) for kernel in kernels]

  return step


_VARIANTS = {
  'layer': _layer,
  'products': _products,
  'stream': _stream,
  'loop': _loop,
}


def _timed(variants, rounds):
  """{name: milliseconds} of functions, interleaved; CPU time adds up cores."""
  seconds = {name: [] for name in variants}
  for i in range(rounds + 1):
    for name, step in variants.items():
      start = np.array([time.perf_counter(), time.process_time()])
      step()
      if i > 0:  # Tracing, and warm caches.
        end = np.array([time.perf_counter(), time.process_time()])
        seconds[name].append(end - start)
  return {
    name: {
      'min_ms': round(1e3 * min(wall for wall, _ in values), 1),
      'median_ms': round(1e3 * statistics.median(w for w, _ in values), 1),
      'min_cpu_ms': round(1e3 * min(cpu for _, cpu in values), 1),
    }
    for name, values in seconds.items()
  }


def _variant(name, setting, rows):
  side, depth, units = setting
  feature_map = tf.random.normal([rows, side, side, depth])
  step = tf.function(_VARIANTS[name](feature_map, units))
  return lambda: step()[-1].numpy()  # Waits for the device.


def _peak():
  """Peak resident memory of this process in MB, as Linux counts it."""
  # Not getrusage: a process started by a larger one begins with its peak.
  with open('/proc/self/status') as status:
    (line,) = [line for line in status if line.startswith('VmHWM')]
  return int(line.split()[1]) / 1e3


def _memory(name, setting, rows):
  """MB that three steps of a variant add to the peak, in a new process."""
  code = (
    'from benchmarks import tada\n'
    'before = tada._peak()\n'
    f'step = tada._variant({name!r}, {setting}, {rows})\n'
    'step(), step(), step()\n'
    'print(tada._peak() - before)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  return round(float(done.stdout))


def _training_step(attention, backbone, side, units, images):
  """A whole training step of TADA, with the given attention."""
  settings = experiment.Experiment(
    method='tada',
    backbone=backbone,
    image_size=side,
    batch_size=images,
    bottleneck=256,
    momentum=0.95,
  )
  config = methods.load('tada').Config(attention=attention, region_units=units)
  model = experiment.build(settings, config, num_classes=31)
  (phase,) = model.phases(
    settings.steps, lambda: experiment.make_optimizer(settings, model)
  )
  model.begin_phase(phase, 0)
  random = np.random.default_rng(0)
  pixels = random.integers(0, 256, [images, side, side, 3]).astype(np.uint8)
  stream = {'image': tf.constant(pixels), 'index': tf.range(images)}
  batch = {
    'source': {**stream, 'label': tf.range(images) % 31},
    'target': stream,
  }
  step = tf.function(model.train_step)
  return lambda: step(batch)['total'].numpy()


def _layer_figures(quick):
  setting, all_rows = _QUICK if quick else _PAPER
  figures = {'regions, depth, units': [setting[0] ** 2, *setting[1:]]}
  for rows in all_rows:
    variants = {name: _variant(name, setting, rows) for name in _VARIANTS}
    timed = _timed(variants, _ROUNDS)
    least = {name: figure['min_ms'] for name, figure in timed.items()}
    limit = max(least['products'], least['stream'])
    figures[f'{rows // 2} + {rows // 2} images'] = {
      **timed,
      'layer_over_limit': round(least['layer'] / limit, 2),
      'loop_over_layer': round(least['loop'] / least['layer'], 2),
      'memory_mb': {name: _memory(name, setting, rows) for name in _VARIANTS},
    }
  return figures


def _step_figures(quick):
  network = ('mobilenet', 64, 64) if quick else ('resnet50', 224, 1024)
  figures = {'backbone, side, units': network}
  for images in (2, 4) if quick else (8, 16):
    timed = _timed(
      {
        attention: _training_step(attention, *network, images)
        for attention in ('both', 'global', 'none')
      },
      _STEP_ROUNDS,
    )
    without = timed['none']['min_ms']
    added = round(timed['both']['min_ms'] / without - 1.0, 3)
    name = f'{images} + {images} images'
    figures[name] = {**timed, 'attention_adds': added}
  return figures


def main():
  parts = {'layer': _layer_figures, 'step': _step_figures}
  chosen = [name for name in parts if name in sys.argv] or parts
  with contextlib.redirect_stdout(sys.stderr):  # keras-cv greets there.
    figures = {name: parts[name]('quick' in sys.argv) for name in chosen}
  print(json.dumps({**figures, 'commit': run_directory.commit()}, indent=1))


if __name__ == '__main__':
  main()
