"""Decoding in a graph: the pixels that images.read makes of the same file."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data_files import noise
from tfda.data import images as image_files
from tfda.serving import decoding

SIZE = 16
LIMIT = 10**6


@pytest.fixture(scope='module')
def decode():
  """bytes of files -> uint8 [B, SIZE, SIZE, 3], by one compiled function."""
  return decoding.decoder(SIZE, LIMIT)


def picture(height=33, width=47, mode='RGB'):
  """A smooth image, so that a JPEG of it is a usual one."""
  channels = {'L': 1, 'LA': 2, 'RGBA': 4}.get(mode, 3)
  pixels = noise(4, 5, channels, seed=height)
  bands = [Image.fromarray(pixels[..., i]) for i in range(channels)]
  bands = [band.resize((width, height)) for band in bands]
  image = Image.merge('RGB' if channels == 3 else mode, bands)
  return image if image.mode == mode else image.convert(mode)


def encoded(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def exif(orientation):
  tags = Image.Exif()
  tags[0x010F], tags[0x0112] = 'maker', orientation
  return tags


def kinds():
  yield 'jpeg', encoded(picture(), 'jpeg')
  yield 'progressive', encoded(picture(), 'jpeg', progressive=True)
  for mode in ('L', 'CMYK'):
    yield f'jpeg {mode}', encoded(picture(mode=mode), 'jpeg')
  for mode in ('RGB', 'L', 'LA', 'RGBA', 'P', '1'):
    yield f'png {mode}', encoded(picture(mode=mode), 'png')
  for orientation in range(1, 10):
    for kind in ('jpeg', 'png'):
      file = encoded(picture(), kind, exif=exif(orientation))
      yield f'{kind} of orientation {orientation}', file
  # Motorola's order of bytes.
  tag = b'\x01\x12\0\x03\0\0\0\x01\0\x06\0\0'
  data = b'Exif\0\0MM\0*\0\0\0\x08\0\x01' + tag + b'\0\0\0\0'
  yield 'big-endian', encoded(picture(), 'jpeg', exif=data)
  for name, changed in {
    'no tag': data.replace(b'\x01\x12', b'\x01\x11'),
    'a long orientation': data.replace(b'\0\x03', b'\0\x04'),
    'two orientations': data.replace(b'\0\x01\0\x06', b'\0\x02\0\x06'),
    'no Exif header': data.replace(b'MM\0*', b'MMO*'),
  }.items():
    yield name, encoded(picture(), 'jpeg', exif=changed)
  words = b'Exif\0\0 is in no segment'
  yield 'a comment', encoded(picture(), 'jpeg', comment=words)
  # Before the Exif data: segments that are shorter than its name, and padding.
  sideways = encoded(picture(), 'jpeg', exif=exif(6))
  for name, segment in {
    'an empty comment': b'\xff\xfe\0\x02',
    'a short comment': b'\xff\xfe\0\x05abc',
    'a restart interval': b'\xff\xdd\0\x04\0\0',
    'a padded marker': b'\xff\xff\xff',
  }.items():
    yield f'Exif behind {name}', sideways[:2] + segment + sideways[2:]
  palette = picture().quantize(4)
  yield 'palette', encoded(palette, 'png', transparency=b'\0\x80\xff\x10')
  for mode in ('RGB', 'L'):
    image = picture(mode=mode)
    key = image.getpixel((3, 3))
    yield f'key in {mode}', encoded(image, 'png', transparency=key)
  deep = np.random.default_rng(0).integers(0, 2**16, [9, 9], np.uint16)
  yield '16 bits', encoded(Image.fromarray(deep), 'png')
  yield 'one pixel', encoded(picture(1, 1), 'png')
  yield 'its own size', encoded(picture(SIZE, SIZE), 'png')


@pytest.mark.parametrize('file', [pytest.param(f, id=n) for n, f in kinds()])
def test_pixels_are_those_of_training(file, decode):
  expected = image_files.read(io.BytesIO(file), SIZE)
  np.testing.assert_array_equal(decode([file])[0], expected)


def test_orientation_is_found_behind_other_segments(decode):
  sideways = encoded(picture(), 'jpeg', exif=exif(6))
  icc = b'\xff\xe2' + (2 + 60_000).to_bytes(2, 'big') + bytes(60_000)
  moved = sideways[:2] + 3 * icc + sideways[2:]
  np.testing.assert_array_equal(decode([moved]), decode([sideways]))
  upright = encoded(picture(), 'jpeg')
  assert (decode([moved]).numpy() != decode([upright]).numpy()).any()


def test_so_many_parts_that_none_has_them_for_good_are_refused(decode):
  sideways = encoded(picture(), 'jpeg', exif=exif(6))
  comment = b'\xff\xfe\0\x02'

  def made(count):
    return sideways[:2] + count * comment + sideways[2:]

  np.testing.assert_array_equal(decode([made(2000)]), decode([sideways]))
  with pytest.raises(tf.errors.InvalidArgumentError, match=r'image \[1\] of'):
    decode([sideways, made(decoding._PARTS)])


def test_transparency_over_black_is_rounded_as_pillow_does():
  colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
  pixels = np.stack([colour, colour, colour, alpha], -1).astype(np.uint8)
  black = Image.new('RGBA', (256, 256), (0, 0, 0, 255))
  expected = Image.alpha_composite(black, Image.fromarray(pixels))
  np.testing.assert_array_equal(
    decoding._over_black(tf.constant(pixels)), expected.convert('RGB')
  )


def test_no_files_give_no_images(decode):
  assert decode(tf.constant([], tf.string)).shape == (0, SIZE, SIZE, 3)


def test_order_is_that_of_the_request(decode):
  files = [encoded(picture(20 + i, 30), 'png') for i in range(40)]
  single = np.concatenate([decode([file]) for file in files])
  np.testing.assert_array_equal(decode(files), single)


@pytest.mark.parametrize(
  'bad, where',
  [
    ({1: b''}, '[1]'),
    ({0: b'no image', 2: encoded(picture(), 'gif')}, '[0 2]'),
    ({2: encoded(picture(), 'jpeg')[:400]}, '[2]'),
    ({0: encoded(picture(), 'png')[:400]}, '[0]'),
    ({1: encoded(picture(), 'png')[:20]}, '[1]'),
    ({1: encoded(picture(1000, 1001), 'png')}, '[1]'),
    ({1: encoded(picture(1000, 1001), 'jpeg')}, '[1]'),
    ({0: encoded(picture(), 'jpeg', exif=b'Exif\0\0MM\0*\xff\0\0\0')}, '[0]'),
  ],
)
def test_bad_files_are_named(bad, where, decode):
  files = [encoded(picture(), 'png')] * 3
  for place, file in bad.items():
    files[place] = file
  message = (
    rf'image \[{where[1:-1]}\] of the request cannot be read: no whole JPEG or '
    'PNG of at most 1000000 pixels'
  )
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    decode(files)


def test_200_damaged_files_are_refused_or_read_as_in_training(decode):
  random = np.random.default_rng(5)
  whole = [
    encoded(picture(), 'jpeg', exif=exif(6)),
    encoded(picture(), 'jpeg', progressive=True),
    encoded(picture(), 'png'),
    encoded(picture(mode='RGBA'), 'png'),
  ]
  refused = read = 0
  for i in range(200):
    file = bytearray(whole[i % 4])
    damage = random.integers(4)
    if damage == 0:  # A few other bytes.
      for place in random.integers(0, len(file), 1 + i % 5):
        file[place] = random.integers(256)
    elif damage == 1:  # Cut off.
      del file[random.integers(len(file)) :]
    else:  # A part is gone, or there twice.
      first, last = sorted(random.integers(0, len(file), 2))
      part = file[first:last]
      file[first:last] = b'' if damage == 2 else part + part
    file = bytes(file)
    try:
      found = decode([file])[0].numpy()
    except tf.errors.InvalidArgumentError as error:
      assert 'image [0] of the request cannot be read' in str(error)
      refused += 1
      continue
    read += 1
    expected = image_files.read(io.BytesIO(file), SIZE)
    # One level where a part of a progressive JPEG is gone, which is smoothed.
    np.testing.assert_allclose(found, expected.astype(int), atol=i % 4 == 1)
  assert refused > 50 and read > 10, (refused, read)
