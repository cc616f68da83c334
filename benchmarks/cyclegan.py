"""How long a step of a CycleGAN takes, and a translated image.

  python -m benchmarks.cyclegan [NAME ...]

small: the setting for two CPU cores (flags/mnist2mnist_m/translation_small);
digits: the published size at 32 pixels, a batch of 100; office: at 256 pixels,
a batch of 1 (flags/office31_amazon2webcam/translation). All, if none is named.
Prints JSON: minimum and median milliseconds of a step, the minimum of its CPU
time, which other programs disturb less, images/s of training (of both domains)
and of translating one way.
"""

import json
import statistics
import sys
import time

import numpy as np
import tensorflow as tf

from tfda import cyclegan, flag_config, translation

_FLAGS = {
  'small': 'mnist2mnist_m/translation_small',
  'digits': 'mnist2mnist_m/translation',
  'office': 'office31_amazon2webcam/translation',
}
_ROUNDS = 5


def _measure(settings):
  model = translation.build(settings)
  model.begin_phase(translation.make_phase(settings, model), 0)
  shape = [settings.batch_size, *2 * [settings.image_size], 3]
  images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
  batch = {side: {'image': tf.constant(images)} for side in cyclegan.SIDES}
  train = tf.function(model.train_step, autograph=False)
  step = _seconds(lambda: float(train(batch)['total']))
  many = np.resize(images, [max(64, len(images)), *shape[1:]])
  once = _seconds(lambda: model.translate(many, 'source_to_target'))
  return {
    'min_ms': round(1e3 * min(wall for wall, _ in step), 1),
    'median_ms': round(1e3 * statistics.median(wall for wall, _ in step), 1),
    'min_cpu_ms': round(1e3 * min(cpu for _, cpu in step), 1),
    'trained_images_per_second': round(
      2 * len(images) / min(wall for wall, _ in step), 2
    ),
    'translated_images_per_second': round(
      len(many) / min(wall for wall, _ in once), 1
    ),
  }


def _seconds(function):
  """[(seconds, those of all cores)] of some calls, after one."""
  function()
  found = []
  for _ in range(_ROUNDS):
    start = time.perf_counter(), time.process_time()
    function()
    found.append(
      (time.perf_counter() - start[0], time.process_time() - start[1])
    )
  return found


def main(names):
  results = {}
  for name in names or _FLAGS:
    flags = [f'--flagfile=flags/{_FLAGS[name]}.flags']
    results[name] = _measure(flag_config.parse_translation(flags)[0])
  devices = [d.device_type for d in tf.config.list_logical_devices()]
  print(json.dumps({'devices': devices, **results}, indent=1))


if __name__ == '__main__':
  main(sys.argv[1:])
