"""What it saves to train behind stored features of a frozen part.

  python -m benchmarks.frozen [local_feature_patterns]

takes steps of DANN with a MobileNet, 32 + 32 images of 96 pixels, frozen up to
conv_pw_11 as in flags/base/icons.flags: through the whole network and behind
the cut, each on one fixed batch and fed by the pipeline, which crops images or
reads features on disk; through the whole network with TensorFlow's own
gradients of convolutions (layers/convolution.py has faster ones on a CPU); and
through the whole network, all of it training. Or it takes steps of the three
phases of local feature patterns with a VGG16, 4 + 4 images of 224 pixels,
frozen up to conv5_1, as in flags/base/local_feature_patterns.flags, each on one
fixed batch. Interleaved in one process; prints medians and minima.
"""

import dataclasses
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks import convolution as of_convolution
from tfda import experiment, run_directory
from tfda.data import domains, frozen, pipeline, storage
from tfda.layers import convolution

_CLASSES = 63


def main():
  measure = _of_dann
  if sys.argv[1:] == ['local_feature_patterns']:
    measure = _of_local_feature_patterns
  elif sys.argv[1:]:
    sys.exit(__doc__)
  with tempfile.TemporaryDirectory() as folder:
    figures = measure(folder)
  figures['machine'] = platform.processor() or platform.machine()
  figures['commit'] = run_directory.commit()
  print(json.dumps(figures, indent=1))


def _of_dann(folder):
  settings = experiment.Experiment(
    method='dann',
    backbone='mobilenet',
    image_size=96,
    resize=108,
    augmentation='crop_flip',
    freeze_until='conv_pw_11',
    cache_features=4,
    cache_dir=folder,
    bottleneck=256,
    batch_size=32,
    learning_rate=0.001,
    new_layer_multiplier=10.0,
  )
  images = _domains(settings, 256)
  steps = {
    **_steps(settings, images, 'whole'),
    **_steps(settings, images, 'behind'),
    **_steps(_unfrozen(settings), images, 'unfrozen'),
  }
  stock = _steps(settings, images, 'stock')
  with mock.patch.object(convolution, 'convolve', of_convolution.stock):
    for step in stock.values():
      step()  # Traced, it stays so.
  times = _times({**steps, **stock}, rounds=4, count=6)
  after = times['behind, fed']
  return {
    **_milliseconds(times),
    'speedup': _speedup(times['whole, fed'], after),
    'speedup_over_stock': _speedup(times['stock, fed'], after),
    'speedup_over_unfrozen': _speedup(times['unfrozen, fed'], after),
    'waiting_share': {
      part: _waiting(times, part) for part in ('whole', 'behind')
    },
  }


def _of_local_feature_patterns(folder):
  settings = experiment.Experiment(
    method='local_feature_patterns',
    backbone='vgg16',
    image_size=224,
    resize=256,
    freeze_until='block5_conv1',
    cache_features=1,
    cache_dir=folder,
    batch_size=4,
    optimizer='adam',
    learning_rate=0.0001,
    clip_norm=5.0,
  )
  images = _domains(settings, 8)
  parts = {
    'whole': settings,
    'behind': settings,
    'unfrozen': _unfrozen(settings),
  }
  steps = {}
  for part, of_part in parts.items():
    steps.update(_steps_of_phases(of_part, images, part))
  times = _times(steps, rounds=4, count=1)
  phases = [name.split(', ')[1] for name in times if 'behind' in name]
  return {
    **_milliseconds(times),
    **{
      f'speedup_over_{part}': {
        phase: _speedup(times[f'{part}, {phase}'], times[f'behind, {phase}'])
        for phase in phases
      }
      for part in ('whole', 'unfrozen')
    },
  }


def _unfrozen(settings):
  return dataclasses.replace(settings, freeze_until=None, cache_features=0)


def _times(steps, rounds, count):
  """{name: seconds of steps}, by turns of `count`."""
  times = {name: [] for name in steps}
  for i in range(rounds + 1):
    for name, step in steps.items():
      for _ in range(count):
        start = time.perf_counter()
        step()
        if i:  # Not the first round: tracing, and warm caches.
          times[name].append(time.perf_counter() - start)
  return times


def _milliseconds(times):
  return {
    f'{name}_ms': {k: round(1e3 * f(v), 2) for k, v in times.items()}
    for name, f in (('median', statistics.median), ('min', min))
  }


def _speedup(before, after):
  """How much faster a step is: [by minimum, by median]."""
  return [round(f(before) / f(after), 2) for f in (min, statistics.median)]


def _waiting(times, part):
  fed, fixed = (
    statistics.median(times[f'{part}, {how}']) for how in ('fed', 'fixed batch')
  )
  return round(1.0 - fixed / fed, 3)


def _domains(settings, count):
  """Of the source and the target, `count` random images each, on disk."""
  made = []
  for seed, name in enumerate(('source', 'target')):
    random = np.random.default_rng(seed)
    shape = [settings.resize, settings.resize, 3]
    pixels = random.integers(0, 256, [count, *shape]).astype(np.uint8)
    stored = storage.write(name, shape, np.uint8, [pixels], settings.cache_dir)
    labels = random.integers(_CLASSES, size=count).astype(np.int32)
    names = tuple(str(i) for i in range(_CLASSES))
    made.append(domains.Domain(name, 'train', stored, labels, names))
  return made


def _model(settings, images, part):
  """(model, its phases, its batches), cut where `part` is 'behind'."""
  module = experiment.methods.load(settings.method)
  model = experiment.build(settings, module.Config(), _CLASSES)
  phases = model.phases(
    settings.steps,
    functools.partial(experiment.make_optimizer, settings, model),
  )
  if part == 'behind':
    model.backbone.cut_at(settings.freeze_until)
    views = settings.cache_features
    views += settings.augmentation != 'none'  # And the one for evaluation.
    images = [
      frozen.cached(
        domain, model.backbone, settings.augmentation, views, settings.cache_dir
      )
      for domain in images
    ]
  source, target = images
  batches = pipeline.batches(
    model.STREAMS,
    {'source': source, 'target': target},
    settings.batch_size,
    settings.seed,
    0,
    10**6,
    image_size=settings.image_size,
    augmentation=settings.augmentation,
  )
  return model, phases, iter(batches)


def _steps(settings, images, part):
  """{name: a function that takes a step}: on a fixed batch, and fed."""
  model, (phase,), batches = _model(settings, images, part)
  model.begin_phase(phase, 0)
  fixed = next(batches)
  step = tf.function(model.train_step)
  return {
    f'{part}, fixed batch': lambda: step(fixed),
    f'{part}, fed': lambda: step(next(batches)),
  }


def _steps_of_phases(settings, images, part):
  """The same of every phase, on a fixed batch."""
  model, phases, batches = _model(settings, images, part)
  fixed = next(batches)
  steps = {}
  for phase in phases:
    model.begin_phase(phase, 0)
    step = tf.function(model.train_step)
    step(fixed)  # Traced, it stays that phase's.
    steps[f'{part}, {phase.name}'] = functools.partial(step, fixed)
  return steps


if __name__ == '__main__':
  main()
