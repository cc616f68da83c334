"""Published tables, and the project's own: the runs they need, and our figures.

A table is defined by flags/tables/<paper>/<table>.json:

  title       what it is, with the paper and its table
  note        what a reader must know beside it (may be left out)
  seeds       how many, from 0; 3 if left out
  settings    {setting: value} of all its runs, instead of the flag file's
  runs        the name of a table of the same settings, whose runs it shares
  curve       true: the picture shows target errors over steps
  columns     [{"pair": folder of flags/, "title": ...}]; with "class", the
              accuracy of this class of the target
  mean        true: a last column has the mean over the columns
  rows        [{"label": ..., "flags": flag file, or {pair: flag file},
              "settings": as above, of this row, "translation": the flag file of
              the translation it reads, "published": [a figure in percent for
              each column, as "94.3 ± 0.3", "57.49 / 52.25", "very low", ""]}]

A row without flag files is of a method, or a network, that is not here.

A run is trained in runs/<place>/seed<N> and its figures are kept in
results/<place>/seed<N>. Its place is <pair>/<flag file> where all settings are
the flag file's, and <paper>/<table>/<pair>/<flag file> where the definition
has others, followed by those of the row: the one never overwrites the other.
"""

import collections
import dataclasses
import glob
import json
import math
import os
import re
import time
import typing

import numpy as np
import tensorflow as tf

from tfda import backbones, errors, flag_config, run_directory, settings, sweep
from tfda.data import catalogue, domains
from tfda.evaluation import figures, selection, summary
from tfda.experiment import RESUMABLE
from tfda.settings import setting

FLAGS = 'flags'
TABLES = os.path.join(FLAGS, 'tables')
_SEEDS = 3  # Of a definition that does not say.
_SAY_SECONDS = 60.0  # Between lines on what runs.
# States of a run, in the order in which they are told.
_STATES = {
  'new': 'to do',
  'resumable': 'to be gone on with',
  'finished': 'finished, to be collected',
  'collected': 'done',
  'other': 'of other settings',
  'missing': 'left out',
}
# Of the picture: marker, colour, size; the published figure is a diamond.
_MARKS = {
  'oracle': ('^', figures.COLORS[4], 5),
  'selected': ('s', figures.COLORS[2], 4.5),
  'ours': ('o', figures.COLORS[0], 5.5),
}
_PANELS = 4  # Beside each other.
_MEASURES = ('ours', 'selected', 'oracle', 'published', 'difference')


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


@dataclasses.dataclass(frozen=True)
class Cell:
  """A row of a table in one of its columns.

  Attributes:
    label: of the row.
    column: {'pair', 'title'} of the definition.
    published: text.
    flags: path of the flag file; None where there is none.
    words: flags that the definition sets.
    place: of its runs, below the folders of runs and of figures.
    translation: path of the flag file of the translation that it reads.
  """

  label: str
  column: dict
  published: str
  flags: typing.Optional[str] = None
  words: tuple[str, ...] = ()
  place: typing.Optional[str] = None
  translation: typing.Optional[str] = None


@dataclasses.dataclass
class Run:
  """A run that a table needs.

  Attributes:
    place: of the cell, with the seed: <pair>/<flag file>/seed<N>.
    path: its run directory.
    tool: 'train' or 'translate'.
    experiment, config: its settings.
    needs: the place of the translation that it reads, or None.
    state: a key of _STATES.
    why: of a state that asks for a reason.
  """

  place: str
  path: str
  tool: str
  experiment: typing.Any
  config: typing.Any
  needs: typing.Optional[str] = None
  state: str = 'new'
  why: str = ''


def names():
  """The names of all tables."""
  return sorted(
    os.path.splitext(os.path.relpath(path, TABLES))[0].replace(os.sep, '/')
    for path in glob.glob(os.path.join(TABLES, '*', '*.json'))
  )


