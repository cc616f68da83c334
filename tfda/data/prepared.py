"""Data sets that tensorflow_datasets has prepared: `tfds:NAME/SPLIT`.

NAME is as tensorflow_datasets has it, with /CONFIG or :VERSION where needed,
and SPLIT too ('train', 'test[:50%]'). Read from DATA_DIR, where it lies after

  tfds build NAME --data_dir=DATA_DIR

Nothing is downloaded. Train and test are the same images, those of SPLIT.

Where the cache cannot be written, they are decoded into memory, up to 1 GiB:
records are read from first to last, not at a position. More is refused.
"""

import io
import os
import re
import sys

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import files, images, storage

PREFIX, FORM = 'tfds:', 'NAME/SPLIT'
# Of a load; a run has four, of train and test on both sides, and copies them.
_IN_MEMORY_BYTES = 2**30


def read(argument, data_dir, size, reading):
  """Reads a split of a data set for classification.

  Args:
    argument: 'NAME/SPLIT'.
    data_dir: --data_dir.
    size: side of the images in pixels.
    reading: a files.Reading.

  Returns:
    (images uint8 [N, size, size, 3], an array as of `storage`; labels int32 [N]
    or None; class names; ((example, reason), ...) of those that were skipped).

  Raises:
    UsageError: it is not prepared, or not for classification; an image is bad.
    RunError: the cache cannot be written, and memory would not do.
  """
  name = f'{PREFIX}{argument}'
  set_name, _, split = argument.rpartition('/')
  folder = _newest(name, set_name, files.data_dir(name, data_dir))
  array, notes = _decoded(name, folder, split, size, reading)
  labels = np.array(notes['labels'], np.int32)
  names = [f'{name}, example {i}' for i in range(len(labels))]
  found, kept, skipped = storage.kept(array, notes['bad'], names, reading)
  # In splits without labels all are -1.
  if (labels < 0).any():
    return found, None, (), skipped
  return found, labels[kept], tuple(notes['class_names']), skipped


def _decoded(name, folder, split, size, reading):
  """Returns (images that can be read, {'bad', 'labels', 'class_names'})."""
  paths = sorted(os.path.join(folder, file) for file in os.listdir(folder))
  key = storage.fingerprint(paths, split, size, reading.max_pixels)
  array = storage.find(key, reading.cache_dir)
  if array is not None:
    return array, array.notes
  examples, count, class_names = _examples(name, folder, split)

  def blocks(notes):
    notes.update(bad=[], labels=[], class_names=class_names)
    found = storage.ahead(
      lambda file: storage.or_reason(
        images.read, file, size, reading.max_pixels
      ),
      _image_files(name, examples, notes['labels']),
    )
    return storage.good(found, count, notes['bad'])

  notes, row_shape = {}, [size, size, 3]
  try:
    array = storage.write(
      key, row_shape, np.uint8, blocks(notes), reading.cache_dir, notes
    )
    return array, array.notes
  except errors.RunError as error:
    needed = count * size * size * 3
    if needed > _IN_MEMORY_BYTES:
      raise errors.RunError(
        f'{error}; --cache_dir needs a disk with room for '
        f'{needed / 2**30:.1f} GiB of images'
      ) from error
    print(f'{error}; images are decoded into memory', file=sys.stderr)
  array, kept = np.empty([count, *row_shape], np.uint8), 0
  for block in blocks(notes):
    array[kept] = block[0]
    kept += 1
  return array[:kept], notes


def _newest(name, set_name, data_dir):
  """The folder of the asked or the highest version."""
  set_name, _, version = set_name.partition(':')
  folder = os.path.join(data_dir, set_name)
  entries = os.listdir(folder) if os.path.isdir(folder) else []
  versions = [
    entry
    for entry in entries
    if (entry == version if version else re.fullmatch(r'\d+\.\d+\.\d+', entry))
    and os.path.isfile(os.path.join(folder, entry, 'features.json'))
  ]
  if not set_name or not versions:
    raise errors.UsageError(
      f'{name}: {os.path.join(folder, version or "VERSION")} is missing; '
      f'"tfds build {set_name or "NAME"} --data_dir={data_dir}" prepares it '
      f'(the form is {PREFIX}{FORM})'
    )
  versions.sort(key=lambda entry: [int(n) for n in re.findall(r'\d+', entry)])
  return os.path.join(folder, versions[-1])


def _examples(name, folder, split):
  """Returns (dataset of {'image': bytes, 'label'}, its size, class names)."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(folder)
  features = dict(builder.info.features.items())
  if not (
    isinstance(features.get('image'), tfds.features.Image)
    and isinstance(features.get('label'), tfds.features.ClassLabel)
  ):
    raise errors.UsageError(
      f'{name}: not for classification, which has an image and a label; it has '
      f'{", ".join(sorted(features))}'
    )
  try:
    count = builder.info.splits[split].num_examples
  except (KeyError, ValueError) as error:
    known = ', '.join(sorted(builder.info.splits))
    raise errors.UsageError(
      f'{name}: no split {split}; there are: {known}'
    ) from error
  examples = builder.as_dataset(
    split=split, decoders={'image': tfds.decode.SkipDecoding()}
  )
  return examples, count, features['label'].names


def _image_files(name, examples, labels):
  """Yields the images as open files; appends the labels to `labels`."""
  try:
    for example in examples.as_numpy_iterator():
      labels.append(int(example['label']))
      yield io.BytesIO(example['image'])
  except tf.errors.OpError as error:
    reason = ' '.join(error.message.split())
    raise errors.UsageError(f'{name}: cannot be read: {reason}') from error
