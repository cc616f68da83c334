"""Batches of several streams, some of them translations of others.

A stream of translated images has 'row': the rows, in the stream of the images
that they were made of, of these images (`pipeline.batches`).
"""

import tensorflow as tf

from tfda.data import translated


def join(parts, names=None):
  """{stream: [b, ...]} -> [sum of b, ...], of some streams or all."""
  return tf.concat([parts[name] for name in names or parts], axis=0)


def split(whole, parts):
  """What was joined -> {stream: [b, ...]}, as `parts` has them."""
  return dict(zip(parts, tf.split(whole, [x.shape[0] for x in parts.values()])))


def positions(parts):
  """{stream: the rows of its images in `join(parts)`, int32 [b]}."""
  return split(tf.range(sum(x.shape[0] for x in parts.values())), parts)


def rows_of(values, stream, other, batch):
  """Those of values [b, ...] of a stream that belong to images of another.

  Args:
    values: of the images of `stream`.
    stream: its name.
    other: the same stream or its translation, or what it is a translation of.
    batch: has the rows.

  Returns:
    The values at the rows that `other` has translations of; all values, if it
    is not a translation of `stream`.
  """
  if translated.DIRECTIONS.get(other) != stream:
    return values
  return tf.gather(values, batch[other]['row'])


def with_translations(values, stream, batch, among):
  """Values [b, ...] of a stream, then again those of its translations.

  Args:
    values: of the images of `stream`.
    stream: 'source' or 'target'.
    batch: has the rows.
    among: {stream: anything}; streams that it lacks are left out.

  Returns:
    [n, ...] and `join(among, ...)` of the same streams, [n, ...].
  """
  translations = {s: d for d, s in translated.DIRECTIONS.items()}
  used = [n for n in (stream, translations[stream]) if n in among]
  parts = {name: rows_of(values, stream, name, batch) for name in used}
  return join(parts), join(among, used)
