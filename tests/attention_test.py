"""The pictures of attention maps: what is where, and in which colour."""

import io

import numpy as np
import PIL.Image
import pytest

from tfda.evaluation import attention

GREEN = (10, 200, 30)


def picture(images, maps, names=None):
  png = attention.draw(images, maps, names)
  return np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGB'))


def color(value):
  """Of an attention between the smallest, 0, and the largest, 1."""
  import matplotlib

  red, green, blue, _ = matplotlib.colormaps['turbo'](value, bytes=True)
  return int(red), int(green), int(blue)


def places(pixels, wanted):
  """(rows, columns) of the pixels of a colour."""
  difference = np.abs(pixels.astype(int) - wanted).max(axis=-1)
  return np.nonzero(difference <= 2)


def green_images(count):
  return np.full([count, 32, 32, 3], GREEN, np.uint8)


def test_image_its_map_and_both_stand_side_by_side():
  maps = np.array([[[0.3, 0.9], [0.3, 0.3]]])
  pixels = picture(green_images(1), maps)
  image = places(pixels, GREEN)
  # The colour bar ends in these colours too, further right.
  third = pixels.shape[1] // 3
  hot = places(pixels[:, : 2 * third], color(1.0))
  cold = places(pixels[:, : 2 * third], color(0.0))
  # One region of four is hot: the upper right one.
  np.testing.assert_allclose(len(cold[0]) / len(hot[0]), 3.0, rtol=0.1)
  assert hot[0].max() < np.median(cold[0])
  assert image[1].max() < cold[1].min() < hot[1].min()
  # The third picture: half image, half colour.
  mixed = [(a + b) / 2 for a, b in zip(GREEN, color(1.0))]
  assert places(pixels, np.round(mixed))[1].min() > hot[1].max()


def test_all_images_have_one_scale():
  maps = np.stack([np.full([2, 2], 0.4), np.full([2, 2], 0.6)])
  pixels = picture(green_images(2), maps)
  image, cold, hot = (
    places(pixels, wanted) for wanted in (GREEN, color(0.0), color(1.0))
  )
  # The first map is all cold and the second all hot, each as large as an image.
  np.testing.assert_allclose(len(cold[0]), len(image[0]) / 2, rtol=0.05)
  np.testing.assert_allclose(len(hot[0]), len(image[0]) / 2, rtol=0.05)
  assert np.median(cold[1]) < np.median(hot[1])


def test_two_images_share_a_row():
  heights = {
    count: picture(green_images(count), np.ones([count, 7, 7])).shape[0]
    for count in (1, 2, 3)
  }
  assert heights[1] == heights[2] < heights[3]


def test_names_are_written():
  images, maps = green_images(2), np.ones([2, 3, 3])
  without = picture(images, maps)
  named = picture(images, maps, ['mug', '$5'])
  assert named.shape == without.shape
  assert (named != without).any()


@pytest.mark.parametrize(
  'images, maps, names', [(0, 0, None), (2, 3, None), (2, 2, ['one'])]
)
def test_not_one_map_for_each_image_is_refused(images, maps, names):
  with pytest.raises(ValueError, match='images'):
    attention.draw(green_images(images), np.ones([maps, 2, 2]), names)