def load(name):
  """Returns the definition of a table, a dict.

  Raises:
    UsageError: there is none of that name.
  """
  known = names()
  if not known:
    raise errors.UsageError(
      f'{TABLES}: no tables; call this where the folder {FLAGS} is'
    )
  if name not in known:
    raise errors.UsageError(
      f'{name}: no such table; {errors.near(name, known)}'
    )
  with open(os.path.join(TABLES, f'{name}.json'), encoding='utf-8') as file:
    return json.load(file)


def cells(name, definition):
  """The Cells of a table, [row][column], without that of the mean."""
  return [
    [
      _cell(name, definition, row, column, published)
      for column, published in zip(
        definition['columns'], _published(definition, row)
      )
    ]
    for row in definition['rows']
  ]


def _published(definition, row):
  """Texts of the columns, and of the mean where the table has one."""
  count = len(definition['columns']) + bool(definition.get('mean'))
  return row.get('published') or [''] * count


def _cell(name, definition, row, column, published):
  pair, flags = column['pair'], row.get('flags')
  if isinstance(flags, dict):
    flags = flags.get(pair)
  if flags is None:
    return Cell(row['label'], column, published)
  common, own = definition.get('settings', {}), row.get('settings', {})
  if common or own:
    of_row = ''.join(f',{key}={value}' for key, value in own.items())
    place = f'{definition.get("runs", name)}/{pair}/{flags}{of_row}'
  else:
    place = f'{pair}/{flags}'
  translation = row.get('translation')
  return Cell(
    row['label'],
    column,
    published,
    f'{FLAGS}/{pair}/{flags}.flags',
    tuple(f'--{key}={value}' for key, value in {**common, **own}.items()),
    place,
    translation and f'{FLAGS}/{pair}/{translation}.flags',
  )


def parse(cell, options):
  """Returns (Experiment, Config) of a cell, of seed 0."""
  experiment, config, _, words = flag_config.parse_experiment(
    [f'--flagfile={cell.flags}', *cell.words]
  )
  flag_config.refuse(words)
  more = {'data_dir': options.data_dir, 'cache_dir': options.cache_dir}
  if _pretrained(experiment) and options.backbone_weights:
    more['backbone_weights'] = options.backbone_weights
  return dataclasses.replace(experiment, **more), config


def _pretrained(experiment):
  """Whether its network begins with weights of ImageNet."""
  return experiment.backbone not in backbones.FROM_RANDOM_WEIGHTS


def seeds_of(definition, options):
  """The seeds of every row."""
  return range(options.seeds or definition.get('seeds', _SEEDS))


def plan(name, definition, options):
  """The Runs that a table needs, translations first: {place: Run}.

  Args:
    name: of the table.
    definition: of `load`.
    options: Settings.
  """
  runs = {}
  present = {}
  for cell in (cell for row in cells(name, definition) for cell in row):
    if cell.flags is None or f'{cell.place}/seed0' in runs:
      continue
    experiment, config = parse(cell, options)
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
        runs[needs] = Run(needs, path, 'translate', made, None)
    for seed in seeds_of(definition, options):
      place = f'{cell.place}/seed{seed}'
      path = os.path.join(options.runs_dir, place)
      one = dataclasses.replace(experiment, seed=seed, run_dir=path)
      runs[place] = Run(place, path, 'train', one, config, needs)
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
    run.why = differing(kept, run)
    run.state = 'other' if run.why else 'collected'
    return
  there = run_directory.RunDirectory(run.path)
  if os.path.exists(there.flags):
    run.why = differing(run.path, run)
    if run.why:
      run.state = 'other'
    else:
      run.state = 'finished' if there.finished() else 'resumable'
    if run.tool == 'translate' and run.state == 'finished':
      run.state = 'collected'  # Only what reads it has figures here.


