"""Outputs of a model that never was, for the tests of what reads them."""

import json

import numpy as np

from tfda.evaluation import model_outputs, validators


def outputs(shift=0.0, count=400, seed=0):
  """Two classes, apart in one dimension; the target is moved in another."""
  random = np.random.default_rng(seed)
  arrays = {}
  for side in ('source', 'target'):
    labels = random.integers(2, size=count)
    features = random.normal(size=(count, 4))
    features[:, 0] += 6.0 * labels - 3.0
    features[:, 1] += shift * (side == 'target')
    arrays[f'{side}_features'] = features
    arrays[f'{side}_kept'] = np.arange(count)
    arrays[f'{side}_labels'] = labels
    arrays[f'{side}_logits'] = np.column_stack(
      [-features[:, 0], features[:, 0]]
    )
  return model_outputs.Outputs(arrays)


def write_run(path, made, accuracy=1.0, **changed):
  """A finished run at `path` (a pathlib.Path) that has kept these outputs."""
  path.mkdir(parents=True)
  results = {
    'source': 'left',
    'target': 'right',
    'validators': validators.measure(made),
    'accuracy': {'source': made.accuracy('source'), 'target': accuracy},
    **changed,
  }
  (path / 'results.json').write_text(json.dumps(results))
  (path / 'classes.json').write_text('["a", "b"]')
  np.savez(path / 'evaluation.npz', **made.arrays)
  return str(path)
