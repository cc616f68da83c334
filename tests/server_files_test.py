"""The files that a server is started with, parsed as the server parses them."""

import os

import pytest
from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message_factory,
  text_format,
  wrappers_pb2,
)

from tfda.serving import server_files

OPTIONAL, REPEATED = 1, 3  # FieldDescriptorProto.Label.
INT64, BOOL, STRING, MESSAGE = 3, 8, 9, 11  # FieldDescriptorProto.Type.


def message(name, **types):
  """A DescriptorProto: {field: (number, label, type, type's name)}."""
  proto = descriptor_pb2.DescriptorProto(name=name)
  for field, (number, label, kind, *type_name) in types.items():
    added = proto.field.add(name=field, number=number, label=label, type=kind)
    if type_name:
      (added.type_name,) = type_name
  return proto


def server_class(name):
  """A message of the server that the package of its API lacks.

  As in tensorflow_serving/servables/tensorflow/session_bundle_config.proto and
  tensorflow_serving/config/monitoring_config.proto.
  """
  number = (OPTIONAL, MESSAGE, '.google.protobuf.Int64Value')
  text = (OPTIONAL, MESSAGE, '.google.protobuf.StringValue')
  prometheus = (OPTIONAL, MESSAGE, '.tensorflow.serving.PrometheusConfig')
  pool = descriptor_pool.DescriptorPool()
  pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
  pool.Add(
    descriptor_pb2.FileDescriptorProto(
      name='server.proto',
      package='tensorflow.serving',
      syntax='proto3',
      dependency=['google/protobuf/wrappers.proto'],
      message_type=[
        message(
          'BatchingParameters',
          max_batch_size=(1, *number),
          batch_timeout_micros=(2, *number),
          max_enqueued_batches=(3, *number),
          num_batch_threads=(4, *number),
          thread_pool_name=(5, *text),
          allowed_batch_sizes=(6, REPEATED, INT64),
          pad_variable_length_inputs=(7, OPTIONAL, BOOL),
        ),
        message(
          'PrometheusConfig',
          enable=(1, OPTIONAL, BOOL),
          path=(2, OPTIONAL, STRING),
        ),
        message('MonitoringConfig', prometheus_config=(1, *prometheus)),
      ],
    )
  )
  found = pool.FindMessageTypeByName(f'tensorflow.serving.{name}')
  if hasattr(message_factory, 'GetMessageClass'):
    return message_factory.GetMessageClass(found)
  # Before protobuf 4, as tensorflow-metadata asks for on Python 3.9 and 3.10.
  return message_factory.MessageFactory(pool).GetPrototype(found)


@pytest.fixture
def read(tmp_path):
  out = tmp_path / 'spare parts'
  out.mkdir()
  name = server_files.model_name(out)
  server_files.write(out, name)
  return lambda file: (out / file).read_text()


def test_model_config(read):
  from tensorflow_serving.config import model_server_config_pb2

  config = model_server_config_pb2.ModelServerConfig()
  text_format.Parse(read('models.config'), config)
  (model,) = config.model_config_list.config
  assert model.name == 'spare_parts'
  assert model.base_path == '/models/spare_parts'
  assert model.model_platform == 'tensorflow'
  assert model.model_version_policy.latest.num_versions == 1


def test_batching_parameters(read):
  parameters = server_class('BatchingParameters')()
  text_format.Parse(read('batching_parameters.txt'), parameters)
  assert parameters.max_batch_size.value == 64
  assert parameters.batch_timeout_micros.value == 2000
  assert parameters.num_batch_threads.value >= 1
  assert not parameters.allowed_batch_sizes


def test_monitoring_config(read):
  config = server_class('MonitoringConfig')()
  text_format.Parse(read('monitoring.config'), config)
  assert config.prometheus_config.enable
  assert config.prometheus_config.path == '/monitoring/prometheus/metrics'


def test_compose_file_mounts_what_the_server_is_told_to_read(read):
  import yaml

  ((name, service),) = yaml.safe_load(read('docker-compose.yml'))[
    'services'
  ].items()
  assert name == 'spare_parts'
  assert service['image'].startswith('tensorflow/serving:')
  assert service['ports'] == ['8500:8500', '8501:8501']
  (volume,) = service['volumes']
  assert (volume['source'], volume['read_only']) == ('.', True)
  flags = dict(word.split('=') for word in service['command'])
  assert flags['--port'] == '8500'
  assert flags['--rest_api_port'] == '8501'
  for flag in ('--model_config_file', '--monitoring_config_file'):
    folder, file = os.path.split(flags[flag])
    assert folder == volume['target'] == '/models/spare_parts'
    assert read(file)


def test_files_that_are_there_are_left_as_they_are(tmp_path):
  (tmp_path / 'models.config').write_text('edited')
  server_files.write(tmp_path, 'parts')
  assert (tmp_path / 'models.config').read_text() == 'edited'
  assert '/models/parts' in (tmp_path / 'docker-compose.yml').read_text()
