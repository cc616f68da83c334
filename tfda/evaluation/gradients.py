"""How hard domain, groups and classes pull, as in Hu et al. 2020 (GSDA)."""

import dataclasses
import functools

import numpy as np

from tfda.evaluation import figures, pictures

_IMAGES = 256  # Of each domain; 1 s on two busy cores, 76 heads.
_BATCH = 32
_NAMED = 8  # A group of more classes is not spelled out.
_RARE = 0.1  # Of an even share; a class of less weight is hardly believed in.


@dataclasses.dataclass(frozen=True)
class _Pull:
  """What is measured of both domains' images, n of each.

  Attributes:
    domain, groups, classes: mean gradient norms [1], [b], [r]; [0] where off.
    probabilities: [n, r] of the target images.
    confident: [n], 1 for those of them that have a part, else 0.
  """

  domain: np.ndarray
  groups: np.ndarray
  classes: np.ndarray
  probabilities: np.ndarray
  confident: np.ndarray


def show(model, data, measure):
  """Pictures of a model of gsda, on training images of both domains.

  Args:
    model: the model.
    data: {(side, split): Domain}.
    measure: (source inputs, labels [n], target inputs, n of each) -> (norms of
      the gradients, [domain [1], groups [b], classes [r]], means over the
      images, [0] of a level that is off; probabilities [n, r] of the target;
      confident [n], 1 for those of its images that have a part, else 0).

  Returns:
    {name: pictures.MethodPicture}: 'gradients' of each level beside those of
    the level below it, and 'weights', p^k of the target; those that exist.
  """
  names = data['source', 'train'].class_names
  config, class_to_group = model.config, model.class_to_group
  levels = config.levels.split(',')

  @functools.cache
  def pull():
    return _measure(model, data, measure)

  shown = {}
  if len(levels) > 1:
    shown['gradients'] = pictures.of(
      pull,
      lambda x: _gaps(x, class_to_group, names),
      lambda x: draw(*_pairs(x, class_to_group)),
      watched=True,
    )
  if set(levels) != {'global'}:
    shown['weights'] = pictures.of(
      pull,
      lambda x: _believed(x, names, config.confidence_threshold),
      lambda x: figures.histogram(
        (x.probabilities * x.confident[:, np.newaxis]).mean(axis=0),
        names,
        'mean weight of target images',
        behind=x.probabilities.mean(axis=0),
      ),
      watched=True,
    )
  return shown


def _measure(model, data, measure):
  """The _Pull of a model."""
  source, target = (
    pictures.excerpt(model, data[side, 'train'], _IMAGES)
    for side in ('source', 'target')
  )
  count = min(len(source.images), len(target.images))
  parts = [
    slice(start, min(start + _BATCH, count))
    for start in range(0, count, _BATCH)
  ]
  norms, probabilities, confident = zip(
    *(
      measure(source.inputs[p], source.labels[p], target.inputs[p])
      for p in parts
    )
  )
  rows = [part.stop - part.start for part in parts]
  return _Pull(
    *(np.average(level, axis=0, weights=rows) for level in zip(*norms)),
    np.concatenate(probabilities),
    np.concatenate(confident),
  )


def _pairs(pull, class_to_group):
  """Pairs (norm, norms of its parts): of the domain or None, of the groups."""
  below = pull.groups if pull.groups.size else pull.classes
  of_domain = (pull.domain[0], below) if pull.domain.size else None
  of_groups = [
    (norm, pull.classes[class_to_group == q])
    for q, norm in enumerate(pull.groups)
    if pull.classes.size
  ]
  return of_domain, of_groups


def _gaps(pull, class_to_group, names):
  of_domain, of_groups = _pairs(pull, class_to_group)
  told = []
  if of_domain:
    norm, parts = of_domain
    told.append(
      f'domain {norm:.3g}, all {"groups" if pull.groups.size else "classes"} '
      f'{parts.sum():.3g} ({apart(norm, parts.sum()):.0%} apart)'
    )
  if of_groups:
    gaps = [apart(norm, parts.sum()) for norm, parts in of_groups]
    worst = int(np.argmax(gaps))
    norm, parts = of_groups[worst]
    members = [names[k] for k in np.flatnonzero(class_to_group == worst)]
    named = ', '.join(members)
    told.append(
      f'a group and its classes are {np.mean(gaps):.0%} apart on average, most '
      f'of all group {worst + 1} '
      f'({named if len(members) <= _NAMED else f"{len(members)} classes"}): '
      f'{norm:.3g} and {parts.sum():.3g}'
    )
  return (
    'Mean gradient norms of the domain losses to the features of '
    f'{len(pull.confident)} training images of each domain: '
    f'{"; ".join(told)}.'
  )


def apart(one, other):
  """The difference of two lengths, in [0, 1] as a share of the larger."""
  return abs(one - other) / max(one, other) if one != other else 0.0


def _believed(pull, names, threshold):
  weights = (pull.probabilities * pull.confident[:, np.newaxis]).mean(axis=0)
  rare = [
    name
    for name, weight in zip(names, weights)
    if weight * len(names) < _RARE * weights.sum()
  ]
  named = f' ({", ".join(rare)})' if 0 < len(rare) <= _NAMED else ''
  return (
    f'Mean weight p^k of {len(pull.confident)} target images in each class: '
    f'dark of the {pull.confident.mean():.0%} whose likeliest class has a '
    f'probability of at least {threshold:g} and which alone have a part, light '
    f'of all. {len(rare)} of {len(names)} classes{named} have less than a '
    'tenth of an even share.'
  )


def draw(of_domain, of_groups):
  """Each level as a bar, and beside it the parts of it as a stack.

  Args:
    of_domain: (norm, norms of its parts [b]), or None.
    of_groups: [(norm, norms of its parts)] of the groups; empty for none.

  Returns:
    The bytes of a PNG file.
  """
  panels = [('domain', [of_domain])] if of_domain else []
  panels += [('groups', of_groups)] if of_groups else []

  def drawn(figure):
    ratios = [max(2.0, 0.9 * len(bars)) for _, bars in panels]
    axes_of = figure.subplots(
      1, len(panels), squeeze=False, width_ratios=ratios
    )[0]
    for axes, (title, bars) in zip(axes_of, panels):
      places = np.arange(1, len(bars) + 1)
      whole = axes.bar(
        places - 0.2, [norm for norm, _ in bars], 0.38, color=figures.COLORS[0]
      )
      for place, (_, parts) in zip(places, bars):
        ends = np.cumsum(parts)
        stack = axes.bar(
          np.full(len(parts), place + 0.2),
          parts,
          0.38,
          bottom=ends - parts,
          color=figures.COLORS[4],
          edgecolor='white',
          linewidth=0.6,
        )
      axes.set_title(title, fontsize='medium')
      axes.grid(axis='y', alpha=0.3)
      axes.set_axisbelow(True)
      every = -(-len(bars) // 13)
      axes.set_xticks(places[::every] if title == 'groups' else [])
    axes_of[0].set_ylabel('mean gradient norm')
    figure.legend(
      [whole, stack],
      ['domain or group', 'its parts, stacked'],
      loc='outside lower center',
      ncols=2,
      frameon=False,
      fontsize='small',
    )

  return figures.png(drawn, figures.SIZE)
