"""What adaptation changed: a run beside the one without it, image by image."""

import dataclasses

import numpy as np

from tfda import errors
from tfda.evaluation import comparison, figures, finished, pages, validators

_SHOWN = 12  # Images of a kind.
_RESAMPLES = 200  # Intervals of a page; tools.evaluate --compare takes 1,000.


@dataclasses.dataclass(frozen=True)
class Change:
  """What became of a baseline's predictions.

  Attributes:
    run, baseline: finished.Run.
    refused: why they cannot be compared; '' where they can, and else no more.
    judged: the comparison.Comparison.
    counts: (gained, lost) of all target test images, right in the run alone and
      in the baseline alone; None without labels.
    gained, lost: Samples of them, among the images that are kept.
    uncertain: Samples of the images whose entropy rose most.
    shares: Picture of how often each class is predicted.
  """

  run: finished.Run
  baseline: finished.Run
  refused: str = ''
  judged: comparison.Comparison = None
  counts: tuple = None
  gained: tuple = ()
  lost: tuple = ()
  uncertain: tuple = ()
  shares: pages.Picture = None


def of_all(runs):
  """The Changes of runs of which there is one without adaptation, in order.

  That is `source_only` between the same domains, of the same seed where there
  is one, else the first.

  Args:
    runs: finished.Run, each.
  """
  found = []
  for run in runs:
    if run.arrays is None or run.results['method'] == finished.BASELINE:
      continue
    baselines = [
      other
      for other in runs
      if other.results['method'] == finished.BASELINE
      and other.arrays is not None
      and finished.tasks([other]) == finished.tasks([run])
    ]
    if baselines:
      seed = run.results['seed']
      # False is before True, and the order is kept.
      baselines.sort(key=lambda other: other.results['seed'] != seed)
      found.append(of(run, baselines[0]))
  return found


def of(run, baseline):
  """The Change from one finished.Run to another."""
  try:
    compared = comparison.compare(
      run.path, baseline.path, _RESAMPLES, (baseline.outputs, run.outputs)
    )
  except errors.UsageError as error:
    reason = str(error).removeprefix(f'--compare={baseline.path}: ')
    return Change(run, baseline, reason)
  before, after = (x.predictions('target') for x in (baseline, run))
  labels = run.labels('target')
  counts, gained, lost = None, (), ()
  kept = run.arrays['target_kept'][: len(run.arrays['target_images'])]
  if labels is not None:
    is_gained = (before != labels) & (after == labels)
    is_lost = (before == labels) & (after != labels)
    counts = int(is_gained.sum()), int(is_lost.sum())
    gained, lost = (
      tuple(
        run.sample('target', i, f'before: {run.names[before[kept[i]]]}')
        for i in np.flatnonzero(chosen[kept])[:_SHOWN]
      )
      for chosen in (is_gained, is_lost)
    )
  entropies = [
    validators.entropies(x.arrays['target_logits'][kept].astype(np.float64))
    for x in (baseline, run)
  ]
  rise = entropies[1] - entropies[0]
  uncertain = tuple(
    run.sample(
      'target', i, f'entropy {entropies[0][i]:.2f} → {entropies[1][i]:.2f}'
    )
    for i in np.argsort(-rise)[:_SHOWN]
    if rise[i] > 0.0
  )
  return Change(
    run,
    baseline,
    judged=compared,
    counts=counts,
    gained=gained,
    lost=lost,
    uncertain=uncertain,
    shares=_shares(run, compared.shares),
  )


def _shares(run, shares):
  of_source, before, after = shares
  moved = np.argsort(-np.abs(after - before))[:3]
  most = '; '.join(
    f'{run.names[i]} {before[i]:.1%} → {after[i]:.1%} '
    f'(source {of_source[i]:.1%})'
    for i in moved
  )
  return pages.picture(
    figures.histogram(
      after, run.names, 'share of target images predicted as the class', before
    ),
    f'Bar chart of how often classes are predicted by {run.label}, the '
    f'baseline lighter behind. Most changed: {most}.',
    f'Predicted classes, the baseline lighter behind. Most changed: {most}',
  )
