"""Layouts in which data sets of labelled images are released or made.

A layout is (train, test, reader): patterns of file names, as glob's, of the two
splits below --data_dir, and a function (paths, split, image_size, reading) ->
files.Listing or files.Arrays that gets the files that match the pattern of the
split, sorted. One of arrays may bring them to image_size.
"""

import contextlib
import functools
import glob
import os
import re
import zipfile

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import files, images

# Images that are resized at once.
_PART = 256


def readers(data_sets):
  """Returns readers of sets, each in the first layout that has any file.

  Of any split: a training set of one layout and a test set of another would be
  two data sets.

  Args:
    data_sets: {domain's name: (its layouts, where a user gets it)}.

  Returns:
    {domain's name: function (split, data_dir, image_size, reading) -> what the
    layout's reader returns}. It raises a UsageError where no layout is there,
    or one without this split.
  """
  return {
    name: functools.partial(_read, name, layouts, origin)
    for name, (layouts, origin) in data_sets.items()
  }


def _read(name, layouts, origin, split, data_dir, image_size, reading):
  reader, paths = _found(name, layouts, origin, split, data_dir)
  return reader(paths, split, image_size, reading)


def check_present(reader, split, data_dir):
  """Raises UsageError if there are no files for a reader; reads none.

  Args:
    reader: of `readers`; another needs no files.
    split: 'train' or 'test'.
    data_dir: --data_dir.
  """
  if isinstance(reader, functools.partial) and reader.func is _read:
    of_layout, paths = _found(*reader.args, split, data_dir)
    needs = getattr(of_layout, 'needs', None)
    if needs:
      needs(split, os.path.dirname(paths[0]))


def _found(name, layouts, origin, split, data_dir):
  """(the reader of the first layout that is there, paths of the split)."""
  data_dir = files.data_dir(name, data_dir)
  index = files.SPLITS.index(split)
  wanted = []
  for *patterns, reader in layouts:
    found = [
      sorted(glob.glob(os.path.join(glob.escape(data_dir), pattern)))
      for pattern in patterns
    ]
    wanted.append(os.path.join(data_dir, patterns[index]))
    if found[index]:
      return reader, found[index]
    if found[1 - index]:
      raise errors.UsageError(
        f'{name}: {wanted[-1]} is missing; {found[1 - index][0]} is there'
      )
  raise errors.UsageError(
    f'{name}: there is no {" or ".join(wanted)}; {origin}'
  )


@contextlib.contextmanager
def refusing(path):
  """Turns what reading a broken file raises into a UsageError that names it."""
  try:
    yield
  except errors.UsageError:
    raise
  except Exception as error:  # Parsers raise anything where bytes are wrong.
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise errors.UsageError(f'{path}: cannot be read: {reason}') from error


def rows(path, separator=None, opened=open):
  """Yields (where, words) of every line of a text file that is not blank."""
  with refusing(path), opened(path, 'rt', encoding='utf-8') as lines:
    for number, line in enumerate(lines, 1):
      if line.strip():
        yield f'{path}, line {number}', line.strip().split(separator)


def image_file(folder, name, where):
  """Returns the path of the image that a label file names.

  Raises:
    UsageError: it is not below the folder, or not there.
  """
  if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == '..':
    raise errors.UsageError(f'{where}: {name!r} is outside of {folder}')
  path = os.path.join(folder, name)
  if not os.path.isfile(path):
    raise errors.UsageError(f'{where}: {name!r} is missing in {folder}')
  return path


def label(text, count, where):
  """Returns a label in [0, count) that a label file gives.

  Raises:
    UsageError: it is none.
  """
  try:
    value = int(text)
  except ValueError:
    value = -1
  if not 0 <= value < count:
    raise errors.UsageError(
      f'{where}: {text!r} is no label; labels are 0 to {count - 1}'
    )
  return value


def listed(label_file, folder, count):
  """Reads lines of 'path label', paths relative to the folder.

  Returns:
    (paths [N], labels int32 [N]).
  """
  paths, labels = [], []
  for where, words in rows(label_file):
    if len(words) < 2:
      raise errors.UsageError(f'{where}: not of the form "path label"')
    paths.append(image_file(folder, words[0], where))
    labels.append(label(words[1], count, where))
  if not paths:
    raise errors.UsageError(f'{label_file}: lists no images')
  return paths, np.array(labels, np.int32)


def _resized(pixels, image_size):
  if pixels.shape[1:3] == (image_size, image_size):
    return pixels
  with tf.device('CPU'):  # On a GPU the last bit may be another.
    return images.resize(pixels, image_size).numpy().astype(np.uint8)


def checked(path, pixels, labels, shape, lowest, highest):
  """Checks what an archive held for images and their labels.

  Args:
    path: of the archive, for the message.
    pixels: an array.
    labels: an array.
    shape: of one image; None where any extent will do.
    lowest: label.
    highest: label.

  Returns:
    (pixels uint8 [N, *shape], labels int64 [N]).

  Raises:
    UsageError: they are something else.
  """
  if (
    getattr(pixels, 'dtype', None) != np.uint8
    or pixels.ndim != len(shape) + 1
    or not len(pixels)
    or any(s not in (None, n) for s, n in zip(shape, pixels.shape[1:]))
  ):
    size = 'x'.join('any' if s is None else str(s) for s in shape)
    raise errors.UsageError(f'{path}: the images are no uint8 of {size}')
  return pixels, _checked_labels(path, labels, len(pixels), lowest, highest)


