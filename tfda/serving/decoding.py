"""Decoding image files within a graph, to the pixels that data/images.py reads.

JPEG and PNG, of any kind: grey, palette, CMYK and transparent images become RGB
(transparency over black), a photograph that was taken sideways is turned
upright, 16 bits of grey are scaled to 8. What is known to differ: an
orientation that stands in XMP alone is not seen, one in damaged Exif data may
be; TensorFlow refuses some damaged files that Pillow reads, and files with Exif
data behind more than `_PARTS` others are refused; CMYK and progressive JPEGs
that lack a part may be one level of 255 from Pillow's.
"""

import functools
import re

import tensorflow as tf

from tfda.data import images as image_files

# So many files of a request are decoded at a time.
_PARALLEL = 8
# Segments or chunks that are looked through for Exif data, in about a second. A
# PNG file of 128 MB has so many, a JPEG hundreds; bad ones may have millions.
_PARTS = 2**14
_PNG_START = b'\x89PNG\r\n\x1a\n'
_ORIENTATION = 0x0112  # The tag in Exif's first directory.
_EXIF = b'Exif\0\0'


@functools.cache  # A trace takes a second.
def decoder(size, max_pixels):
  """A compiled function that reads image files and brings them to one size.

  Args:
    size: side in pixels, S.
    max_pixels: width x height beyond which an image is bad.

  Returns:
    The function: string [B], the bytes of JPEG and PNG files -> uint8 [B, S, S,
    3]. Where a file cannot be read, InvalidArgumentError that names all such
    files by their number, from 0.
  """
  return tf.function(
    lambda encoded: _decode(encoded, size, max_pixels),
    input_signature=[tf.TensorSpec([None], tf.string)],
    autograph=False,
  )


def _decode(encoded, size, max_pixels):
  count = tf.size(encoded, tf.int64)
  end = tf.constant(-1, tf.int64), tf.zeros([size, size, 3], tf.uint8)
  # An operation's error cannot be caught in a graph, nor does it say of which
  # file it is; a dataset leaves out what fails, so what is missing is known.
  read = (
    tf.data.Dataset.from_tensor_slices(encoded)
    .enumerate()
    .map(
      lambda i, file: (i, _read(file, size, max_pixels)),
      num_parallel_calls=_PARALLEL,
    )
    .ignore_errors()
    .concatenate(tf.data.Dataset.from_tensors(end))  # Lest it be empty.
    .batch(count + 1)
  )
  options = tf.data.Options()
  options.experimental_optimization.apply_default_optimizations = False
  options.autotune.enabled = False
  found, pixels = read.with_options(options).get_single_element()
  found, pixels = found[:-1], pixels[:-1]
  is_found = tf.scatter_nd(found[:, tf.newaxis], tf.ones_like(found), [count])
  refuse(
    tf.equal(is_found, 0),
    f'cannot be read: no whole JPEG or PNG of at most {max_pixels} pixels',
  )
  return tf.ensure_shape(pixels, [None, size, size, 3])


def refuse(is_bad, reason):
  """InvalidArgumentError that names the images of a batch which are bad.

  Args:
    is_bad: bool [B].
    reason: what is wrong with them.
  """
  bad = tf.where(is_bad)[:, 0]
  text = tf.strings.format('image {} of the request ' + reason, bad)
  tf.debugging.Assert(tf.equal(tf.size(bad), 0), [text])


def reason(message):
  """What `refuse` says in the message of an error; its first line if not."""
  found = re.search(r'image \[[\d .]+\] of the request [^\]]+', message)
  return found.group() if found else message.splitlines()[0]


def _apart(function):
  """A function that stays one operation in a graph.

  Of a branch that is not taken every operation is passed by, which of the rare
  ones here takes 4 % of the time of a small photograph.
  """
  return tf.function(
    function, autograph=False, experimental_attributes={'_noinline': True}
  )


