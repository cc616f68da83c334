"""tfda.data.syn_numbers: what is written, where, in which colours and fonts."""

import collections
import os
import shutil

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from tfda import errors
from tfda.data import generate, syn_numbers

FOLDER = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf')
SANS = os.path.join(FOLDER, 'DejaVuSans.ttf')


def test_label_is_the_digit_in_the_middle_of_a_number():
  random = np.random.default_rng(0)
  lengths = collections.Counter()
  for i in range(3000):
    number, centre = syn_numbers.text(i % 10, random)
    assert int(number[centre]) == i % 10
    assert len(number) == 1 or number[0] != '0'
    lengths[len(number), centre] += 1
  assert set(lengths) == {(1, 0), (2, 0), (2, 1), (3, 1)}
  # 1,000 of each length are expected; the standard deviation is 26.
  for length in (1, 2, 3):
    count = sum(n for (found, _), n in lengths.items() if found == length)
    assert 900 < count < 1100


def test_digit_that_is_asked_for_is_in_the_centre_of_the_sheet():
  font = ImageFont.truetype(SANS, 64)
  alone, height = syn_numbers._written(font, '7', 0, 0.1)
  box = alone.getbbox()
  assert box[3] - box[1] == height
  # As far from the left as from the right, and so on, but for a pixel.
  assert abs(box[0] + box[2] - alone.width) <= 1
  assert abs(box[1] + box[3] - alone.height) <= 1
  for number, centre in (('374', 1), ('72', 0), ('17', 1)):
    among, _ = syn_numbers._written(font, number, centre, 0.1)
    assert among.crop(box).tobytes() == alone.crop(box).tobytes()
    edges = among.getbbox()
    assert (edges[0] < box[0]) == (centre > 0)
    assert (edges[2] > box[2]) == (centre + 1 < len(number))


def test_stroke_and_ground_differ_in_brightness():
  random = np.random.default_rng(0)
  colours = np.stack([syn_numbers._colours(random) for _ in range(500)])
  assert colours.min() >= 0 and colours.max() <= 255
  brightness = colours @ [0.299, 0.587, 0.114]
  differences = brightness[:, 0] - brightness[:, 1]
  assert np.abs(differences).min() >= 45
  # Dark on bright is as frequent as bright on dark: 250 of each, +- 11.
  assert 190 < np.sum(differences > 0) < 310


def test_images_are_in_two_colours_and_what_is_between_them():
  fonts = syn_numbers.find_fonts()
  contrasts = []
  for i in range(100):
    image, label = generate.image(
      lambda *a: syn_numbers.draw(*a, fonts), 10, 1, 'train', i
    )
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    assert label == i % 10
    pixels = image.reshape(-1, 3).astype(float)
    # On a line in colour space: what is off it is rounding.
    spread = np.linalg.svd(pixels - pixels.mean(0), compute_uv=False)
    off = spread[1:] / np.sqrt(len(pixels))
    assert off.max() < 0.6
    contrasts.append(np.ptp(pixels @ [0.299, 0.587, 0.114]))
  assert np.mean(np.array(contrasts) > 40) > 0.9


def test_fonts_of_matplotlib_without_digits_are_left_out():
  names = [os.path.basename(font) for font in syn_numbers.find_fonts()]
  assert len(names) == 21
  assert {'DejaVuSans.ttf', 'STIXGeneralItalic.ttf', 'cmr10.ttf'} <= set(names)
  # Symbols in the place of digits, and nothing there.
  assert not {'cmsy10.ttf', 'cmex10.ttf', 'STIXNonUni.ttf'} & set(names)


def test_fonts_of_a_folder_are_added_and_bad_ones_named(tmp_path, capsys):
  (tmp_path / 'sub').mkdir()
  shutil.copy(SANS, tmp_path / 'sub' / 'mine.TTF')
  shutil.copy(os.path.join(FOLDER, 'cmsy10.ttf'), tmp_path / 'symbols.ttf')
  (tmp_path / 'broken.otf').write_bytes(b'no font')
  (tmp_path / 'notes.txt').write_text('no font either')
  fonts = syn_numbers.find_fonts(str(tmp_path))
  assert len(fonts) == 22
  assert fonts[-1] == str(tmp_path / 'sub' / 'mine.TTF')
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 2
  assert lines[0].startswith(f'{tmp_path}/broken.otf: left out: cannot be read')
  assert lines[1] == f'{tmp_path}/symbols.ttf: left out: it has no Latin digits'


def test_folder_without_a_font_is_refused(tmp_path):
  with pytest.raises(errors.UsageError, match='no .ttf or .otf file'):
    syn_numbers.find_fonts(str(tmp_path))
  with pytest.raises(errors.UsageError, match='no such folder'):
    syn_numbers.find_fonts(str(tmp_path / 'nowhere'))
