"""One HTML page about finished runs, from the files of their directories.

The page holds its pictures and asks nothing of a network or of the data sets.
"""

import dataclasses
import os
import shlex
import struct
import zipfile

import numpy as np

from tfda import errors, run_directory
from tfda.data import images
from tfda.evaluation import figures, pages

_SIDES = ('source', 'target')
_MAPPED = 400  # Points of each domain in a map of the features.
# A picture of more classes, or of more pixels across, is scrolled on a narrow
# screen.
_WIDE_CLASSES = 20
_WIDE_PIXELS = 800
# What the features of a method show beside those of the others.
_STAGES = {
  'source_only': 'before adaptation',
  'train_on_target': 'trained with target labels',
}
_NEEDED = (
  'method', 'source', 'target', 'backbone', 'steps', 'seed', 'accuracy',
  'validators',
)  # fmt: skip
_NOT_SCHEDULES = ('step', 'seconds', 'images_per_second')


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the page, with the text for those who do not see it."""

  uri: str
  alt: str
  caption: str = ''
  width: int = 0
  height: int = 0
  wide: bool = False


@dataclasses.dataclass(frozen=True)
class Sample:
  """An image with a prediction; `correct` is None where it has no label."""

  uri: str
  alt: str
  predicted: str
  label: str
  correct: bool


@dataclasses.dataclass
class Run:
  """What is in a run directory.

  Attributes:
    path: as it was given.
    results: results.json.
    metrics: rows of metrics.csv.
    arrays: those of evaluation.npz; None where there is no such file.
    names: of the classes.
    settings: the text of flags.txt.
    pictures: {name: PNG} of what the method shows of itself; None where there
      is no such folder, as in committed figures.
    label: a name that no other run of the page has.
  """

  path: str
  results: dict
  metrics: list
  arrays: dict
  names: list
  settings: str
  pictures: dict
  label: str = ''

  def predictions(self, side):
    return self.arrays[f'{side}_logits'].argmax(axis=-1)

  def labels(self, side):
    """The labels of a domain's test images; None where there are none."""
    return self.arrays.get(f'{side}_labels')


def write(run_dirs, out=None, seed=0):
  """Writes the page.

  Args:
    run_dirs: paths of finished runs, in the order of the page.
    out: the file to write; report.html in the last run if not given.
    seed: of the maps of the features.

  Returns:
    The path of the file.

  Raises:
    UsageError: a run is not finished, or a file cannot be read or written.
  """
  if isinstance(run_dirs, (str, os.PathLike)):
    run_dirs = [run_dirs]
  # The same run twice is the same run.
  paths = list(dict.fromkeys(os.path.normpath(path) for path in run_dirs))
  if not paths:
    raise errors.UsageError('no run directory is given to report on')
  runs = [_read(path) for path in paths]
  _name(runs)
  chosen_out = out
  out = os.fspath(out or run_directory.RunDirectory(paths[-1]).report)
  pages.write(out, _page(runs, chosen_out, seed))
  return out


def _read(path):
  """Returns the Run of a directory; UsageError where it cannot be shown."""
  run = run_directory.RunDirectory(path)
  try:
    results = run.read_results()
    names = run.class_names() if os.path.exists(run.classes) else []
    settings = ''
    if os.path.exists(run.flags):
      with open(run.flags) as file:
        settings = file.read()
    arrays = None
    if os.path.exists(run.evaluation):
      with np.load(run.evaluation) as file:
        arrays = dict(file)
    metrics = run.read_metrics()
    pictures = None
    if os.path.isdir(run.pictures):
      captions = results.get('pictures', {})
      pictures = {name: _read_png(run.picture(name)) for name in captions}
  except errors.UsageError:
    raise
  # JSONDecodeError is a ValueError, as is a number that is none.
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UsageError(
      f'{path}: cannot be read: {" ".join(str(error).split())}'
    ) from error
  missing = [key for key in _NEEDED if key not in results]
  if missing:
    raise errors.UsageError(
      f'{path}: results.json has no {", ".join(missing)}; train the run again'
    )
  if arrays is not None:
    for side in _SIDES:
      for kind in ('logits', 'kept', 'features', 'images'):
        if f'{side}_{kind}' not in arrays:
          raise errors.UsageError(
            f'{path}: evaluation.npz has no {side}_{kind}: it is of another '
            'version of tfda; train the run again'
          )
    classes = arrays['source_logits'].shape[-1]
    names += [str(i) for i in range(len(names), classes)]
  return Run(
    path=path,
    results=results,
    metrics=metrics,
    arrays=arrays,
    names=[str(name) for name in names],
    settings=settings,
    pictures=pictures,
  )


def _read_png(path):
  images.decode(path, path)  # It names a file that is missing or broken.
  with open(path, 'rb') as file:
    return file.read()


