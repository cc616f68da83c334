"""Reading image files: every kind of pixels, every kind of damage, resizing."""

import contextlib
import io
import os
import pathlib
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data_files import cut, noise, write
from tfda import errors
from tfda.data import images


def saved(path, image, **options):
  image.save(path, **options)
  return images.read(path, image.size[0])


def reason(path, **options):
  """Why a file is refused; the message is one line and names it."""
  with pytest.raises(images.BadImage) as error:
    images.read(path, 4, **options)
  message = str(error.value)
  assert message.startswith(f'{path}: cannot be read: ')
  assert '\n' not in message and message.endswith(error.value.reason)
  return error.value.reason


# Kinds of pixels.


def test_grey_image(tmp_path):
  grey = np.array([[0, 60], [120, 255]], np.uint8)
  pixels = saved(tmp_path / 'a.png', Image.fromarray(grey))
  np.testing.assert_array_equal(pixels, np.stack([grey] * 3, -1))


def test_black_and_white_image(tmp_path):
  bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert('1')
  pixels = saved(tmp_path / 'a.png', bits)
  np.testing.assert_array_equal(pixels[..., 1], [[0, 255], [255, 0]])


@pytest.mark.parametrize('kind', ['png', 'tiff', 'pgm'])
def test_grey_image_of_16_bits_is_scaled_not_clipped(tmp_path, kind):
  # 65535 = 257 * 255, 15420 = 257 * 60 and 30840 = 257 * 120.
  grey = np.array([[0, 15420], [30840, 65535]], np.uint16)
  pixels = saved(tmp_path / f'a.{kind}', Image.fromarray(grey))
  expected = np.array([[0, 60], [120, 255]])
  np.testing.assert_array_equal(pixels, np.stack([expected] * 3, -1))


@pytest.mark.parametrize('channels', [3, 4])
def test_colour_image_of_16_bits_is_scaled_not_clipped(tmp_path, channels):
  # 257 times 8 bits; the last, 33000 / 257 = 128.4, may lose its fraction.
  colours = np.array([[0, 60, 120], [255, 1, 0], [7, 8, 9], [0, 0, 0]])
  stored = 257 * colours.reshape(2, 2, 3)
  stored[1, 1] = 33_000
  opaque = np.full([2, 2, channels - 3], 65535)
  encoded = tf.io.encode_png(
    np.concatenate([stored, opaque], -1).astype(np.uint16)
  )
  path = write(tmp_path / 'a.png', encoded.numpy())
  colours[3] = 128
  np.testing.assert_array_equal(images.read(path, 2), colours.reshape(2, 2, 3))


@pytest.mark.parametrize('values', [[0.0, 1.0], [0, 70_000], [-1, 5]])
def test_grey_in_a_range_of_its_own_is_refused(tmp_path, values):
  kind = np.float32 if isinstance(values[0], float) else np.int32
  write(tmp_path / 'a.tiff', np.array([values, values], kind))
  assert 'range' in reason(tmp_path / 'a.tiff')


def test_palette_image(tmp_path):
  image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), 'P')
  image.putpalette([10, 20, 30, 40, 50, 60, 255, 0, 7])
  pixels = saved(tmp_path / 'a.png', image)
  np.testing.assert_array_equal(
    pixels,
    [[[10, 20, 30], [40, 50, 60]], [[255, 0, 7], [40, 50, 60]]],
  )


def test_cmyk_image(tmp_path):
  # Red is full magenta and yellow; a third of black ink leaves two thirds.
  image = Image.new('CMYK', (8, 8), (0, 255, 255, 85))
  for kind in ('tiff', 'jpg'):
    pixels = saved(tmp_path / f'a.{kind}', image)
    expected = np.broadcast_to([170, 0, 0], [8, 8, 3])
    np.testing.assert_allclose(pixels, expected, atol=4)


def test_opaque_image_with_alpha(tmp_path):
  image = Image.new('RGBA', (2, 2), (200, 100, 50, 255))
  assert (saved(tmp_path / 'a.png', image) == [200, 100, 50]).all()


def test_transparency_is_over_black(tmp_path):
  image = Image.new('RGBA', (2, 2), (200, 100, 50, 0))
  image.putpixel((1, 0), (200, 100, 50, 51))
  image.putpixel((0, 1), (200, 100, 50, 255))
  pixels = saved(tmp_path / 'a.png', image)
  # 51 / 255 = 1/5 of the colour.
  np.testing.assert_allclose(
    pixels, [[[0] * 3, [40, 20, 10]], [[200, 100, 50], [0] * 3]], atol=1
  )


