"""How fast an export answers, and what decoding within it costs.

  python -m benchmarks.serving --run_dir=RUN --photos=FOLDER

RUN is any run, FOLDER holds JPEG photographs. Prints the latency (median and
99th percentile, ms) and images/s of every signature for several batch sizes,
through the loaded SavedModel, beside the Keras model on the same pixels; and
decoding as the graph does it (serving/decoding.py) beside a bare parallel loop
of tf.io.decode_jpeg and the same resizing. All are interleaved, --rounds=N
times (200 if not set; of fewer than 100 the 99th percentile is the slowest).
"""

import argparse
import functools
import json
import os
import platform
import statistics
import tempfile
import time

import numpy as np
import tensorflow as tf

from tfda import run_directory
from tfda.data import images as image_files
from tfda.serving import decoding, export, module, restore

_BATCHES = (1, 8, 64)
_ROUNDS = 200


def _example(file):
  value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
  features = tf.train.Features(feature={module.ENCODED: value})
  return tf.train.Example(features=features).SerializeToString()


def _interleaved(calls, rounds):
  """{name: seconds of every round}, the first left out."""
  seconds = {name: [] for name in calls}
  for _ in range(rounds + 1):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      seconds[name].append(time.perf_counter() - start)
  return {name: found[1:] for name, found in seconds.items()}


def _figures(seconds, count):
  return {
    'p50_ms': round(1e3 * statistics.median(seconds), 2),
    'p99_ms': round(1e3 * float(np.percentile(seconds, 99)), 2),
    'images_per_second': round(count / statistics.median(seconds)),
  }


def _latencies(model, loaded, files, pixels, rounds):
  signatures = loaded.signatures
  found = {}
  for count in _BATCHES:
    rows = np.arange(count) % len(files)
    batch = tf.constant(pixels[rows])
    encoded = [files[i] for i in rows]
    numbers = tf.cast(batch, tf.float32)
    given = {
      'serving_default': numbers,
      'serving_uint8': batch,
      'serving_bytes': tf.constant(encoded),
      'classify': tf.constant([_example(file) for file in encoded]),
      'embed': numbers,
    }
    calls = {}
    for name, function in signatures.items():
      # By name: else TensorFlow first writes the error that it has none, with
      # all the numbers and files in it, which takes longer than the answer.
      (argument,) = function.structured_input_signature[1]
      inputs = {argument: given.get(name, numbers)}
      calls[name] = functools.partial(function, **inputs)
    calls['keras'] = lambda x=numbers: model.infer(model.prepare(x))
    for name, seconds in _interleaved(calls, rounds).items():
      found.setdefault(name, {})[count] = _figures(seconds, count)
  return found


def _decoding(files, size, rounds):
  def bare_one(file):
    pixels = tf.io.decode_jpeg(file, 3, dct_method='INTEGER_ACCURATE')
    resized = image_files.resize(pixels[tf.newaxis], size)[0]
    return tf.cast(resized, tf.uint8)

  @tf.function(
    input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
  )
  def bare(encoded):
    return tf.map_fn(
      bare_one, encoded, fn_output_signature=tf.uint8, parallel_iterations=8
    )

  encoded = tf.constant(files[: _BATCHES[-1]])
  decode = decoding.decoder(size, 10**8)
  seconds = _interleaved(
    {'in_graph': lambda: decode(encoded), 'bare': lambda: bare(encoded)},
    rounds,
  )
  medians = {name: statistics.median(s) for name, s in seconds.items()}
  return {
    'images': int(tf.size(encoded)),
    **{f'{name}_ms': round(1e3 * s, 2) for name, s in medians.items()},
    'ratio': round(medians['in_graph'] / medians['bare'], 3),
    'ratio_of_minima': round(
      min(seconds['in_graph']) / min(seconds['bare']), 3
    ),
  }


def main():
  parser = argparse.ArgumentParser(
    usage=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--run_dir', required=True)
  parser.add_argument('--photos', required=True)
  parser.add_argument('--rounds', type=int, default=_ROUNDS)
  arguments = parser.parse_args()
  run, experiment, model = restore.restore(arguments.run_dir)
  files = []
  for path in image_files.find(arguments.photos)[: _BATCHES[-1]]:
    with open(path, 'rb') as file:
      files.append(file.read())
  decoded = decoding.decoder(model.read_size, experiment.max_pixels)
  pixels = decoded(tf.constant(files)).numpy()
  with tempfile.TemporaryDirectory() as folder:
    version = export.save(model, run.class_names(), folder)
    figures = {
      'backbone': experiment.backbone,
      'image_size': model.read_size,
      'signatures': _latencies(
        model, tf.saved_model.load(version), files, pixels, arguments.rounds
      ),
      'decoding': _decoding(files, model.read_size, arguments.rounds),
      'rounds': arguments.rounds,
      'machine': platform.processor() or platform.machine(),
      'cores': os.cpu_count(),
      'commit': run_directory.commit(),
    }
  print(json.dumps(figures, indent=1))


if __name__ == '__main__':
  main()
