"""One HTML page about finished runs, from the files of their directories.

The page holds its pictures and asks nothing of a network or of the data sets.
"""

import os
import shlex

import numpy as np

from tfda import errors, run_directory
from tfda.evaluation import (
  calibration,
  changes,
  embeddings,
  figures,
  finished,
  pages,
  tables,
  validators,
)

_SAMPLES = 24  # Images of each domain, and so many that are least certain.
_LEAST_CERTAIN = 12
# A picture of more classes, or of more pixels across, is scrolled on a narrow
# screen.
_WIDE_CLASSES = 20
_WIDE_PIXELS = 800
_MAPS = {'tsne': 't-SNE', 'umap': 'UMAP'}
# What the features of a method show beside those of the others.
_STAGES = {
  'source_only': 'before adaptation',
  'train_on_target': 'trained with target labels',
}
_NOT_SCHEDULES = ('step', 'seconds', 'images_per_second')


def write(run_dirs, out=None, seed=0, kind='tsne', points=300):
  """Writes the page.

  Args:
    run_dirs: paths of finished runs, in the order of the page.
    out: the file to write; report.html in the last run if not given.
    seed: of the maps of the features.
    kind: of the maps, of embeddings.KINDS.
    points: of each domain in a map, at most.

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
  runs = [finished.read(path) for path in paths]
  finished.name_all(runs)
  chosen_out = out
  out = os.fspath(out or run_directory.RunDirectory(paths[-1]).report)
  pages.write(out, _page(runs, chosen_out, seed, kind, points))
  return out


def _page(runs, out, seed, kind, points):
  tasks = finished.tasks(runs)
  kept = [run for run in runs if run.arrays]
  return pages.render(
    'report.html.j2',
    title=', '.join(f'{source} → {target}' for source, target in tasks),
    several_tasks=len(tasks) > 1,
    runs=runs,
    transductive={run.label: _transductive(run) for run in runs},
    curves=_curves(runs),
    samples={
      run.label: {side: _samples(run, side) for side in finished.SIDES}
      for run in kept
    },
    least_certain={run.label: _least_certain(run) for run in kept},
    over_seeds=tables.over_seeds(runs),
    validators=tables.of_validators(runs),
    distances=tables.of_distances(runs),
    calibration=tables.of_calibration(runs),
    reliability={run.label: _reliability(run) for run in kept},
    changes=changes.of_all(runs),
    differences=tables.of_differences,
    predictions={run.label: _predictions(run) for run in kept},
    map_name=_MAPS[kind],
    maps=_maps(runs, seed, kind, points),
    shown={run.label: _shown(run) for run in runs if run.pictures},
    report_command=_command(runs, out, seed, kind, points),
    quote=shlex.quote,
  )


def _transductive(run):
  """The sides that were tested on the images they were trained on."""
  sides = run.results.get('transductive', {})
  return [side for side in finished.SIDES if sides.get(side)]


def _command(runs, out, seed, kind, points):
  words = ['python', '-m', 'tools.report', *(run.path for run in runs)]
  if out:
    words.append(f'--out={out}')
  for name, value, default in (
    ('seed', seed, 0),
    ('map', kind, 'tsne'),
    ('points', points, 300),
  ):
    if value != default:
      words.append(f'--{name}={value}')
  return ' '.join(shlex.quote(word) for word in words)


def _column(run, key):
  """Returns (steps, values) of a column of metrics.csv, without gaps."""
  rows = [row for row in run.metrics if row.get(key) is not None]
  return [row['step'] for row in rows], [row[key] for row in rows]


def _chart(curves, caption, label, percents=False):
  """A Picture of the curves that have points; None where none has."""
  curves = [curve for curve in curves if curve[1]]
  if not curves:
    return None
  shown = pages.percent if percents else '{:.4g}'.format
  ends = '; '.join(
    f'{name} {shown(values[-1])} at step {steps[-1]:,.0f}'
    for name, steps, values in curves
  )
  return pages.picture(
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
  count = min(_SAMPLES, len(run.arrays[f'{side}_images']))
  return [run.sample(side, i) for i in range(count)]


def _least_certain(run):
  """Samples of the target images of the highest entropy, that first."""
  kept = run.arrays['target_kept'][: len(run.arrays['target_images'])]
  logits = run.arrays['target_logits'][kept].astype(np.float64)
  entropies = validators.entropies(logits)
  return [
    run.sample('target', i, f'entropy {entropies[i]:.2f}')
    for i in np.argsort(-entropies)[:_LEAST_CERTAIN]
  ]


def _reliability(run):
  """A Picture of how far to believe the model."""
  curves, gaps = [], []
  for side, name in (('source', 'source'), ('target', 'target (oracle)')):
    labels = run.labels(side)
    if labels is not None:
      logits = run.arrays[f'{side}_logits'].astype(np.float64)
      curves.append((name, *calibration.reliability(labels, logits)))
      gap = calibration.expected_calibration_error(labels, logits)
      gaps.append(f'{name} {pages.percent(gap)}')
  return pages.picture(
    figures.reliability(curves),
    f'Reliability diagram of {run.label}. Expected calibration error: '
    f'{", ".join(gaps)}.',
    'Accuracy over confidence; larger dots are of more images. Expected '
    f'calibration error: {", ".join(gaps)}',
  )


def _predictions(run):
  """The confusion matrix on the target; without labels, what is predicted."""
  predictions, labels = run.predictions('target'), run.labels('target')
  classes = len(run.names)
  if labels is None:
    counts = np.bincount(predictions, minlength=classes)
    common = ', '.join(
      f'{run.names[i]} ({counts[i]:,})' for i in np.argsort(-counts)[:3]
    )
    return pages.picture(
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
  return pages.picture(
    figures.confusion(counts, run.names),
    f'Confusion matrix of {len(labels):,} target images, {run.label}: '
    f'{pages.percent(np.trace(counts) / max(1, len(labels)))} on the diagonal. '
    f'{worst}',
    'Confusion matrix on the target; each row adds up to 100%. ' + worst,
    wide=classes > _WIDE_CLASSES,
  )


def _shown(run):
  """Pictures of what a run's method shows of itself."""
  captions = run.results['pictures']
  return [
    pages.picture(
      png,
      f'{name.replace("_", " ")} of {run.label}: {captions[name]}',
      captions[name],
      wide=pages.size(png)[0] > _WIDE_PIXELS,
    )
    for name, png in run.pictures.items()
  ]