def _tasks(runs):
  """The pairs of domains, each once."""
  return list(
    dict.fromkeys((r.results['source'], r.results['target']) for r in runs)
  )


def _name(runs):
  """Names the runs by method and seed, and by what else tells them apart."""
  for run in runs:
    run.label = f'{run.results["method"]}, seed {run.results["seed"]}'
    if len(_tasks(runs)) > 1:
      run.label += f', {run.results["source"]} → {run.results["target"]}'
  equal = {}
  for run in runs:
    equal.setdefault(run.label, []).append(run)
  for group in equal.values():
    if len(group) == 1:
      continue
    # runs/a/dann/seed0, runs/a/dann_tuned/seed0: dann/seed0, dann_tuned/seed0.
    paths = [os.path.abspath(run.path) for run in group]
    common = os.path.commonpath(paths)
    for run, path in zip(group, paths):
      run.label += f' ({os.path.relpath(path, common)})'


def _page(runs, out, seed):
  tasks = _tasks(runs)
  return pages.render(
    'report.html.j2',
    {
      'breakable': breakable,
      'percent': percent,
      'number': number,
      'duration': duration,
      'speed': speed,
    },
    title=', '.join(f'{source} → {target}' for source, target in tasks),
    several_tasks=len(tasks) > 1,
    runs=runs,
    transductive={run.label: _transductive(run) for run in runs},
    curves=_curves(runs),
    samples={
      run.label: {side: _samples(run, side) for side in _SIDES}
      for run in runs
      if run.arrays
    },
    predictions={run.label: _predictions(run) for run in runs if run.arrays},
    maps=_maps(runs, seed),
    shown={run.label: _shown(run) for run in runs if run.pictures},
    report_command=_command(runs, out, seed),
    quote=shlex.quote,
  )


def breakable(name):
  """The name as HTML in which a line may end behind each underscore."""
  import markupsafe

  return markupsafe.Markup('_<wbr>').join(name.split('_'))


def percent(value, missing='no labels'):
  """0.1234 -> '12.34%'."""
  return missing if value is None else f'{100 * value:.2f}%'


def number(value):
  """2.29471 -> '2.2947'."""
  return '–' if value is None else f'{value:.4f}'


def duration(seconds):
  """12.29 -> '12.3 s'; 3725 -> '1 h 02 min'."""
  if seconds is None:
    return '–'
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  if seconds < 3599.5:
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s'
  hours, rest = divmod(round(seconds / 60), 60)
  return f'{hours} h {rest:02d} min'


def speed(value):
  """1234.5 -> '1,234'."""
  if value is None:
    return '–'
  return f'{value:,.0f}' if value >= 10 else f'{value:.1f}'


def _transductive(run):
  """The sides that were tested on the images they were trained on."""
  sides = run.results.get('transductive', {})
  return [side for side in _SIDES if sides.get(side)]


def _command(runs, out, seed):
  words = ['python', '-m', 'tools.report', *(run.path for run in runs)]
  if out:
    words.append(f'--out={out}')
  if seed:
    words.append(f'--seed={seed}')
  return ' '.join(shlex.quote(word) for word in words)


def _picture(png, alt, caption='', wide=False):
  return Picture(pages.uri(png), alt, caption, *_size(png), wide)


def _size(png):
  """(width, height) in pixels."""
  return struct.unpack('>II', png[16:24])


def _column(run, key):
  """Returns (steps, values) of a column of metrics.csv, without gaps."""
  rows = [row for row in run.metrics if row.get(key) is not None]
  return [row['step'] for row in rows], [row[key] for row in rows]


def _chart(curves, caption, label, percents=False):
  """A Picture of the curves that have points; None where none has."""
  curves = [curve for curve in curves if curve[1]]
  if not curves:
    return None
  shown = percent if percents else '{:.4g}'.format
  ends = '; '.join(
    f'{name} {shown(values[-1])} at step {steps[-1]:,.0f}'
    for name, steps, values in curves
  )
  return _picture(
    figures.lines(curves, label, percents),
    f'Line chart of {caption} against steps. It ends with: {ends}.',
    caption,
  )


def _curves(runs):
  """Pictures of metrics.csv: accuracies, losses of each run, schedules."""
  charts = [
    _chart(
      [(run.label, *_column(run, f'accuracy/{side}')) for run in runs],
      f'{side} accuracy',
      'accuracy on test images',
      percents=True,
    )
    for side in ('target', 'source')
  ]
  schedules = []
  for run in runs:
    columns = list(run.metrics[0]) if run.metrics else []
    losses = [key for key in columns if key.startswith('loss/')]
    charts.append(
      _chart(
        [(key[len('loss/') :], *_column(run, key)) for key in losses],
        f'loss terms of {run.label}',
        'loss (mean since the last entry)',
      )
    )
    schedules += [
      key
      for key in columns
      if '/' not in key and key not in (*_NOT_SCHEDULES, *schedules)
    ]
  for key in schedules:
    name = key.replace('_', ' ')
    charts.append(
      _chart([(run.label, *_column(run, key)) for run in runs], name, name)
    )
  return [chart for chart in charts if chart]