def differing(folder, run):
  """In which settings a run that is there differs; '' if in none.

  Args:
    folder: of its flags.txt.
    run: a Run.
  """
  try:
    theirs = flag_config.read(os.path.join(folder, 'flags.txt'), run.tool)
  except errors.UsageError as error:
    return str(error)
  found = {
    name: f'--{name} was {before}, is {after}'
    for name, before, after in flag_config.differences(
      theirs, (run.experiment, run.config)
    )
    if name not in RESUMABLE
  }
  if run.tool == 'train' and _pretrained(run.experiment):
    # Figures keep the name alone; and without a path any weights will do.
    before = os.path.basename(theirs[0].backbone_weights)
    after = os.path.basename(run.experiment.backbone_weights)
    if before != 'none' and after in ('none', before):
      found.pop('backbone_weights', None)
    elif before == 'none':
      found['backbone_weights'] = '--backbone_weights was none'
  if not found:
    return ''
  return f'{folder}: {"; ".join(found.values())}'


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
    and _pretrained(run.experiment)
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
  for state, title in _STATES.items():
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
  definition = load(name)
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
  for path in write(name, definition, options):
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


def write(name, definition, options):
  """Writes a table's json, md and png; returns the paths."""
  record = measure(name, definition, options)
  path = os.path.join(options.results, name)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  run_directory.write(f'{path}.json', as_json(record))
  run_directory.write(f'{path}.md', as_markdown(record))
  run_directory.write(f'{path}.png', picture(name, definition, options, record))
  return [f'{path}.{end}' for end in ('json', 'md', 'png')]


def measure(name, definition, options):
  """The figures of a table from those that are collected, a dict of JSON.

  Accuracies are in percent. `ours` is the last step. `selected` is the
  evaluation of each run, not the run of a row, that information maximisation
  likes best among those whose source accuracy is within two points of its best:
  so it has as many seeds as `ours` and `oracle`, and says what stopping early
  without target labels gives. `oracle` is the best evaluation by target labels.
  """
  seeds = seeds_of(definition, options)
  found = {}
  commits, seconds = set(), 0.0
  rows = []
  for row, of_row in zip(definition['rows'], cells(name, definition)):
    of_columns = []
    for cell in of_row:
      values = {}
      ours = cell.flags and parse(cell, options)
      for seed in seeds if cell.flags else ():
        place = f'{cell.place}/seed{seed}'
        if place not in found:
          found[place] = _read(place, ours, seed, options)
          if found[place]:
            results = found[place][0]
            commits.add(results.get('commit') or 'unknown')
            seconds += results.get('seconds') or 0.0
        if found[place]:
          values[seed] = _values(*found[place], cell.column.get('class'))
      of_columns.append(_figure(cell.published, values))
    if definition.get('mean'):
      published = _published(definition, row)[-1]
      of_columns.append(_figure(published, _means(of_columns)))
    flags = row.get('flags')
    rows.append({'label': row['label'], 'flags': flags, 'cells': of_columns})
  for row in rows:
    for figure in row['cells']:
      del figure['values']
  titles = [column['title'] for column in definition['columns']]
  return {
    'table': name,
    'title': definition['title'],
    'note': definition.get('note', ''),
    'command': _command(name, options),
    'commits': sorted(commits),
    'hours': round(seconds / 3600.0, 2),
    'seeds': len(seeds),
    'validator': selection.Choice().validator,
    'columns': titles + (['mean'] if definition.get('mean') else []),
    'rows': rows,
  }


def _command(name, options):
  """Which makes the table, without paths of this machine."""
  words = ['python -m tools.reproduce', name]
  for path in ('data_dir', 'backbone_weights'):
    if getattr(options, path):
      words.append(f'--{path}=PATH')
  if options.seeds:
    words.append(f'--seeds={options.seeds}')
  return ' '.join(words)


def _read(place, ours, seed, options):
  """(results.json, rows of metrics.csv, its folder), None if not of ours."""
  folder = os.path.join(options.results, place)
  there = run_directory.RunDirectory(folder)
  if not there.finished():
    return None
  experiment, config = ours
  experiment = dataclasses.replace(experiment, seed=seed)
  if differing(folder, Run(place, folder, 'train', experiment, config)):
    return None
  return there.read_results(), there.read_metrics(), folder


