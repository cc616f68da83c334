"""Sending image files to a running TF Serving, over gRPC or REST.

The files go as they are; the served graph decodes them (signature
`serving_bytes`). Those that are neither JPEG nor PNG are sent as PNG.
"""

import base64
import concurrent.futures
import dataclasses
import io
import random
import re
import time
from typing import Optional

import numpy as np
import tqdm

from tfda import errors
from tfda.data import images as image_files
from tfda.serving import classifier, decoding, inputs
from tfda.settings import check, setting

_SIGNATURE = 'serving_bytes'
_ADDRESS = re.compile(r'(?:[^\s:/@?#\[\]]+|\[[\da-fA-F:.]+\]):(\d{1,5})')
_BAD_IMAGE = re.compile(r'image \[(\d+)[^]]*\] of the request (.+)')
_BAR_FROM = 10  # Batches; fewer are done before a bar is read.
_AS_IS = (b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n')
# What may be over soon: a server that starts, or whose queue is full.
_PASSING = ('UNAVAILABLE', 'RESOURCE_EXHAUSTED')
_OF_STATUS = {
  400: 'INVALID_ARGUMENT',
  404: 'NOT_FOUND',
  429: 'RESOURCE_EXHAUSTED',
  503: 'UNAVAILABLE',
  504: 'DEADLINE_EXCEEDED',
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Which server is asked, and how."""

  server: str = setting(
    'localhost:8500', 'HOST:PORT; TF Serving has REST on 8501'
  )
  protocol: str = setting('grpc', 'of the server', choices=('grpc', 'rest'))
  model: Optional[str] = setting(None, "the model's name on the server")
  version: Optional[int] = setting(
    None, "of the model; the server's choice if not set", minimum=0
  )
  batch_size: int = setting(32, 'images in a request', minimum=1)
  parallel: int = setting(2, 'requests at a time', minimum=1)
  deadline: float = setting(
    30.0, 'seconds for a request with all its retries', minimum=0.001
  )
  retries: int = setting(
    5, 'of a request that a server could not take', minimum=0
  )
  first_wait: float = setting(
    0.2, 'seconds before the first retry; each waits twice as long', minimum=0.0
  )

  def __post_init__(self):
    check(self)
    if not self.model:
      raise errors.UsageError("--model=NAME is needed, the server's")
    address = _ADDRESS.fullmatch(self.server)
    if not address or not 0 < int(address.group(1)) < 2**16:
      raise errors.UsageError(
        f'--server={self.server}: not HOST:PORT, as localhost:8500'
      )


class _Failure(Exception):
  """A request failed; `code` is the name of a gRPC status."""

  def __init__(self, code, message):
    super().__init__(message)
    self.code = code


def predict(paths, settings, progress=False):
  """Asks a server for the classes of image files.

  Args:
    paths: of files and of folders (all images below them, sorted).
    settings: Settings.
    progress: show a bar on standard error if there are many.

  Returns:
    classifier.Predictions.

  Raises:
    UsageError: no such file or model, a file that the server refuses.
    RunError: the server does not answer, not in time, or with an error.
  """
  found, _ = inputs.resolve(list(paths))
  starts = range(0, len(found), settings.batch_size)
  batches = [found[i : i + settings.batch_size] for i in starts]
  hidden = None if progress and len(batches) > _BAR_FROM else True
  bar = tqdm.tqdm(total=len(found), unit='image', disable=hidden)
  call = _grpc(settings) if settings.protocol == 'grpc' else _rest(settings)
  labels, probabilities = [], []
  pool = concurrent.futures.ThreadPoolExecutor(settings.parallel)
  try:
    for batch, answer in zip(
      batches, pool.map(lambda batch: _ask(call, batch, settings), batches)
    ):
      labels += answer[0]
      probabilities.append(answer[1])
      bar.update(len(batch))
  finally:
    pool.shutdown(cancel_futures=True)
    bar.close()
  return classifier.Predictions(labels, np.concatenate(probabilities), found)


def _ask(call, paths, settings):
  """One request, with retries; (labels, probabilities) of its files.

  Where a bad file is told of, more requests, to be sure which.
  """
  files = [_content(path) for path in paths]
  end = time.monotonic() + settings.deadline
  wait, retries = settings.first_wait, settings.retries
  while True:
    try:
      return call(files, max(end - time.monotonic(), 1e-3))
    except _Failure as failure:
      named = _named(failure)
      if named is not None and len(paths) > 1:
        return _ask_each(call, paths, settings, named)
      # Not all clients at the same time.
      pause = wait * random.uniform(0.5, 1.0)
      in_time = time.monotonic() + pause < end
      if failure.code not in _PASSING or not retries or not in_time:
        raise _error(failure, paths, settings) from failure
    time.sleep(pause)
    wait, retries = 2 * wait, retries - 1


def _ask_each(call, paths, settings, first):
  """As `_ask`, each file alone, that of the number `first` first.

  A server that makes one batch of several requests counts the images of that,
  and refuses them all for a bad one.
  """
  order = sorted(range(len(paths)), key=lambda i: i != first)
  answers = {i: _ask(call, [paths[i]], settings) for i in order}
  labels, probabilities = zip(*(answers[i] for i in range(len(paths))))
  return sum(labels, []), np.concatenate(probabilities)


def _named(failure):
  """The number of the image that a server refused; None for anything else."""
  found = _BAD_IMAGE.match(decoding.reason(str(failure)))
  refused = failure.code == 'INVALID_ARGUMENT'
  return int(found.group(1)) if refused and found else None


def _content(path):
  """The bytes of a file as they are sent."""
  try:
    with open(path, 'rb') as file:
      content = file.read()
  except OSError as error:
    raise errors.UsageError(
      f'{path}: cannot be read: {error.strerror}'
    ) from error
  if content.startswith(_AS_IS):
    return content
  from PIL import Image

  png = io.BytesIO()
  Image.fromarray(image_files.decode(path, path)).save(png, 'png')
  return png.getvalue()


def _error(failure, paths, settings):
  """The error of one line that a failure is to a user."""
  server, text = settings.server, decoding.reason(str(failure))
  if failure.code == 'INVALID_ARGUMENT':
    if _named(failure) == 0:
      why = _BAD_IMAGE.match(text).group(2)
      return errors.UsageError(f'{paths[0]}: refused by {server}: {why}')
    return errors.UsageError(f'{server}: refuses the request: {text}')
  if failure.code == 'NOT_FOUND':
    version = (
      '' if settings.version is None else f' --version={settings.version}'
    )
    return errors.UsageError(
      f'--model={settings.model}{version}: not on {server}: {text}'
    )
  if failure.code == 'DEADLINE_EXCEEDED':
    return errors.RunError(
      f'{server}: no answer within --deadline={settings.deadline} seconds'
    )
  if failure.code == 'UNAVAILABLE':
    return errors.RunError(
      f'{server}: no server answers over {settings.protocol}: {text}'
    )
  return errors.RunError(f'{server}: {failure.code}: {text}')


def _grpc(settings):
  """(files, seconds) -> (labels, probabilities), over gRPC."""
  import grpc
  import tensorflow as tf
  from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

  # Photographs are larger than the usual 4 MB.
  unlimited = [
    (f'grpc.max_{way}_message_length', -1) for way in ('send', 'receive')
  ]
  channel = grpc.insecure_channel(settings.server, unlimited)
  stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

  def call(files, seconds):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = settings.model
    request.model_spec.signature_name = _SIGNATURE
    if settings.version is not None:
      request.model_spec.version.value = settings.version
    request.inputs['image_bytes'].CopyFrom(tf.make_tensor_proto(files))
    request.output_filter.extend(['label', 'probabilities'])
    try:
      outputs = stub.Predict(request, seconds).outputs
    except grpc.RpcError as error:
      raise _Failure(error.code().name, error.details()) from error
    labels = tf.make_ndarray(outputs['label'])
    probabilities = tf.make_ndarray(outputs['probabilities'])
    return [label.decode() for label in labels], probabilities

  return call


def _rest(settings):
  """(files, seconds) -> (labels, probabilities), over REST."""
  import requests

  version = '' if settings.version is None else f'/versions/{settings.version}'
  url = f'http://{settings.server}/v1/models/{settings.model}{version}:predict'

  def call(files, seconds):
    encoded = [{'b64': base64.b64encode(f).decode('ascii')} for f in files]
    body = {
      'signature_name': _SIGNATURE,
      'inputs': {'image_bytes': encoded},
    }
    try:
      response = requests.post(url, json=body, timeout=seconds)
      answer = response.json()
    except requests.Timeout as error:
      raise _Failure('DEADLINE_EXCEEDED', str(error)) from error
    except requests.ConnectionError as error:
      raise _Failure('UNAVAILABLE', str(error)) from error
    except ValueError as error:
      reason = f'its answer is no JSON: {error}'
      raise _Failure('UNKNOWN', reason) from error
    if not response.ok:
      code = _OF_STATUS.get(response.status_code, 'UNKNOWN')
      raise _Failure(code, str(answer.get('error', answer)))
    outputs = answer['outputs']
    probabilities = np.array(outputs['probabilities'], np.float32)
    return outputs['label'], probabilities

  return call
