"""Domains: a name gives images, labels where there are any, and class names.

Names of digits are in digits.READERS, those of image files (`folder:PATH`) in
folders.LISTERS. Adding a domain is a reader there and its line in that table.
"""

import dataclasses
from typing import Any, Optional

import numpy as np

from tfda import errors
from tfda.data import digits, files, folders, images, storage

SPLITS = files.SPLITS

# Of sets that are read whole: {name: (reader, class names)}.
_ARRAYS = {
  name: (reader, module.CLASS_NAMES)
  for module in (digits,)
  for name, reader in module.READERS.items()
}


@dataclasses.dataclass(frozen=True)
class Domain:
  """Images of one kind.

  Attributes:
    name: as given, for example 'mnist' or 'folder:photos'.
    split: 'train' or 'test'.
    images: uint8 [N, S, S, 3]: a NumPy array, or one of `storage`.
    labels: int32 [N] in [0, C), or None.
    class_names: C names, or () where there are no labels.
    transductive: whether the other split is the same images.
    skipped: ((path, reason), ...) of bad images that were left out.
  """

  name: str
  split: str
  images: Any
  labels: Optional[np.ndarray]
  class_names: tuple[str, ...]
  transductive: bool = False
  skipped: tuple[tuple[str, str], ...] = ()


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
  if name not in _ARRAYS:
    known = [*_ARRAYS, *(p + more for p, (_, more) in folders.LISTERS.items())]
    raise errors.UsageError(
      f'{name}: no such domain; {errors.near(name, known)}'
    )
  reader, class_names = _ARRAYS[name]
  pixels, labels = reader(split, data_dir, image_size)
  if pixels.ndim == 3:
    pixels = np.repeat(pixels[..., np.newaxis], 3, axis=-1)
  if pixels.shape[1] != image_size:
    chunks = [
      images.resize(pixels[i : i + 1000], image_size).numpy().astype(np.uint8)
      for i in range(0, len(pixels), 1000)
    ]
    pixels = np.concatenate(chunks)
  return Domain(name, split, pixels, labels.astype(np.int32), class_names)


def _of_files(name, split, listing, image_size, reading):
  pixels, kept, skipped = storage.decoded(listing.paths, image_size, reading)
  return Domain(
    name,
    split,
    pixels,
    None if listing.labels is None else listing.labels[kept],
    listing.class_names,
    listing.transductive,
    skipped,
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
  raise errors.UsageError(
    'the class lists differ: '
    f'only in {source.name}: {", ".join(only_source) or "none"}; '
    f'only in {target.name}: {", ".join(only_target) or "none"}'
  )
