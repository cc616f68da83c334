"""What it saves to train behind stored features of a frozen part.

  python -m benchmarks.frozen

takes steps of DANN with a MobileNet, 32 + 32 images of 96 pixels, frozen up to
conv_pw_11 as in flags/base/icons.flags: through the whole network and behind
the cut, each on one fixed batch and fed by the pipeline, which crops images or
reads features on disk; and through the whole network with TensorFlow's own
gradients of convolutions (layers/convolution.py has faster ones on a CPU).
Interleaved in one process; prints medians and minima.
"""

import json
import platform
import statistics
import tempfile
import time
from unittest import mock

import numpy as np
import tensorflow as tf

from benchmarks import convolution as of_convolution
from tfda import experiment, run_directory
from tfda.data import domains, frozen, pipeline, storage
from tfda.layers import convolution

_ROUNDS = 5
_STEPS = 12
_IMAGES = 256
_CLASSES = 63


def main():
  with tempfile.TemporaryDirectory() as folder:
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
    images = [_domain(name, settings, folder) for name in ('source', 'target')]
    times = {}
    steps = {
      **_steps(settings, images, 'whole'),
      **_steps(settings, images, 'behind'),
    }
    stock = _steps(settings, images, 'stock')
    with mock.patch.object(convolution, 'convolve', of_convolution.stock):
      for step in stock.values():
        step()  # Traced, it stays so.
    steps.update(stock)
    for i in range(_ROUNDS + 1):
      for name, step in steps.items():
        for _ in range(_STEPS):
          start = time.perf_counter()
          step()
          if i:  # Not the first round: tracing, and warm caches.
            times.setdefault(name, []).append(time.perf_counter() - start)
  medians = {name: statistics.median(t) for name, t in times.items()}
  print(
    json.dumps(
      {
        'median_ms': {k: round(1e3 * v, 2) for k, v in medians.items()},
        'min_ms': {k: round(1e3 * min(v), 2) for k, v in times.items()},
        'speedup': _speedup(times, 'whole'),
        'speedup_over_stock': _speedup(times, 'stock'),
        'waiting_share': {
          part: _waiting(medians, part) for part in ('whole', 'behind')
        },
        'machine': platform.processor() or platform.machine(),
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


def _speedup(times, part):
  """How much faster a step is behind the cut: [by minimum, by median]."""
  before, after = times[f'{part}, fed'], times['behind, fed']
  return [round(f(before) / f(after), 2) for f in (min, statistics.median)]


def _waiting(medians, part):
  fed, fixed = medians[f'{part}, fed'], medians[f'{part}, fixed batch']
  return round(1.0 - fixed / fed, 3)


def _domain(name, settings, folder):
  random = np.random.default_rng(len(name))
  shape = [settings.resize, settings.resize, 3]
  pixels = random.integers(0, 256, [_IMAGES, *shape]).astype(np.uint8)
  stored = storage.write(name, shape, np.uint8, [pixels], folder)
  labels = random.integers(_CLASSES, size=_IMAGES).astype(np.int32)
  names = tuple(str(i) for i in range(_CLASSES))
  return domains.Domain(name, 'train', stored, labels, names)


def _steps(settings, images, part):
  """{name: a function that takes a step}: on a fixed batch, and fed."""
  module = experiment.methods.load(settings.method)
  model = experiment.build(settings, module.Config(), _CLASSES)
  (phase,) = model.phases(
    settings.steps, lambda: experiment.make_optimizer(settings, model)
  )
  model.begin_phase(phase, 0)
  if part == 'behind':
    model.backbone.cut_at(settings.freeze_until)
    images = [
      frozen.cached(
        domain,
        model.backbone,
        settings.augmentation,
        settings.cache_features + 1,
        settings.cache_dir,
      )
      for domain in images
    ]
  source, target = images
  batches = iter(
    pipeline.batches(
      model.STREAMS,
      source,
      target,
      settings.batch_size,
      settings.seed,
      0,
      10**6,
      image_size=settings.image_size,
      augmentation=settings.augmentation,
    )
  )
  fixed = next(batches)
  step = tf.function(model.train_step)
  return {
    f'{part}, fixed batch': lambda: step(fixed),
    f'{part}, fed': lambda: step(next(batches)),
  }


if __name__ == '__main__':
  main()
