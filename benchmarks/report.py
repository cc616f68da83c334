"""How long a map of many features takes, and a report of five runs.

  python -m benchmarks.report

t-SNE of 10,000 + 10,000 features of width 256, of 65 classes (the target is
120 s), with a bar where a terminal shows it; and the page of one run of
source_only and four of DANN, with 1,000 features of width 256 and 1,000 images
of 28 x 28 pixels of each domain, 10 classes (the targets are 30 s and 5 MiB).
"""

import contextlib
import json
import os
import platform
import tempfile
import time

import numpy as np

from tfda import run_directory
from tfda.evaluation import embeddings, model_outputs, report, validators

_WIDTH = 256


def _features(random, count, classes):
  """(features, labels) of classes around centres."""
  centres = np.random.default_rng(0).normal(size=[classes, _WIDTH])
  labels = random.integers(classes, size=count)
  noise = 3.0 * random.normal(size=[count, _WIDTH])
  return (centres[labels] + noise).astype(np.float32), labels


def _write_run(path, method, seed):
  os.makedirs(path)
  random = np.random.default_rng(seed)
  arrays = {}
  for side in ('source', 'target'):
    features, labels = _features(random, 1000, 10)
    logits = random.normal(size=[1000, 10]) + 3.0 * np.eye(10)[labels]
    arrays[f'{side}_features'] = features
    arrays[f'{side}_labels'] = labels
    arrays[f'{side}_logits'] = logits.astype(np.float32)
    arrays[f'{side}_kept'] = np.arange(1000)
    arrays[f'{side}_images'] = random.integers(
      256, size=[1000, 28, 28, 3], dtype=np.uint8
    )
  run = run_directory.RunDirectory(path)
  np.savez_compressed(run.evaluation, **arrays)
  outputs = model_outputs.Outputs(arrays)
  results = {
    'method': method,
    'source': 'left',
    'target': 'right',
    'backbone': 'dann_mnist',
    'steps': 9000,
    'seed': seed,
    'accuracy': {x: outputs.accuracy(x) for x in ('source', 'target')},
    'validators': validators.measure(outputs),
  }
  run_directory.write(run.results, json.dumps(results))
  run_directory.write(run.classes, json.dumps([str(i) for i in range(10)]))
  for step in range(100, 9001, 100):
    values = {
      f'loss/{i}': random.random() for i in ('total', 'label', 'domain')
    }
    accuracies = {
      f'accuracy/{x}': random.random() for x in ('source', 'target')
    }
    rates = {'learning_rate': 0.01, 'adaptation_factor': step / 9000}
    run.append_metrics({'step': step, **rates, **values, **accuracies})


@contextlib.contextmanager
def _timed(found, name):
  start, of_process = time.perf_counter(), time.process_time()
  yield
  found[name] = {
    'seconds': round(time.perf_counter() - start, 1),
    'processor_seconds': round(time.process_time() - of_process, 1),
  }


def main():
  found = {}
  random = np.random.default_rng(1)
  features = np.concatenate([_features(random, 10_000, 65)[0] for _ in '12'])
  with _timed(found, 'map'):
    embeddings.map_features(features, 0, title='20,000 features')
  with tempfile.TemporaryDirectory() as folder:
    runs = []
    for method, seed in [('source_only', 0), *(('dann', i) for i in range(4))]:
      runs.append(os.path.join(folder, method, f'seed{seed}'))
      _write_run(runs[-1], method, seed)
    with _timed(found, 'report'):
      page = report.write(runs)
    found['report']['mebibytes'] = round(os.path.getsize(page) / 2**20, 2)
  found['machine'] = f'{os.cpu_count()} cores, {platform.machine()}'
  found['commit'] = run_directory.commit()
  print(json.dumps(found, indent=1))


if __name__ == '__main__':
  main()