def _values(results, metrics, folder, of_class):
  """{'ours', 'selected', 'oracle': percent or None} of one run."""
  if of_class:
    by_class = results['per_class_accuracy']['target']
    return {'ours': _percent(by_class.get(of_class))}
  (last,) = summary.targets([results])
  values = {'ours': _percent(last)}
  if last != results['accuracy']['target']:
    return values  # A mean over classes, which no evaluation before has.
  oracle = results.get('oracle') or {}
  values['oracle'] = _percent(oracle.get('target_accuracy'))
  try:
    best = selection.rank([folder], steps=True)[0]
  except errors.UsageError:  # Of a version that did not note validators.
    return values
  at = {row['step']: row['accuracy/target'] for row in metrics}
  values['selected'] = _percent(at.get(best.step))
  return values


def _percent(accuracy):
  return None if accuracy is None else round(100.0 * accuracy, 4)


def _figure(published, values):
  """What the table has of a cell: {seed: values of `_values`} summarised."""
  figure = {'published': published, 'seeds': sorted(values), 'values': values}
  for measure_ in ('ours', 'selected', 'oracle'):
    of_seeds = [one.get(measure_) for one in values.values()]
    if not of_seeds or None in of_seeds:
      figure[measure_] = None
      continue
    several = len(of_seeds) > 1
    figure[measure_] = {
      'mean': round(float(np.mean(of_seeds)), 2),
      'deviation': round(float(np.std(of_seeds, ddof=1)), 2)
      if several
      else None,
    }
  ours = figure['ours']
  # Of the mean itself, not of what is shown of it.
  exact = ours and np.mean([one['ours'] for one in values.values()])
  figure['difference'] = [
    round(float(exact) - number, 2) if ours and number is not None else None
    for number in numbers(published)
  ]
  return figure


def _means(of_columns):
  """{seed: values} of the mean over columns, of seeds that all of them have."""
  shared = set.intersection(*(set(figure['seeds']) for figure in of_columns))
  means = {}
  for seed in sorted(shared):
    ones = [figure['values'][seed] for figure in of_columns]
    means[seed] = {
      measure_: float(np.mean([one[measure_] for one in ones]))
      for measure_ in ('ours', 'selected', 'oracle')
      if all(one.get(measure_) is not None for one in ones)
    }
  return means


def numbers(published):
  """The numbers of a published text, None of one without: '81.49 / 76.66'."""
  found = []
  for text in published.split(' / ') if published else ():
    number = re.match(r'[\d.]+', text)
    found.append(float(number.group()) if number else None)
  return found


def as_json(record):
  return json.dumps(record, indent=1, ensure_ascii=False) + '\n'


def _shown(figure, measure_):
  """Text of a measure of a cell."""
  value = figure[measure_]
  if measure_ == 'published' or not value:
    return value or ''
  if measure_ == 'difference':
    shown = ['' if one is None else f'{one:+.2f}' for one in value]
    return ' / '.join(shown) if any(shown) else ''
  if value['deviation'] is None:
    return f'{value["mean"]:.2f}'
  return f'{value["mean"]:.2f} ± {value["deviation"]:.2f}'


def as_markdown(record):
  """The page of a table: one line a row, or, of several columns, one a measure.

  Args:
    record: of `measure`.
  """
  several = len(record['columns']) > 1
  if several:
    heads = ['', '', *record['columns'], 'seeds']
  else:
    heads = ['', 'seeds', *_MEASURES]
  lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
  for row in record['rows']:
    cells_ = row['cells']
    counts = sorted({len(figure['seeds']) for figure in cells_} - {0})
    seeds = '-'.join(map(str, counts))
    if not several:
      shown = [_shown(cells_[0], measure_) for measure_ in _MEASURES]
      lines.append(f'| {" | ".join([row["label"], seeds, *shown])} |')
      continue
    label = row['label']
    for measure_ in _MEASURES:
      shown = [_shown(figure, measure_) for figure in cells_]
      # Of a row without anything one line stands, so that it is seen.
      if any(shown) or (measure_ == 'ours' and not _has_any(cells_)):
        known = seeds if measure_ == 'ours' else ''
        words = [label, measure_, *shown, known]
        lines.append(f'| {" | ".join(words)} |')
        label = ''
  commits = ', '.join(commit[:12] for commit in record['commits']) or 'none'
  parts = [
    f'# {record["table"]}',
    f'{record["title"]}. Accuracy on the target in percent.',
    '\n'.join(lines),
    '*ours* is the last step, mean ± standard deviation over seeds; *selected* '
    'the evaluation of each run that '
    f'{record["validator"].replace("_", " ")} chooses, without target labels; '
    '*oracle* the best evaluation by target labels, which is no result; '
    '*difference* is that of ours from the published figure, in points. What '
    'is empty has not been run, or is not published; *selected* is empty too '
    'where a run has not noted the validator in training.',
    record['note'],
    f'`{record["command"]}`; {record["hours"]} hours of training; commits: '
    f'{commits}.',
  ]
  return '\n\n'.join(part for part in parts if part) + '\n'


