"""Batches whose order is a pure function of (seed, step).

Every stream runs through its domain in epochs; epoch e is a permutation keyed
on (seed, stream, e), of which any element is found in O(1). So a run resumes at
any step without replaying what came before, two streams shuffle independently,
and a replica takes its own rows of the same global batch.

A stream of translated images follows that of the images they were made of: it
has the translations of some of its rows, cropped and flipped alike.
"""

import itertools
import zlib

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import augmentation as augmentations
from tfda.data import translated

_SOURCES = {
  # stream -> (which domain, with labels)
  'source': ('source', True),
  'target': ('target', False),
  'labelled_target': ('target', True),
  'source_to_target': ('source_to_target', False),
  'target_to_source': ('target_to_source', False),
}
_ORIGINALS = translated.DIRECTIONS  # Of translated streams.


def shuffled_positions(seed, stream, first, count, size):
  """Indices into a domain of `size` images for positions first..first+count-1.

  Position q is element q mod size of the permutation of epoch q div size.

  Args:
    seed: an int.
    stream: name of the stream; streams shuffle independently.
    first: scalar int64, the first position, step x batch size.
    count: how many.
    size: images in the domain, at least 1.

  Returns:
    int64 [count].
  """
  positions = first + tf.range(count, dtype=tf.int64)
  return _permuted(seed, stream, positions, size)


def balanced_positions(seed, stream, first, count, labels):
  """As `shuffled_positions`, with as many images of every class.

  Every C positions in a row have one image of each class that there is, and
  every class runs through epochs of its own.

  Args:
    seed: an int.
    stream: name of the stream.
    first: scalar int64, the first position.
    count: how many.
    labels: NumPy integers [N], of the images of the domain.

  Returns:
    int64 [count].
  """
  classes, sizes = np.unique(labels, return_counts=True)
  members = tf.constant(np.argsort(labels, kind='stable'))
  starts = tf.constant(np.cumsum(sizes) - sizes)
  sizes = tf.constant(sizes.astype(np.int64))
  positions = first + tf.range(count, dtype=tf.int64)
  rounds = positions // len(classes)
  chosen = _permuted(seed, f'{stream} classes', positions, len(classes))
  # The n-th round takes the n-th image of every class.
  places = _permuted(seed, stream, rounds, tf.gather(sizes, chosen), chosen)
  return tf.gather(members, tf.gather(starts, chosen) + places)


