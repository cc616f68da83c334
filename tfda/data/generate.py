"""Writes data sets that are drawn, by several processes, whole or not at all.

Image i of a split is a function of (seed, split, i): the number of processes
and the order of their work change no byte. Classes take turns, so all are
equally frequent. Nothing here imports TensorFlow before the processes are
running, and the processes never do.

OUT/NAME/ is one of two layouts, and made.json says how it was made:

  tfrecord   {train,test}-00000-of-00010.tfrecord, at most 10,000 examples each:
             'image', the bytes of a PNG, and 'label', int64
  png        {train,test}/<class>/000000.png, the number being i
"""

import collections
import concurrent.futures
import contextlib
import errno
import fcntl
import functools
import io
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading

import numpy as np

from tfda import errors
from tfda.data import files

FORMATS = ('tfrecord', 'png')
_SHARD = 10_000  # Images in a TFRecord file.
_CHUNK = 200  # Images that a process draws at a time.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def image(draw, num_classes, seed, split, index):
  """Returns (image, label) number `index` of a split.

  Args:
    draw: (label, numpy Generator) -> uint8 [S, S, 3].
    num_classes: C; the label is `index` mod C.
    seed: of the data set, at least 0.
    split: 'train' or 'test'.
    index: at least 0.
  """
  label = index % num_classes
  key = [seed, files.SPLITS.index(split), index]
  return draw(label, np.random.default_rng(key)), label


def write(out, name, draw, folders, counts, seed, form, processes, **about):
  """Draws a data set and writes it to the folder `out`/`name`.

  Args:
    out: folder of data sets; made if need be.
    name: of the data set.
    draw: see `image`; it is pickled where there are several processes.
    folders: C names of the classes' folders, for `png`.
    counts: {split: number of images}.
    seed: of the data set, at least 0.
    form: one of FORMATS.
    processes: how many draw.
    **about: what made.json is to tell besides.

  Returns:
    The path of the folder.

  Raises:
    UsageError: it exists, or cannot be written.
    RunError: a process was killed, or the disk is full.
  """
  import tqdm

  make = functools.partial(_chunk, draw, len(folders), seed)
  tasks = [
    (split, first, min(first + _CHUNK, count))
    for split, count in counts.items()
    for first in range(0, count, _CHUNK)
  ]
  writer = {'tfrecord': _Shards, 'png': _Folders}[form]
  try:
    with (
      whole_folder(out, name) as folder,
      _in_order(make, tasks, processes) as chunks,
      tqdm.tqdm(
        total=sum(counts.values()), desc=name, unit='images', disable=None
      ) as bar,
      writer(folder, counts, folders) as written,
    ):
      for (split, first, _), chunk in zip(tasks, chunks):
        for i, (png, label) in enumerate(chunk, start=first):
          written.add(split, i, png, label)
        bar.update(len(chunk))
      with open(os.path.join(folder, 'made.json'), 'w') as file:
        json.dump({'seed': seed, 'counts': counts, **about}, file, indent=1)
  except _refusals() as error:
    if isinstance(error, OSError) and error.errno not in _FULL:
      raise
    reason = str(error).splitlines()[0]
    raise errors.RunError(f'{name}: cannot be written: {reason}') from error
  return os.path.join(out, name)


def _refusals():
  """What a full disk raises; TensorFlow is there if it writes."""
  tensorflow = sys.modules.get('tensorflow')
  return (OSError, tensorflow.errors.OpError) if tensorflow else OSError


@contextlib.contextmanager
def whole_folder(out, name):
  """A new folder that has its name when the block ends well, else vanishes.

  Until then, and after a kill, it is `out`/.`name`.unfinished, which the next
  attempt removes.
  """
  path = os.path.join(out, name)
  if os.path.lexists(path):
    raise errors.UsageError(
      f'{path} exists; remove it, or choose another --out'
    )
  unfinished = os.path.join(out, f'.{name}.unfinished')
  try:
    os.makedirs(out, exist_ok=True)
    held = os.open(out, os.O_RDONLY)
    try:
      fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
      shutil.rmtree(unfinished, ignore_errors=True)
      os.mkdir(unfinished)
    except OSError:
      os.close(held)
      raise
  except BlockingIOError as error:
    raise errors.UsageError(
      f'--out={out}: another process is drawing into it'
    ) from error
  except OSError as error:
    raise errors.UsageError(
      f'--out={out}: cannot be written: {error.strerror}'
    ) from error
  try:
    yield unfinished
    os.rename(unfinished, path)
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)
    os.close(held)


def _chunk(draw, num_classes, seed, split, first, last):
  """[(bytes of a PNG, label)] of the images first..last-1."""
  from PIL import Image

  drawn = []
  for index in range(first, last):
    pixels, label = image(draw, num_classes, seed, split, index)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    drawn.append((file.getvalue(), label))
  return drawn


@contextlib.contextmanager
def _in_order(function, tasks, processes):
  """An iterator over function(*task), computed by processes, a few ahead."""
  if processes == 1:
    yield (function(*task) for task in tasks)
    return
  # A fork of a process in which TensorFlow has threads may hang.
  pool = concurrent.futures.ProcessPoolExecutor(
    processes, multiprocessing.get_context('spawn'), _follow_parent
  )

  def results():
    pending = collections.deque()
    for task in tasks:
      pending.append(pool.submit(function, *task))
      if len(pending) > 4 * processes:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()

  try:
    yield results()
  except concurrent.futures.process.BrokenProcessPool as error:
    raise errors.RunError(
      'a process that draws was killed (out of memory?); try fewer --processes'
    ) from error
  finally:
    pool.shutdown(cancel_futures=True)


def _follow_parent():
  """Leaves Ctrl-C to the parent, and ends with it however it ends."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


class _Shards(contextlib.ExitStack):
  """Writes TFRecords."""

  def __init__(self, folder, counts, folders):
    del folders
    super().__init__()
    self._folder, self._counts, self._files = folder, counts, {}

  def add(self, split, index, png, label):
    import tensorflow as tf

    shard = (split, index // _SHARD)
    if shard not in self._files:
      self.close()  # The shard before is full.
      total = math.ceil(self._counts[split] / _SHARD)
      path = f'{split}-{shard[1]:05}-of-{total:05}.tfrecord'
      self._files[shard] = self.enter_context(
        tf.io.TFRecordWriter(os.path.join(self._folder, path))
      )
    feature = {
      'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
      'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    # Else the order of the two features is another one in every process.
    self._files[shard].write(example.SerializeToString(deterministic=True))


class _Folders(contextlib.ExitStack):
  """Writes a file an image."""

  def __init__(self, folder, counts, folders):
    del counts
    super().__init__()
    self._folder, self._folders = folder, folders

  def add(self, split, index, png, label):
    folder = os.path.join(self._folder, split, self._folders[label])
    if index == label:  # The first of its class.
      os.makedirs(folder)
    with open(os.path.join(folder, f'{index:06}.png'), 'wb') as file:
      file.write(png)
