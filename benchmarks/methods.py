"""What a step of every method costs beside one without adaptation.

  python -m benchmarks.methods [METHOD ...] > benchmarks/methods.json

Each with its flags/mnist2mnist_m flag file, 64 + 64 random images, in its last
phase; all in one process, interleaved. Prints JSON: minimum and median
milliseconds of a step, `ratio`, of minima, to source_only's, the number of
trained weights, and how far a process of its own pushes up its memory in ten
steps, in MiB beside what it has after the import of TensorFlow.
"""

import functools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tfda import experiment, flag_config, methods, run_directory
from tfda.data import domains, pipeline, translated

_CLASSES = 10
_IMAGES = 640  # Of which k-means begins.
_ROUNDS = 15
_STEPS = 10  # In which a process shows its memory.


def _domains(size):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, [_IMAGES, size, size, 3]).astype(np.uint8)
  labels = np.arange(_IMAGES, dtype=np.int32) % _CLASSES
  names = tuple(map(str, range(_CLASSES)))
  domain = domains.Domain('random', 'train', images, labels, names)
  return dict.fromkeys(('source', 'target', *translated.DIRECTIONS), domain)


def _prepared(method):
  """(model, () -> a step) of a method."""
  path = f'flags/mnist2mnist_m/{method}.flags'
  settings, config = flag_config.read(path)
  model = experiment.build(settings, config, _CLASSES)

  def batches(streams, first_step, last_step):
    return pipeline.batches(
      streams,
      _domains(model.backbone.image_size),
      settings.batch_size,
      settings.seed,
      first_step,
      last_step,
      translated_share=settings.translated_share,
    )

  phases = model.phases(
    settings.steps,
    functools.partial(experiment.make_optimizer, settings, model),
  )
  if hasattr(model, 'adapt'):
    model.adapt(batches(model.STREAMS, 0, _IMAGES // settings.batch_size))
  start = settings.steps - phases[-1].steps
  model.step.assign(start)
  model.begin_phase(phases[-1], start)
  batch = next(iter(batches(model.streams, start, start + 1)))
  train = tf.function(model.train_step, autograph=False)
  return model, lambda: float(train(batch)['total'])


def _peak():
  """MiB, the most that this process has had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _memory(method):
  tf.zeros([]).numpy()  # The devices are there.
  before = _peak()
  _, step = _prepared(method)
  for _ in range(_STEPS):
    step()
  print(_peak() - before)


def main():
  if sys.argv[1:2] == ['memory']:
    _memory(sys.argv[2])
    return
  names = ['source_only', *(sys.argv[1:] or methods.names())]
  names = list(dict.fromkeys(names))
  prepared = {name: _prepared(name) for name in names}
  seconds = {name: [] for name in names}
  for round_ in range(_ROUNDS + 1):
    for name, (_, step) in prepared.items():
      start = time.perf_counter()
      step()
      if round_:  # The first one traces.
        seconds[name].append(time.perf_counter() - start)
  found = {}
  for name, (model, _) in prepared.items():
    memory = subprocess.run(
      [sys.executable, '-m', 'benchmarks.methods', 'memory', name],
      capture_output=True,
      text=True,
      check=True,
    )
    found[name] = {
      'min_ms': round(1e3 * min(seconds[name]), 1),
      'median_ms': round(1e3 * statistics.median(seconds[name]), 1),
      'ratio': round(min(seconds[name]) / min(seconds['source_only']), 2),
      'weights': sum(int(tf.size(v)) for v in model.trainable_variables),
      'memory_mib': round(float(memory.stdout.split()[-1])),
    }
    print(f'{name}: {found[name]}', file=sys.stderr, flush=True)
  print(
    json.dumps(
      {
        'commit': run_directory.commit(),
        'machine': f'{os.cpu_count()} cores, {platform.machine()}',
        'methods': found,
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
