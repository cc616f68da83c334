"""How far validators can be trusted: their rankings of runs beside the truth.

For runs whose targets have labels. Nothing is chosen by it but validators.
"""

import os

import numpy as np

from tfda import errors, run_directory
from tfda.evaluation import selection, validators

_LEAST = 4  # Runs of a task, of which fewer have no ranking to speak of.


def study(run_dirs, tolerance=0.02):
  """Rank correlation and regret of every validator, for each pair of domains.

  Args:
    run_dirs: finished runs with evaluation.npz and target labels, at least four
      of a pair of domains.
    tolerance: of selection.rank.

  Returns:
    {task: {'best', 'chance', 'runs', 'validators'}}, accuracies in [0, 1]:
    'best' target accuracy of the runs; 'chance', the regret of a run that is
    drawn at random; 'runs', {name: {'target_accuracy', 'source_accuracy',
    'commit'}}; 'validators', {name: of `judge`, None for one that a run lacks}.

  Raises:
    UsageError: a run has no evaluation.npz or no target labels, or is alone.
  """
  tasks = {}
  paths = [os.path.abspath(path) for path in run_dirs]
  common = os.path.commonpath([os.path.dirname(path) for path in paths])
  for path in paths:
    results = run_directory.RunDirectory(path).read_results()
    outputs = selection.read_outputs(path)
    if outputs.accuracy('target') is None:
      raise errors.UsageError(f'{path}: its target has no labels')
    task = f'{results["source"]} to {results["target"]}'
    tasks.setdefault(task, {})[os.path.relpath(path, common)] = {
      'target_accuracy': outputs.accuracy('target'),
      'commit': results.get('commit'),
      **validators.measure(outputs),
    }
  return {task: _of_task(task, runs, tolerance) for task, runs in tasks.items()}


def _of_task(task, runs, tolerance):
  if len(runs) < _LEAST:
    raise errors.UsageError(
      f'{task}: {len(runs)} runs, {", ".join(runs)}; at least {_LEAST} of a '
      'pair of domains are needed'
    )

  def of(name):
    return np.array([run[name] for run in runs.values()], np.float64)

  truth, source = of('target_accuracy'), of('source_accuracy')
  admitted = source >= source.max() - tolerance
  judged = {}
  for name, validator in validators.VALIDATORS.items():
    sign = 1.0 if validator.greater_is_better else -1.0
    missing = any(run[name] is None for run in runs.values())
    judged[name] = (
      None if missing else judge(sign * of(name), truth, admitted, list(runs))
    )
  kept = ('target_accuracy', 'source_accuracy', 'commit')
  return {
    'best': float(truth.max()),
    'chance': float(truth.max() - truth.mean()),
    'runs': {k: {key: run[key] for key in kept} for k, run in runs.items()},
    'validators': judged,
  }


def judge(scores, truth, admitted, names):
  """How well scores find the best of several runs.

  For example scores 1, 2, 3 of runs with accuracies 0.5, 0.7, 0.6, all
  admitted: the ranks differ by 0, 1 and 1, 1 - 6 * 2 / (3 * 8) = 0.5; the third
  is chosen, 0.1 below the best.

  Args:
    scores: [n], the greater the better.
    truth: [n] target accuracies.
    admitted: [n] booleans, runs that may be chosen.
    names: of the runs.

  Returns:
    'spearman', of all runs, None where all scores are equal; 'regret', by how
    much the chosen run is below the best of all; 'chosen', its name.
  """
  from scipy import stats

  chosen = int(np.where(admitted, scores, -np.inf).argmax())
  spearman = None
  if np.ptp(scores) > 0.0 and np.ptp(truth) > 0.0:
    spearman = float(stats.spearmanr(scores, truth)[0])
  return {
    'spearman': spearman,
    'regret': float(truth.max() - truth[chosen]),
    'chosen': names[chosen],
  }


def table(found):
  """A Markdown table: of each validator means over tasks, the best ones first.

  Args:
    found: of `study`.
  """
  tasks = list(found)
  lines = [
    f'| validator | Spearman, mean | regret, mean | {" | ".join(tasks)} |',
    '|---' * (len(tasks) + 3) + '|',
  ]
  rows = []
  for name in validators.VALIDATORS:
    of_tasks = [found[task]['validators'][name] for task in tasks]
    if not any(of_tasks):
      continue
    spearmans = [x['spearman'] for x in of_tasks if x]
    known = [x for x in spearmans if x is not None]
    regret = np.mean([x['regret'] for x in of_tasks if x])
    cells = [
      name,
      f'{np.mean(known):.2f}' if known else '–',
      f'{100 * regret:.2f}',
      *map(_cell, of_tasks),
    ]
    rows.append((regret, f'| {" | ".join(cells)} |'))
  chances = [found[task]['chance'] for task in tasks]
  cells = [f'0.00 / {100 * x:.2f}' for x in chances]
  lines += [line for _, line in sorted(rows)]
  lines.append(
    f'| *at random* | 0.00 | {100 * np.mean(chances):.2f} | '
    f'{" | ".join(cells)} |'
  )
  return '\n'.join(lines)


def _cell(judged):
  if judged is None:
    return '–'
  known = judged['spearman'] is not None
  spearman = f'{judged["spearman"]:.2f}' if known else '–'
  return f'{spearman} / {100 * judged["regret"]:.2f}'