def _samples(run, side):
  kept = run.arrays[f'{side}_kept']
  predictions, labels = run.predictions(side), run.labels(side)
  samples = []
  for image, index in zip(run.arrays[f'{side}_images'], kept):
    predicted = run.names[predictions[index]]
    if labels is None:
      label = correct = None
      alt = f'{side} image without a label, predicted {predicted}'
    else:
      label = run.names[labels[index]]
      correct = bool(predictions[index] == labels[index])
      alt = f'{side} image of {label}, predicted {predicted}: ' + (
        'correct' if correct else 'wrong'
      )
    uri = pages.uri(*figures.thumbnail(image))
    samples.append(Sample(uri, alt, predicted, label, correct))
  return samples


def _predictions(run):
  """The confusion matrix on the target; without labels, what is predicted."""
  predictions, labels = run.predictions('target'), run.labels('target')
  classes = len(run.names)
  if labels is None:
    counts = np.bincount(predictions, minlength=classes)
    common = ', '.join(
      f'{run.names[i]} ({counts[i]:,})' for i in np.argsort(-counts)[:3]
    )
    return _picture(
      figures.histogram(
        counts, run.names, 'target images predicted as the class'
      ),
      f'Bar chart of the predicted classes of {len(predictions):,} unlabelled '
      f'target images, {run.label}. Most often: {common}.',
      'Predicted classes: the target has no labels',
    )
  counts = np.zeros((classes, classes), np.int64)
  np.add.at(counts, (labels, predictions), 1)
  wrong = counts * (1 - np.eye(classes, dtype=np.int64))
  row, column = np.unravel_index(wrong.argmax(), wrong.shape)
  worst = (
    f'Most frequent mistake: {run.names[row]} predicted as '
    f'{run.names[column]}, {wrong[row, column]:,} times.'
    if wrong.any()
    else 'Nothing is mistaken.'
  )
  return _picture(
    figures.confusion(counts, run.names),
    f'Confusion matrix of {len(labels):,} target images, {run.label}: '
    f'{percent(np.trace(counts) / max(1, len(labels)))} on the diagonal. '
    f'{worst}',
    'Confusion matrix on the target; each row adds up to 100%. ' + worst,
    wide=classes > _WIDE_CLASSES,
  )


def _shown(run):
  """Pictures of what a run's method shows of itself."""
  captions = run.results['pictures']
  return [
    _picture(
      png,
      f'{name.replace("_", " ")} of {run.label}: {captions[name]}',
      captions[name],
      wide=_size(png)[0] > _WIDE_PIXELS,
    )
    for name, png in run.pictures.items()
  ]


def _maps(runs, seed):
  """[(heading, pictures)] for each run with features, source_only first."""
  compared = len(runs) > 1 and any(
    run.results['method'] == 'source_only' for run in runs
  )
  made = []
  for run in sorted(runs, key=lambda r: r.results['method'] != 'source_only'):
    if not run.arrays:
      continue
    heading = run.label
    if compared:
      stage = _STAGES.get(run.results['method'], 'after adaptation')
      heading = f'{stage}: {run.label}'
    made.append((heading, _feature_maps(run, seed)))
  return made


def _feature_maps(run, seed):
  """Two Pictures of a run's features, by domain and class; or none."""
  features, classes, sides = [], [], []
  for i, side in enumerate(_SIDES):
    points = run.arrays[f'{side}_features'][:_MAPPED]
    labels = run.labels(side)
    known = run.predictions(side) if labels is None else labels
    features.append(points)
    classes.append(known[run.arrays[f'{side}_kept'][:_MAPPED]])
    sides.append(np.full(len(points), i))
  points = figures.map_features(np.concatenate(features), seed)
  if points is None:
    return []
  sides, classes = np.concatenate(sides), np.concatenate(classes)
  labelled = run.labels('target') is not None
  by_class = 'class' if labelled else 'class (target: predicted)'
  map_of = (
    f't-SNE map of the features of {np.sum(sides == 0)} source and '
    f'{np.sum(sides == 1)} target test images, {run.label}'
  )
  return [
    _picture(
      figures.scatter(points, sides, _SIDES, sides == 1),
      f'{map_of}, coloured by domain.',
      'By domain: source dots, target crosses',
    ),
    _picture(
      figures.scatter(points, classes, run.names, sides == 1),
      f'{map_of}, coloured by {by_class}.',
      f'By {by_class}; source dots, target crosses',
    ),
  ]