def test_transparent_grey_is_over_black(tmp_path):
  image = Image.new('LA', (2, 2), (200, 51))
  np.testing.assert_allclose(saved(tmp_path / 'a.png', image), 40, atol=1)


def test_transparent_palette_is_over_black(tmp_path):
  image = Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8), 'P')
  image.putpalette([200, 100, 50, 40, 50, 60])
  pixels = saved(tmp_path / 'a.png', image, transparency=0)
  np.testing.assert_array_equal(pixels[0], [[0, 0, 0], [40, 50, 60]])


@pytest.mark.parametrize('kind', ['gif', 'png', 'webp', 'tiff'])
def test_of_an_animation_the_first_image_counts(tmp_path, kind):
  frames = [Image.new('RGB', (8, 8), (value, 0, 0)) for value in (200, 90, 10)]
  options = {'lossless': True} if kind == 'webp' else {}
  pixels = saved(
    tmp_path / f'a.{kind}',
    frames[0],
    save_all=True,
    append_images=frames[1:],
    **options,
  )
  assert (pixels == [200, 0, 0]).all()


# EXIF's orientations, and where the upper left 1 and the upper right 2 of
# [[1, 2], [3, 4]] are when the image is upright.
_UPRIGHT = {
  1: [[1, 2], [3, 4]],
  2: [[2, 1], [4, 3]],
  3: [[4, 3], [2, 1]],
  4: [[3, 4], [1, 2]],
  5: [[1, 3], [2, 4]],
  6: [[3, 1], [4, 2]],
  7: [[4, 2], [3, 1]],
  8: [[2, 4], [1, 3]],
}


@pytest.mark.parametrize('kind', ['png', 'webp', 'tiff'])
def test_photograph_taken_sideways_is_turned(tmp_path, kind):
  stored = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8)).convert('RGB')
  for orientation, upright in _UPRIGHT.items():
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'lossless': True} if kind == 'webp' else {}
    pixels = saved(tmp_path / f'a.{kind}', stored, exif=exif, **options)
    np.testing.assert_array_equal(pixels[..., 0], upright, str(orientation))


def test_jpeg_taken_sideways_is_turned(tmp_path):
  # JPEG keeps the values of 8x8 blocks of one grey.
  stored = np.kron([[1, 2], [3, 4]], np.full([8, 8], 50)).astype(np.uint8)
  for orientation, upright in _UPRIGHT.items():
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored).convert('RGB')
    pixels = saved(tmp_path / 'a.jpg', image, exif=exif, quality=100)
    expected = 50 * np.kron(upright, np.ones([8, 8]))
    for channel in range(3):
      np.testing.assert_allclose(
        pixels[..., channel], expected, atol=2, err_msg=str(orientation)
      )


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
@pytest.mark.parametrize(
  'exif', [b'Exif\0\0garbage', b'Exif\0\0II*\0\xff\xff\xff\xff', b'Exif\0\0']
)
def test_photograph_with_broken_exif_is_read(tmp_path, exif):
  image = Image.new('RGB', (8, 8), (0, 0, 200))
  pixels = saved(tmp_path / 'a.jpg', image, exif=exif)
  expected = np.broadcast_to([0, 0, 200], [8, 8, 3])
  np.testing.assert_allclose(pixels, expected, atol=3)


def test_the_name_s_ending_does_not_matter_for_reading(tmp_path):
  Image.new('RGB', (4, 4), (9, 8, 7)).save(tmp_path / 'a.png')
  os.rename(tmp_path / 'a.png', tmp_path / 'a.jpg')
  assert (images.read(tmp_path / 'a.jpg', 4) == [9, 8, 7]).all()


# Damage.


def test_files_that_are_no_images(tmp_path):
  assert reason(write(tmp_path / 'empty.png', b'')) == 'an empty file'
  text = write(tmp_path / 'text.jpg', 'hello\nworld')
  assert reason(text) == 'no image of a known kind'
  assert reason(tmp_path / 'missing.png') == 'No such file or directory'
  (tmp_path / 'folder.png').mkdir()
  assert reason(tmp_path / 'folder.png') == 'Is a directory'
  (tmp_path / 'loop.png').symlink_to('loop.png')
  assert 'symbolic links' in reason(tmp_path / 'loop.png')


@contextlib.contextmanager
def nobody():
  """Without the rights of root, who may read every file."""
  user = os.geteuid()
  if user == 0:
    os.seteuid(65534)
  try:
    yield
  finally:
    os.seteuid(user)


@pytest.mark.parametrize('kind', ['png', 'jpg'])
def test_file_that_may_not_be_read(tmp_path, kind):
  path = write(tmp_path / f'a.{kind}', noise(4, 4, 3))
  path.chmod(0)
  with nobody():
    assert not images.is_plain_jpeg(path)
    assert reason(path) == 'Permission denied'


