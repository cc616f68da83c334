"""Arrays on disk, made once and shared by runs; images that are decoded once.

A domain's images are a NumPy array, or an object that reads as one:

  len(images), images.shape, images.dtype
  images[index]    a NumPy array; index is an integer, several, or a slice

An array is a folder of the cache (--cache_dir, $XDG_CACHE_HOME/tfda or
~/.cache/tfda), which may be deleted at any time:

  v1/KEY/lock     held by the run that makes it
  v1/KEY/part/    what that run has made so far
  v1/KEY/array/   `part`, renamed when it was complete and on the disk
    index.json    {index: {shape, dtype, shard_rows, notes}, sha256: of it}
    00000.bin     rows, one after the other as C has them; at most 1 GiB

Rows are read by position, not mapped into memory: what is resident stays small
however large the array.
"""

import collections
import concurrent.futures
import contextlib
import fcntl
import glob
import hashlib
import itertools
import json
import math
import os
import shutil
import sys
import weakref

import numpy as np
import tensorflow as tf
import tqdm

from tfda import errors
from tfda.data import files, images

_VERSION = 'v1'  # Of this format and of what `decoded` stores in it.
_SHARD_BYTES = 2**30
_IN_MEMORY_BYTES = 2**28
_SMALL_ROW_BYTES = 2**14  # Of which a batch would be many little reads.
_AHEAD = 64  # Images that are decoded before they are asked for.
_SYNC_BYTES = 2**24
_SHOWN = 10  # Bad images in a message.

# What opening an array raises that is not there or not whole.
_NOT_WHOLE = (FileNotFoundError, ValueError, KeyError, TypeError)


class _Rows:
  """An array whose rows are made when they are asked for, by `take`."""

  def __init__(self, shape, dtype):
    self.shape = tuple(shape)
    self.dtype = np.dtype(dtype)
    self._positions = np.arange(self.shape[0])

  def __len__(self):
    return self.shape[0]

  def __getitem__(self, index):
    positions = self._positions[index]
    rows = self.take(positions.ravel())
    return rows.reshape([*positions.shape, *self.shape[1:]])

  @property
  def nbytes(self):
    return math.prod(self.shape) * self.dtype.itemsize


class StoredArray(_Rows):
  """An array in the cache; `find` and `write` make one. Threads may share it.

  Attributes:
    shape: (N, ...).
    dtype: of NumPy.
    notes: what `write` was given to keep with it.
  """

  def __init__(self, folder):
    """Opens the array of a folder; raises one of _NOT_WHOLE."""
    with open(os.path.join(folder, 'index.json'), encoding='utf-8') as file:
      signed = json.load(file)
    index = signed['index']
    if signed['sha256'] != _digest(index):
      raise ValueError('index.json is not as it was written')
    super().__init__(index['shape'], index['dtype'])
    self.notes = index['notes']
    self._shard_rows = index['shard_rows']
    self._row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
    self._shards = []
    weakref.finalize(self, _close, self._shards)
    for first in range(0, len(self), self._shard_rows):
      path = os.path.join(folder, _shard_name(len(self._shards)))
      self._shards.append(os.open(path, os.O_RDONLY))
      rows = min(self._shard_rows, len(self) - first)
      if os.fstat(self._shards[-1]).st_size != rows * self._row_bytes:
        raise ValueError(f'{os.path.basename(path)} has not its size')

  def take(self, index):
    """Reads rows.

    Args:
      index: integers [M] in [0, N), NumPy's.

    Returns:
      A NumPy array [M, ...].
    """
    rows = np.empty([len(index), *self.shape[1:]], self.dtype)
    data = rows.reshape(-1).view(np.uint8)
    shards, places = np.divmod(index, self._shard_rows)
    # Where a stretch of neighbours begins, in one shard.
    apart = (np.diff(index) != 1) | (np.diff(shards) != 0)
    starts = [0, *(np.flatnonzero(apart) + 1), len(index)]
    for start, end in zip(starts, starts[1:]):
      if start < end:
        self._read(
          data[start * self._row_bytes : end * self._row_bytes],
          self._shards[shards[start]],
          int(places[start]) * self._row_bytes,
        )
    return rows

  def _read(self, data, shard, offset):
    """Fills `data` from a shard; the interpreter's lock is not held."""
    while len(data):
      count = os.preadv(shard, [data], offset)
      if not count:
        raise OSError('a file of the cache was cut off while it was in use')
      data, offset = data[count:], offset + count


