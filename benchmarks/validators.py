"""How long the validators take.

  python -m benchmarks.validators

on 10,000 + 10,000 features of width 256, of 65 classes as Office-Home has them.
Prints seconds of each, of the cheap ones together (those of every evaluation;
the target is 10 s), of what is measured at the end (all of them, distances and
calibration), and of an interval of 1,000 resamples.
"""

import json
import os
import platform
import time

import numpy as np

from tfda import run_directory
from tfda.evaluation import (
  calibration,
  distances,
  evaluate,
  model_outputs,
  selection,
  validators,
)

_IMAGES, _WIDTH, _CLASSES = 10_000, 256, 65


def _outputs():
  """Classes around centres, the target's moved, a classifier by the centres."""
  random = np.random.default_rng(0)
  centres = random.normal(size=[_CLASSES, _WIDTH])
  moved = 0.5 * random.normal(size=[_CLASSES, _WIDTH])
  arrays = {}
  for side in ('source', 'target'):
    labels = random.integers(_CLASSES, size=_IMAGES)
    features = 3.0 * random.normal(size=[_IMAGES, _WIDTH]) + centres[labels]
    features += moved[labels] * (side == 'target')
    logits = 0.2 * features @ centres.T
    arrays[f'{side}_labels'] = labels
    arrays[f'{side}_kept'] = np.arange(_IMAGES)
    arrays[f'{side}_features'] = features.astype(np.float32)
    arrays[f'{side}_logits'] = logits.astype(np.float32)
    arrays[f'{side}_domain_logits'] = features[:, 0].astype(np.float32)
  return model_outputs.Outputs(arrays)


def _seconds(call):
  start = time.perf_counter()
  call()
  return round(time.perf_counter() - start, 3)


def main():
  validators.measure(_outputs())  # Packages are imported here.
  outputs = _outputs()
  each = {
    name: _seconds(lambda name=name: validators.measure(outputs, [name]))
    for name in validators.VALIDATORS
  }
  names = [str(i) for i in range(_CLASSES)]
  at_the_end = sum(each.values())
  at_the_end += _seconds(lambda: distances.measure(outputs, names))
  at_the_end += _seconds(lambda: calibration.measure(outputs))
  rows = {k: v.rows(outputs) for k, v in validators.VALIDATORS.items()}
  intervals = {
    name: _seconds(lambda name=name: selection.measure(name, rows[name], 1000))
    for name in rows
  }
  print(
    json.dumps(
      {
        'seconds': each,
        'every_evaluation': round(sum(each[k] for k in evaluate.WATCHED), 3),
        'at_the_end': round(at_the_end, 3),
        'interval': intervals,
        'machine': f'{os.cpu_count()} cores, {platform.machine()}',
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