def _read(file, size, max_pixels):
  is_png = tf.equal(tf.strings.substr(file, 0, len(_PNG_START)), _PNG_START)
  pixels = tf.cond(
    is_png,
    lambda: _png(file, max_pixels),
    lambda: _jpeg(file, max_pixels),
  )
  pixels.set_shape([None, None, 3])
  resized = image_files.resize(pixels[tf.newaxis], size)[0]
  return tf.cast(resized, tf.uint8)


def _jpeg(file, max_pixels):
  height, width, _ = tf.unstack(
    tf.cast(tf.image.extract_jpeg_shape(file), tf.int64)
  )
  with tf.control_dependencies([_limit(height, width, max_pixels)]):
    pixels = tf.io.decode_jpeg(file, channels=3, dct_method='INTEGER_ACCURATE')
  return tf.cond(
    _has(file, _EXIF),
    lambda: _upright(pixels, _jpeg_exif(file)),
    lambda: pixels,
  )


@_apart
def _png(file, max_pixels):
  header = _Bytes(tf.strings.substr(file, 0, 26))
  width, height = header.number(16, 4), header.number(20, 4)
  is_deep = tf.equal(header.number(24, 1), 16)
  colour = header.number(25, 1)
  has_alpha = tf.logical_or(
    tf.not_equal(tf.bitwise.bitwise_and(colour, 4), 0),
    tf.cond(
      _has(file, b'tRNS'),
      lambda: tf.not_equal(_png_chunk(file, b'tRNS'), b''),
      lambda: tf.constant(False),
    ),
  )

  def deep_grey():
    grey = tf.cast(tf.io.decode_png(file, 1, tf.uint16), tf.int32)
    return tf.image.grayscale_to_rgb(tf.cast((grey + 128) // 257, tf.uint8))

  with tf.control_dependencies([_limit(height, width, max_pixels)]):
    pixels = tf.case(
      [
        (is_deep & tf.equal(colour, 0), deep_grey),
        (has_alpha, lambda: _over_black(tf.io.decode_png(file, 4))),
      ],
      default=lambda: tf.io.decode_png(file, 3),
    )
  return tf.cond(
    _has(file, b'eXIf'),
    lambda: _upright(pixels, _png_chunk(file, b'eXIf')),
    lambda: pixels,
  )


def _limit(height, width, max_pixels):
  return tf.debugging.Assert(height * width <= max_pixels, [height, width])


def _over_black(rgba):
  """uint8 [H, W, 4] -> [H, W, 3], to the bit as Pillow composes them."""
  product = tf.cast(rgba[..., :3], tf.uint16) * tf.cast(
    rgba[..., 3:], tf.uint16
  )
  rounded = product + 128
  high = tf.bitwise.right_shift(rounded, tf.constant(8, tf.uint16))
  # A division by 255, rounded.
  return tf.cast(
    tf.bitwise.right_shift(rounded + high, tf.constant(8, tf.uint16)), tf.uint8
  )


@_apart
def _upright(pixels, exif):
  """Turns an image as the Exif data say; '' for none."""
  orientation = _orientation(exif)

  def turned():
    across = tf.cond(
      orientation >= 5,
      lambda: tf.transpose(pixels, [1, 0, 2]),
      lambda: pixels,
    )
    # The axes along which it is reversed, of the values from 2 to 8.
    rows = tf.constant([1, -1, -1, 1, 1, -1, -1])[orientation - 2]
    columns = tf.constant([-1, -1, 1, 1, -1, -1, 1])[orientation - 2]
    return across[::rows, ::columns]

  is_turned = (orientation >= 2) & (orientation <= 8)
  return tf.cond(is_turned, turned, lambda: pixels)


def _orientation(exif):
  """The orientation in Exif data (DC-008, Section 4.6); 1 if there is none."""
  start = tf.strings.substr(exif, 0, 4)

  def read():
    data = _Bytes(exif, tf.equal(tf.strings.substr(exif, 0, 1), b'I'))
    directory = data.number(4, 4)
    entries = directory + 2 + 12 * tf.range(data.number(directory, 2))
    kind, count = data.number(entries + 2, 2), data.number(entries + 4, 4)
    # A number of 16 bits (a second one does not count), or one of 32.
    is_short = tf.equal(kind, 3) & (count >= 1) & (count <= 2)
    is_long = tf.equal(kind, 4) & tf.equal(count, 1)
    values = tf.where(
      is_long, data.number(entries + 8, 4), data.number(entries + 8, 2)
    )
    is_it = tf.equal(data.number(entries, 2), _ORIENTATION)
    is_it &= is_short | is_long
    return tf.concat([[1], tf.boolean_mask(values, is_it)], axis=0)[-1]

  return tf.cond(
    tf.reduce_any(tf.equal(start, [b'II*\0', b'MM\0*'])),
    read,
    lambda: tf.constant(1, tf.int64),
  )


def _jpeg_exif(file):
  """The Exif data of a JPEG; '' if it has none."""
  data = _Bytes(file)

  def is_on(place, found):  # To the start of the pixels.
    return tf.equal(found, b'') & tf.not_equal(data.number(place, 2), 0xFFDA)

  def step(place, found):
    marker, length = data.number(place, 2), data.number(place + 2, 2)
    begun = place + 4 + len(_EXIF)
    exif = _part(file, begun, tf.maximum(place + 2 + length - begun, 0))
    is_exif = tf.equal(marker, 0xFFE1) & tf.equal(
      _part(file, place + 4, len(_EXIF)), _EXIF
    )
    # Before a marker there may be any number of 0xFF (ITU-T T.81, B.1.1.2).
    next_place = tf.where(
      tf.equal(marker, 0xFFFF), place + 1, place + 2 + length
    )
    return next_place, tf.where(is_exif, exif, found)

  return _search(2, is_on, step)


def _png_chunk(file, kind):
  """The content of a PNG's first chunk of a kind; '' if there is none."""
  data = _Bytes(file)

  def is_on(place, found):
    is_end = tf.equal(_part(file, place + 4, 4), b'IEND')
    return tf.equal(found, b'') & tf.logical_not(is_end)

  def step(place, found):
    length = data.number(place, 4)
    is_it = tf.equal(_part(file, place + 4, 4), kind)
    content = _part(file, place + 8, length)
    return place + 12 + length, tf.where(is_it, content, found)

  return _search(len(_PNG_START), is_on, step)


def _search(start, is_on, step):
  """What a way through a file's parts finds; an error where it has no end."""
  begin = tf.constant(start, tf.int64), b''
  end = tf.while_loop(is_on, step, begin, maximum_iterations=_PARTS)
  ended = tf.debugging.Assert(tf.logical_not(is_on(*end)), ['too many parts'])
  with tf.control_dependencies([ended]):
    return tf.identity(end[1])


def _has(file, word):
  """Whether a word is anywhere in a file: the way through its parts is longer.

  Most files lack it. Without it a file would be shorter, which is found out in
  a third of the time that a match of the whole file takes.
  """
  without = tf.strings.regex_replace(
    file, word.replace(b'\0', rb'\x00'), b'', replace_global=False
  )
  return tf.not_equal(tf.strings.length(without), tf.strings.length(file))


def _part(content, place, length):
  place, length = (tf.cast(number, tf.int64) for number in (place, length))
  return tf.strings.substr(content, place, length)


class _Bytes:
  """Whole numbers in a string; reading behind its end is an error."""

  def __init__(self, content, is_little_endian=False):
    self._bytes = tf.io.decode_raw(content, tf.uint8)
    self._is_little_endian = is_little_endian

  def number(self, place, width):
    """The number of `width` bytes at each place, int64."""
    place = tf.cast(place, tf.int64)[..., tf.newaxis] + tf.range(
      width, dtype=tf.int64
    )
    found = tf.cast(tf.gather(self._bytes, place), tf.int64)
    weights = tf.constant([256**i for i in reversed(range(width))], tf.int64)
    weights = tf.where(
      self._is_little_endian, tf.reverse(weights, [0]), weights
    )
    return tf.reduce_sum(found * weights, axis=-1)