@pytest.mark.parametrize('kind', ['png', 'jpg', 'bmp', 'webp', 'gif', 'tiff'])
def test_truncated_image(tmp_path, kind):
  path = write(tmp_path / f'a.{kind}', noise(64, 64, 3))
  cut(path)
  assert reason(path)


def test_newline_in_a_name_stays_in_quotes(tmp_path):
  path = write(tmp_path / 'two\nlines.png', b'')
  with pytest.raises(images.BadImage) as error:
    images.read(path, 4)
  assert str(error.value) == f'{str(path)!r}: cannot be read: an empty file'
  assert '\n' not in str(error.value)


def test_any_damage_is_a_bad_image_or_an_image():
  """What Pillow raises of 600 damaged files never comes through."""
  random = np.random.default_rng(0)
  refused = 0
  for kind in ('png', 'jpeg', 'bmp', 'webp', 'gif', 'tiff', 'ppm', 'avif'):
    file = io.BytesIO()
    Image.fromarray(noise(20, 30, 3)).save(file, kind)
    for _ in range(75):
      content = bytearray(file.getvalue())
      # The header is damaged more often than it would be by chance.
      reach = len(content) if random.random() < 0.3 else 60
      for place in random.integers(reach, size=random.integers(1, 5)):
        content[place] = random.integers(256)
      with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # Of metadata that makes no sense.
        try:
          pixels = images.decode(io.BytesIO(bytes(content)), 'damaged', 10**6)
        except images.BadImage as error:
          assert error.reason and '\n' not in str(error)
          refused += 1
        else:
          assert pixels.dtype == np.uint8 and pixels.shape[2:] == (3,)
  assert 100 < refused < 600


def test_decompression_bomb(tmp_path):
  path = tmp_path / 'bomb.png'
  limit = Image.MAX_IMAGE_PIXELS
  Image.MAX_IMAGE_PIXELS = 50
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('error')  # Pillow warns from 51 pixels on.
      for size, largest in (((10, 6), 60), ((40, 30), 1200)):
        Image.new('RGB', size, (3, 2, 1)).save(path)
        pixels = images.read(path, 2, max_pixels=largest)
        assert (pixels == [3, 2, 1]).all()
        why = reason(path, max_pixels=largest - 1)
        assert why == f'{size[0]}x{size[1]} is over {largest - 1} pixels'
    assert Image.MAX_IMAGE_PIXELS == 50
  finally:
    Image.MAX_IMAGE_PIXELS = limit


def test_large_images_are_read_one_at_a_time_and_the_same(
  tmp_path, monkeypatch
):
  path = write(tmp_path / 'a.png', noise(30, 20, 3))
  expected = images.read(path, 8)
  monkeypatch.setattr(images, '_LARGE_PIXELS', 599)
  np.testing.assert_array_equal(images.read(path, 8), expected)


# Resizing.


def test_halving_takes_the_mean_of_neighbours():
  # Each pixel is nearest to the mean of its 2x2, the edge aside.
  columns = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[np.newaxis], 16, 0)
  halved = images.resize(np.stack([columns] * 3, -1)[np.newaxis], 8)
  np.testing.assert_array_equal(
    halved[0, :, 1:-1, 0], np.tile([25, 45, 65, 85, 105, 125], [8, 1])
  )


@pytest.mark.parametrize('shape', [(321, 481), (60, 7), (16, 16), (1, 90)])
@pytest.mark.parametrize('size', [16, 28, 97])
def test_read_images_are_those_that_the_served_graph_makes(
  tmp_path, shape, size
):
  """To the last bit: training and serving see the same pixels."""
  pixels = noise(*shape, 3)
  # A photograph is smooth; noise alone would hide errors of one level.
  pixels[: shape[0] // 2] = np.linspace(0, 255, shape[1])[:, np.newaxis]
  path = write(tmp_path / 'a.png', pixels)
  served = tf.function(
    lambda batch: images.resize(batch, size),
    input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)],
  )
  read = images.read(path, size)
  assert read.dtype == np.uint8
  np.testing.assert_array_equal(
    read, served(pixels[np.newaxis].astype(np.float32))[0]
  )


def test_an_image_of_the_asked_size_is_left_alone(tmp_path):
  pixels = noise(9, 9, 3)
  path = write(tmp_path / 'a.png', pixels)
  np.testing.assert_array_equal(images.read(path, 9), pixels)


# Photographs that TensorFlow decodes.


