"""Choosing among runs, or their evaluations, without target labels."""

import dataclasses
import os
import typing
import zipfile

import numpy as np

from tfda import errors, run_directory
from tfda.evaluation import model_outputs, validators
from tfda.settings import check, setting

_INTERVAL = (2.5, 97.5)  # Percentiles of the resampled scores: 95 %.


@dataclasses.dataclass(frozen=True)
class Choice:
  """Settings of a choice; see `rank`."""

  validator: str = setting(
    'information_maximisation', 'a figure under validators in results.json'
  )
  tolerance: float = setting(
    0.02,
    'a run is admitted up to this far below the best source accuracy',
    minimum=0.0,
    maximum=1.0,
  )
  resamples: int = setting(
    1000, 'of the test images, for the intervals; 0 for none', minimum=0
  )

  def __post_init__(self):
    check(self)
    if self.validator not in validators.VALIDATORS:
      raise errors.UsageError(
        f'--validator={self.validator}: no such validator; '
        f'{errors.near(self.validator, validators.VALIDATORS)}'
      )


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A run, as a choice without target labels sees it.

  Attributes:
    run_dir: its path.
    source_accuracy: in [0, 1].
    score: the validator's.
    admitted: whether it may be chosen; see `rank`.
    interval: (low, high) of the score, 95 %, over test images drawn anew; None
      of a run without evaluation.npz and of a step before the last.
    step: of an evaluation in training; None for the last.
  """

  run_dir: str
  source_accuracy: float
  score: float
  admitted: bool
  interval: typing.Optional[tuple[float, float]] = None
  step: typing.Optional[int] = None


def rank(
  run_dirs,
  validator='information_maximisation',
  tolerance=0.02,
  resamples=1000,
  steps=False,
):
  """Ranks finished runs by a validator, the best first.

  Only runs that still classify the source are admitted: a model may be certain
  of all its target predictions because it has given up on both domains.

  Args:
    run_dirs: paths of runs.
    validator: a name in validators.VALIDATORS, which says what is better.
    tolerance: how far below the best source accuracy a run may be, in 0..1.
    resamples: of the test images, for the intervals; 0 for none.
    steps: rank every evaluation in training, from metrics.csv, not the last
      alone.

  Returns:
    Candidates, the admitted ones first, then by score.

  Raises:
    UsageError: a run is not finished, or has no such validator.
  """
  Choice(validator)
  found = []
  for path in run_dirs:
    if steps:
      found += _evaluations(path, validator)
    else:
      found.append(_last(path, validator, resamples))
  least = max(candidate.source_accuracy for candidate in found) - tolerance
  candidates = [
    dataclasses.replace(c, admitted=c.source_accuracy >= least) for c in found
  ]
  sign = -1.0 if validators.VALIDATORS[validator].greater_is_better else 1.0
  return sorted(candidates, key=lambda c: (not c.admitted, sign * c.score))


def _last(path, validator, resamples):
  """The Candidate of a run's last step."""
  run = run_directory.RunDirectory(path)
  results = run.read_results()['validators']
  rows = None
  if os.path.exists(run.evaluation):
    # Which runs of an earlier version have too.
    rows = validators.VALIDATORS[validator].rows(read_outputs(path))
  if rows is None:
    score, interval = results.get(validator), None
  else:
    score, interval = measure(validator, rows, resamples)
  if score is None:
    raise errors.UsageError(
      f'--validator={validator}: {path} has no such figure; it has '
      f'{", ".join(sorted(k for k, v in results.items() if v is not None))}'
    )
  return Candidate(path, results['source_accuracy'], score, True, interval)


def measure(validator, rows, resamples):
  """(score, its (low, high) of 95 %, None without resamples) of rows."""
  statistic = validators.VALIDATORS[validator].statistic
  score = float(statistic(rows))
  if not resamples:
    return score, None
  resampled = validators.bootstrap(rows, statistic, resamples)
  low, high = np.percentile(resampled, _INTERVAL)
  return score, (float(low), float(high))


def _evaluations(path, validator):
  """The Candidates of all evaluations of a run."""
  run = run_directory.RunDirectory(path)
  run.read_results()  # It is finished.
  column = {'source_accuracy': 'accuracy/source'}.get(
    validator, f'validator/{validator}'
  )
  rows = [row for row in run.read_metrics() if row.get(column) is not None]
  if not rows:
    raise errors.UsageError(
      f'--validator={validator}: {run.metrics} has no column {column}, or '
      'nothing in it'
    )
  return [
    Candidate(
      path, row['accuracy/source'], row[column], True, step=int(row['step'])
    )
    for row in rows
  ]


def table(validator, ranked):
  """Lines of a ranking, in which the admitted are numbered.

  Args:
    validator: its name.
    ranked: Candidates, of `rank`.
  """
  rows = [['rank', validator, '95 % interval', 'source accuracy', 'run']]
  for i, candidate in enumerate(ranked, start=1):
    interval = candidate.interval
    of_step = '' if candidate.step is None else f' at step {candidate.step}'
    rows.append(
      [
        str(i) if candidate.admitted else '-',
        f'{candidate.score:.4f}',
        '' if interval is None else f'{interval[0]:.4f} to {interval[1]:.4f}',
        f'{candidate.source_accuracy:.2%}',
        f'{candidate.run_dir}{of_step}',
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows)]
  return '\n'.join(
    '  '.join([*(c.rjust(w) for c, w in zip(row[:-1], widths)), row[-1]])
    for row in rows
  )


def read_outputs(path):
  """The model_outputs.Outputs of a run.

  Raises:
    UsageError: it has no evaluation.npz, or one that cannot be read.
  """
  file = run_directory.RunDirectory(path).evaluation
  if not os.path.exists(file):
    raise errors.UsageError(f'{path}: no evaluation.npz; train the run again')
  try:
    with np.load(file) as arrays:
      # Images are of no use here, and large.
      kept = {k: arrays[k] for k in arrays.files if not k.endswith('_images')}
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UsageError(f'{file}: cannot be read: {error}') from error
  for side in ('source', 'target'):
    for kind in ('logits', 'kept', 'features'):
      if f'{side}_{kind}' not in kept:
        raise errors.UsageError(
          f'{file}: has no {side}_{kind}: it is of another version of tfda; '
          'train the run again'
        )
  return model_outputs.Outputs(kept)