def _checked_labels(path, labels, count, lowest, highest):
  labels = np.ravel(labels)
  if labels.dtype.kind not in 'iuf' or len(labels) != count:
    raise errors.UsageError(
      f'{path}: {count} images, but not as many labels that are numbers'
    )
  good = np.isin(labels, np.arange(lowest, highest + 1))
  if not good.all():
    i = int(np.argmin(good))
    raise errors.UsageError(
      f'{path}: the label of image {i} is {labels[i]}; labels are {lowest} to '
      f'{highest}'
    )
  return labels.astype(np.int64)


def npz(path, *keys):
  """Returns arrays of an .npz file; one with Python objects is refused."""
  with refusing(path):
    if not zipfile.is_zipfile(path):
      raise ValueError('no .npz file, or a part of one')
    with np.load(path, allow_pickle=False) as arrays:
      return [arrays[key] for key in keys]


def mat(path, image_size, lowest, highest):
  """Reads a MATLAB file as that of SVHN: X uint8 [32, 32, 3, N] and y [N, 1].

  Returns:
    (images uint8 [N, image_size, image_size, 3], labels int64 [N] in [lowest,
    highest]).
  """
  import scipy.io

  with refusing(path):
    arrays = scipy.io.loadmat(path, variable_names=('X', 'y'))
    if not {'X', 'y'} <= arrays.keys():
      raise ValueError('it has no X and y')
    stored = np.moveaxis(arrays['X'], -1, 0)
  stored, labels = checked(
    path, stored, arrays['y'], (32, 32, 3), lowest, highest
  )
  # Part by part: the set is in memory twice, whatever the size.
  pixels = np.empty([len(stored), image_size, image_size, 3], np.uint8)
  for first in range(0, len(stored), _PART):
    part = slice(first, first + _PART)
    pixels[part] = _resized(stored[part], image_size)
  return pixels, labels


def made(name, class_names):
  """The layouts of tools.prepare_data: TFRecords and folders of the classes.

  NAME/{train,test}-00000-of-00004.tfrecord ...: `image`, a PNG, and `label`
  NAME/{train,test}/CLASS/*.png: CLASS is a class's name, or its number
  """
  return [
    (
      f'{name}/train-?????-of-?????.tfrecord',
      f'{name}/test-?????-of-?????.tfrecord',
      functools.partial(_records, len(class_names)),
    ),
    (
      f'{name}/train',
      f'{name}/test',
      functools.partial(_class_folders, class_names),
    ),
  ]


def _class_folders(class_names, paths, split, image_size, reading):
  del split, image_size, reading
  (folder,) = paths
  numbers = {class_name: i for i, class_name in enumerate(class_names)}
  paths, labels = [], []
  with refusing(folder):
    names = sorted(n for n in os.listdir(folder) if not n.startswith('.'))
  for name in names:
    where = os.path.join(folder, name)
    if not os.path.isdir(where):
      continue
    number = label(numbers.get(name, name), len(class_names), where)
    found = images.find(where)
    if not found:
      raise errors.UsageError(f'{where}: no images')
    paths += found
    labels += [number] * len(found)
  if not paths:
    raise errors.UsageError(f'{folder}: no folders of classes')
  return files.Listing(tuple(paths), np.array(labels, np.int32), class_names)


def _records(count, paths, split, image_size, reading):
  """Shards of tf.train.Example: `image`, a PNG, and `label`, in [0, count)."""
  del split, reading
  stem, total = paths[0][: -len('00000-of-00000.tfrecord')], len(paths)
  if paths != [f'{stem}{i:05}-of-{total:05}.tfrecord' for i in range(total)]:
    raise errors.UsageError(
      f'{stem}*.tfrecord: these {total} shards are not all of one set'
    )

  def parse(record):
    example = tf.io.parse_single_example(
      record,
      {
        'image': tf.io.FixedLenFeature([], tf.string),
        'label': tf.io.FixedLenFeature([], tf.int64),
      },
    )
    return tf.io.decode_png(example['image'], channels=3), example['label']

  pixels, labels = [], []
  for path in paths:
    shard = tf.data.TFRecordDataset(path).map(
      parse, num_parallel_calls=tf.data.AUTOTUNE
    )
    try:
      parts = [
        (_resized(part.numpy(), image_size), part_labels.numpy())
        for part, part_labels in shard.batch(_PART)
      ]
    except tf.errors.OpError as error:
      # {{the graph's node}} what happened [Op: the operation] and lines more.
      reason = re.sub(r'{{.*?}} ?| \[Op:.*', '', error.message.split('\n')[0])
      raise errors.UsageError(f'{path}: cannot be read: {reason}') from error
    if not parts:
      raise errors.UsageError(f'{path}: no examples')
    shard_pixels, shard_labels = zip(*parts)
    pixels += shard_pixels
    shard_labels = np.concatenate(shard_labels)
    labels.append(
      _checked_labels(path, shard_labels, len(shard_labels), 0, count - 1)
    )
  return files.Arrays(np.concatenate(pixels), np.concatenate(labels))
