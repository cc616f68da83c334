"""Finished runs as a page shows them, from the files of their directories."""

import dataclasses
import functools
import os
import zipfile

import numpy as np

from tfda import errors, run_directory
from tfda.data import images
from tfda.evaluation import figures, model_outputs, pages

SIDES = ('source', 'target')
BASELINE = 'source_only'
_NEEDED = (
  'method', 'source', 'target', 'backbone', 'steps', 'seed', 'accuracy',
  'validators',
)  # fmt: skip


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

  @functools.cached_property
  def outputs(self):
    return model_outputs.Outputs(self.arrays)

  def predictions(self, side):
    return self.arrays[f'{side}_logits'].argmax(axis=-1)

  def labels(self, side):
    """The labels of a domain's test images; None where there are none."""
    return self.arrays.get(f'{side}_labels')

  def sample(self, side, i, remark=''):
    """The pages.Sample of the i-th image that is kept of a domain.

    Args:
      side: 'source' or 'target'.
      i: in [0, number of its images in evaluation.npz).
      remark: shown with it.
    """
    index = self.arrays[f'{side}_kept'][i]
    predicted = self.names[self.predictions(side)[index]]
    labels = self.labels(side)
    if labels is None:
      label = correct = None
      alt = f'{side} image without a label, predicted {predicted}'
    else:
      label = self.names[labels[index]]
      correct = predicted == label
      alt = f'{side} image of {label}, predicted {predicted}: ' + (
        'correct' if correct else 'wrong'
      )
    uri = pages.uri(*figures.thumbnail(self.arrays[f'{side}_images'][i]))
    if remark:
      alt += f'; {remark}'
    return pages.Sample(uri, alt, predicted, label, correct, remark)


def read(path):
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
    for side in SIDES:
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


def tasks(runs):
  """The pairs of domains, each once."""
  return list(
    dict.fromkeys((r.results['source'], r.results['target']) for r in runs)
  )


def name_all(runs):
  """Names the runs by method and seed, and by what else tells them apart."""
  for run in runs:
    run.label = f'{run.results["method"]}, seed {run.results["seed"]}'
    if len(tasks(runs)) > 1:
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