def _shard_name(number):
  return f'{number:05}.bin'


def _close(shards):
  for shard in shards:
    os.close(shard)


def _digest(index):
  return hashlib.sha256(json.dumps(index).encode()).hexdigest()


def find(key, cache_dir):
  """Returns the StoredArray of that key, or None; a damaged one is None too.

  Args:
    key: a file name.
    cache_dir: folder of the caches; None for the user's.
  """
  folder = os.path.join(place(key, cache_dir), 'array')
  if not os.path.isdir(folder):
    return None
  try:
    return StoredArray(folder)
  except _NOT_WHOLE as error:
    reason = ' '.join(str(error).split())
    print(f'{folder} is damaged and made anew: {reason}', file=sys.stderr)
    return None


def write(key, row_shape, dtype, blocks, cache_dir, notes=None):
  """Makes the array of a key, or takes the one that another run just made.

  It is there when it is complete, or not at all. Of two runs that make the same
  array at once, one waits for the other.

  Args:
    key: a file name.
    row_shape: shape of a row.
    dtype: of the rows, a number's.
    blocks: yields arrays [n, *row_shape]; one at a time is in memory.
    cache_dir: folder of the caches; None for the user's.
    notes: {name: what JSON can hold}, kept with the array; `blocks` may still
      fill it in.

  Returns:
    A StoredArray.

  Raises:
    RunError: it cannot be written, for a full disk for example.
  """
  folder = place(key, cache_dir)
  array = os.path.join(folder, 'array')
  try:
    os.makedirs(folder, exist_ok=True)
    with _lock(folder):
      with contextlib.suppress(*_NOT_WHOLE):
        return StoredArray(array)  # Made by another run since `find`.
      _remove_left_over(os.path.dirname(folder))
      _make(folder, array, row_shape, np.dtype(dtype), blocks, notes or {})
      return StoredArray(array)
  except OSError as error:
    raise errors.RunError(
      f'{folder} cannot be written: {error.strerror or error}'
    ) from error


def place(key, cache_dir):
  """The folder of a key: what holds its lock, and its array when complete."""
  if cache_dir is None:
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    cache_dir = os.path.join(home, 'tfda')
  return os.path.join(cache_dir, _VERSION, key)


@contextlib.contextmanager
def _lock(folder, wait=True):
  """Holds a folder's lock, which ends with the process; yields if it does."""
  with open(os.path.join(folder, 'lock'), 'w') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      if not wait:
        yield False
        return
      print(f'waiting for another run to write {folder}', file=sys.stderr)
      fcntl.flock(file, fcntl.LOCK_EX)
    yield True


def _remove_left_over(cache_dir):
  """Removes the parts that runs which died have left."""
  for part in glob.glob(os.path.join(glob.escape(cache_dir), '*', 'part')):
    with (
      contextlib.suppress(PermissionError),  # Another user's.
      _lock(os.path.dirname(part), wait=False) as held,
    ):
      if held:
        shutil.rmtree(part)


def _make(folder, array, row_shape, dtype, blocks, notes):
  part = os.path.join(folder, 'part')
  shutil.rmtree(part, ignore_errors=True)
  os.mkdir(part)
  try:
    count, shard_rows = _write_shards(part, row_shape, dtype, blocks)
    index = {
      'shape': [count, *map(int, row_shape)],
      'dtype': dtype.str,
      'shard_rows': shard_rows,
      'notes': notes,
    }
    with _synced(os.path.join(part, 'index.json')) as file:
      signed = {'index': index, 'sha256': _digest(index)}
      file.write(json.dumps(signed).encode())
    _sync_folder(part)
    shutil.rmtree(array, ignore_errors=True)  # The damaged one.
    os.rename(part, array)
    _sync_folder(folder)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise


