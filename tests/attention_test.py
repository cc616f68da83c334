"""The pictures of attention maps: what is where, and in which colour."""

import io
import os

import numpy as np
import PIL.Image
import pytest

from tests import tiny_run
from tfda import errors, experiment
from tfda.evaluation import attention
from tfda.methods import tada
from tfda.serving import restore
from tools import report as tool

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


# Of a folder of images, by tools.report.


def train(path, **config):
  return experiment.train(
    experiment.Experiment(
      method='tada',
      source='optdigits',
      target='optdigits_m',
      image_size=8,
      resize=10,
      batch_size=8,
      steps=2,
      run_dir=str(path),
    ),
    tada.Config(region_units=5, **config),
  )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return train(tmp_path_factory.mktemp('runs') / 'both')


@pytest.fixture
def folder(tmp_path):
  """Of five images, 0.png to 4.png, written in another order."""
  path = tmp_path / 'flat'
  path.mkdir()
  random = np.random.default_rng(0)
  for i in (3, 1, 4, 0, 2):
    pixels = random.integers(256, size=[10, 10, 3], dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path / f'{i}.png')
  return path


@pytest.mark.parametrize('count', [2, 16])
def test_folder_s_first_images_are_drawn_with_their_maps(
  run, folder, count, monkeypatch, capsys, tmp_path
):
  drawn, draw = [], attention.draw
  monkeypatch.setattr(attention, 'draw', lambda *x: drawn.extend(x) or draw(*x))
  out = tmp_path / 'new' / 'maps.png'
  tool.main(
    [run, f'--attention={folder}', f'--attention_images={count}']
    + [f'--out={out}']
  )
  assert capsys.readouterr().out.split() == [str(out)]
  assert min(PIL.Image.open(out).size) > 100
  images, maps, names = drawn
  assert len(images) == min(count, 5)
  _, _, model = restore.restore(run)
  for i, image in enumerate(images):
    pixels = np.asarray(PIL.Image.open(folder / f'{i}.png'))
    np.testing.assert_array_equal(image, pixels[1:9, 1:9])
    outputs = model.infer(pixels[np.newaxis, 1:9, 1:9])
    np.testing.assert_allclose(maps[i], outputs['attention'][0], atol=1e-5)
    logits = outputs['logits'].numpy()[0]
    share = np.exp(logits.max()) / np.exp(logits).sum()
    assert names[i] == f'{logits.argmax()} {share:.0%}'


def test_picture_goes_into_the_run_where_no_file_is_named(run, folder):
  (folder / 'cat').mkdir()
  for i in range(5):
    os.rename(folder / f'{i}.png', folder / 'cat' / f'{i}.png')
  tool.main([run, f'--attention={folder}'])
  assert PIL.Image.open(os.path.join(run, 'attention.png')).format == 'PNG'
  assert not os.path.exists(os.path.join(run, 'report.html'))


@pytest.mark.parametrize(
  'spoil, told',
  [
    ('missing', 'no such folder'),
    ('empty', 'no images; they end in .png'),
    ('broken', '0.png: cannot be read'),
    ('file', 'no such folder'),
    ('count', '--attention_images=0 is below 1'),
    ('no run', 'no run directory'),
    ('out', '--out='),
  ],
)
def test_what_cannot_be_drawn_is_one_line(
  run, folder, spoil, told, monkeypatch, capsys, tmp_path
):
  words = [run, f'--attention={folder}', f'--out={tmp_path}/maps.png']
  if spoil == 'missing':
    words[1] += '/nowhere'
  elif spoil == 'empty':
    (folder / 'empty').mkdir()
    words[1] += '/empty'
  elif spoil == 'broken':
    (folder / '0.png').write_bytes(b'no image')
  elif spoil == 'file':
    words[1] += '/0.png'
  elif spoil == 'count':
    words.append('--attention_images=0')
  elif spoil == 'no run':
    words[0] = str(folder)
  elif spoil == 'out':
    words[2] = f'--out={folder}/0.png/maps.png'
  assert tiny_run.call(tool, monkeypatch, *words) == 2
  out, err = capsys.readouterr()
  assert out == '' and err.startswith('error: ') and err.count('\n') == 1
  assert told in err
  assert not (tmp_path / 'maps.png').exists()


def test_several_runs_are_drawn_beside_each_other(
  run, folder, monkeypatch, capsys, tmp_path
):
  """Of any method: the energy of the features at every position."""
  drawn, draw = [], attention.draw_columns
  monkeypatch.setattr(
    attention, 'draw_columns', lambda x: drawn.append(x) or draw(x)
  )
  other = train(tmp_path / 'method' / 'seed7', attention='global')
  tool.main([run, other, f'--attention={folder}', '--attention_images=2'])
  out = os.path.join(other, 'attention.png')
  assert capsys.readouterr().out.split()[-1] == out
  assert min(PIL.Image.open(out).size) > 100
  (columns,) = drawn
  assert len(columns) == 3 and 'method: seed7' in columns
  images, maps = columns['method: seed7']
  np.testing.assert_array_equal(images, columns['image'][0])
  _, _, model = restore.restore(other)
  features = model.backbone.feature_map(images.astype(np.float32)).numpy()
  energies = np.square(features).sum(axis=-1)
  for found, energy in zip(maps, energies):
    expected = energy / np.sqrt(np.square(energy).sum())
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_run_without_attention_is_refused(folder, tmp_path):
  path = train(tmp_path / 'run', attention='global')
  with pytest.raises(errors.UsageError, match='no attention to regions'):
    tool.main([path, f'--attention={folder}'])
  assert not os.path.exists(os.path.join(path, 'attention.png'))
