"""Batches whose order is a pure function of (seed, step).

Every stream runs through its domain in epochs; epoch e is a permutation keyed
on (seed, stream, e), of which any element is found in O(1). So a run resumes at
any step without replaying what came before, two streams shuffle independently,
and a replica takes its own rows of the same global batch.
"""

import zlib

import numpy as np
import tensorflow as tf

from tfda import errors

_SOURCES = {
  # stream -> (which domain, with labels)
  'source': ('source', True),
  'target': ('target', False),
  'labelled_target': ('target', True),
}


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
  epochs = positions // size
  salt = zlib.crc32(stream.encode()) & 0x7FFFFFFF
  keys = tf.stack(
    [
      tf.fill([count], tf.constant(seed, tf.int64)),
      tf.fill([count], tf.constant(salt, tf.int64)),
      epochs,
    ],
    axis=1,
  )
  # tf.random.experimental.index_shuffle pads a matrix of seeds along the wrong
  # axis (TensorFlow 2.15); the operation behind it takes one seed an index.
  return tf.raw_ops.RandomIndexShuffle(
    index=positions % size,
    seed=tf.cast(keys, tf.int32),
    max_index=tf.constant(size - 1, tf.int64),
    # With the usual 4 the orders of 60,000 images are nearly the same in every
    # epoch and for every seed: a correlation of 0.9.
    rounds=16,
  )


def check(streams, source, target, batch_size, replicas=1):
  """Raises UsageError unless `batches` can be made; its arguments."""
  if batch_size % replicas:
    raise errors.UsageError(
      f'--batch_size={batch_size} cannot be split over {replicas} replicas'
    )
  domains = {'source': source, 'target': target}
  for stream in streams:
    domain_name, labelled = _SOURCES[stream]
    domain = domains[domain_name]
    if labelled and domain.labels is None:
      raise errors.UsageError(
        f'{domain.name} has no labels, and the {stream} stream needs them'
      )


def batches(
  streams,
  source,
  target,
  batch_size,
  seed,
  first_step,
  last_step,
  replicas=1,
  replica_range=None,
):
  """Returns a tf.data.Dataset of batches for steps first_step..last_step-1.

  Args:
    streams: names: 'source', 'target' (never labelled), 'labelled_target'.
    source: the labelled training Domain.
    target: the target's training Domain, or None if no stream needs it.
    batch_size: images of each stream in a global batch.
    seed: of the order.
    first_step: the step to begin with.
    last_step: the step to end before.
    replicas: over how many replicas a global batch is split; each element of
      the dataset is then one replica's part, in turn.
    replica_range: (first, last + 1) of the replicas that this dataset feeds;
      None for all.

  Raises:
    UsageError: batch_size is not a multiple of replicas; the target has no
      labels and a stream needs them.
  """
  check(streams, source, target, batch_size, replicas)
  rows = batch_size // replicas
  domains = {'source': source, 'target': target}
  arrays = {}
  for stream in streams:
    domain_name, labelled = _SOURCES[stream]
    domain = domains[domain_name]
    # Captured tensors, shared by all steps; constants in the graph would be
    # copied, and limited to 2 GiB.
    arrays[stream] = (
      tf.constant(domain.images),
      tf.constant(domain.labels.astype(np.int32)) if labelled else None,
    )

  def load(position):
    step, replica = position // parts, position % parts + first_replica
    batch = {}
    for stream, (images, labels) in arrays.items():
      index = shuffled_positions(
        seed, stream, step * batch_size + replica * rows, rows, len(images)
      )
      batch[stream] = {'image': tf.gather(images, index), 'index': index}
      if labels is not None:
        batch[stream]['label'] = tf.gather(labels, index)
    return batch

  first_replica, after_last = replica_range or (0, replicas)
  parts = after_last - first_replica
  positions = tf.data.Dataset.range(first_step * parts, last_step * parts)
  return positions.map(load, num_parallel_calls=2).prefetch(2)
