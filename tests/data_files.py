"""Writes small data sets in the layouts of large ones, for tests of readers."""

import contextlib
import io
import os
import resource

import numpy as np
import pytest
from PIL import Image

from tfda import errors
from tfda.data import domains


def refused(name, split, size, data_dir=None):
  """The message with which a domain is refused, which is one line."""
  with pytest.raises(errors.UsageError) as error:
    domains.load(name, split, size, data_dir and str(data_dir))
  message = str(error.value)
  assert message and '\n' not in message
  return message


def noise(*shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def write(path, content):
  """Writes text, bytes, or an image, in the format of its name's ending."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(content, np.ndarray):
    Image.fromarray(content).save(path)
  elif isinstance(content, str):
    path.write_text(content)
  else:
    path.write_bytes(content)
  return path


def cut(path):
  """Leaves the first half of a file."""
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def example(image, label):
  """A serialized tf.train.Example; the image is an array, or bytes."""
  import tensorflow as tf

  if isinstance(image, np.ndarray):
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'png')
    image = file.getvalue()
  feature = {
    'image': tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
    'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
  }
  return tf.train.Example(
    features=tf.train.Features(feature=feature)
  ).SerializeToString()


def write_records(path, records):
  import tensorflow as tf

  path.parent.mkdir(parents=True, exist_ok=True)
  with tf.io.TFRecordWriter(str(path)) as file:
    for record in records:
      file.write(record)


class Harmful:
  """Pickled; makes a folder when it is unpickled."""

  def __init__(self, path):
    self._path = str(path)

  def __reduce__(self):
    return os.mkdir, (self._path,)


@contextlib.contextmanager
def file_size_limit(limit):
  """The system refuses to write beyond `limit` bytes, as on a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