def _has_any(cells_):
  return any(_shown(figure, one) for figure in cells_ for one in _MEASURES)


def picture(name, definition, options, record):
  """A PNG, bytes: what the table shows, a panel a column, or its curves."""
  if definition.get('curve'):
    curves = _errors_over_steps(name, definition, options)
    return figures.lines(curves, 'error on the target', percent=True)
  return figures.png(lambda figure: _draw(figure, record), _size(record))


def _errors_over_steps(name, definition, options):
  """[(label, steps, errors on the target)] of rows, means over seeds."""
  curves = []
  for cell, *_ in cells(name, definition):
    ours = cell.flags and parse(cell, options)
    errors_at = collections.defaultdict(list)
    for seed in seeds_of(definition, options) if ours else ():
      found = _read(f'{cell.place}/seed{seed}', ours, seed, options)
      for row in found[1] if found else ():
        if row.get('accuracy/target') is not None:
          errors_at[int(row['step'])].append(1.0 - row['accuracy/target'])
    if errors_at:
      means = [float(np.mean(errors_at[step])) for step in sorted(errors_at)]
      curves.append((cell.label, sorted(errors_at), means))
  return curves


def _size(record):
  """Inches, for _PANELS panels beside each other."""
  panels = len(record['columns'])
  across = min(panels, _PANELS)
  down = math.ceil(panels / across)
  return 2.6 + 2.4 * across, 0.9 + down * (0.7 + 0.24 * len(record['rows']))


def _draw(figure, record):
  """A panel a column: the rows one below the other, accuracy to the right."""
  rows = record['rows']
  across = min(len(record['columns']), _PANELS)
  down = math.ceil(len(record['columns']) / across)
  grid = [*figure.subplots(down, across, sharey=True, squeeze=False).flat]
  heights = np.arange(len(rows))
  drawn = {}
  for i, (title, axes) in enumerate(zip(record['columns'], grid)):
    of_column = [row['cells'][i] for row in rows]
    for height, cell in zip(heights, of_column):
      for number in numbers(cell['published']):
        if number is not None:
          drawn['published'] = axes.scatter(
            number, height, marker='D', s=26, facecolors='none',
            edgecolors=figures.COLORS[6],
          )  # fmt: skip
      for measure_, (marker, color, size) in _MARKS.items():
        if cell[measure_]:
          drawn[measure_] = axes.errorbar(
            cell[measure_]['mean'], height,
            xerr=cell[measure_]['deviation'] if measure_ == 'ours' else None,
            fmt=marker, color=color, markersize=size, capsize=2.5,
          )  # fmt: skip
    axes.set_title(title, fontsize=9)
    axes.set_yticks(heights, [row['label'] for row in rows], fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis='x', labelsize=8)
    axes.grid(alpha=0.3)
  for axes in grid[len(record['columns']) :]:
    axes.set_axis_off()
  figure.supxlabel('accuracy on the target in percent', fontsize=9)
  if drawn:
    figure.legend(
      drawn.values(), drawn.keys(), loc='outside upper right', fontsize=8,
      ncols=len(drawn), frameon=False,
    )  # fmt: skip
