"""What attention alignment adds to a step (Kang et al. 2018).

  python -m benchmarks.attention_alignment [NAME ...]

digits: four convolutions at 32 pixels, 35 + 15 + 35 + 15 images
(flags/mnist2mnist_m/attention_alignment); office: ResNet-50 at 224 pixels,
14 + 6 + 14 + 6 (flags/office31_amazon2webcam/attention_alignment). All, if none
is named. Prints JSON: milliseconds of a step with L_AT and without it, of the
source network's pass alone, which L_AT needs, and of M_post's; interleaved,
minimum and median. `added_over_pass` is what L_AT adds over that pass.
"""

import dataclasses
import functools
import json
import os
import platform
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from tfda import experiment, flag_config
from tfda.data import domains, pipeline, translated

_FLAGS = {
  'digits': 'mnist2mnist_m/attention_alignment',
  'office': 'office31_amazon2webcam/attention_alignment',
}
_CLASSES = {'digits': 10, 'office': 31}
_ROUNDS = {'digits': 40, 'office': 5}


def _batch(settings, model):
  size, rows = model.backbone.image_size, settings.batch_size
  random = np.random.default_rng(0)
  images = random.integers(0, 256, [rows, size, size, 3]).astype(np.uint8)
  labels = np.arange(rows, dtype=np.int32) % model.classifier.output_units
  names = tuple(str(i) for i in range(model.classifier.output_units))
  domain = domains.Domain('random', 'train', images, labels, names)
  sides = ('source', 'target', *translated.DIRECTIONS)
  return next(
    iter(
      pipeline.batches(
        model.STREAMS,
        dict.fromkeys(sides, domain),
        rows,
        0,
        0,
        1,
        translated_share=settings.translated_share,
      )
    )
  )


def _step(settings, config, classes):
  """(model, batch, () -> a step) in the phase that aligns."""
  model = experiment.build(settings, config, classes)
  *_, phase = model.phases(
    settings.steps,
    functools.partial(experiment.make_optimizer, settings, model),
  )
  model.begin_phase(phase, 0)
  batch = _batch(settings, model)
  train = tf.function(model.train_step, autograph=False)
  return model, batch, lambda: float(train(batch)['total'])


def _measure(name):
  path = f'flags/{_FLAGS[name]}.flags'
  settings, config = flag_config.read(path)
  config = dataclasses.replace(config, wait_for_refresh=False)
  unaligned = dataclasses.replace(config, attention_weight=0.0)
  model, batch, aligned_step = _step(settings, config, _CLASSES[name])
  _, _, step = _step(settings, unaligned, _CLASSES[name])
  seen = tf.concat(
    [batch[n]['image'] for n in ('source', 'target_to_source')], axis=0
  )
  source = tf.function(
    lambda: model.source_network.backbone.feature_maps(seen, model.aligned)[-1],
    autograph=False,
  )
  posterior = tf.function(
    lambda: model.posterior_network(batch['target']['image']), autograph=False
  )
  parts = {
    'aligned': aligned_step,
    'unaligned': step,
    'source_pass': lambda: source().numpy(),
    'posterior_pass': lambda: posterior().numpy(),
  }
  seconds = {part: [] for part in parts}
  for round_ in range(_ROUNDS[name] + 1):
    for part, run in parts.items():
      start = time.perf_counter()
      run()
      if round_:  # The first one traces.
        seconds[part].append(time.perf_counter() - start)
  least = {part: min(found) for part, found in seconds.items()}
  added = least['aligned'] - least['unaligned']
  return {
    'flag_file': path,
    'layers_aligned': len(model.aligned),
    **{
      f'{kind}_ms': {k: round(1e3 * f(v), 1) for k, v in seconds.items()}
      for kind, f in (('min', min), ('median', statistics.median))
    },
    'added_over_pass': round(added / least['source_pass'], 2),
  }


def main():
  names = sys.argv[1:] or list(_FLAGS)
  found = {name: _measure(name) for name in names}
  found['machine'] = f'{os.cpu_count()} cores, {platform.machine()}'
  print(json.dumps(found, indent=2))


if __name__ == '__main__':
  main()
