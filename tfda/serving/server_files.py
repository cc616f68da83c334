"""The files that a TF Serving is started with, beside the versions.

`models.config`, `batching_parameters.txt`, `monitoring.config` and
`docker-compose.yml`. A file that is there is left as it is: it may be edited.
"""

import os
import re

from tfda import run_directory

_FILES = {
  'models.config': """\
# tensorflow_model_server --model_config_file: text of a ModelServerConfig.
model_config_list {
  config {
    name: "NAME"
    base_path: "/models/NAME"
    model_platform: "tensorflow"
    # The highest version alone; specific { versions: 1 } goes back to one.
    model_version_policy { latest { num_versions: 1 } }
  }
}
""",
  'batching_parameters.txt': """\
# tensorflow_model_server --enable_batching --batching_parameters_file: text of
# BatchingParameters. Requests of several clients then are one batch, in which a
# bad image is an error of all of them, and its number counts in that batch;
# tools.client then asks for each of its images alone.
max_batch_size { value: 64 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 4 }
""",
  'monitoring.config': """\
# tensorflow_model_server --monitoring_config_file: text of a MonitoringConfig.
# Prometheus reads http://HOST:8501/monitoring/prometheus/metrics.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
""",
  'docker-compose.yml': """\
# docker compose up, in this folder: gRPC on port 8500, REST on port 8501.
services:
  NAME:
    image: tensorflow/serving:2.15.1
    ports:
      - "8500:8500"
      - "8501:8501"
    volumes:
      - type: bind
        source: .
        target: /models/NAME
        read_only: true
    # The image's own command looks for one model by its name.
    entrypoint: ["/usr/bin/tensorflow_model_server"]
    command:
      - --port=8500
      - --rest_api_port=8501
      - --model_config_file=/models/NAME/models.config
      - --monitoring_config_file=/models/NAME/monitoring.config
      # For many clients with few images each:
      # - --enable_batching
      # - --batching_parameters_file=/models/NAME/batching_parameters.txt
    restart: unless-stopped
""",
}


def model_name(out):
  """The name of the model in a folder of versions: the folder's.

  What cannot stand in an address or a compose file becomes '_'.
  """
  name = os.path.basename(os.path.abspath(out))
  return re.sub(r'[^A-Za-z0-9_-]', '_', name)


def write(out, name):
  """Writes the files that are not there.

  Args:
    out: the folder of versions.
    name: of the model, see `model_name`.
  """
  for file, text in _FILES.items():
    path = os.path.join(out, file)
    if not os.path.exists(path):
      run_directory.write(path, text.replace('NAME', name))
