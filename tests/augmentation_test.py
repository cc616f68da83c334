"""Augmentations: what they cut out, as functions of the draws."""

import numpy as np
import pytest
import tensorflow as tf

from tfda.data import augmentation


def _numbered(size):
  """Every pixel tells its row and column."""
  rows, columns = np.mgrid[:size, :size]
  return np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)


def _draws(*values, count=1):
  draws = np.full([count, augmentation.DRAWS], 0.999, np.float32)
  draws[:, : len(values)] = values
  return draws


def _augmented(image, size, name, *values):
  draws = tf.constant(_draws(*values))
  return augmentation.augment(
    tf.constant(image[np.newaxis]), size, name, draws
  ).numpy()[0]


def test_centre_crop_of_odd_and_even_margins():
  image = _numbered(7)
  cropped = augmentation.centre_crop(image, 3)
  np.testing.assert_array_equal(cropped, image[2:5, 2:5])
  cropped = augmentation.centre_crop(image[np.newaxis], 4)
  np.testing.assert_array_equal(cropped[0], image[1:5, 1:5])
  assert augmentation.centre_crop(image, 7) is not None


def test_none_is_the_centre_crop():
  image = _numbered(8)
  np.testing.assert_array_equal(_augmented(image, 4, 'none'), image[2:6, 2:6])


@pytest.mark.parametrize(
  'draws, expected',
  [
    ((0.0, 0.0, 0.9), np.s_[:5, :5]),
    ((0.999, 0.999, 0.9), np.s_[3:8, 3:8]),
    # 4 corners along each side: 0.3 * 4 = 1.2, the second; 0.5 * 4 = 2.
    ((0.3, 0.5, 0.9), np.s_[1:6, 2:7]),
    ((0.3, 0.5, 0.1), np.s_[1:6, 6:1:-1]),
  ],
)
def test_crop_flip_by_hand(draws, expected):
  image = _numbered(8)
  np.testing.assert_array_equal(
    _augmented(image, 5, 'crop_flip', *draws), image[expected]
  )


def test_resized_crop_of_everything_is_the_image():
  image = _numbered(16)
  # The whole area, at a ratio of 1, not mirrored.
  found = _augmented(image, 16, 'resized_crop', 1.0, 0.5, 0.0, 0.0, 0.9)
  np.testing.assert_array_equal(found, image)


def test_resized_crop_by_hand():
  image = _numbered(16)
  # A quarter of the area: 8 x 8, from row 9 * 0.5 = 4 and column 9 * 0.9 = 8.
  area = (0.25 - 0.08) / 0.92
  found = _augmented(image, 8, 'resized_crop', area, 0.5, 0.5, 0.9, 0.9)
  np.testing.assert_array_equal(found, image[4:12, 8:16])
  # Mirrored.
  found = _augmented(image, 8, 'resized_crop', area, 0.5, 0.5, 0.9, 0.1)
  np.testing.assert_array_equal(found, image[4:12, 15:7:-1])


@pytest.mark.parametrize('name', augmentation.NAMES)
def test_is_a_function_of_the_draws_alone(name):
  random = np.random.default_rng(0)
  images = random.integers(0, 256, [6, 20, 20, 3]).astype(np.uint8)
  draws = random.random([6, augmentation.DRAWS]).astype(np.float32)
  augment = tf.function(
    lambda images, draws: augmentation.augment(images, 16, name, draws)
  )
  first = augment(tf.constant(images), tf.constant(draws)).numpy()
  assert first.shape == (6, 16, 16, 3) and first.dtype == np.uint8
  # Row by row, in another order: no row depends on another.
  again = augment(tf.constant(images[::-1]), tf.constant(draws[::-1])).numpy()
  np.testing.assert_array_equal(again[::-1], first)
  if name != 'none':
    other = augment(tf.constant(images), tf.constant(draws[::-1])).numpy()
    assert (other != first).any()


def test_rand_augment_without_operations_is_crop_flip():
  image = _numbered(20)
  # No draw is below the rate of 10/11: all three operations are skipped.
  found = _augmented(image, 16, 'rand_augment', 0.3, 0.5, 0.9)
  expected = _augmented(image, 16, 'crop_flip', 0.3, 0.5, 0.9)
  np.testing.assert_array_equal(found, expected)


def test_rand_augment_solarizes():
  image = np.full([16, 16, 3], 100, np.uint8)
  # The third of ten operations at the median magnitude, 0.5: 100 + 55 is above
  # the threshold of 127.5 and becomes 255 - 155.
  found = _augmented(
    image, 16, 'rand_augment', 0.0, 0.0, 0.9, 0.0, 0.25, 0.5, 0.9
  )
  assert set(found.ravel()) == {100}
  image[:] = 20  # 20 + 55 is below the threshold.
  found = _augmented(
    image, 16, 'rand_augment', 0.0, 0.0, 0.9, 0.0, 0.25, 0.5, 0.9
  )
  assert set(found.ravel()) == {75}
