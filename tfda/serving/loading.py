"""Loading a SavedModel to infer with it."""

import contextlib
import logging

import tensorflow as tf


def load(path):
  """Returns tf.saved_model.load(path), without its warning of no gradients.

  An export has none of our own gradients, which inference does not need.

  Raises:
    Whatever tf.saved_model.load raises.
  """
  with _without('unsaved custom gradients'):
    return tf.saved_model.load(path)


@contextlib.contextmanager
def _without(text):
  """Drops what TensorFlow logs with this text in it."""

  def is_other(record):
    return text not in record.getMessage()

  logger = logging.getLogger('absl')
  logger.addFilter(is_other)
  try:
    yield
  finally:
    logger.removeFilter(is_other)
