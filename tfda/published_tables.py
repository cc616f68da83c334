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

import dataclasses
import glob
import json
import os
import re
import typing

from tfda import backbones, errors, flag_config
from tfda.experiment import RESUMABLE

FLAGS = 'flags'
TABLES = os.path.join(FLAGS, 'tables')
_SEEDS = 3  # Of a definition that does not say.


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
    state: a key of reproduction.STATES.
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
        definition['columns'], published_of(definition, row)
      )
    ]
    for row in definition['rows']
  ]


def published_of(definition, row):
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
  if is_pretrained(experiment) and options.backbone_weights:
    more['backbone_weights'] = options.backbone_weights
  return dataclasses.replace(experiment, **more), config


def is_pretrained(experiment):
  """Whether its network begins with weights of ImageNet."""
  return experiment.backbone not in backbones.FROM_RANDOM_WEIGHTS


def seeds_of(definition, options):
  """The seeds of every row."""
  return range(options.seeds or definition.get('seeds', _SEEDS))


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
  if run.tool == 'train' and is_pretrained(run.experiment):
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


def numbers(published):
  """The numbers of a published text, None of one without: '81.49 / 76.66'."""
  found = []
  for text in published.split(' / ') if published else ():
    number = re.match(r'[\d.]+', text)
    found.append(float(number.group()) if number else None)
  return found
