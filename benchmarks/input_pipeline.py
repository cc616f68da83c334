"""How fast images get from files to batches, and in how much memory.

  python -m benchmarks.input_pipeline --photos=FOLDER [--files=N] [NAME ...]

FOLDER holds JPEG photographs, those of BSDS500 for the committed figures. All
measurements, or those named:

  first_decode  photographs to 256x256, from files to the cache, against a bare
                parallel loop of tf.io.decode_image and the same resizing that
                keeps nothing; interleaved
  cached_reads  random batches of 64 of these out of the cache, from memory that
                the system has for files
  crops         training batches of the same, cropped to 224 and mirrored
  digits        training batches of 60,000 + 60,000 images of 28x28 in memory
  memory        what the resident memory grows by while N small files are
                decoded, cached and read; 100,000 if not given
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf

from tfda import run_directory
from tfda.data import domains, files, images, pipeline, storage

_SIZE = 256
_BATCH = 64
_ROUNDS = 15
_READS = 500
# Above what is kept in memory from 25,000 / 4^2 files on.
_SMALL_SIZE = 64


def _memory(arguments):
  from PIL import Image

  with tempfile.TemporaryDirectory() as folder:
    paths = []
    for i in range(arguments.files):
      paths.append(os.path.join(folder, f'{i}.png'))
      pixels = np.full([16, 16, 3], i % 251, np.uint8)
      Image.fromarray(pixels).save(paths[-1])
    reading = files.Reading(os.path.join(folder, 'cache'))
    storage.decoded(paths[:500], _SMALL_SIZE, reading)  # Imports, threads.
    before = _peak_megabytes()
    start = time.perf_counter()
    array = storage.decoded(paths, _SMALL_SIZE, reading)[0]
    seconds = time.perf_counter() - start
    _read_seconds(array)
    return {
      'files': arguments.files,
      'images_mb': round(array.nbytes / 2**20),
      'resident_growth_mb': round(_peak_megabytes() - before),
      'decoded_per_second': round(arguments.files / seconds),
    }


def _peak_megabytes():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read_seconds(array):
  """Seconds that each of many random batches took."""
  random = np.random.default_rng(0)
  seconds = []
  for _ in range(_READS):
    index = random.integers(len(array), size=_BATCH)
    start = time.perf_counter()
    array[index]
    seconds.append(time.perf_counter() - start)
  return seconds


def _bare(paths):
  def decode(path):
    pixels = tf.io.decode_image(
      tf.io.read_file(path), channels=3, expand_animations=False
    )
    return tf.cast(images.resize(pixels[tf.newaxis], _SIZE)[0], tf.uint8)

  decoded = tf.data.Dataset.from_tensor_slices(paths).map(
    decode, num_parallel_calls=tf.data.AUTOTUNE
  )
  for batch in decoded.batch(_BATCH):
    batch.numpy()


def _first_decode(arguments):
  paths = images.find(arguments.photos)
  seconds = {'bare': [], 'ours': []}
  for _ in range(_ROUNDS + 1):
    start = time.perf_counter()
    _bare(paths)
    seconds['bare'].append(time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
      start = time.perf_counter()
      storage.decoded(paths, _SIZE, files.Reading(folder))
      seconds['ours'].append(time.perf_counter() - start)
  # The first round traces, and reads the files from the disk.
  medians = {name: statistics.median(s[1:]) for name, s in seconds.items()}
  minima = {name: min(s[1:]) for name, s in seconds.items()}
  return {
    'photographs': len(paths),
    **{
      f'{name}_images_per_second': round(len(paths) / median)
      for name, median in medians.items()
    },
    'ratio': round(medians['bare'] / medians['ours'], 3),
    'ratio_of_minima': round(minima['bare'] / minima['ours'], 3),
  }


def _cached_reads(arguments):
  paths = images.find(arguments.photos)
  with tempfile.TemporaryDirectory() as folder:
    array = storage.decoded(paths, _SIZE, files.Reading(folder))[0]
    array[:]  # Into the memory that the system has for files.
    median = statistics.median(_read_seconds(array))
  return {
    'batch': _BATCH,
    'image_size': _SIZE,
    'images_per_second': round(_BATCH / median),
  }


def _crops(arguments):
  paths = images.find(arguments.photos)
  with tempfile.TemporaryDirectory() as folder:
    array = storage.decoded(paths, _SIZE, files.Reading(folder))[0]
    array[:]  # Into the memory that the system has for files.
    domain = _domain(array)
    speed = _batches_per_second(domain, domain, 224, 'crop_flip')
  return {'batch': 2 * _BATCH, 'images_per_second': round(2 * _BATCH * speed)}


def _digits(arguments):
  del arguments
  domain = _domain(np.zeros([60_000, 28, 28, 3], np.uint8))
  speed = _batches_per_second(domain, domain, 28, 'none')
  return {'batch': 2 * _BATCH, 'images_per_second': round(2 * _BATCH * speed)}


def _domain(array):
  labels = np.arange(len(array), dtype=np.int32) % 10
  return domains.Domain('d', 'train', array, labels, tuple('0123456789'))


def _batches_per_second(source, target, image_size, augmentation):
  """The median over rounds of as many batches, after one to warm up."""
  streams, count = ('source', 'target'), _READS if image_size < 64 else 30
  batches = iter(
    pipeline.batches(
      streams,
      {'source': source, 'target': target},
      _BATCH,
      0,
      0,
      count * (_ROUNDS + 1),
      image_size=image_size,
      augmentation=augmentation,
    )
  )
  seconds = []
  for _ in range(_ROUNDS + 1):
    start = time.perf_counter()
    for _ in range(count):
      next(batches)
    seconds.append(time.perf_counter() - start)
  return count / statistics.median(seconds[1:])


_MEASUREMENTS = {
  'first_decode': _first_decode,
  'cached_reads': _cached_reads,
  'crops': _crops,
  'digits': _digits,
  # The last: its files keep a disk busy when they are gone.
  'memory': _memory,
}


def main():
  parser = argparse.ArgumentParser(
    usage=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('measurements', nargs='*', choices=[[], *_MEASUREMENTS])
  parser.add_argument('--photos', required=True)
  parser.add_argument('--files', type=int, default=100_000)
  arguments = parser.parse_args()
  chosen = arguments.measurements or _MEASUREMENTS
  # Each in a process of its own, for the peak of its memory.
  with multiprocessing.get_context('spawn').Pool(1, maxtasksperchild=1) as pool:
    figures = {
      name: pool.apply(measure, [arguments])
      for name, measure in _MEASUREMENTS.items()
      if name in chosen
    }
  figures['machine'] = platform.processor() or platform.machine()
  figures['cores'] = os.cpu_count()
  figures['commit'] = run_directory.commit()
  print(json.dumps(figures, indent=1))


if __name__ == '__main__':
  main()
