"""The patterns of Wen et al. 2019 on images of both domains.

As Figures 1 and 5 have it: patterns that the domains share lie on the same
parts of their images, and the local features about them are of both domains.
"""

import dataclasses
import functools
import math
from typing import Callable

import numpy as np
import tensorflow as tf

from tfda import losses
from tfda.evaluation import embeddings, figures, pictures

_SIDES = ('source', 'target')
_DRAWN = 8  # Images of each domain in the picture of assignments.
_MAPPED = 400  # Positions of each domain in a map, at random among so many
_READ = 4  # times more, of many images.
_IMAGES = 32
_BATCH = 32
_PICTURE = 1.15  # Inches.
_OPACITY = 0.5


@dataclasses.dataclass(frozen=True)
class _Positions:
  """Test images of a domain and the n positions of their feature maps."""

  excerpt: pictures.Excerpt
  features: np.ndarray  # F, [n, D].
  distances: np.ndarray  # ||F - c||^2, [n, K].

  @property
  def nearest(self):
    return self.distances.argmin(axis=1)

  def image(self, positions):
    """The number of the image that a position is in."""
    return positions // (len(self.features) // len(self.excerpt.images))


def show(model, data):
  """Pictures of a model of local_feature_patterns, with patterns.

  Args:
    model: the model.
    data: {(side, split): Domain}.

  Returns:
    {name: pictures.MethodPicture}: 'patterns', the assignments over images;
    maps of local features, 'local_features_by_pattern' and '..._by_domain'; and
    'distances' of positions to the two nearest patterns.
  """
  config = model.config

  @functools.cache
  def positions():
    return {side: _measure(model, data[side, 'test'], side) for side in _SIDES}

  @functools.cache
  def mapped():
    return _map(positions())

  def draw_assignments(found):
    excerpts = {side: p.excerpt for side, p in found.items()}
    return draw(
      {side: e.images[:_DRAWN] for side, e in excerpts.items()},
      {
        side: assign(model, e.inputs[:_DRAWN], side)
        for side, e in excerpts.items()
      },
      config.num_patterns,
    )

  return {
    'patterns': pictures.of(
      positions,
      functools.partial(_shares_of_patterns, config.num_patterns),
      draw_assignments,
    ),
    'local_features_by_pattern': pictures.of(
      mapped,
      lambda x: (
        f't-SNE map of {np.sum(~x.is_target)} source and '
        f'{np.sum(x.is_target)} target local features (dots, crosses), '
        f'coloured by the nearest of {config.num_patterns} patterns, of which '
        f'{len(np.unique(x.nearest))} occur.'
      ),
      lambda x: figures.scatter(
        x.points(),
        x.nearest,
        [str(k) for k in range(config.num_patterns)],
        x.is_target,
      ),
    ),
    'local_features_by_domain': pictures.of(
      mapped,
      lambda x: (
        'The same map of local features by domain. The one that is most '
        'similar to a local feature, of those of other images, is of the other '
        f'domain for {x.mixed:.0%} of them, which is 50% where the domains '
        'cannot be told apart.'
      ),
      lambda x: figures.scatter(
        x.points(), x.is_target.astype(int), _SIDES, x.is_target
      ),
    ),
    'distances': pictures.of(
      positions, functools.partial(_sparsity, config), _draw_distances
    ),
  }


def _measure(model, domain, side):
  """The _Positions of a domain."""
  height, width, depth = model.backbone.feature_map_shape
  count = max(_IMAGES, math.ceil(_READ * _MAPPED / (height * width)))
  excerpt = pictures.excerpt(model, domain, count)
  features = local_features(model, excerpt.inputs, side).reshape([-1, depth])
  patterns = model.netvlad.patterns.numpy()
  return _Positions(excerpt, features, squared_distances(features, patterns))


