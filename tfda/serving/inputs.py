"""What a classifier takes: paths of images, folders of them, or an array."""

import os

import numpy as np

from tfda import errors
from tfda.data import images as image_files


def resolve(images):
  """Returns (paths, None) or (None, array [N, H, W, 3]).

  Args:
    images: see classifier.Classifier.predict.

  Raises:
    UsageError: no such path, a folder without images, an array of another
      shape.
  """
  if _is_path(images):
    images = [images]
  if isinstance(images, (list, tuple)) and all(map(_is_path, images)):
    return [path for given in images for path in _find(given)], None
  return None, _array(images)


def _is_path(value):
  return isinstance(value, (str, os.PathLike))


def _find(path):
  """A file stands for itself, a folder for all images below it."""
  path = os.fspath(path)
  if not os.path.exists(path):
    raise errors.UsageError(f'{path}: no such file or folder')
  found = image_files.find(path) if os.path.isdir(path) else [path]
  if not found:
    raise errors.UsageError(
      f'{path}: no images; they end in {", ".join(image_files.EXTENSIONS)}'
    )
  return found


def _array(images):
  try:
    pixels = np.asarray(images)
  except ValueError:  # Rows of different lengths.
    pixels = np.asarray(None)
  if (
    pixels.dtype.kind not in 'buif'
    or pixels.ndim != 4
    or pixels.shape[3] != 3
    or 0 in pixels.shape[1:]
  ):
    raise errors.UsageError(
      'images must be paths or an array [N, H, W, 3] in 0..255, not '
      f'{pixels.dtype} {list(pixels.shape)}'
    )
  return pixels
