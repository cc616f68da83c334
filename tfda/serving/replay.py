"""Answers requests with a SavedModel as a server does: TensorFlow alone.

  python replay.py SAVED_MODEL IMAGES.npy ANSWERS.npz

Runs in a process of its own, as a file: an import of tfda fails. First come the
warm-up requests, then the images (uint8 [N, S, S, 3]) through every signature,
as pixels or as PNG files. ANSWERS has 'SIGNATURE/OUTPUT' [N, ...], and
'seconds/SIGNATURE' for all images.
"""

import os
import sys
import time

_BATCH = 64


def main(path, images, answers):
  sys.modules['tfda'] = None
  sys.path.pop(0)  # The folder of this file.
  import numpy as np
  import tensorflow as tf
  from tensorflow_serving.apis import prediction_log_pb2

  model = tf.saved_model.load(path)
  warmed = set()
  file = os.path.join(path, 'assets.extra', 'tf_serving_warmup_requests')
  for record in tf.data.TFRecordDataset(file):
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    if log.HasField('classify_log'):
      request = log.classify_log.request
      examples = request.input.example_list.examples
      inputs = {'inputs': [e.SerializeToString() for e in examples]}
    else:
      request = log.predict_log.request
      inputs = {n: tf.make_ndarray(v) for n, v in request.inputs.items()}
    warmed.add(request.model_spec.signature_name)
    _call(tf, model, request.model_spec.signature_name, inputs)
  missing = set(model.signatures) - warmed
  if missing:
    sys.exit(f'no warm-up request for {", ".join(sorted(missing))}')

  images = np.load(images, mmap_mode='r')
  found = {}
  for signature, function in model.signatures.items():
    ((argument, spec),) = function.structured_input_signature[1].items()
    parts, seconds = {}, 0.0
    for start in range(0, len(images), _BATCH):
      batch = images[start : start + _BATCH]
      if spec.dtype == tf.string:
        batch = [tf.io.encode_png(image).numpy() for image in batch]
      if argument == 'inputs':
        batch = [_example(tf, file) for file in batch]
      begun = time.perf_counter()
      answer = _call(tf, model, signature, {argument: batch})
      seconds += time.perf_counter() - begun
      for name, value in answer.items():
        parts.setdefault(f'{signature}/{name}', []).append(value.numpy())
    for name, values in parts.items():
      values = np.concatenate(values)
      # Names of classes, as bytes of fixed length: objects cannot be stored.
      found[name] = values.astype('S') if values.dtype == object else values
    found[f'seconds/{signature}'] = seconds
  np.savez(answers, **found)


def _call(tf, model, signature, inputs):
  function = model.signatures[signature]
  specs = function.structured_input_signature[1]
  return function(
    **{n: tf.constant(v, specs[n].dtype) for n, v in inputs.items()}
  )


def _example(tf, file):
  value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
  features = tf.train.Features(feature={'image/encoded': value})
  return tf.train.Example(features=features).SerializeToString()


if __name__ == '__main__':
  main(*sys.argv[1:])
