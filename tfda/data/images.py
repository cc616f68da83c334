"""Reading image files and bringing them to size, for training and serving."""

import contextlib
import os
import struct
import threading

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import files

# HEIC is here to be refused by name; without it a phone's photographs would be
# left out in silence.
EXTENSIONS = (
  *('.png', '.jpg', '.jpeg', '.jfif', '.bmp', '.webp', '.gif', '.tif', '.tiff'),
  *('.ppm', '.pgm', '.avif', '.heic'),
)

# Read from a file at once, before Pillow asks for it; most headers fit.
_HEADER_BYTES = 2**16
# Larger images (235 MB each, all copies) are decoded one at a time.
_LARGE_PIXELS = 2**25

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'

_pillow = threading.Lock()


class BadImage(errors.UsageError):
  """A file is no image, or a broken one.

  Attributes:
    reason: why, in a few words.
  """

  def __init__(self, name, reason):
    super().__init__(f'{files.shown(name)}: cannot be read: {reason}')
    self.reason = reason


def resize(images, size):
  """[B, H, W, 3] in 0..255 -> [B, size, size, 3], bilinear, whole numbers.

  The aspect ratio is not kept, as in the Office recipes. Rounding makes an
  image that was resized while a data set was read and one that is resized in
  the served graph the same.
  """
  # Of bytes the result is the same without a copy in floats.
  if images.dtype != tf.uint8:
    images = tf.cast(images, tf.float32)
  resized = tf.image.resize(images, [size, size], antialias=True)
  return tf.clip_by_value(tf.round(tf.cast(resized, tf.float32)), 0.0, 255.0)


def decode(file, name, max_pixels=files.Reading.max_pixels):
  """Reads an image file in its own size; see `read`.

  Args:
    file: a path, or a file that is open for reading bytes.
    name: of the file, for messages.
    max_pixels: width x height beyond which an image is bad.

  Returns:
    RGB, uint8 [H, W, 3].
  """
  from PIL import Image

  try:
    with contextlib.ExitStack() as stack:
      if not hasattr(file, 'read'):
        file = stack.enter_context(open(file, 'rb', _HEADER_BYTES))
      start = file.read(2)
      if not start:
        raise ValueError('an empty file')
      if start == _JPEG_START:
        pixels = _plain_jpeg(start + file.read(), max_pixels)
        if pixels is not None:
          return pixels
      file.seek(0)
      with _unlimited():
        image = stack.enter_context(Image.open(file))
      width, height = image.size
      if width * height > max_pixels:
        raise ValueError(f'{width}x{height} is over {max_pixels} pixels')
      if width * height > _LARGE_PIXELS:
        stack.enter_context(_unlimited())
      return _as_rgb(image)
  # Of a broken file Pillow's readers raise whatever they come across.
  except Exception as error:
    if isinstance(error, Image.UnidentifiedImageError):
      reason = 'no image of a known kind'
    else:
      reason = getattr(error, 'strerror', None) or str(error)
    reason = ' '.join(reason.split()) or type(error).__name__
    raise BadImage(name, reason) from error


def _plain_jpeg(content, max_pixels):
  """Decodes most photographs, in less time than Pillow and with its pixels.

  Returns:
    As `decode`; None for any file that Pillow is to judge or to turn upright.
  """
  height, width, channels = _jpeg_shape(content)
  small = height * width <= min(max_pixels, _LARGE_PIXELS)
  if channels in (1, 3) and small and content.endswith(_JPEG_END):
    with tf.device('CPU'), contextlib.suppress(tf.errors.InvalidArgumentError):
      pixels = tf.raw_ops.DecodeJpeg(
        contents=content, channels=3, dct_method='INTEGER_ACCURATE'
      )
      return np.asarray(memoryview(pixels))
  return None


def _jpeg_shape(content):
  """(height, width, channels) of a plain JPEG file, all 0 of another one."""
  place = len(_JPEG_START)
  with contextlib.suppress(struct.error):  # At the end of the file.
    while True:
      marker, length = struct.unpack_from('>HH', content, place)
      if marker in (0xFFC0, 0xFFC1, 0xFFC2):  # SOF, of the common kinds.
        return struct.unpack_from('>HHB', content, place + 5)
      # APP1 may hold an orientation; SOS comes after SOF.
      if marker in (0xFFE1, 0xFFDA) or marker < 0xFF00:
        break
      place += 2 + length
  return 0, 0, 0


@contextlib.contextmanager
def _unlimited():
  """For one thread at a time: Pillow's limit is global, and its warning prints.

  `max_pixels` is the limit here.
  """
  from PIL import Image

  with _pillow:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      yield
    finally:
      Image.MAX_IMAGE_PIXELS = limit


def _as_rgb(image):
  from PIL import Image, ImageOps

  ImageOps.exif_transpose(image, in_place=True)
  if image.mode.startswith(('I', 'F')):
    grey = np.asarray(image)
    if image.mode == 'F' or grey.min() < 0 or grey.max() > 65535:
      raise ValueError('grey in a range of its own, neither 8 nor 16 bits')
    # 16 bits of grey: PIL would clip them to 255, not scale them.
    return np.repeat(np.round(grey / 257).astype(np.uint8)[..., None], 3, -1)
  if image.has_transparency_data:
    black = Image.new('RGBA', image.size, (0, 0, 0, 255))
    image = Image.alpha_composite(black, image.convert('RGBA'))
  return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


def read(file, size, max_pixels=files.Reading.max_pixels):
  """Reads an image file as RGB, uint8 [size, size, 3].

  Grey, palette, CMYK and transparent images become RGB (transparency over
  black), a photograph that was taken sideways is turned upright (EXIF), of an
  animation the first image counts.

  Args:
    file: a path, or a file that is open for reading bytes.
    size: side in pixels.
    max_pixels: width x height beyond which an image is bad.

  Raises:
    BadImage: the file is no image, or a broken one; names it.
  """
  pixels = decode(file, str(file), max_pixels)
  if pixels.shape[:2] == (size, size):
    return pixels
  return _resized(pixels, size)


def _resized(pixels, size):
  """`resize` of one image, by its kernel alone: a tenth of the time if small.

  Args:
    pixels: uint8 [H, W, 3].
    size: side in pixels.

  Returns:
    uint8 [size, size, 3], to the last bit those of `resize`.
  """
  # On a GPU the last bit may be another, and copying takes longer.
  with tf.device('CPU'):
    resized = tf.raw_ops.ScaleAndTranslate(
      images=pixels[np.newaxis],
      size=[size, size],
      scale=np.float32(size) / np.array(pixels.shape[:2], np.float32),
      translation=[0.0, 0.0],
      kernel_type='triangle',
      antialias=True,
    )
  return np.rint(memoryview(resized)).astype(np.uint8)[0]


def find(folder):
  """Returns the paths of all image files below `folder`, sorted.

  Links are followed; a folder that is reached on two ways counts once. What
  begins with a point is left out.

  Raises:
    UsageError: a folder cannot be read.
  """
  found, seen = [], set()
  walk = os.walk(folder, onerror=_refuse, followlinks=True)
  for directory, subfolders, names in walk:
    place = os.path.realpath(directory)
    if place in seen:
      subfolders.clear()
      continue
    seen.add(place)
    subfolders[:] = sorted(s for s in subfolders if not s.startswith('.'))
    found += [
      os.path.join(directory, name)
      for name in names
      if name.lower().endswith(EXTENSIONS) and not name.startswith('.')
    ]
  return sorted(found)


def _refuse(error):
  raise errors.UsageError(f'{files.shown(error.filename)}: {error.strerror}')