def _permuted(seed, stream, positions, size, salt=0):
  """Element q mod size of permutation q div size, for all positions q.

  Args:
    seed: an int.
    stream: a string; another one gives other permutations.
    positions: int64 [count].
    size: of what is permuted; a number, or int64 [count].
    salt: integer or int64 [count]; another one gives other permutations.
  """
  stream_key = zlib.crc32(stream.encode()) & 0x7FFFFFFF
  size = tf.cast(size, tf.int64)
  keys = [seed, stream_key + salt, positions // size]
  keys = [tf.broadcast_to(tf.cast(k, tf.int64), positions.shape) for k in keys]
  # The raw op: index_shuffle of TensorFlow 2.15 pads a matrix of seeds wrongly.
  return tf.raw_ops.RandomIndexShuffle(
    index=positions % size,
    seed=tf.cast(tf.stack(keys, axis=1), tf.int32),
    max_index=size - 1,
    # With the usual 4 the orders of 60,000 images are nearly the same in every
    # epoch and for every seed: a correlation of 0.9.
    rounds=16,
  )


def stream_rows(stream, batch_size, translated_share):
  """How many images of a stream a global batch has."""
  translated = stream in _ORIGINALS
  return round(batch_size * translated_share) if translated else batch_size


def check(
  streams,
  domains,
  batch_size,
  replicas=1,
  translated_share=1.0,
  accumulate=1,
):
  """Raises UsageError unless the batches of steps can be made and split.

  Args:
    streams, domains, replicas, translated_share: as for `batches`.
    batch_size: images of each stream in a pass.
    accumulate: passes that make a step.
  """
  parts = replicas * accumulate
  for stream in streams:
    rows = stream_rows(stream, batch_size * accumulate, translated_share)
    share = f' and --translated_share={translated_share:.3g}'
    share = '' if rows == batch_size * accumulate else share
    if rows % parts:
      fits = next(
        size
        for size in itertools.count(batch_size + 1)
        if not any(
          stream_rows(each, size * accumulate, translated_share) % parts
          for each in streams
        )
      )
      passes = f' and {accumulate} passes' if accumulate > 1 else ''
      raise errors.UsageError(
        f'--batch_size={batch_size}{share} cannot be split over {replicas} '
        f'replicas{passes}; --batch_size={fits} can'
      )
    if not rows:
      raise errors.UsageError(
        f'--batch_size={batch_size}{share} leave no translated image in a step'
      )
    domain_name, labelled = _SOURCES[stream]
    domain = domains.get(domain_name)
    if domain is None:
      raise errors.UsageError(
        'the method reads translated images; python -m tools.translate makes '
        'them, and --translation=RUN names its run'
      )
    if labelled and domain.labels is None:
      raise errors.UsageError(
        f'{domain.name} has no labels, and the {stream} stream needs them'
      )


def batches(
  streams,
  domains,
  batch_size,
  seed,
  first_step,
  last_step,
  replicas=1,
  replica_range=None,
  image_size=None,
  augmentation='none',
  class_balanced=False,
  translated_share=1.0,
):
  """Returns a tf.data.Dataset of batches for steps first_step..last_step-1.

  Args:
    streams: names: 'source', 'target' (never labelled), 'labelled_target',
      'source_to_target' and 'target_to_source'.
    domains: {'source': the labelled training Domain, 'target', and, if a stream
      needs them, 'source_to_target' and 'target_to_source': their translations,
      image by image}.
    batch_size: images of each stream in a global batch.
    seed: of the order and of the augmentation.
    first_step: the step to begin with.
    last_step: the step to end before.
    replicas: over how many replicas a global batch is split; each element of
      the dataset is then one replica's part, in turn.
    replica_range: (first, last + 1) of the replicas that this dataset feeds;
      None for all.
    image_size: side in pixels of the images of a batch; the domain's if None.
    augmentation: one of augmentation.NAMES.
    class_balanced: whether all classes of the source are equally frequent.
    translated_share: translated images for each image that they are made of.

  Yields:
    {stream: {'image': uint8 [b, S, S, 3], 'index': int64 [b] in its domain}};
    with 'label': int32 [b] where it is labelled; translated streams have 'row':
    int32 [b], the rows of the images that they are made of.

  Raises:
    UsageError: batch_size is not a multiple of replicas; the target has no
      labels and a stream needs them; there are no translations.
  """
  check(streams, domains, batch_size, replicas, translated_share)
  rows = batch_size // replicas
  # Spread over the batch, so that every replica has as many.
  count = stream_rows('source_to_target', batch_size, translated_share)
  spread = np.diff(np.arange(rows + 1) * count // batch_size)
  translated_rows = tf.constant(np.flatnonzero(spread), tf.int32)
  stored = {stream: domains[_SOURCES[stream][0]] for stream in streams}
  readers = {stream: _reader(domain) for stream, domain in stored.items()}
  # Captured tensors, shared by all steps; constants in the graph would be
  # copied, and limited to 2 GiB.
  labels = {
    stream: tf.constant(stored[stream].labels.astype(np.int32))
    for stream in streams
    if _SOURCES[stream][1]
  }

  def places(stream, step, replica):
    """Indices in its domain [rows], and draws of the augmentation [rows, d]."""
    domain = domains[_SOURCES[stream][0]]
    first = step * batch_size + replica * rows
    if class_balanced and stream == 'source':
      index = balanced_positions(seed, stream, first, rows, domain.labels)
    else:
      index = shuffled_positions(seed, stream, first, rows, len(domain.images))
    # Of the global batch, so that replicas draw as one would.
    draws = tf.random.stateless_uniform(
      [replicas, rows, augmentations.DRAWS],
      tf.stack([seed + zlib.crc32(stream.encode()), step]),
    )[replica]
    return index, draws

  @tf.autograph.experimental.do_not_convert
  def load(position):
    step, replica = position // parts, position % parts + first_replica
    batch = {}
    for stream, domain in stored.items():
      index, draws = places(_ORIGINALS.get(stream, stream), step, replica)
      batch[stream] = {}
      if stream in _ORIGINALS:
        index, draws = (tf.gather(x, translated_rows) for x in (index, draws))
        batch[stream]['row'] = translated_rows
      size = image_size or domain.images.shape[1]
      image = readers[stream](index, draws, augmentation, size)
      batch[stream].update(image=image, index=index)
      if stream in labels:
        batch[stream]['label'] = tf.gather(labels[stream], index)
    return batch

  first_replica, after_last = replica_range or (0, replicas)
  parts = after_last - first_replica
  positions = tf.data.Dataset.range(first_step * parts, last_step * parts)
  return positions.map(load, num_parallel_calls=2).prefetch(2)


def _reader(domain):
  """(index, draws, augmentation, image size) -> a batch's images of a domain.

  Or what the frozen part of the network made of them, where that is stored.
  """
  read = _rows(domain.images if domain.features is None else domain.features)

  def images(index, draws, augmentation, image_size):
    return augmentations.augment(read(index), image_size, augmentation, draws)

  def features(index, draws, augmentation, image_size):
    del augmentation, image_size
    copies = len(domain.features) // len(domain.images)
    # The first copy is of the centre crop; the others are augmented.
    chosen = tf.cast(draws[:, 0] * float(copies - 1), tf.int64)
    return read(index * copies + (chosen + 1 if copies > 1 else 0))

  return images if domain.features is None else features


def _rows(array):
  """index [n] -> rows [n, ...] of an array in memory or on disk."""
  if isinstance(array, np.ndarray):
    tensor = tf.constant(array)
    return lambda index: tf.gather(tensor, index)

  def read(index):
    rows = tf.numpy_function(
      array.__getitem__, [index], array.dtype, stateful=False
    )
    return tf.ensure_shape(rows, [index.shape[0], *array.shape[1:]])

  return read
