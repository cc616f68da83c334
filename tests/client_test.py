"""The client against a server on loopback: TF Serving where there is one."""

import csv
import io
import json
import os
import shutil
import socket
import subprocess
import time

import grpc
import numpy as np
import pytest

from tests import model_server, tiny_run
from tests.data_files import noise, write
from tfda import errors
from tfda.serving import classifier, client, module
from tools import client as client_tool

PROTOCOLS = ('grpc', 'rest')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Images of several kinds and sizes."""
  path = tmp_path_factory.mktemp('images')
  for i, name in enumerate(
    ['a.png', 'b.jpg', 'c/d.png', 'e.bmp', 'f.jpg', 'g.png', 'h.png']
  ):
    write(path / name, noise(16 + 3 * i, 40 - 3 * i, 3, seed=i))
  return path


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  return os.path.join(tiny_run.exported(tmp_path_factory), '1')


@pytest.fixture(scope='module')
def expected(exported, folder):
  return classifier.load(exported).predict(folder)


@pytest.fixture(scope='module')
def started(exported):
  server = model_server.Server(exported)
  yield server
  server.stop()


@pytest.fixture
def server(started):
  started.model.failures, started.model.delay = [], 0.0
  started.model.requests, started.model.sizes = 0, []
  return started


def settings(server, protocol, **changed):
  values = {'model': 'parts', 'first_wait': 0.01, 'batch_size': 3, **changed}
  address = server.addresses[protocol]
  return client.Settings(server=address, protocol=protocol, **values)


def check(found, expected):
  assert found.paths == expected.paths
  assert found.labels == expected.labels
  np.testing.assert_allclose(
    found.probabilities, expected.probabilities, atol=1e-6
  )


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_answers_are_those_of_the_export(protocol, server, folder, expected):
  check(client.predict([folder], settings(server, protocol)), expected)
  assert sorted(server.model.sizes) == [1, 3, 3]
  found = client.predict([folder], settings(server, protocol, version=1))
  check(found, expected)


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_what_passes_is_tried_again(protocol, server, folder, expected):
  server.model.failures = 3 * [grpc.StatusCode.UNAVAILABLE]
  found = client.predict([folder], settings(server, protocol, batch_size=9))
  check(found, expected)
  assert server.model.requests == 4
  server.model.failures = 3 * [grpc.StatusCode.UNAVAILABLE]
  with pytest.raises(errors.RunError, match='no server answers .*told to fail'):
    client.predict(
      [folder], settings(server, protocol, batch_size=9, retries=2)
    )
  assert server.model.requests == 7


def test_waits_double(server, folder, monkeypatch):
  waits = []
  monkeypatch.setattr(client.time, 'sleep', waits.append)
  monkeypatch.setattr(client.random, 'uniform', lambda low, high: high)
  server.model.failures = 3 * [grpc.StatusCode.RESOURCE_EXHAUSTED]
  client.predict(
    [folder], settings(server, 'grpc', batch_size=9, first_wait=0.5)
  )
  assert waits == [0.5, 1.0, 2.0]


def test_bar_counts_the_images_of_many_requests(server, folder, monkeypatch):
  bars, made = [], client.tqdm.tqdm

  def bar(**options):
    bars.append(options)
    shown = made(**{**options, 'disable': False}, file=io.StringIO())
    monkeypatch.setattr(shown, 'close', lambda: bars.append(shown.n))
    return shown

  monkeypatch.setattr(client.tqdm, 'tqdm', bar)
  client.predict([folder], settings(server, 'grpc'), progress=True)
  monkeypatch.setattr(client, '_BAR_FROM', 2)
  client.predict([folder], settings(server, 'grpc'), progress=True)
  few, _, many, counted = bars
  # None: where it is written to a terminal.
  assert few['disable'] is True and many['disable'] is None
  assert many['total'] == counted == 7


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_another_name_or_version_is_refused_at_once(protocol, server, folder):
  with pytest.raises(errors.UsageError, match='--model=bits: not on 127'):
    client.predict(
      [folder], settings(server, protocol, model='bits', batch_size=9)
    )
  assert server.model.requests == 1
  with pytest.raises(errors.UsageError, match='--model=parts --version=2: not'):
    client.predict([folder], settings(server, protocol, version=2))


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_a_file_that_the_server_refuses_is_named(
  protocol, server, folder, tmp_path
):
  broken = write(tmp_path / 'broken.png', noise(9, 9, 3))
  broken.write_bytes(broken.read_bytes()[:80])
  paths = [folder / 'a.png', folder / 'b.jpg', folder, broken]
  with pytest.raises(
    errors.UsageError,
    match=f'^{broken}: refused by 127[^ ]*: cannot be read: no whole JPEG or P',
  ):
    client.predict(paths, settings(server, protocol))


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('number', [1, 40])
def test_a_bad_image_of_another_request_is_blamed_on_no_file(
  protocol, number, server, folder, expected
):
  """Where a server makes one batch of the requests of several clients."""
  text = f'image [{number}] of the request cannot be read: no whole JPEG or PNG'
  server.model.failures = [(grpc.StatusCode.INVALID_ARGUMENT, text)]
  check(client.predict([folder], settings(server, protocol)), expected)
  # The three of the request that failed came again, each alone.
  assert sorted(server.model.sizes) in ([1, 1, 1, 1, 3], [1, 3, 3])


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_deadline_ends_the_waiting(protocol, server, folder):
  server.model.delay = 1.0
  start = time.monotonic()
  with pytest.raises(errors.RunError, match='no answer within --deadline=0.2'):
    client.predict([folder / 'a.png'], settings(server, protocol, deadline=0.2))
  assert time.monotonic() - start < 0.9


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_no_server(protocol, folder):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
    asked = client.Settings(
      server=address,
      protocol=protocol,
      model='parts',
      retries=1,
      first_wait=0.01,
    )
    with pytest.raises(
      errors.RunError, match=f'^{address}: no server answers over {protocol}: '
    ) as error:
      client.predict([folder], asked)
  assert '\n' not in str(error.value)


def test_the_server_s_classify_orders_the_classes(server, folder, expected):
  from tensorflow_serving.apis import (
    classification_pb2,
    prediction_service_pb2_grpc,
  )

  request = classification_pb2.ClassificationRequest()
  request.model_spec.name = 'parts'
  request.model_spec.signature_name = 'classify'
  example = request.input.example_list.examples.add()
  feature = example.features.feature[module.ENCODED]
  feature.bytes_list.value.append((folder / 'a.png').read_bytes())
  channel = grpc.insecure_channel(server.addresses['grpc'])
  stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
  (found,) = stub.Classify(request, 30.0).result.classifications
  order = np.argsort(-expected.probabilities[0])
  assert [int(c.label) for c in found.classes] == order.tolist()
  np.testing.assert_allclose(
    [c.score for c in found.classes],
    expected.probabilities[0][order],
    atol=1e-6,
  )


def test_tool_writes_csv_and_json(
  server, folder, expected, tmp_path, monkeypatch, capsys
):
  address = f'--server={server.addresses["rest"]}'
  words = folder, '--model=parts', '--protocol=rest', address
  assert tiny_run.call(client_tool, monkeypatch, *words) == 0
  header, *rows = csv.reader(capsys.readouterr().out.splitlines())
  assert header == ['path', 'label', 'probability']
  assert [row[:2] for row in rows] == [
    list(pair) for pair in zip(expected.paths, expected.labels)
  ]
  out = tmp_path / 'out.json'
  words = *words, '--format=json', f'--out={out}'
  assert tiny_run.call(client_tool, monkeypatch, *words) == 0
  found = [row['probabilities'] for row in json.loads(out.read_text())]
  np.testing.assert_allclose(found, expected.probabilities, atol=2e-6)


@pytest.mark.parametrize(
  'words, message',
  [
    (['{folder}'], "--model=NAME is needed, the server's"),
    (['--model=parts'], 'no images; name files or folders'),
    (['--model=parts', '{folder}/no'], '{folder}/no: no such file or folder'),
    (['--model=parts', '--deadline=0', '{folder}'], '--deadline=0.0 is below'),
    *(
      (
        ['--model=parts', f'--server={server}', '{folder}'],
        f'--server={server}: not HOST:PORT, as localhost:8500',
      )
      for server in (
        '',
        'host',
        'http://host:1',
        'a b:1',
        'host:0',
        'host:65536',
      )
    ),
    (['--model=parts', '--protocol=soap', 'x'], '--protocol=soap: there are:'),
  ],
)
def test_tool_refuses_in_one_line(words, message, folder, monkeypatch, capsys):
  words = [word.format(folder=folder) for word in words]
  assert tiny_run.call(client_tool, monkeypatch, *words) == 2
  printed = capsys.readouterr().err
  assert printed.startswith(f'error: {message.format(folder=folder)}')
  assert printed.count('\n') == 1


@pytest.mark.skipif(
  not shutil.which('tensorflow_model_server'),
  reason='tensorflow_model_server is not on the PATH',
)
def test_tensorflow_model_server_answers_as_the_export(
  exported, folder, expected, tmp_path
):
  ports = []
  for _ in PROTOCOLS:
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      ports.append(free.getsockname()[1])
  with open(tmp_path / 'log', 'w') as log:
    process = subprocess.Popen(
      [
        'tensorflow_model_server',
        f'--port={ports[0]}',
        f'--rest_api_port={ports[1]}',
        '--model_name=parts',
        f'--model_base_path={os.path.dirname(exported)}',
      ],
      stderr=log,
    )
  try:
    for protocol, port in zip(PROTOCOLS, ports):
      asked = client.Settings(
        server=f'127.0.0.1:{port}',
        protocol=protocol,
        model='parts',
        deadline=60.0,
        retries=20,
      )
      check(client.predict([folder], asked), expected)
  finally:
    process.terminate()
    process.wait()
  warmed = (tmp_path / 'log').read_text()
  assert 'warmup' in warmed.lower()
