"""The domains that an experiment trains on and is judged by."""

import dataclasses
import os
import zlib

import numpy as np

from tfda import errors
from tfda.data import domains, files, translated

_DIGESTED = 64  # Images of a domain.


def load(experiment, image_size):
  """Loads {(side, split): Domain} and checks that they fit each other.

  Args:
    experiment: an Experiment.
    image_size: side in pixels at which images are stored.

  Raises:
    UsageError: the domains do not fit each other or the settings.
  """
  sides = {'source': experiment.source, 'target': experiment.target}
  loaded = {
    (side, split): domains.load(
      name, split, image_size, experiment.data_dir, reading(experiment)
    )
    for side, name in sides.items()
    for split in domains.SPLITS
  }
  source = loaded['source', 'train']
  domains.check_classes(source, source)
  domains.check_classes(loaded['source', 'test'], source)
  for split in domains.SPLITS:
    if experiment.target_classes:
      loaded['target', split] = restricted(
        loaded['target', split], experiment.target_classes, source.class_names
      )
    domains.check_classes(source, loaded['target', split])
  if experiment.target_labelled:
    train, test = revealed(
      loaded['target', 'train'], experiment.target_labelled, experiment.seed
    )
    loaded['target', 'train'], loaded['target', 'test'] = train, test
  if experiment.translation:
    for direction, side in translated.DIRECTIONS.items():
      path = f'{experiment.translation}/{direction}'
      loaded[direction, 'train'] = domains.load(
        translated.PREFIX + path, 'train', image_size, None, reading(experiment)
      )
      translated.check(
        loaded[direction, 'train'],
        loaded[side, 'train'],
        path,
        translated.selection(experiment, side),
      )
  return loaded


def training_domains(data):
  """{side: Domain} of what is trained on, of {(side, split): Domain}."""
  return {
    side: domain for (side, split), domain in data.items() if split == 'train'
  }


def reading(experiment):
  """How an experiment reads image files."""
  return files.Reading(
    experiment.cache_dir, experiment.on_bad_image, experiment.max_pixels
  )


def restricted(target, classes, class_names):
  """Partial adaptation: the target without the images of other classes.

  Args:
    target: a labelled Domain.
    classes: 'first10' for the first ten, the path of a text file with a name a
      line, or names with commas between.
    class_names: of the source; they stay the classes of the classifier.

  Returns:
    The Domain, its labels being indices into class_names.

  Raises:
    UsageError: the target has no labels; a class is not in both domains.
  """
  flag = f'--target_classes={classes}'
  if target.labels is None:
    raise errors.UsageError(f'{flag}: {target.name} has no labels to choose by')
  kept = _named(flag, classes, class_names)
  if not kept:
    raise errors.UsageError(f'{flag}: names no class')
  for name in kept:
    for side, names in (
      ('the source', class_names),
      (target.name, target.class_names),
    ):
      if name not in names:
        raise errors.UsageError(
          f'{flag}: {name} is no class of {side}; {errors.near(name, names)}'
        )
  of_source = {target.class_names.index(n): class_names.index(n) for n in kept}
  positions = np.flatnonzero(np.isin(target.labels, list(of_source)))
  taken = target.take(positions)
  labels = np.array([of_source[label] for label in taken.labels], np.int32)
  return dataclasses.replace(taken, labels=labels, class_names=class_names)


def _named(flag, classes, class_names):
  if classes.startswith('first') and classes[len('first') :].isdecimal():
    count = int(classes[len('first') :])
    if count > len(class_names):
      raise errors.UsageError(f'{flag}: there are {len(class_names)} classes')
    return class_names[:count]
  if os.path.isfile(classes):
    try:
      with open(classes, encoding='utf-8') as file:
        names = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UsageError(f'{flag}: cannot be read: {error}') from error
  else:
    names = classes.split(',')
  return [name.strip() for name in names if name.strip()]


def revealed(target, count, seed):
  """Semi-supervised adaptation: a labelled part of the target, and the rest.

  As Ganin & Lempitsky 2015 split GTSRB (Section 4.1): what is not revealed is
  for evaluation alone and takes no part in the adaptation.

  Args:
    target: a labelled Domain.
    count: how many images are revealed.
    seed: of the choice.

  Returns:
    (the Domain of the `count` images, that of the others for test).

  Raises:
    UsageError: there are no labels, or not so many images.
  """
  flag = f'--target_labelled={count}'
  if target.labels is None:
    raise errors.UsageError(f'{flag}: {target.name} has no labels')
  if count >= len(target.images):
    raise errors.UsageError(
      f'{flag}: {target.name} has {len(target.images)} images, and some must '
      'be left for test'
    )
  order = np.random.default_rng(seed).permutation(len(target.images))
  train = target.take(np.sort(order[:count]))
  test = target.take(np.sort(order[count:]))
  return (
    dataclasses.replace(train, transductive=False),
    dataclasses.replace(test, split='test', transductive=False),
  )


def digests(data):
  """{'side split': a line that tells two domains apart} of {...: Domain}.

  Of the number of images, all labels and class names, and a sample of pixels.
  """
  lines = {}
  for (side, split), domain in data.items():
    images = domain.images
    sample = np.linspace(0, len(images) - 1, _DIGESTED).astype(np.int64)
    content = zlib.crc32(np.ascontiguousarray(images[sample]))
    labels = [] if domain.labels is None else domain.labels
    content = zlib.crc32(np.asarray(labels, np.int32), content)
    content = zlib.crc32('\n'.join(domain.class_names or ()).encode(), content)
    lines[f'{side} {split}'] = f'{len(images)} images ({content:08x})'
  return lines


def class_counts(domain):
  """A line with the number of images of the rarest and commonest classes."""
  counts = np.bincount(domain.labels, minlength=len(domain.class_names))
  order = np.argsort(counts, kind='stable')
  shown = [f'{domain.class_names[i]} {counts[i]}' for i in order]
  if len(shown) > 6:
    shown = [*shown[:3], '...', *shown[-3:]]
  return f'{domain.name}: {counts.sum()} images; {", ".join(shown)}'
