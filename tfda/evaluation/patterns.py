"""Which pattern each position is assigned to, over images of both domains.

As Figure 1 of Wen et al. 2019 has it: patterns that the domains share lie on
the same parts of their images.
"""

import numpy as np
import tensorflow as tf

from tfda.evaluation import figures

_PICTURE = 1.15  # Inches.
_OPACITY = 0.5


def assign(model, images, side='target'):
  """Returns the patterns [N, h, w], integers in [0, K), of images' positions.

  Args:
    model: a model of local_feature_patterns, with patterns.
    images: uint8 [N, S, S, 3], of the network's size.
    side: 'source' or 'target', for models with statistics of each domain.
  """
  features = model.local_features(tf.constant(images), domain=side)
  _, shares = model.netvlad(features, with_assignments=True)
  return tf.argmax(shares, axis=-1).numpy()


def draw(images, assignments, num_patterns):
  """Two rows of pictures a domain: the images, and the patterns over them.

  A pattern has the same colour in all images; the bar beside them numbers them.

  Args:
    images: {name of a domain: uint8 [N, S, S, 3]}, N at least 1.
    assignments: {name of a domain: [N, h, w]}, see `assign`.
    num_patterns: K.

  Returns:
    The bytes of a PNG file.

  Raises:
    ValueError: there are no images, or not an assignment for each.
  """
  counts = {name: len(batch) for name, batch in images.items()}
  if counts != {name: len(a) for name, a in assignments.items()} or not all(
    counts.values()
  ):
    raise ValueError(f'{counts} images: not an assignment for each, or none')

  def draw_rows(figure):
    import matplotlib
    from matplotlib import colors

    grid = figure.subplots(2 * len(images), max(counts.values()), squeeze=False)
    for axes in grid.flat:
      axes.set_axis_off()
    # Neighbours in number are apart in hue: by the golden ratio.
    hues = 0.618 * np.arange(num_patterns) % 1.0
    style = {
      'cmap': colors.ListedColormap(matplotlib.colormaps['hsv'](hues)),
      'norm': colors.Normalize(-0.5, num_patterns - 0.5),
      'alpha': _OPACITY,
    }
    for row, (name, batch) in zip(grid[::2], images.items()):
      row[0].set_title(name, loc='left', fontsize='small')
      for axes, image in zip(row, batch):
        axes.imshow(image)
    for row, (name, batch) in zip(grid[1::2], images.items()):
      height, width = batch.shape[1:3]
      extent = (-0.5, width - 0.5, height - 0.5, -0.5)
      for axes, image, chosen in zip(row, batch, assignments[name]):
        axes.imshow(image)
        shown = axes.imshow(
          chosen, interpolation='nearest', extent=extent, **style
        )
    figure.colorbar(shown, ax=grid, label='pattern', aspect=30, shrink=0.9)

  size = (
    _PICTURE * max(counts.values()) + 1.0,
    (_PICTURE + 0.1) * 2 * len(images),
  )
  return figures.png(draw_rows, size, font=9)
