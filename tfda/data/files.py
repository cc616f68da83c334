"""What every reader of data files shares."""

import dataclasses
import os
import unicodedata
from typing import NamedTuple, Optional

import numpy as np

from tfda import errors

SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class Listing:
  """The image files of one split of a domain.

  Attributes:
    paths: N paths of image files.
    labels: int32 [N] in [0, C), or None.
    class_names: C names, or () where there are no labels.
    transductive: whether the other split is the same files.
    skipped: ((path, reason), ...) of image files that are left out.
    regions: N (left, top, right, bottom) in pixels, the parts of the images to
      keep, right and bottom being outside; () for the whole images.
  """

  paths: tuple[str, ...]
  labels: Optional[np.ndarray]
  class_names: tuple[str, ...]
  transductive: bool = False
  skipped: tuple[tuple[str, str], ...] = ()
  regions: tuple[tuple[int, int, int, int], ...] = ()


class Arrays(NamedTuple):
  """The images of one split of a domain, where they are in no image files.

  Attributes:
    images: uint8 [N, H, W] or [N, H, W, 3].
    labels: integers [N] in [0, C).
    skipped: ((path, reason), ...) of image files that are left out.
  """

  images: np.ndarray
  labels: np.ndarray
  skipped: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
  """How image files are read.

  Attributes:
    cache_dir: folder of the caches of decoded images; None for the user's.
    on_bad_image: 'fail', or 'skip' to leave bad images out.
    max_pixels: width x height beyond which an image is bad (a decompression
      bomb, most probably).
  """

  cache_dir: Optional[str] = None
  on_bad_image: str = 'fail'
  max_pixels: int = 100_000_000


def data_dir(name, path):
  """Returns `path`, the --data_dir that the domain `name` is read from.

  Raises:
    UsageError: it is not set, or no folder.
  """
  if not path:
    raise errors.UsageError(
      f'{name} is read from --data_dir, which is not set (without it there '
      'are mnist_sample, mnist_m_sample, optdigits, optdigits_m)'
    )
  if not os.path.isdir(path):
    raise errors.UsageError(f'--data_dir={path}: no such folder')
  return path


def shown(name):
  """Returns a file's name for a message of one line: 'a\\nb' in quotes."""
  name = os.fspath(name)
  return name if name.isprintable() else repr(name)


def alike(name):
  """Returns what is the same for names that one takes for one another.

  For example for 'Bike' and 'bike', and for an accent that is a character of
  its own, as macOS writes it, and one that is not.
  """
  return unicodedata.normalize('NFKC', name).casefold()
