"""Warm-up requests: a server answers them before it takes a version in use.

The first request of a signature is slow (memory, kernels, threads); each of
these takes its place. TF Serving replays what it finds in assets.extra/.
"""

import os

import numpy as np
import tensorflow as tf

from tfda.serving import module

_FILE = os.path.join('assets.extra', 'tf_serving_warmup_requests')


def write(path, name, signatures, size):
  """Writes requests for every signature into a SavedModel.

  Args:
    path: of the SavedModel.
    name: that the server has for it.
    signatures: {name: ConcreteFunction}, of one argument.
    size: side in pixels of the images that the model takes as they are.
  """
  file = os.path.join(path, _FILE)
  os.makedirs(os.path.dirname(file), exist_ok=True)
  with tf.io.TFRecordWriter(file) as writer:
    for log in requests(name, signatures, size):
      writer.write(log.SerializeToString())


def requests(name, signatures, size):
  """Yields PredictionLogs; see `write`."""
  from tensorflow_serving.apis import prediction_log_pb2

  noise = np.random.default_rng(0)
  # As they are, and to be resized.
  images = [
    noise.integers(0, 256, [1, side, side, 3], np.uint8)
    for side in (size, size + 1)
  ]
  encoded = [
    encode(pixels[0]).numpy()
    for pixels in images
    for encode in (tf.io.encode_jpeg, tf.io.encode_png)
  ]
  for signature, function in signatures.items():
    (spec,) = function.structured_input_signature[0]
    if spec.name == 'inputs':
      log = prediction_log_pb2.PredictionLog()
      request = log.classify_log.request
      request.model_spec.name = name
      request.model_spec.signature_name = signature
      for file in encoded:
        example = request.input.example_list.examples.add()
        example.features.feature[module.ENCODED].bytes_list.value.append(file)
      yield log
      continue
    values = [encoded] if spec.dtype == tf.string else images
    for value in values:
      log = prediction_log_pb2.PredictionLog()
      request = log.predict_log.request
      request.model_spec.name = name
      request.model_spec.signature_name = signature
      request.inputs[spec.name].CopyFrom(
        tf.make_tensor_proto(value, dtype=spec.dtype)
      )
      yield log