_JPEGS = {
  'colour.jpg': {},
  'fine.jpg': {'subsampling': 0, 'quality': 97},
  'wide.jpg': {'subsampling': 1, 'optimize': True},
  'progressive.jpg': {'progressive': True, 'quality': 30},
  'profile.jpg': {'icc_profile': bytes(500)},
}


def jpegs(folder, shape=(45, 37)):
  """Photographs of several makes, a grey one too."""
  # Smooth, so that the make matters in every pixel.
  rows, columns = np.mgrid[: shape[0], : shape[1]]
  colours = [rows * 5, columns * 6, (rows + columns) * 3]
  image = Image.fromarray(np.stack(colours, -1).astype(np.uint8))
  for name, options in _JPEGS.items():
    image.save(folder / name, **options)
  image.convert('L').save(folder / 'grey.jpg')
  return [str(folder / name) for name in (*_JPEGS, 'grey.jpg')]


@pytest.mark.parametrize('shape, size', [((45, 37), 20), ((33, 33), 33)])
def test_plain_photographs_are_the_same_by_both_decoders(tmp_path, shape, size):
  paths = jpegs(tmp_path, shape)
  assert all(images.is_plain_jpeg(path) for path in paths)
  found = list(images.plain_jpegs(paths, size).as_numpy_iterator())
  assert len(found) == len(paths)
  for path, pixels in zip(paths, found):
    np.testing.assert_array_equal(pixels, images.read(path, size), path)


def test_which_files_are_no_plain_photographs(tmp_path):
  (path, *_) = jpegs(tmp_path)
  assert images.is_plain_jpeg(path, 45 * 37)
  assert not images.is_plain_jpeg(path, 45 * 37 - 1)
  exif = Image.Exif()
  exif[0x0112] = 6
  image = Image.open(path)
  image.save(tmp_path / 'sideways.jpg', exif=exif)
  image.save(tmp_path / 'profile.jpg', icc_profile=bytes(5000))
  image.save(tmp_path / 'a.png')
  image.convert('CMYK').save(tmp_path / 'cmyk.jpg')
  image.save(tmp_path / 'cut.jpg')
  cut(tmp_path / 'cut.jpg')
  write(tmp_path / 'empty.jpg', b'')
  write(tmp_path / 'short.jpg', b'\xff\xd8\xff')
  write(tmp_path / 'text.jpg', 'text')
  for name in (
    *('sideways.jpg', 'profile.jpg', 'a.png', 'cmyk.jpg', 'cut.jpg'),
    *('empty.jpg', 'short.jpg', 'text.jpg', 'missing.jpg'),
  ):
    assert not images.is_plain_jpeg(tmp_path / name), name


def break_tables(path):
  """Spoils the first Huffman table: what comes before it stays right."""
  path = pathlib.Path(path)
  content = bytearray(path.read_bytes())
  table = content.index(b'\xff\xc4')
  content[table + 5 : table + 21] = b'\xff' * 16
  path.write_bytes(content)


def test_photograph_that_tensorflow_cannot_decode_does_not_stop_the_others(
  tmp_path,
):
  paths = jpegs(tmp_path)
  break_tables(paths[1])
  assert images.is_plain_jpeg(paths[1])
  found = iter(images.plain_jpegs(paths, 8))
  for i, path in enumerate(paths):
    if i == 1:
      with pytest.raises(tf.errors.OpError):
        next(found)
    else:
      np.testing.assert_array_equal(next(found), images.read(path, 8))


# Finding.


def test_images_are_found_below_links_and_in_circles(tmp_path):
  for name in ('in/b.png', 'in/deep/A.JPG', 'out/c.ppm', 'in/.hidden/x.png'):
    write(tmp_path / name, noise(2, 2, 3))
  for name in ('in/.d.png', 'in/notes.txt', 'in/photo.HEIC'):
    write(tmp_path / name, 'text')
  (tmp_path / 'in' / 'linked').symlink_to(tmp_path / 'out')
  (tmp_path / 'in' / 'deep' / 'back').symlink_to(tmp_path / 'in')
  (tmp_path / 'in' / 'twice').symlink_to(tmp_path / 'out')
  (tmp_path / 'in' / 'nowhere').symlink_to('nowhere')
  found = [os.path.relpath(p, tmp_path) for p in images.find(tmp_path / 'in')]
  assert found == [
    'in/b.png',
    'in/deep/A.JPG',
    'in/linked/c.ppm',
    'in/photo.HEIC',
  ]


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
  write(tmp_path / 'a' / 'b.png', b'')
  scandir = os.scandir

  def denied(path):
    if str(path).endswith('a'):
      raise PermissionError(13, 'Permission denied', str(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', denied)
  with pytest.raises(errors.UsageError, match='a: Permission denied'):
    images.find(tmp_path)
