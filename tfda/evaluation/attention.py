"""Attention maps over images.

As in Figure 3 of Wang et al. 2019 (TADA), and, of several networks, in Figure 1
of Kang et al. 2018 (attention alignment).
"""

import math

import numpy as np
import tensorflow as tf

from tfda import losses
from tfda.data import translated
from tfda.evaluation import figures, pictures

_DRAWN = 8  # Images of each domain.
_GROUPS = 2  # In a row, each of three pictures.
_PICTURE = 1.15  # Inches.
_COLORS = 'turbo'  # As in the paper: the hotter, the larger.
_OPACITY = 0.5


def show(model, data):
  """Pictures of the attention to test images, 'attention_source', '..._target'.

  Args:
    model: a ClassificationModel whose `infer` has an 'attention'.
    data: {(side, split): Domain}.

  Returns:
    {name: pictures.MethodPicture}, watched.
  """
  return {
    f'attention_{side}': _shown(model, data[side, 'test'], side)
    for side in ('source', 'target')
  }


def _shown(model, domain, side):
  def measure():
    excerpt = pictures.excerpt(model, domain, _DRAWN)
    outputs = model.infer(tf.constant(excerpt.inputs), domain=side)
    return excerpt.images, outputs['attention'].numpy()

  def caption(measured):
    images, maps = measured
    _, height, width = maps.shape
    return (
      f'Attention w to {height} x {width} regions of {len(images)} {side} test '
      f'images: the image, w, and both. w is {maps.min():.3f} to '
      f'{maps.max():.3f}, {maps.mean():.3f} on average.'
    )

  return pictures.of(measure, caption, lambda x: draw(*x), watched=True)


def draw(images, maps, names=None):
  """A group of pictures for each image: itself, its attention, and both.

  The colours are one scale for all images, from the smallest attention to the
  largest; the bar beside them tells their values.

  Args:
    images: uint8 [N, S, S, 3], N at least 1.
    maps: [N, h, w], the attention of h x w regions of each image.
    names: N captions; None for none.

  Returns:
    The bytes of a PNG file.

  Raises:
    ValueError: there are no images, or not a map (or a name) for each.
  """
  maps = np.asarray(maps, np.float32)
  if not len(images) == len(maps) == len(maps if names is None else names) > 0:
    raise ValueError(
      f'{len(images)} images, {len(maps)} maps: not one of each, or none'
    )
  rows = math.ceil(len(images) / _GROUPS)
  groups = min(_GROUPS, len(images))

  def draw_groups(figure):
    from matplotlib import colors

    # A narrow column keeps the groups apart.
    widths = (groups * [1.0, 1.0, 1.0, 0.1])[:-1]
    grid = figure.subplots(
      rows, len(widths), squeeze=False, width_ratios=widths
    )
    for axes in grid.flat:
      axes.set_axis_off()
    height, width = images.shape[1:3]
    style = {
      'cmap': _COLORS,
      'norm': colors.Normalize(maps.min(), maps.max()),
      'extent': (-0.5, width - 0.5, height - 0.5, -0.5),
    }
    for i, (image, attention) in enumerate(zip(images, maps)):
      start = 4 * (i % groups)
      alone, regions, both = grid[i // groups, start : start + 3]
      alone.imshow(image)
      shown = regions.imshow(attention, interpolation='nearest', **style)
      both.imshow(image)
      both.imshow(attention, interpolation='bilinear', alpha=_OPACITY, **style)
      if names is not None:
        regions.set_title(names[i], fontsize='small')
    figure.colorbar(shown, ax=grid, label='attention', aspect=30, shrink=0.9)

  size = (_PICTURE * 3 * groups + 1.0, (_PICTURE + 0.2) * rows + 0.2)
  return figures.png(draw_groups, size, font=9)


def of_feature_map(network, inputs):
  """Where any network looks: Eq. 4 of Kang et al. 2018, of its feature map.

  Args:
    network: a ClassificationModel.
    inputs: [n, S, S, 3] in 0..255, or stored features of its frozen part.

  Returns:
    [n, h, w], of L2 norm 1 for each image.
  """
  features = network.backbone.feature_map(tf.constant(inputs))
  maps = losses.attention_map(features).numpy()
  return maps.reshape(features.shape[:3])


def compare(networks, data):
  """Pictures of where networks look in images and in their translations.

  As Figures 1 and 3 of Kang et al. 2018.

  Args:
    networks: {what it is called: a ClassificationModel}, two of them.
    data: {(side, split): Domain}; of training images, and of their translations
      where they are there.

  Returns:
    {'attention_source', 'attention_target': pictures.MethodPicture}, watched.
  """
  return {
    f'attention_{side}': _compared(networks, data, side, direction)
    for direction, side in translated.DIRECTIONS.items()
  }


def _compared(networks, data, side, direction):
  first, second = networks

  def measure():
    columns = {}
    for origin, title in ((side, side), (direction, 'translated')):
      if (origin, 'train') not in data:
        continue
      domain = data[origin, 'train']
      excerpt = pictures.excerpt(networks[first], domain, _DRAWN)
      columns[title] = excerpt.images, None
      for name, network in networks.items():
        maps = of_feature_map(network, excerpt.inputs)
        columns[f'{title}: {name}'] = excerpt.images, maps
    return columns

  def caption(columns):
    maps = [columns[f'{side}: {name}'][1] for name in networks]
    count, height, width = maps[0].shape
    distance = losses.map_distance(*(m.reshape(count, -1) for m in maps))
    return (
      f'Where {first} and {second} look in {count} {side} training images and '
      f'in their translations: attention to {height} x {width} positions of '
      'the last feature map, each on a scale of its own. On average, the two '
      f'are {distance:.3f} apart in the {side} images (at most 1.414).'
    )

  return pictures.of(measure, caption, draw_columns, watched=True)


def draw_columns(columns):
  """A row for each image; a column of images, or of attention over them.

  Args:
    columns: {title: (uint8 [N, S, S, 3], maps [N, h, w] or None)}.

  Returns:
    The bytes of a PNG file.
  """
  rows = len(next(iter(columns.values()))[0])

  def draw_grid(figure):
    grid = figure.subplots(rows, len(columns), squeeze=False)
    for axes, (title, (images, maps)) in zip(grid.T, columns.items()):
      axes[0].set_title(title.replace(': ', ':\n'), fontsize='small')
      for i, (place, image) in enumerate(zip(axes, images)):
        place.set_axis_off()
        place.imshow(image)
        if maps is not None:
          height, width = image.shape[:2]
          place.imshow(
            maps[i],
            cmap=_COLORS,
            alpha=_OPACITY,
            interpolation='bilinear',
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
          )

  size = (_PICTURE * len(columns) + 0.3, (_PICTURE + 0.1) * rows + 0.5)
  return figures.png(draw_grid, size, font=9)
