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
  *('.jpe', '.jp2', '.ppm', '.pgm', '.pbm', '.pnm', '.avif', '.heic', '.heif'),
)

# Read from a file at once, before Pillow asks for it; most headers fit.
_HEADER_BYTES = 2**16
# Larger images (235 MB each, all copies) are decoded one at a time.
_LARGE_PIXELS = 2**25

_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'
_JPEG_HEADER_BYTES = 2**12

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
        if not file.peek(1):
          raise ValueError('an empty file')
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


def read(file, size, max_pixels=files.Reading.max_pixels, region=None):
  """Reads an image file as RGB, uint8 [size, size, 3].

  Grey, palette, CMYK and transparent images become RGB (transparency over
  black), a photograph that was taken sideways is turned upright (EXIF), of an
  animation the first image counts.

  Args:
    file: a path, or a file that is open for reading bytes.
    size: side in pixels.
    max_pixels: width x height beyond which an image is bad.
    region: (left, top, right, bottom) in pixels, the part to keep, right and
      bottom being outside; None for all.

  Raises:
    BadImage: the file is no image, or a broken one, or the region is not in it;
      names it.
  """
  pixels = decode(file, str(file), max_pixels)
  if region is not None:
    left, top, right, bottom = region
    height, width = pixels.shape[:2]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
      raise BadImage(
        str(file),
        f'the region from ({left}, {top}) to ({right}, {bottom}) is not in the '
        f'image, {width}x{height}',
      )
    pixels = pixels[top:bottom, left:right]
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
      size=np.array([size, size], np.int32),
      scale=np.float32(size) / np.array(pixels.shape[:2], np.float32),
      translation=np.zeros(2, np.float32),
      kernel_type='triangle',
      antialias=True,
    )
  return np.rint(memoryview(resized)).astype(np.uint8)[0]


def is_plain_jpeg(path, max_pixels=files.Reading.max_pixels):
  """Whether a file is one that `plain_jpegs` reads, as most photographs are.

  That is, whether it has no orientation, is not cut off, and not too large.
  """
  try:
    with open(path, 'rb', buffering=0) as file:
      start = file.read(_JPEG_HEADER_BYTES)
      height, width, channels = _jpeg_shape(start)
      if channels not in (1, 3):
        return False
      file.seek(-len(_JPEG_END), os.SEEK_END)
      whole = file.read() == _JPEG_END
  except OSError:
    return False
  return whole and height * width <= min(max_pixels, _LARGE_PIXELS)


def _jpeg_shape(start):
  """(height, width, channels) in a JPEG file's start; 0 if it is not plain."""
  place = len(_JPEG_START)
  if start[:place] == _JPEG_START:
    with contextlib.suppress(struct.error):  # The start is not long enough.
      while True:
        marker, length = struct.unpack_from('>HH', start, place)
        if marker in (0xFFC0, 0xFFC1, 0xFFC2):  # SOF, of the common kinds.
          return struct.unpack_from('>HHB', start, place + 5)
        # APP1 may hold an orientation; SOS comes after SOF.
        if marker in (0xFFE1, 0xFFDA) or marker < 0xFF00:
          break
        place += 2 + length
  return 0, 0, 0


def plain_jpegs(paths, size):
  """A dataset of what `read` makes of files that are `is_plain_jpeg`.

  Faster: TensorFlow decodes, to the same pixels, without Python between.

  Returns:
    tf.data.Dataset of uint8 [size, size, 3], in the order of the paths. For a
    file that cannot be read its iterator raises a tf.errors.OpError, and goes
    on with the next one.
  """

  def decode_jpeg(path):
    pixels = tf.io.decode_jpeg(
      tf.io.read_file(path), channels=3, dct_method='INTEGER_ACCURATE'
    )
    return tf.cast(resize(pixels[tf.newaxis], size)[0], tf.uint8)

  names = tf.constant([os.fsencode(path) for path in paths], tf.string)
  return tf.data.Dataset.from_tensor_slices(names).map(
    decode_jpeg, num_parallel_calls=os.cpu_count()
  )


def find(folder, elsewhere=()):
  """Returns the paths of all image files below `folder`, sorted.

  Links are followed, but not back up the tree; a folder that is reached on two
  ways counts once. What begins with a point is left out.

  Args:
    folder: a path.
    elsewhere: real paths of folders whose images are not of this one, though a
      link in it may lead there.

  Raises:
    UsageError: a folder cannot be read.
  """
  found, seen = [], set(elsewhere)
  above = os.path.dirname(os.path.realpath(folder))
  walk = os.walk(folder, onerror=_refuse, followlinks=True)
  for directory, subfolders, names in walk:
    place = os.path.realpath(directory)
    if place in seen or os.path.commonpath([place, above]) == place:
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
