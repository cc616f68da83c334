"""Smaller exports: weights of fewer bits, and the formats TFLite and ONNX.

`float16` keeps weights in half precision, `dynamic_range` in 8 bits with a
scale for each output channel; a SavedModel computes in float32 from them, in
TFLite the products of `dynamic_range` are of 8 bits too. TFLite and ONNX files
take `images` float32 [B, R, R, 3] in 0..255 of the side that the model reads
and give `probabilities` [B, C]; labels.txt and calibration.json (module.py) are
beside them. Who wants probabilities p calibrated that are not takes the softmax
of ln p / T, which is that of logits / T.
"""

import os
import time

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import augmentation

OPTIMIZATIONS = ('none', 'float16', 'dynamic_range')
# The file by which a folder is known to be of a format.
FILES = {
  'saved_model': 'saved_model.pb',
  'tflite': 'model.tflite',
  'onnx': 'model.onnx',
}
_BATCH = 64
_SMALLEST = 1024  # Weights of a tensor; fewer are not worth their operations.


def infer(model, kind):
  """A model's `infer` with weights of fewer bits, as constants.

  Args:
    model: a ClassificationModel.
    kind: 'float16' or 'dynamic_range'.

  Returns:
    A function: images [B, S, S, 3] -> {'logits', 'features', ...}.
  """
  from tensorflow.python.framework import convert_to_constants

  size = model.backbone.image_size
  images = tf.TensorSpec([None, size, size, 3], tf.float32, 'images')
  traced = tf.function(model.infer, autograph=False)
  concrete = traced.get_concrete_function(images)
  frozen = convert_to_constants.convert_variables_to_constants_v2(concrete)
  graph = frozen.graph.as_graph_def()
  with tf.Graph().as_default() as stored:
    weights = [_stored(node, kind) for node in graph.node]
  kept = [node for node, weight in zip(graph.node, weights) if weight is None]
  del graph.node[:]
  graph.node.extend(kept)
  graph.node.extend(stored.as_graph_def().node)
  names = sorted(concrete.structured_outputs)
  outputs = [output.name for output in frozen.outputs]

  def run(images):
    given = {frozen.inputs[0].name: images}
    found = tf.import_graph_def(graph, given, outputs)
    return dict(zip(names, found))

  # Compiled, lest every signature have the weights once more.
  return tf.function(run, input_signature=[images], autograph=False)


def _stored(node, kind):
  """Makes what replaces a weight in the graph; None for another node."""
  if node.op != 'Const':
    return None
  value = tf.make_ndarray(node.attr['value'].tensor)
  if value.dtype != np.float32 or value.size < _SMALLEST:
    return None
  if kind == 'float16':
    half = tf.constant(value.astype(np.float16), name=f'{node.name}/stored')
    return tf.cast(half, tf.float32, name=node.name)
  # The last axis is that of the outputs, but of depthwise convolutions.
  channels = value.ndim - (2 if value.shape[-1] == 1 else 1)
  others = tuple(axis for axis in range(value.ndim) if axis != channels)
  scale = abs(value).max(axis=others, keepdims=True) / 127.0
  scale = np.where(scale > 0.0, scale, 1.0).astype(np.float32)
  whole = np.rint(value / scale).astype(np.int8)
  stored = tf.constant(whole, name=f'{node.name}/stored')
  wide = tf.cast(stored, tf.float32, name=f'{node.name}/wide')
  return tf.multiply(
    wide, tf.constant(scale, name=f'{node.name}/scale'), name=node.name
  )


def write(model, kind, form, path, divisor=1.0):
  """Writes model.tflite or model.onnx into a folder.

  Args:
    model: a ClassificationModel.
    kind: of OPTIMIZATIONS; of ONNX 'none' alone.
    form: 'tflite' or 'onnx'.
    path: the folder.
    divisor: by what logits are divided for probabilities.

  Raises:
    UsageError: the packages of the format are not there.
    RunError: the format lacks an operation of the model.
  """
  size = model.read_size
  images = tf.TensorSpec([None, size, size, 3], tf.float32, 'images')

  def probabilities(images):
    cropped = augmentation.centre_crop(images, model.backbone.image_size)
    logits = model.infer(cropped)['logits']
    scaled = tf.cast(logits, tf.float32) / divisor
    return {'probabilities': tf.nn.softmax(scaled)}

  traced = tf.function(probabilities, input_signature=[images], autograph=False)
  file = os.path.join(path, f'model.{form}')
  try:
    if form == 'tflite':
      with open(file, 'wb') as out:
        out.write(_tflite(model, traced, kind))
    else:
      _tf2onnx().convert.from_function(
        traced, input_signature=[images], opset=17, output_path=file
      )
  # Converters raise whatever they come across.
  except (ValueError, RuntimeError, tf.errors.OpError) as error:
    if isinstance(error, (errors.UsageError, errors.RunError)):
      raise
    reason = str(error).strip().splitlines()[0]
    raise errors.RunError(f'--format={form}: {reason}') from error


def _tflite(model, traced, kind):
  converter = tf.lite.TFLiteConverter.from_concrete_functions(
    [traced.get_concrete_function()], model
  )
  if kind != 'none':
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
  if kind == 'float16':
    converter.target_spec.supported_types = [tf.float16]
  return converter.convert()


def _tf2onnx():
  try:
    import onnxruntime  # noqa: F401, it is needed to check what is written.
    import tf2onnx
  except ImportError as error:
    raise errors.UsageError(
      f"--format=onnx needs pip install 'tfda[onnx]' (Python 3.10 on): {error}"
    ) from error
  return tf2onnx


def probabilities(path, form, images):
  """What a written file answers.

  Args:
    path: the folder that `write` wrote to.
    form: 'tflite' or 'onnx'.
    images: uint8 [N, R, R, 3].

  Returns:
    (probabilities [N, C], seconds for all images).
  """
  call = (_run_tflite if form == 'tflite' else _run_onnx)(
    os.path.join(path, f'model.{form}')
  )
  found, seconds = [], 0.0
  for start in range(0, len(images), _BATCH):
    batch = images[start : start + _BATCH].astype(np.float32)
    begun = time.perf_counter()
    found.append(call(batch))
    seconds += time.perf_counter() - begun
  return np.concatenate(found), seconds


def _run_tflite(file):
  interpreter = tf.lite.Interpreter(file, num_threads=os.cpu_count())
  (given,), (answer,) = (
    interpreter.get_input_details(),
    interpreter.get_output_details(),
  )

  def call(batch):
    interpreter.resize_tensor_input(given['index'], batch.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given['index'], batch)
    interpreter.invoke()
    return interpreter.get_tensor(answer['index'])

  return call


def _run_onnx(file):
  import onnxruntime

  session = onnxruntime.InferenceSession(
    file, providers=['CPUExecutionProvider']
  )
  return lambda batch: session.run(None, {'images': batch})[0]