def _maps(runs, seed, kind, points):
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
    made.append((heading, _feature_maps(run, seed, kind, points)))
  return made


def _feature_maps(run, seed, kind, count):
  """Two Pictures of a run's features, by domain and class; or none."""
  features, classes, sides = [], [], []
  for i, side in enumerate(finished.SIDES):
    points = run.arrays[f'{side}_features'][:count]
    labels = run.labels(side)
    known = run.predictions(side) if labels is None else labels
    features.append(points)
    classes.append(known[run.arrays[f'{side}_kept'][:count]])
    sides.append(np.full(len(points), i))
  points = embeddings.map_features(
    np.concatenate(features), seed, kind, f'map of {run.label}'
  )
  if points is None:
    return []
  sides, classes = np.concatenate(sides), np.concatenate(classes)
  labelled = run.labels('target') is not None
  by_class = 'class' if labelled else 'class (target: predicted)'
  map_of = (
    f'{_MAPS[kind]} map of the features of {np.sum(sides == 0)} source and '
    f'{np.sum(sides == 1)} target test images, {run.label}'
  )
  return [
    pages.picture(
      figures.scatter(points, sides, finished.SIDES, sides == 1),
      f'{map_of}, coloured by domain.',
      'By domain: source dots, target crosses',
    ),
    pages.picture(
      figures.scatter(points, classes, run.names, sides == 1),
      f'{map_of}, coloured by {by_class}.',
      f'By {by_class}; source dots, target crosses',
    ),
  ]
