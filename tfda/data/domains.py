"""Domains: a name gives images, labels where there are any, and class names.

Names of digits are in digits.READERS, of traffic signs in signs.READERS, those
of image files (`folder:PATH`) in folders.LISTERS; `tfds:NAME/SPLIT` is read by
`prepared`, `translated:PATH` by `translated`. Adding a domain is a reader there
and its line in that table.
"""

import dataclasses
from typing import Any, Optional

import numpy as np

from tfda import errors
from tfda.data import (
  digits,
  files,
  folders,
  images,
  layouts,
  prepared,
  signs,
  storage,
  translated,
)

SPLITS = files.SPLITS

# {name: (reader, class names)}.
_READERS = {
  name: (reader, module.CLASS_NAMES)
  for module in (digits, signs)
  for name, reader in module.READERS.items()
}


@dataclasses.dataclass(frozen=True, eq=False)
class Domain:
  """Images of one kind.

  Attributes:
    name: as given, for example 'mnist' or 'folder:photos'.
    split: 'train' or 'test'.
    images: uint8 [N, S, S, 3]: a NumPy array, or one of `storage`.
    labels: int32 [N] in [0, C), or None.
    class_names: C names, or () where there are no labels.
    transductive: whether the other split is the same images.
    skipped: ((path, reason), ...) of image files that were left out.
    features: float32 [N * copies, ...], what the frozen part of a network makes
      of every image, copies a time (frozen.cached); None if not stored.
  """

  name: str
  split: str
  images: Any
  labels: Optional[np.ndarray]
  class_names: tuple[str, ...]
  transductive: bool = False
  skipped: tuple[tuple[str, str], ...] = ()
  features: Any = None

  def inputs(self):
    """What a network is evaluated on: images, or features of their centres."""
    if self.features is None:
      return self.images
    copies = len(self.features) // len(self.images)
    return _Rows(self.features, np.arange(len(self.images)) * copies)

  def take(self, positions):
    """Returns the Domain with the images at `positions` alone.

    Args:
      positions: integers [M].
    """
    rows = np.asarray(positions)
    in_memory = isinstance(self.images, np.ndarray)
    return dataclasses.replace(
      self,
      images=self.images[rows] if in_memory else _Rows(self.images, rows),
      labels=None if self.labels is None else self.labels[rows],
    )


class _Rows:
  """Some rows of an array that is not in memory, as an array."""

  def __init__(self, array, rows):
    self._array, self._rows = array, rows
    self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

  def __len__(self):
    return len(self._rows)

  def __getitem__(self, index):
    return self._array[self._rows[index]]


def load(name, split, image_size, data_dir=None, reading=None):
  """Loads a split of a domain.

  Args:
    name: see the module.
    split: 'train' or 'test'.
    image_size: side of the square images in pixels; others are resized.
    data_dir: where downloaded data sets are; not needed by all.
    reading: how image files are read; files.Reading() if None.

  Raises:
    UsageError: unknown name, missing or unreadable data; says which.
  """
  reading = reading or files.Reading()
  for prefix, (lister, _) in folders.LISTERS.items():
    if name.startswith(prefix):
      listing = lister(name[len(prefix) :], split, data_dir)
      return _of_files(name, split, listing, image_size, reading)
  if name.startswith(prepared.PREFIX):
    argument = name[len(prepared.PREFIX) :]
    pixels, labels, class_names, skipped = prepared.read(
      argument, data_dir, image_size, reading
    )
    return Domain(name, split, pixels, labels, class_names, True, skipped)
  if name.startswith(translated.PREFIX):
    path = name[len(translated.PREFIX) :]
    return Domain(
      name, split, *translated.read(path, split, image_size, reading)
    )
  if name not in _READERS:
    known = [
      *_READERS,
      *(f'{m.PREFIX}{m.FORM}' for m in (prepared, translated)),
    ]
    for prefix, (_, endings) in folders.LISTERS.items():
      known += [prefix + ending for ending in endings]
    raise errors.UsageError(
      f'{name}: no such domain; {errors.near(name, known)}'
    )
  reader, class_names = _READERS[name]
  found = reader(split, data_dir, image_size, reading)
  if isinstance(found, files.Listing):
    return _of_files(name, split, found, image_size, reading)
  pixels, labels, skipped = found
  if pixels.ndim == 3:
    pixels = np.repeat(pixels[..., np.newaxis], 3, axis=-1)
  if pixels.shape[1] != image_size:
    chunks = [
      images.resize(pixels[i : i + 1000], image_size).numpy().astype(np.uint8)
      for i in range(0, len(pixels), 1000)
    ]
    pixels = np.concatenate(chunks)
  labels = labels.astype(np.int32)
  return Domain(name, split, pixels, labels, class_names, skipped=skipped)


def check_present(name, data_dir=None):
  """Raises UsageError, as `load`, if files of a domain are missing.

  No image is read, so that what is there may yet be broken.
  """
  for split in SPLITS:
    for prefix, (lister, _) in folders.LISTERS.items():
      if name.startswith(prefix):
        lister(name[len(prefix) :], split, data_dir)
    if name in _READERS:
      layouts.check_present(_READERS[name][0], split, data_dir)


def _of_files(name, split, listing, image_size, reading):
  pixels, kept, skipped = storage.decoded(
    listing.paths, image_size, reading, listing.regions
  )
  labels = None
  if listing.labels is not None:
    labels = listing.labels[kept]
    lost = np.setdiff1d(listing.labels, labels)
    if len(lost):
      raise errors.UsageError(
        f'{name}: no image can be read of the classes '
        f'{_series(listing.class_names[label] for label in lost)}'
      )
  return Domain(
    name,
    split,
    pixels,
    labels,
    listing.class_names,
    listing.transductive,
    listing.skipped + skipped,
  )


def check_classes(source, target):
  """Raises UsageError unless a labelled target has the source's classes."""
  if source.labels is None:
    raise errors.UsageError(
      f'{source.name} has no class folders, so no labels: a source needs them'
    )
  if target.labels is None or source.class_names == target.class_names:
    return
  only_source = sorted(set(source.class_names) - set(target.class_names))
  only_target = sorted(set(target.class_names) - set(source.class_names))
  common = set(source.class_names) & set(target.class_names)
  same_name = source.name == target.name
  sides = [
    f'{files.shown(domain.name)}{f" ({domain.split})" if same_name else ""}'
    for domain in (source, target)
  ]
  alike = [
    f'{files.shown(one)} and {files.shown(other)}'
    for one in only_source
    for other in only_target
    if files.alike(one) == files.alike(other)
  ]
  if alike:
    advice = f'; one class in two spellings: {", ".join(alike)}'
  elif only_target and not same_name and common:
    advice = '; --target_classes restricts a target to some of its classes'
  elif not only_source and not only_target:
    advice = '; the order differs'
  else:
    advice = ''
  raise errors.UsageError(
    f'the class lists differ: only in {sides[0]}: {_series(only_source)}; '
    f'only in {sides[1]}: {_series(only_target)}{advice}'
  )


def _series(names):
  return ', '.join(map(files.shown, names)) or 'none'
