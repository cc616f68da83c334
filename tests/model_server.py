"""A server of one SavedModel over gRPC and REST, in place of TF Serving.

Of the public service's messages; TensorFlow's own loader answers. It can be
told to fail first.
"""

import base64
import concurrent.futures
import http.server
import json
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
  classification_pb2,
  predict_pb2,
  prediction_service_pb2_grpc,
)

NOT_FOUND = 'Servable not found for request: Latest({})'


class Failure(Exception):
  def __init__(self, code, text):
    super().__init__(text)
    self.code, self.text = code, text


class Model:
  """The model, by the name `parts`, version 1.

  Attributes:
    failures: gRPC status codes with which the next requests fail, in order, or
      (code, text).
    delay: seconds before an answer.
    requests: how many there were.
    sizes: of the batches that were answered.
  """

  def __init__(self, path):
    self._module = tf.saved_model.load(path)
    self.failures, self.delay, self.requests, self.sizes = [], 0.0, 0, []

  def answer(self, name, version, signature, inputs):
    self.requests += 1
    if self.failures:
      failure = self.failures.pop(0)
      told = (
        failure if isinstance(failure, tuple) else (failure, 'told to fail')
      )
      raise Failure(*told)
    if name != 'parts' or version not in (None, 1):
      raise Failure(grpc.StatusCode.NOT_FOUND, NOT_FOUND.format(name))
    if self.delay:
      time.sleep(self.delay)
    function = self._module.signatures[signature]
    specs = function.structured_input_signature[1]
    inputs = {n: tf.constant(v, specs[n].dtype) for n, v in inputs.items()}
    self.sizes += [len(value) for value in inputs.values()]
    try:
      return {n: v.numpy() for n, v in function(**inputs).items()}
    except tf.errors.InvalidArgumentError as error:
      code = grpc.StatusCode.INVALID_ARGUMENT
      raise Failure(code, error.message) from error


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
  def __init__(self, model):
    self._model = model

  def _answer(self, request, context, inputs):
    spec = request.model_spec
    version = spec.version.value if spec.HasField('version') else None
    try:
      return self._model.answer(spec.name, version, spec.signature_name, inputs)
    except Failure as failure:
      return context.abort(failure.code, failure.text)

  def Predict(self, request, context):
    inputs = {n: tf.make_ndarray(v) for n, v in request.inputs.items()}
    response = predict_pb2.PredictResponse()
    for name, value in self._answer(request, context, inputs).items():
      if name in request.output_filter or not request.output_filter:
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response

  def Classify(self, request, context):
    examples = request.input.example_list.examples
    inputs = {'inputs': [e.SerializeToString() for e in examples]}
    answer = self._answer(request, context, inputs)
    response = classification_pb2.ClassificationResponse()
    for names, scores in zip(answer['classes'], answer['scores']):
      classes = response.result.classifications.add().classes
      for name, score in zip(names, scores):
        classes.add(label=name.decode(), score=score)
    return response


_STATUS = {
  grpc.StatusCode.INVALID_ARGUMENT: 400,
  grpc.StatusCode.NOT_FOUND: 404,
  grpc.StatusCode.UNAVAILABLE: 503,
}


def _handler(model):
  class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
      pass

    def do_POST(self):
      size = int(self.headers['Content-Length'])
      body = json.loads(self.rfile.read(size))
      parts = self.path.removesuffix(':predict').split('/')[3:]
      version = int(parts[2]) if parts[1:2] == ['versions'] else None
      encoded = body['inputs']['image_bytes']
      files = [base64.b64decode(value['b64']) for value in encoded]
      try:
        found = model.answer(
          parts[0], version, body['signature_name'], {'image_bytes': files}
        )
        status, answer = 200, {'outputs': {}}
        for name, value in found.items():
          if value.dtype == object:
            value = np.array([text.decode() for text in value])
          answer['outputs'][name] = value.tolist()
      except Failure as failure:
        status, answer = _STATUS[failure.code], {'error': failure.text}
      content = json.dumps(answer).encode()
      self.send_response(status)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content)

  return Handler


class Server:
  """Both servers on loopback; `addresses` has those of 'grpc' and 'rest'."""

  def __init__(self, path):
    self.model = Model(path)
    self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
      _Service(self.model), self._grpc
    )
    port = self._grpc.add_insecure_port('127.0.0.1:0')
    self._grpc.start()
    self._rest = http.server.ThreadingHTTPServer(
      ('127.0.0.1', 0), _handler(self.model)
    )
    threading.Thread(target=self._rest.serve_forever, daemon=True).start()
    self.addresses = {
      'grpc': f'127.0.0.1:{port}',
      'rest': f'127.0.0.1:{self._rest.server_port}',
    }

  def stop(self):
    self._grpc.stop(None).wait()
    self._rest.shutdown()
    self._rest.server_close()
