"""Whether a run does better than another on the same data, or worse.

Negative transfer is what adaptation does when it hurts.
"""

import dataclasses
import typing

import numpy as np

from tfda import errors, run_directory
from tfda.evaluation import selection, validators

_INTERVAL = (2.5, 97.5)  # Percentiles: 95 %.
# A class is predicted implausibly often, or seldom, beyond this factor of what
# its share of the source makes likely, of at least eight images: of eight, one
# or none is there by chance in 3 cases of 1,000 (Poisson).
_FACTOR = 4.0
_LEAST = 8.0
_SOURCE_LOSS = 0.02  # As tools.select tolerates.


@dataclasses.dataclass(frozen=True)
class Difference:
  """A figure of two runs on the same images.

  Attributes:
    name: of the validator, or 'oracle_target_accuracy'.
    before, after: of the baseline, of the run.
    interval: (low, high) of after - before, 95 %, over test images drawn anew,
      the same ones for both.
    better: whether the run is; None where the interval has 0 in it.
  """

  name: str
  before: float
  after: float
  interval: tuple[float, float]
  better: typing.Optional[bool]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """A run beside a baseline.

  Attributes:
    differences: of all validators that both runs have.
    oracle: the Difference of their target accuracies; None without labels.
    agreement: share of target images of which both predict the same class.
    class_names: of the C classes.
    shares: [3, C] of the source's labels and of the target images that are
      predicted as the class by the baseline and by the run.
    warnings: what speaks for negative transfer, a line each.
  """

  differences: tuple[Difference, ...]
  oracle: typing.Optional[Difference]
  agreement: float
  class_names: tuple[str, ...]
  shares: np.ndarray
  warnings: tuple[str, ...]


def compare(run_dir, baseline, resamples=1000, outputs=None):
  """Judges a run against another, as one without adaptation on the same data.

  Args:
    run_dir: path of a finished run.
    baseline: likewise.
    resamples: of the test images, for the intervals.
    outputs: the Outputs of the baseline and of the run, where they are read.

  Returns:
    A Comparison.

  Raises:
    UsageError: a run is not finished, or they are not of the same test images.
  """
  names = _check(run_dir, baseline)
  before, after = outputs or (
    selection.read_outputs(x) for x in (baseline, run_dir)
  )
  for side in ('source', 'target'):
    counts = [len(x[f'{side}_logits']) for x in (before, after)]
    if counts[0] != counts[1]:
      raise errors.UsageError(
        f'--compare={baseline}: it has {counts[0]} {side} test images, '
        f'{run_dir} has {counts[1]}'
      )

  differences = []
  for name, validator in validators.VALIDATORS.items():
    for x in (before, after):
      if name not in x.rows:  # A baseline is that of several runs.
        x.rows[name] = validator.rows(x)
    rows = [x.rows[name] for x in (before, after)]
    if not any(x is None for x in rows):
      greater, statistic = validator.greater_is_better, validator.statistic
      differences.append(difference(name, *rows, greater, statistic, resamples))
  predictions = [x['target_logits'].argmax(axis=1) for x in (before, after)]
  oracle = None
  if 'target_labels' in after.arrays:
    right = [x == after['target_labels'] for x in predictions]
    oracle = difference('oracle_target_accuracy', *right, resamples=resamples)
  shares = np.array(
    [
      np.bincount(x, minlength=len(names)) / len(x)
      for x in (after['source_labels'], *predictions)
    ]
  )
  return Comparison(
    tuple(differences),
    oracle,
    float(np.mean(predictions[0] == predictions[1])),
    tuple(names),
    shares,
    tuple(_warnings(differences, oracle, names, shares, len(predictions[0]))),
  )


def _check(run_dir, baseline):
  """The class names of two runs of the same domains."""
  runs = [run_directory.RunDirectory(x) for x in (baseline, run_dir)]
  theirs, ours = (run.read_results() for run in runs)
  for key in ('source', 'target'):
    if theirs[key] != ours[key]:
      raise errors.UsageError(
        f'--compare={baseline}: its {key} is {theirs[key]}, that of {run_dir} '
        f'is {ours[key]}'
      )
  names = [run.class_names() for run in runs]
  if names[0] != names[1]:
    raise errors.UsageError(
      f'--compare={baseline}: its classes are not those of {run_dir}'
    )
  return names[1]


def difference(
  name, before, after, greater=True, statistic=np.mean, resamples=1000
):
  """The Difference of a statistic of two runs' rows, of the same images.

  Args:
    name: what it is called.
    before, after: [N, ...] rows.
    greater: whether the greater statistic is the better.
    statistic: of such rows.
    resamples: of the rows, the same ones for both.
  """
  resampled = [
    validators.bootstrap(rows, statistic, resamples) for rows in (before, after)
  ]
  low, high = np.percentile(resampled[1] - resampled[0], _INTERVAL)
  decided = low > 0.0 or high < 0.0
  return Difference(
    name,
    float(statistic(before)),
    float(statistic(after)),
    (float(low), float(high)),
    bool((low > 0.0) == greater) if decided else None,
  )


def implausible(shares, expected, count):
  """Classes that are predicted far less, and far more, often than is likely.

  Less than a quarter, or more than four times, as often as their share of the
  source makes likely, where that is at least 8 images. For example 100 images,
  of which the classes are to have 0.5, 0.4 and 0.1 and are predicted with 0.95,
  0.05 and 0: the second is lost, and the third. The first is not flooded: that
  takes 200 images.

  Args:
    shares: [C] of the images, predicted.
    expected: [C], of the source's labels.
    count: of the images.

  Returns:
    Two lists of classes.
  """
  likely = expected * count
  lost = (likely >= _LEAST) & (shares * count < likely / _FACTOR)
  flooded = shares * count > _FACTOR * np.maximum(likely, _LEAST)
  return list(np.flatnonzero(lost)), list(np.flatnonzero(flooded))


def _warnings(differences, oracle, names, shares, count):
  """Yields lines."""
  if oracle is not None and oracle.better is False:
    yield (
      'adaptation hurt: the target accuracy (oracle) fell from '
      f'{oracle.before:.2%} to {oracle.after:.2%}'
    )
  by_name = {x.name: x for x in differences}
  source = by_name.pop('source_accuracy')
  if source.better is False and source.before - source.after > _SOURCE_LOSS:
    yield (
      f'the source is no longer classified: {source.after:.2%} after '
      f'{source.before:.2%}'
    )
  worse = [x.name for x in by_name.values() if x.better is False]
  better = [x.name for x in by_name.values() if x.better]
  if len(worse) > len(better):
    yield (
      f'more validators are worse ({", ".join(worse)}) than better '
      f'({", ".join(better) or "none"})'
    )
  of_source, before, after = shares
  earlier = implausible(before, of_source, count)
  for kind, classes, then in zip(
    ('hardly ever', 'far too often'),
    implausible(after, of_source, count),
    earlier,
  ):
    if classes:
      shown = ', '.join(
        f'{names[i]} {after[i]:.1%} (source {of_source[i]:.1%})'
        for i in classes[:5]
      )
      more = f' and {len(classes) - 5} more' if len(classes) > 5 else ''
      yield (
        f'{len(classes)} of {len(names)} classes are predicted {kind}, unless '
        f'the target is so: {shown}{more}; by the baseline {len(then)}'
      )
