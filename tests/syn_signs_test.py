"""tfda.data.syn_signs: what is painted, how it is turned and lit."""

import numpy as np
import pytest
from PIL import Image

from tfda.data import generate, signs, syn_signs

RED, BLUE, YELLOW = (190, 22, 34), (0, 84, 166), (250, 190, 0)
WHITE, BLACK = (245, 245, 245), (20, 20, 20)


def painted(label):
  """Premultiplied RGBA, [128, 128, 4]."""
  return np.asarray(syn_signs.template(label)).astype(int)


def at(pixels, x, y):
  """The pixel at (x, y) in -1..1."""
  column, row = (int(64 + 60 * place) for place in (x, y))
  return tuple(pixels[row, column])


def test_there_is_a_sign_for_every_class_of_gtsrb():
  assert len(syn_signs.FOLDERS) == len(signs.CLASS_NAMES) == 43
  assert syn_signs.FOLDERS[0] == '00' and syn_signs.FOLDERS[-1] == '42'


@pytest.mark.parametrize(
  'name, place, colour',
  [
    ('speed limit 30', (0.9, 0.0), RED),
    ('speed limit 30', (0.0, -0.6), WHITE),
    ('no vehicles', (0.0, 0.0), WHITE),
    ('no entry', (0.0, 0.0), WHITE),
    ('no entry', (0.0, 0.4), RED),
    ('stop', (0.0, 0.6), RED),
    ('stop', (-0.22, 0.1), WHITE),
    ('speed limit 70', (-0.2, -0.33), BLACK),
    ('stop', (-0.6, -0.6), RED),
    ('priority road', (0.0, 0.0), YELLOW),
    ('priority road', (0.0, 0.8), WHITE),
    ('danger', (0.0, 0.0), BLACK),
    ('danger', (0.0, 0.75), RED),
    ('give way', (0.0, 0.0), WHITE),
    ('give way', (0.0, -0.75), RED),
    ('keep right', (0.0, 0.0), WHITE),
    ('keep right', (0.0, 0.7), BLUE),
    ('traffic signals', (0.0, -0.05), RED),
    ('no overtaking', (-0.32, 0.05), RED),
    ('no overtaking', (0.32, 0.05), BLACK),
  ],
)
def test_signs_have_their_colours_in_their_places(name, place, colour):
  pixels = painted(signs.CLASS_NAMES.index(name))
  assert at(pixels, *place) == (*colour, 255)
  assert at(pixels, 0.95, 0.95) == (0, 0, 0, 0)  # Round or pointed.


@pytest.mark.parametrize(
  'left, right',
  [
    ('bend left', 'bend right'),
    ('turn left', 'turn right'),
    ('straight ahead or left', 'straight ahead or right'),
    ('keep left', 'keep right'),
  ],
)
def test_left_and_right_are_mirror_images(left, right):
  pair = [painted(signs.CLASS_NAMES.index(name)) for name in (left, right)]
  # A line of some hundred points of edge may lie a fraction of a pixel off.
  assert np.mean(np.abs(pair[0] - pair[1][:, ::-1]) > 60) < 0.005
  # White to the left of the middle, where the arrow's head is.
  paint = [np.abs(p - painted(15))[..., :3].sum(-1) for p in pair]
  assert np.mean(np.abs(paint[0] - paint[1])) > 5


def test_no_two_signs_look_alike():
  small = np.stack(
    [np.asarray(syn_signs.template(i).reduce(4), np.float32) for i in range(43)]
  )
  differences = np.abs(small[:, np.newaxis] - small).mean((2, 3, 4))
  np.fill_diagonal(differences, np.inf)
  # Of 255, over all pixels: 20 and 30 differ in half a digit.
  assert differences.min() > 0.7


class Straight:
  """Numbers for a sign that is turned by `yaw` degrees alone, and not pale."""

  def __init__(self, yaw=0.0):
    self._yaw = yaw

  def normal(self, mean, deviations):
    return np.array([self._yaw, 0.0, 0.0])

  def uniform(self, low, high):
    return low


def test_sign_is_put_where_it_is_asked_for():
  ground = np.full([80, 80, 3], 100.0, np.float32)
  label = signs.CLASS_NAMES.index('no vehicles')
  picture = syn_signs._with_sign(ground, label, (40.0, 30.0), 25.0, Straight())
  np.testing.assert_allclose(picture[30, 40], WHITE, atol=1)
  for row, column in (
    (30, 40 + 21),
    (30, 40 - 21),
    (30 + 21, 40),
    (30 - 21, 40),
  ):
    np.testing.assert_allclose(picture[row, column], RED, atol=1)
  np.testing.assert_array_equal(picture[30, 67:], ground[30, 67:])
  np.testing.assert_array_equal(picture[57:], ground[57:])
  assert (picture[30, 40 - 24 : 40 + 24] != 100.0).all()


def test_turned_sign_is_narrower_and_nearer_on_one_side():
  ground = np.full([80, 80, 3], 100.0, np.float32)
  picture = syn_signs._with_sign(ground, 15, (40.0, 40.0), 30.0, Straight(40.0))
  columns = np.flatnonzero((picture != 100.0).any((0, 2)))
  # The points (1, 0, 0) and (-1, 0, 0), turned by 40 degrees about the upright
  # line, are at x = +-cos 40 = +-0.766, z = -+sin 40 = -+0.643, and are seen at
  # x / (1 + z / 5): 0.879 and -0.679.
  assert abs(columns[-1] - (40 + 30 * 0.879)) < 1.6
  assert abs(columns[0] - (40 - 30 * 0.679)) < 1.6
  rows = np.flatnonzero((picture != 100.0).any((1, 2)))
  assert abs((rows[-1] - rows[0]) / 60 - 1.0) < 0.05


def test_all_classes_appear_in_many_lights():
  drawn = [
    generate.image(syn_signs.draw, 43, 0, 'train', i) for i in range(3 * 43)
  ]
  pixels, labels = (np.stack(parts) for parts in zip(*drawn))
  assert pixels.shape[1:] == (40, 40, 3) and pixels.dtype == np.uint8
  assert np.bincount(labels).tolist() == [3] * 43
  brightness = np.percentile(pixels.mean((1, 2, 3)), [10, 50, 90])
  assert brightness[0] < 45 < brightness[1] < 120 < brightness[2]


def test_light_is_within_its_bounds():
  random = np.random.default_rng(0)
  grey = np.full([16, 16, 3], 100.0)
  means = [syn_signs._lit(grey, random).mean() for _ in range(300)]
  # 0.2 at the darkest, or 0.4 of it in the shadow; 1.8 at the brightest, in a
  # colour of three deviations of 0.1, and then haze.
  assert 100 * 0.2 * 0.4 * np.exp(-0.3) < min(means) < 30
  assert 120 < max(means) < 100 * 1.8 * np.exp(0.3) + 0.4 * 200


def test_motion_smears_along_a_line_and_keeps_the_light():
  random = np.random.default_rng(0)
  dot = np.zeros([15, 15], np.uint8)
  dot[7, 7] = 250
  for _ in range(20):
    smeared = Image.fromarray(dot).filter(syn_signs._motion(random))
    rows, columns = np.nonzero(np.asarray(smeared))
    # 3 to 5 pixels, of which each keeps a part that is rounded.
    assert 2 <= max(np.ptp(rows), np.ptp(columns)) <= 4
    assert abs(np.asarray(smeared).sum() - 250) <= 7
    # The line goes through the dot and is as long on either side.
    assert abs(np.mean(rows) - 7) < 0.51 and abs(np.mean(columns) - 7) < 0.51
