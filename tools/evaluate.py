r"""Evaluates a run anew: on its own test splits, or on another domain.

  python -m tools.evaluate --run_dir=RUN [--domain=NAME_OR_folder:PATH] \
    [--data_dir=DIR]
  python -m tools.evaluate --run_dir=RUN --compare=RUN_WITHOUT_ADAPTATION

The second judges a run against another on the same test images, from what both
have kept of these: how much better or worse each validator is (95 % intervals,
over images drawn anew), how often both predict the same, which classes are
predicted more or less often, and warnings of negative transfer.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  run_dir: Optional[str] = setting(None, 'the run; its last checkpoint counts')
  domain: Optional[str] = setting(
    None, "domain to evaluate on; the run's two if not set"
  )
  data_dir: Optional[str] = setting(
    None, "folder of downloaded data sets; the run's if not set"
  )
  compare: Optional[str] = setting(
    None, 'another finished run on the same data, as one of source_only'
  )
  resamples: int = setting(
    1000, 'of the test images, for the intervals of --compare', minimum=1
  )

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'evaluate': ('', Settings)})


_SHIFTS = 5  # Classes that are shown, those whose share changed the most.


def main(arguments):
  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['evaluate']
  if not settings.run_dir:
    raise errors.UsageError('--run_dir=RUN is needed')
  if settings.compare:
    _compare(settings)
  else:
    _evaluate_anew(settings)


def _compare(settings):
  from tfda.evaluation import comparison

  found = comparison.compare(
    settings.run_dir, settings.compare, settings.resamples
  )
  print(f'{settings.run_dir}, after {settings.compare}')
  rows = [['', 'before', 'after', 'change, 95 % interval', '']]
  words = {True: 'better', False: 'worse', None: ''}
  for x in (*found.differences, found.oracle):
    if x is not None:
      interval = f'{x.interval[0]:+.4f} to {x.interval[1]:+.4f}'
      figures = (f'{x.before:.4f}', f'{x.after:.4f}', interval)
      rows.append([x.name, *figures, words[x.better]])
  _print(rows)
  print(
    f'\nthe same class is predicted for {found.agreement:.2%} of the target'
  )
  of_source, before, after = found.shares
  rows = [['class', 'source', 'before', 'after']]
  for i in (-abs(after - before)).argsort(kind='stable')[:_SHIFTS]:
    shares = (of_source[i], before[i], after[i])
    rows.append([found.class_names[i], *(f'{x:.2%}' for x in shares)])
  _print(rows)
  for warning in found.warnings:
    print(f'warning: {warning}')


def _print(rows):
  widths = [max(map(len, column)) for column in zip(*rows)]
  for row in rows:
    print('  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip())


def _evaluate_anew(settings):
  from tfda.serving import restore

  run, experiment, model = restore.restore(settings.run_dir)
  if settings.data_dir:
    experiment = dataclasses.replace(experiment, data_dir=settings.data_dir)
  rows = [
    [side, *_evaluate(model, run, side, domain)]
    for side, domain in _domains(experiment, model, settings.domain).items()
  ]
  print(f'{run.path} at step {int(model.step)} of {experiment.steps}')
  rows.insert(0, ['', 'name', 'images', 'accuracy', 'mean entropy (nats)'])
  _print(rows)


def _domains(experiment, model, name):
  """{side: Domain}: as the run was tested, or the one that is named."""
  from tfda.data import domains, task

  if not name:
    tested = dataclasses.replace(experiment, translation=None)
    data = task.load(tested, model.read_size)
    return {side: data[side, 'test'] for side in ('source', 'target')}
  reading = task.reading(experiment)
  return {
    'domain': domains.load(
      name, 'test', model.read_size, experiment.data_dir, reading
    )
  }


def _evaluate(model, run, side, domain):
  """Returns the cells of a row: name, images, accuracy, mean entropy."""
  import numpy as np

  from tfda import losses
  from tfda.data import domains
  from tfda.evaluation import evaluate

  # In the place of the source: what the run was trained with.
  names = tuple(run.class_names())
  trained = domains.Domain(run.path, 'train', None, range(len(names)), names)
  domains.check_classes(trained, domain)
  # Another domain is new: it is classified as the target is.
  statistics = 'source' if side == 'source' else 'target'
  logits, _ = evaluate.predict(model, domain, statistics, np.arange(0))
  shown = 'no labels'
  if domain.labels is not None:
    shown = f'{np.mean(logits.argmax(axis=-1) == domain.labels):.2%}'
  entropy = float(np.mean(losses.entropy(logits)))
  return [domain.name, str(len(logits)), shown, f'{entropy:.4f}']


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
