"""Training what a published table needs, and writing our figures beside it.

published_tables.py has the definitions, evaluation/reproduced.py the figures.
"""

import collections
import dataclasses
import os
import time
import typing

import tensorflow as tf

from tfda import (
  errors,
  flag_config,
  published_tables,
  run_directory,
  settings,
  sweep,
)
from tfda.data import catalogue, domains
from tfda.evaluation import reproduced, summary
from tfda.settings import setting

_SAY_SECONDS = 60.0  # Between lines on what runs.
# States of a run, in the order in which they are told.
STATES = {
  'new': 'to do',
  'resumable': 'to be gone on with',
  'finished': 'finished, to be collected',
  'collected': 'done',
  'other': 'of other settings',
  'missing': 'left out',
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a table is reproduced."""

  data_dir: typing.Optional[str] = setting(
    None, 'folder of downloaded data sets'
  )
  backbone_weights: typing.Optional[str] = setting(
    None,
    'path of ImageNet weights, for the rows whose network begins with them',
  )
  cache_dir: typing.Optional[str] = setting(
    None, 'folder of decoded images and features; ~/.cache/tfda if not set'
  )
  seeds: typing.Optional[int] = setting(
    None,
    "seeds of every row, from 0; the table's own number if not set",
    minimum=1,
  )
  parallel: typing.Optional[int] = setting(
    None,
    'runs at a time; one a core if not set, but where there is a GPU one alone',
    minimum=1,
  )
  runs_dir: str = setting('runs', 'folder of the runs')
  results: str = setting('results', 'folder of the figures')
  dry_run: bool = setting(
    False, 'only list what is to be done, what is done and what is missing'
  )

  def __post_init__(self):
    settings.check(self)


def plan(name, definition, options):
  """The Runs that a table needs, translations first: {place: Run}.

  Args:
    name: of the table.
    definition: of `load`.
    options: Settings.
  """
  runs = {}
  present = {}
  for cell in (
    cell for row in published_tables.cells(name, definition) for cell in row
  ):
    if cell.flags is None or f'{cell.place}/seed0' in runs:
      continue
    experiment, config = published_tables.parse(cell, options)
    needs = None
    if cell.translation:
      needs = f'{cell.column["pair"]}/{_stem(cell.translation)}/seed0'
      path = os.path.join(options.runs_dir, needs)
      experiment = dataclasses.replace(experiment, translation=path)
      if needs not in runs:
        made, _ = flag_config.parse_translation(
          [f'--flagfile={cell.translation}']
        )
        made = dataclasses.replace(
          made,
          data_dir=options.data_dir,
          cache_dir=options.cache_dir,
          run_dir=path,
        )
        runs[needs] = published_tables.Run(needs, path, 'translate', made, None)
    for seed in published_tables.seeds_of(definition, options):
      place = f'{cell.place}/seed{seed}'
      path = os.path.join(options.runs_dir, place)
      one = dataclasses.replace(experiment, seed=seed, run_dir=path)
      runs[place] = published_tables.Run(
        place, path, 'train', one, config, needs
      )
  for run in runs.values():
    _judge(run, options)
  wanted = {r.needs for r in runs.values() if r.state in ('new', 'resumable')}
  kept = {}
  # What a run needs stands before it.
  for run in sorted(runs.values(), key=lambda run: run.tool == 'train'):
    if run.tool == 'translate' and run.place not in wanted:
      continue  # All that would read it is done.
    if run.state in ('new', 'resumable'):
      run.why = _missing(run, options, present)
      run.state = 'missing' if run.why else run.state
    needed = kept.get(run.needs)
    if needed and needed.state in ('missing', 'other'):
      run.state, run.why = 'missing', needed.why
    kept[run.place] = run
  return kept


def _stem(path):
  return os.path.splitext(os.path.basename(path))[0]


def _judge(run, options):
  """Sets the state of a run by what is in the folders."""
  kept = os.path.join(options.results, run.place)
  if run.tool == 'train' and run_directory.RunDirectory(kept).finished():
    run.why = published_tables.differing(kept, run)
    run.state = 'other' if run.why else 'collected'
    return
  there = run_directory.RunDirectory(run.path)
  if os.path.exists(there.flags):
    run.why = published_tables.differing(run.path, run)
    if run.why:
      run.state = 'other'
    else:
      run.state = 'finished' if there.finished() else 'resumable'
    if run.tool == 'translate' and run.state == 'finished':
      run.state = 'collected'  # Only what reads it has figures here.


def _missing(run, options, present):
  """What a run lacks to be trained; '' if nothing.

  present: {domain: what it lacks} of those already looked for.
  """
  for domain in (run.experiment.source, run.experiment.target):
    if domain not in present:
      try:
        domains.check_present(domain, options.data_dir)
        present[domain] = ''
      except errors.UsageError as error:
        present[domain] = _where(domain, error)
    if present[domain]:
      return present[domain]
  if (
    run.tool == 'train'
    and published_tables.is_pretrained(run.experiment)
    and run.experiment.backbone_weights == 'none'
  ):
    network = run.experiment.backbone
    return f'--backbone_weights=PATH is needed, of {network} on ImageNet'
  return ''


def _where(domain, error):
  """The error, with where the data set is had if it does not say that."""
  data_set, text = catalogue.of(domain), str(error)
  if data_set is None or data_set.home in text:
    return text
  return f'{text}; where it is had: {data_set.home}'


def describe(runs):
  """Lines that list the work: counts, the runs by state, what is missing."""
  by_state = collections.defaultdict(list)
  for run in runs.values():
    by_state[run.state].append(run)
  lines = []
  for state, title in STATES.items():
    for reason, group in _by_reason(by_state[state]):
      lines.append(f'{len(group)} {title}{f": {reason}" if reason else ""}')
      lines += [f'  {shown}' for shown in _grouped(group)]
  return lines


def _by_reason(runs):
  groups = collections.defaultdict(list)
  for run in runs:
    groups[run.why].append(run)
  return groups.items()


def _grouped(runs):
  """'<pair>/<flag file>/seed0-2' of runs that differ in the seed alone."""
  seeds = collections.defaultdict(list)
  for run in runs:
    place, _, seed = run.place.rpartition('/seed')
    seeds[place].append(int(seed))
  for place, found in seeds.items():
    found.sort()
    whole = found == list(range(found[0], found[-1] + 1))
    if whole and len(found) > 1:
      shown = f'{found[0]}-{found[-1]}'
    else:
      shown = ','.join(map(str, found))
    yield f'{place}/seed{shown}'


class _Progress:
  """Says what has ended, and how long the others may take.

  A run counts as many steps as it has; the time left is that of the steps left
  at the pace so far.
  """

  def __init__(self, runs, say, clock=time.monotonic):
    self._steps = {run.path: run.experiment.steps for run in runs}
    self._begun = {path: _steps_of(path) for path in self._steps}
    self._ended, self._failed = set(), 0
    self._say, self._clock = say, clock
    self._start = self._told = clock()

  def watch(self, paths):
    """Says where those at `paths` are, once a minute."""
    if self._clock() - self._told < _SAY_SECONDS:
      return
    self._told = self._clock()
    shown = ', '.join(
      f'{"/".join(path.split(os.sep)[-3:])} at step {_steps_of(path)} of '
      f'{self._steps[path]}'
      for path in paths
    )
    self._say(f'{shown}; {self.left()}')

  def ended(self, run, failure):
    """Says that a run has."""
    self._ended.add(run.path)
    state = f'failed ({failure})' if failure else 'finished'
    self._say(
      f'{len(self._ended)} of {len(self._steps)}: {run.place} {state}; '
      f'{self.left()}'
    )

  def left(self):
    """'about 1:20 h left'."""
    taken, remaining = 0, 0
    for path, steps in self._steps.items():
      at = steps if path in self._ended else _steps_of(path)
      taken += max(0, at - self._begun[path])
      remaining += steps - at
    if not remaining:
      return 'nothing left'
    if not taken:
      return 'time left not known yet'
    minutes = (self._clock() - self._start) * remaining / taken / 60.0
    return f'about {int(minutes // 60)}:{int(minutes % 60):02} h left'


def _steps_of(path):
  """The step of a run, as far as metrics.csv has it."""
  metrics = os.path.join(path, 'metrics.csv')
  try:
    with open(metrics, 'rb') as file:
      file.seek(max(0, os.path.getsize(metrics) - 4096))
      last = file.read().split(b'\n')[-2]
    return int(last.split(b',')[0])
  except (OSError, IndexError, ValueError):  # None yet, or being written.
    return 0


def reproduce(name, options, tools='tools', say=print):
  """Trains what a table needs, and writes it to results/<name>.{json,md,png}.

  Finished runs are left alone, interrupted ones gone on with. What needs data
  that are not there is left out, and left empty in the table.

  Args:
    name: as 'dann/table1'.
    options: Settings.
    tools: the package of the tools.
    say: takes lines.

  Raises:
    UsageError: there is no such table.
    RunError: a run has failed; the others are finished and the table written.
  """
  definition = published_tables.load(name)
  runs = plan(name, definition, options)
  for line in (f'{name}: {definition["title"]}', *describe(runs)):
    say(line)
  if options.dry_run:
    return
  failed = 0
  for run in runs.values():
    if run.state == 'finished':
      summary.collect(run.path, os.path.dirname(run.place), options.results)
  work = [r for r in runs.values() if r.state in ('new', 'resumable')]
  progress = _Progress(work, say)
  for tool in ('translate', 'train'):
    group = {
      run.path: run
      for run in work
      if run.tool == tool and not _lacking(run, runs)
    }
    texts = {
      path: flag_config.text(run.experiment, run.config)
      for path, run in group.items()
    }
    jobs = sweep.fitting(len(texts), options.parallel or (_on_gpu() and 1))
    for path, failure in sweep.each(texts, jobs, tools, tool, progress.watch):
      run = group[path]
      failed += bool(failure)
      if not failure and tool == 'train':
        summary.collect(path, os.path.dirname(run.place), options.results)
      progress.ended(run, failure)
  for path in reproduced.write(name, definition, options):
    say(path)
  lost = sum(_lacking(run, runs) for run in work)
  if failed or lost:
    raise errors.RunError(
      f'{failed} runs have failed'
      + (f', and {lost} need one of them' if lost else '')
      + '; the same command tries again'
    )


def _on_gpu():
  """Whether runs share a GPU, whose memory two may not fit."""
  return bool(tf.config.list_physical_devices('GPU'))


def _lacking(run, runs):
  """Whether the translation that it reads was to be made and is not."""
  needed = runs.get(run.needs)
  return bool(needed) and not run_directory.RunDirectory(needed.path).finished()