def local_features(model, inputs, side):
  """F [N, h, w, D] of images or stored features, in parts."""
  extract = tf.function(
    lambda x: model.local_features(x, domain=side), autograph=False
  )
  missing = [(0, -len(inputs) % _BATCH)] + [(0, 0)] * (inputs.ndim - 1)
  padded = np.pad(inputs, missing)  # One trace serves all parts.
  parts = np.split(padded, len(padded) // _BATCH)
  features = [extract(tf.constant(part)) for part in parts]
  return np.concatenate(features)[: len(inputs)]


def squared_distances(features, patterns):
  """||F - c_k||^2 [n, K] of features [n, D] to patterns [K, D]."""
  return np.stack(
    [np.square(features - pattern).sum(axis=1) for pattern in patterns], axis=1
  )


def _shares_of_patterns(num_patterns, found):
  used = [
    np.bincount(p.nearest, minlength=num_patterns) for p in found.values()
  ]
  overlap = np.minimum(*(counts / counts.sum() for counts in used)).sum()
  return (
    f'The nearest of {num_patterns} patterns at every position of test images. '
    f'Of {used[0].sum():,} source and {used[1].sum():,} target positions, '
    f'those of the source are assigned to {np.sum(used[0] > 0)} patterns, '
    f'those of the target to {np.sum(used[1] > 0)}; the shares of the patterns '
    f'overlap by {overlap:.0%}.'
  )


def _sparsity(config, found):
  entropies = [
    losses.entropy(-config.sparsity_decay * p.distances).numpy()  # Eq. 3
    for p in found.values()
  ]
  active = [np.mean(e > config.sparsity_threshold) for e in entropies]
  nearest = [_spread(p.distances.min(axis=1)) for p in found.values()]
  return (
    'Squared distances of local features to their two nearest patterns. To '
    f'the nearest it is {nearest[0]} in the source, {nearest[1]} in the '
    'target. The entropy H of the assignment at alpha_s = '
    f'{config.sparsity_decay:g} is above m = {config.sparsity_threshold:g}, '
    f'where the sparse loss is active, at {active[0]:.1%} of the source '
    f'positions and {active[1]:.1%} of the target ones; its mean is '
    f'{entropies[0].mean():.2f} and '
    f'{entropies[1].mean():.2f} nats, of at most ln K = '
    f'{math.log(config.num_patterns):.2f}.'
  )


def _spread(values):
  median, low, high = (
    np.format_float_positional(x, precision=3, fractional=False, trim='-')
    for x in np.percentile(values, [50, 5, 95])
  )
  return f'{median} by median ({low} to {high} for 90% of the positions)'


def _draw_distances(found):
  samples = [
    (f'{side}, {name}', values)
    for side, p in found.items()
    for name, values in zip(
      ('nearest', 'second nearest'), np.sort(p.distances, axis=1).T
    )
  ]
  return figures.distributions(samples, '||F - c||^2')


@dataclasses.dataclass(frozen=True)
class _Map:
  """Local features of both domains [n]; `points` is () -> [n, 2]."""

  points: Callable[[], np.ndarray]
  nearest: np.ndarray
  is_target: np.ndarray
  mixed: float


def _map(found):
  """The _Map of positions of both domains, drawn at random."""
  random = np.random.default_rng(0)
  chosen = [
    random.permutation(len(p.features))[:_MAPPED] for p in found.values()
  ]
  features = np.concatenate(
    [p.features[rows] for p, rows in zip(found.values(), chosen)]
  )
  nearest = [p.nearest[rows] for p, rows in zip(found.values(), chosen)]
  # An image of the target has a negative number, none of the source's.
  source, target = (p.image(rows) for p, rows in zip(found.values(), chosen))
  images = np.concatenate([source, -1 - target])
  is_target = np.repeat([False, True], [len(rows) for rows in chosen])

  @functools.cache
  def points():
    mapped = embeddings.map_features(features, seed=0)
    # All are equal: they lie on one point of the map.
    return np.zeros([len(features), 2]) if mapped is None else mapped

  return _Map(
    points,
    np.concatenate(nearest),
    is_target,
    np.mean(is_target[most_similar(features, images)] != is_target),
  )


def most_similar(features, images):
  """The number [n] of the row nearest to each row of features [n, D].

  Among the rows of other images [n]: neighbours in an image overlap.
  """
  features = features.astype(np.float64)
  squares = np.square(features).sum(axis=1)
  distances = squares - 2.0 * features @ features.T  # Less that of the row.
  distances[images[:, np.newaxis] == images] = np.inf
  return distances.argmin(axis=1)


def assign(model, images, side='target'):
  """Returns the patterns [N, h, w], integers in [0, K), of images' positions.

  Args:
    model: a model of local_feature_patterns, with patterns.
    images: uint8 [N, S, S, 3], of the network's size; or stored features.
    side: 'source' or 'target', for models with statistics of each domain.
  """
  features = local_features(model, images, side)
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
