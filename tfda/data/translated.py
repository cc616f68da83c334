"""Domains whose images a CycleGAN made: `translated:RUN/DIRECTION`.

RUN is the run of `python -m tools.translate`, DIRECTION source_to_target or
target_to_source. Image i is what image i of the split of the domain it began
with became; labels and classes are those of the source, where it began with
that. A folder holds an array of `storage` for each split, or for train
alone where the other is the same images.
"""

import os

import numpy as np

from tfda import errors
from tfda.data import images as image_files
from tfda.data import storage

PREFIX, FORM = 'translated:', 'RUN/source_to_target'
# Direction -> the side that it begins with.
DIRECTIONS = {'source_to_target': 'source', 'target_to_source': 'target'}
_AT_ONCE = 500  # Images that are resized.


def write(path, domain, size, blocks, labelled, made_of=None):
  """Writes what the images of a domain's split became, if it is not there.

  Args:
    path: the folder, of both splits.
    domain: the Domain that was translated.
    size: side of the translated images in pixels.
    blocks: () -> yields uint8 [n, size, size, 3], in the domain's order.
    labelled: whether the labels are written.
    made_of: {setting: value} by which the domain's images were chosen.

  Raises:
    RunError: it cannot be written.
  """
  if storage.find(domain.split, path) is None:
    notes = {
      'labels': domain.labels.tolist() if labelled else None,
      'class_names': list(domain.class_names) if labelled else [],
      'transductive': domain.transductive,
      'made_of': made_of,
    }
    storage.write(
      domain.split, [size, size, 3], np.uint8, blocks(), path, notes
    )


def is_there(path):
  """Whether both splits are in a folder."""
  train = storage.find('train', path)
  return train is not None and (
    train.notes['transductive'] or storage.find('test', path) is not None
  )


def read(path, split, size, reading):
  """Reads a split.

  Args:
    path: the folder.
    split: 'train' or 'test'.
    size: side of the images in pixels; those of another are resized, once.
    reading: a files.Reading.

  Returns:
    (images uint8 [N, size, size, 3], an array as of `storage`; labels int32 [N]
    or None; class names; whether the other split is the same images).

  Raises:
    UsageError: there are no such images.
  """
  train = storage.find('train', path)
  alone = train is None or train.notes['transductive']
  array = train if alone else storage.find(split, path)
  if array is None:
    raise errors.UsageError(
      f'{PREFIX}{path}: no translated images there; python -m tools.translate '
      f'makes them (the form is {PREFIX}{FORM})'
    )
  notes = array.notes
  if array.shape[1] != size:
    folder = storage.place('train' if alone else split, path)
    array = _resized(array, folder, size, reading.cache_dir)
  array, _, _ = storage.kept(array, [], range(len(array)), reading)
  labels = notes['labels']
  labels = None if labels is None else np.array(labels, np.int32)
  return array, labels, tuple(notes['class_names']), notes['transductive']


def selection(settings, side):
  """{setting: value} that say which images of a side there are, for `check`.

  Args:
    settings: an Experiment or a Translation.
    side: 'source' or 'target'.
  """
  # Paths of one folder may differ; its images are counted.
  name = getattr(settings, side)
  chosen = {side: None if ':' in name else name}
  if side == 'target':
    labelled = settings.target_labelled
    chosen['target_classes'] = settings.target_classes
    chosen['target_labelled'] = labelled
    chosen['seed'] = settings.seed if labelled else None
  return chosen


def check(translations, domain, path, wanted):
  """Raises UsageError unless these are the translations of a domain's images.

  Args:
    translations: a Domain of `read`.
    domain: the Domain that they are to be made of, image by image.
    path: the folder that they were read from.
    wanted: the `selection` of the domain.
  """
  made_of = storage.find('train', path).notes.get('made_of') or wanted
  for name, value in wanted.items():
    if made_of[name] != value:
      raise errors.UsageError(
        f'{translations.name}: was made with --{name}={made_of[name]}, not '
        f'--{name}={value}'
      )
  count, expected = len(translations.images), len(domain.images)
  labels = translations.labels, domain.labels
  if count != expected or (
    labels[0] is not None and not np.array_equal(*labels)
  ):
    raise errors.UsageError(
      f'{translations.name}: {count} images that are not those of '
      f'{domain.name}, {expected}, in its order; was the translation trained '
      'on other domains, or with other --target_classes or --target_labelled?'
    )


def _resized(array, folder, size, cache_dir):
  index = os.path.join(folder, 'array', 'index.json')
  key = storage.fingerprint([index], size)
  found = storage.find(key, cache_dir)
  if found is not None:
    return found
  blocks = (
    image_files.resize(array[i : i + _AT_ONCE], size).numpy().astype(np.uint8)
    for i in range(0, len(array), _AT_ONCE)
  )
  return storage.write(key, [size, size, 3], np.uint8, blocks, cache_dir)
