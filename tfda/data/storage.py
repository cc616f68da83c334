"""Images of one size, in memory or on disk, as an array that is read in parts.

A domain's images are a NumPy array, or an object that reads as one:

  len(images), images.shape, images.dtype
  images[index]    a NumPy array; index is a slice or an integer array
"""

import concurrent.futures

import numpy as np

from tfda.data import images


def decoded(paths, size, reading):
  """Decodes image files and brings them to size.

  Args:
    paths: of image files.
    size: side in pixels.
    reading: a files.Reading.

  Returns:
    (images uint8 [M, size, size, 3]; positions int64 [M] in `paths` of those
    that were read; ((path, reason), ...) of those that were skipped).

  Raises:
    UsageError: an image is bad, and reading.on_bad_image is 'fail'.
  """
  with concurrent.futures.ThreadPoolExecutor() as pool:
    pixels = list(pool.map(lambda path: images.read(path, size), paths))
  return np.stack(pixels), np.arange(len(paths)), ()
