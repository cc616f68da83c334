"""Reading image files and bringing them to size, for training and serving."""

import os
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from tfda import errors

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.gif', '.tif', '.tiff')


def resize(images, size):
  """[B, H, W, 3] in 0..255 -> [B, size, size, 3], bilinear, whole numbers.

  The aspect ratio is not kept, as in the Office recipes. Rounding makes an
  image that was resized while a data set was read and one that is resized in
  the served graph the same.
  """
  images = tf.cast(images, tf.float32)
  resized = tf.image.resize(images, [size, size], antialias=True)
  return tf.clip_by_value(tf.round(resized), 0.0, 255.0)


def decode(file, name):
  """Reads an image file, a path or an open one, in its own size; see `read`."""
  from PIL import Image, ImageOps

  try:
    with Image.open(file) as image:
      return _as_rgb(ImageOps.exif_transpose(image))
  except (
    OSError,
    ValueError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    Image.DecompressionBombError,
  ) as e:
    reason = 'no image' if isinstance(e, Image.UnidentifiedImageError) else e
    raise errors.UsageError(f'{name}: cannot be read: {reason}') from e


def _as_rgb(image):
  from PIL import Image

  if image.mode.startswith('I'):
    # 16 bits of grey: PIL would clip them to 255, not scale them.
    grey = np.clip(np.asarray(image) / 257.0, 0.0, 255.0)
    return np.repeat(np.round(grey).astype(np.uint8)[..., np.newaxis], 3, -1)
  if image.has_transparency_data:
    black = Image.new('RGBA', image.size, (0, 0, 0, 255))
    image = Image.alpha_composite(black, image.convert('RGBA'))
  return np.asarray(image.convert('RGB'))


def read(path, size):
  """Reads an image file as RGB, uint8 [size, size, 3].

  Grey, palette and transparent images become RGB (transparency over black), and
  a photograph that was taken sideways is turned upright (EXIF).

  Raises:
    UsageError: the file is no image, or a broken one; names it.
  """
  pixels = decode(path, path)
  if pixels.shape[:2] == (size, size):
    return pixels
  return tf.cast(resize(pixels[np.newaxis], size)[0], tf.uint8).numpy()


def find(folder):
  """Returns the paths of all image files below `folder`, sorted."""
  found = []
  for directory, _, names in os.walk(folder):
    found += [
      os.path.join(directory, name)
      for name in names
      if name.lower().endswith(EXTENSIONS) and not name.startswith('.')
    ]
  return sorted(found)
