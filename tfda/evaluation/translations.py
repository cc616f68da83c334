"""Whether translated images keep what they show, and pictures of them."""

import numpy as np

from tfda.data import augmentation
from tfda.evaluation import figures, pictures

SCORES = ('correlation', 'spread')
_INVERTED = -0.3  # Grey levels of unrelated images correlate at 0.
_COLLAPSED = 0.1  # Of how much real images differ.

# Test images that are measured: so many, or fewer of a size at which they would
# have more pixels than 256 of 32 x 32, but some.
_MEASURED, _MEASURED_PIXELS, _MEASURED_AT_LEAST = 256, 2**18, 16
_DRAWN = 8
_PICTURE = 0.95  # Inches.


def grey_correlation(images, translated):
  """How far bright stays bright: the mean correlation of grey levels.

  Over the pixels of an image, averaged over images; 0 for one of a single grey.
  1 where nothing changes, -1 where all colours are inverted: for example of
  greys [0, 100, 200] and [255, 155, 55].

  Args:
    images: [N, H, W, 3].
    translated: what they became, [N, H, W, 3].

  Returns:
    A number in [-1, 1].
  """
  one, other = (_centred(x.mean(axis=-1)) for x in (images, translated))
  scale = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
  product = (one * other).sum(axis=1)
  return float(
    np.divide(product, scale, out=np.zeros_like(scale), where=scale > 0).mean()
  )


def _centred(greys):
  rows = greys.reshape(len(greys), -1).astype(np.float64)
  return rows - rows.mean(axis=1, keepdims=True)


def spread(translated, real):
  """How much translated images differ, relative to real ones.

  Mean absolute differences of neighbours, the first and the last being such:
  0 where all translated images are the same, 1 where they differ as real ones
  do. For example of translated images of greys [10, 10, 40] and real ones of
  [0, 100, 200]: (0 + 30 + 30) / (100 + 100 + 200) = 0.15.

  Args:
    translated: [N, H, W, 3].
    real: of the domain that they are translated to, [M, H, W, 3].
  """

  def difference(images):
    images = images.astype(np.float32)
    return np.abs(images - np.roll(images, 1, axis=0)).mean()

  return float(difference(translated) / max(difference(real), 1e-9))


def scores(model, data):
  """{'correlation/DIRECTION': , 'spread/DIRECTION': } of some test images.

  Args:
    model: a CycleGAN.
    data: {(side, split): Domain}.
  """
  found = {}
  for direction in model.generators:
    images, real = _samples(model, data, direction)
    translated = model.translate(images, direction)
    found[f'correlation/{direction}'] = grey_correlation(images, translated)
    found[f'spread/{direction}'] = spread(translated, real)
  return {name: found[name] for name in model.SCORES}


def _samples(model, data, direction):
  """Test images that a direction begins with, and of where it leads to."""
  size = model.image_size
  count = min(_MEASURED, max(_MEASURED_AT_LEAST, _MEASURED_PIXELS // size**2))
  for side in direction.split('_to_'):
    images = data[side, 'test'].images
    rows = np.random.default_rng(0).permutation(len(images))[:count]
    yield augmentation.centre_crop(images[np.sort(rows)], size)


def warnings(found, preserved, threshold):
  """Yields a line for everything that is wrong with a translation.

  Args:
    found: of `scores`.
    preserved: {'source': , 'source_to_target': , 'target': }, accuracies in
      [0, 1] of a classifier of the source on source images, on their
      translations, and on those of the target if they have labels: to look as
      these do costs some by itself.
    threshold: accuracy below which labels count as lost.
  """
  for name, value in found.items():
    score, direction = name.split('/')
    if score == 'correlation' and value < _INVERTED:
      yield (
        f'{direction} inverts colours: the grey levels of images and their '
        f'translations correlate at {value:.2f}'
      )
    if score == 'spread' and value < _COLLAPSED:
      yield (
        f'{direction} collapses: translations differ from each other by '
        f'{value:.0%} of what real images do'
      )
  kept, of_target = preserved['source_to_target'], preserved['target']
  if kept < threshold:
    of_target = '' if of_target is None else f', {of_target:.1%} of the target'
    yield (
      'source_to_target may lose labels: a classifier of the source is right '
      f'about {kept:.1%} of translations ({preserved["source"]:.1%} of the '
      f'source{of_target}), and --label_threshold={threshold}'
    )


def show(model, data):
  """Pictures of translated test images, a 'pairs_DIRECTION' each, watched.

  Args:
    model: a CycleGAN.
    data: {(side, split): Domain}.

  Returns:
    {name: pictures.MethodPicture}.
  """
  return {
    f'pairs_{direction}': _shown(model, data, direction)
    for direction in model.generators
  }


def _shown(model, data, direction):
  here, there = direction.split('_to_')

  def measure():
    images, _ = _samples(model, data, direction)
    # Of all classes, where images are in the order of these.
    images = images[np.linspace(0, len(images) - 1, _DRAWN).astype(int)]
    translated = model.translate(images, direction)
    back = model.translate(translated, f'{there}_to_{here}')
    return images, translated, back

  def caption(rows):
    images, translated, back = rows
    error = np.abs(images.astype(np.float32) - back).mean()
    return (
      f'{len(images)} {here} test images, below them what they became '
      f'({direction}), and that translated back: {error:.1f} of 255 from the '
      f'images, whose grey levels correlate with those of the translations at '
      f'{grey_correlation(images, translated):.2f}.'
    )

  return pictures.of(measure, caption, draw, watched=True)


def draw(rows):
  """Rows of images, one below the other.

  Args:
    rows: uint8 arrays [N, S, S, 3].

  Returns:
    The bytes of a PNG file.
  """
  # One picture: axes for every image would take a second to draw.
  gap = max(1, rows[0].shape[1] // 16)
  padding = [(0, 0), (gap, gap), (gap, gap), (0, 0)]
  grid = np.concatenate(
    [np.hstack(np.pad(row, padding, constant_values=255)) for row in rows]
  )

  def draw_grid(figure):
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.imshow(grid)

  return figures.png(draw_grid, (_PICTURE * len(rows[0]), _PICTURE * len(rows)))