def _write_shards(folder, row_shape, dtype, blocks):
  """Returns (rows, rows in a shard)."""
  row_bytes = math.prod(row_shape) * dtype.itemsize
  shard_rows = max(1, _SHARD_BYTES // max(1, row_bytes))
  count = unsynced = 0
  with contextlib.ExitStack() as shard:
    for block in blocks:
      block = np.ascontiguousarray(block, dtype)
      if block.shape[1:] != tuple(row_shape):
        raise ValueError(f'rows of {block.shape[1:]}, not of {row_shape}')
      while len(block):
        number, place = divmod(count, shard_rows)
        if place == 0:
          shard.close()
          path = os.path.join(folder, _shard_name(number))
          file = shard.enter_context(_synced(path))
        rows = block[: shard_rows - place]
        file.write(rows.data)
        # Little by little, while the next rows are made.
        unsynced += rows.nbytes
        if unsynced > _SYNC_BYTES:
          _sync(file)
          unsynced = 0
        count, block = count + len(rows), block[len(rows) :]
  return count, shard_rows


@contextlib.contextmanager
def _synced(path):
  """A file that is written, and on the disk at the end."""
  with open(path, 'wb') as file:
    yield file
    _sync(file)


def _sync(file):
  file.flush()
  os.fsync(file.fileno())


def _sync_folder(folder):
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def decoded(paths, size, reading, regions=()):
  """Decodes image files and brings them to size, once: the cache has them.

  Where the cache cannot be written, files are decoded at every read. Up to 256
  MiB are returned in memory, but for large images that the cache has.

  Args:
    paths: of image files.
    size: side in pixels.
    reading: a files.Reading.
    regions: of the images, the parts to keep; see files.Listing.

  Returns:
    (images uint8 [M, size, size, 3]; positions int64 [M] in `paths` of those
    that were read; ((path, reason), ...) of those that were skipped).

  Raises:
    UsageError: an image is bad, and reading.on_bad_image is 'fail'; all are.
  """
  key = fingerprint(paths, size, reading.max_pixels, *regions)
  array = find(key, reading.cache_dir)
  if array is None:
    sources = list(itertools.zip_longest(paths, regions))
    array = _written(key, sources, size, reading)
  return kept(array, array.notes['bad'], paths, reading)


def _written(key, sources, size, reading):
  bad = []
  blocks = good(_read(sources, size, reading.max_pixels), len(sources), bad)
  try:
    return write(
      key, [size, size, 3], np.uint8, blocks, reading.cache_dir, {'bad': bad}
    )
  except errors.RunError as error:
    print(f'{error}; images are decoded at every read', file=sys.stderr)
    collections.deque(blocks, maxlen=0)  # What is left; `bad` has all then.
    return _Files(sources, size, reading.max_pixels, {'bad': bad})


def _read(sources, size, max_pixels):
  """Yields uint8 [size, size, 3], or why it is bad, of every (path, region)."""

  def read(source):
    path, region = source
    return or_reason(images.read, path, size, max_pixels, region)

  def is_plain(source):
    path, region = source
    return region is None and images.is_plain_jpeg(path, max_pixels)

  # In parts: to hand over one at a time would take longer than to look at it.
  parts = [sources[i : i + _AHEAD] for i in range(0, len(sources), _AHEAD)]
  simple = [
    known
    for part in ahead(lambda part: [is_plain(s) for s in part], parts)
    for known in part
  ]
  paths = [path for path, _ in itertools.compress(sources, simple)]
  plain = iter(images.plain_jpegs(paths, size))
  other = ahead(read, [s for s, known in zip(sources, simple) if not known])
  for source, known in zip(sources, simple):
    if not known:
      yield next(other)
      continue
    try:
      yield next(plain).numpy()
    except tf.errors.OpError:
      yield read(source)  # Which says what is wrong, or reads it.


class _Files(_Rows):
  """Images that are decoded at every read."""

  def __init__(self, sources, size, max_pixels, notes):
    bad = {i for i, _ in notes['bad']}
    self._sources = [source for i, source in enumerate(sources) if i not in bad]
    self._max_pixels = max_pixels
    self.notes = notes
    super().__init__([len(self._sources), size, size, 3], np.uint8)

  def take(self, index):
    rows = np.empty([len(index), *self.shape[1:]], self.dtype)
    for i, row in enumerate(
      ahead(self._read, [self._sources[position] for position in index])
    ):
      rows[i] = row
    return rows

  def _read(self, source):
    path, region = source
    return images.read(path, self.shape[1], self._max_pixels, region)


def kept(array, bad, names, reading):
  """What was read of images, and which were not.

  Args:
    array: of the images that were read.
    bad: [[position, reason], ...] of the others.
    names: of all images, for messages.
    reading: a files.Reading.

  Returns:
    As `decoded`.

  Raises:
    UsageError: an image is bad, and reading.on_bad_image is 'fail'; all are.
  """
  left_out = skipped(bad, names, reading)
  positions = np.delete(np.arange(len(names)), [i for i, _ in bad])
  small_rows = array.nbytes <= _SMALL_ROW_BYTES * len(array)
  cheap_to_read = isinstance(array, StoredArray) and not small_rows
  if array.nbytes <= _IN_MEMORY_BYTES and not cheap_to_read:
    array = array[:]
  return array, positions, left_out


def skipped(bad, names, reading):
  """Returns ((name, reason), ...) of the bad images; see `kept`."""
  left_out = tuple((names[i], reason) for i, reason in bad)
  all_are = len(left_out) == len(names)
  if left_out and (reading.on_bad_image == 'fail' or all_are):
    shown = [f'{files.shown(n)} ({reason})' for n, reason in left_out[:_SHOWN]]
    more = len(left_out) - len(shown)
    raise errors.UsageError(
      f'{len(left_out)} of {len(names)} images cannot be read: '
      f'{", ".join(shown)}{f" and {more} more" if more else ""}; '
      '--on_bad_image=skip leaves them out'
    )
  return left_out


def fingerprint(paths, *settings):
  """A key of files and settings: where they are, their sizes and times.

  Another file, or one that was written again (by programs that keep the time
  of writing, too), gives another key. The paths are whole: in data sets of a
  common make, files of one name, size and time in two folders can be two
  images.

  Args:
    paths: of files; one that is not there counts as such.
    *settings: numbers and strings.
  """
  digest = hashlib.sha256(repr(settings).encode())
  for path in paths:
    try:
      status = os.stat(path)
      times = f'{status.st_mtime_ns}\0{status.st_ctime_ns}'
      state = f'\0{status.st_size}\0{times}\0'
    except OSError:
      state = '\0missing\0'
    digest.update(os.fsencode(os.path.abspath(path)) + state.encode())
  return f'images-{digest.hexdigest()[:32]}'


def or_reason(read, *arguments):
  """What a function of `images` returns; if the image is bad, a string why."""
  try:
    return read(*arguments)
  except images.BadImage as error:
    return error.reason


def good(found, count, bad):
  """Yields blocks of one image for `write`, with a progress bar.

  Args:
    found: yields of every file uint8 [size, size, 3], or why it is bad.
    count: of files.
    bad: a list, to which [position, reason] of the bad ones are appended.
  """
  bar = tqdm.tqdm(
    found,
    'decoding images',
    count,
    leave=False,
    unit='image',
    disable=None,  # Where nobody watches.
  )
  for position, image in enumerate(bar):
    if isinstance(image, str):
      bad.append([position, image])
    else:
      yield image[np.newaxis]


def ahead(function, items):
  """Yields function(item) of all items, in their order, made in threads.

  No more than _AHEAD are made before they are asked for.
  """
  with concurrent.futures.ThreadPoolExecutor() as pool:
    made = collections.deque()
    for item in items:
      made.append(pool.submit(function, item))
      if len(made) > _AHEAD:
        yield made.popleft().result()
    while made:
      yield made.popleft().result()
