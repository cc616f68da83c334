"""Our figures of a published table: as JSON, as Markdown, as a picture."""

import collections
import dataclasses
import json
import math
import os

import numpy as np

from tfda import errors, published_tables, run_directory
from tfda.evaluation import figures, selection, summary

# Of the picture: marker, colour, size; the published figure is a diamond.
_MARKS = {
  'oracle': ('^', figures.COLORS[4], 5),
  'selected': ('s', figures.COLORS[2], 4.5),
  'ours': ('o', figures.COLORS[0], 5.5),
}
_PANELS = 4  # Beside each other.
_MEASURES = ('ours', 'selected', 'oracle', 'published', 'difference')


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
  seeds = published_tables.seeds_of(definition, options)
  found = {}
  commits, seconds = set(), 0.0
  rows = []
  for row, of_row in zip(
    definition['rows'], published_tables.cells(name, definition)
  ):
    of_columns = []
    for cell in of_row:
      values = {}
      ours = cell.flags and published_tables.parse(cell, options)
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
      published = published_tables.published_of(definition, row)[-1]
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
  if published_tables.differing(
    folder, published_tables.Run(place, folder, 'train', experiment, config)
  ):
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
    for number in published_tables.numbers(published)
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
  for cell, *_ in published_tables.cells(name, definition):
    ours = cell.flags and published_tables.parse(cell, options)
    errors_at = collections.defaultdict(list)
    for seed in published_tables.seeds_of(definition, options) if ours else ():
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
      for number in published_tables.numbers(cell['published']):
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
