"""Domains of image files: (argument, split, data_dir) -> files.Listing.

folder:PATH     one's own images
"""

import os

import numpy as np

from tfda import errors
from tfda.data import files, images


def _folder(path, split, data_dir):
  """Class sub-folders are labels; a flat folder is unlabelled.

  A folder that holds just `train` and `test` has these splits; in any other all
  images are both.
  """
  del data_dir
  name = f'folder:{path}'
  if not os.path.isdir(path):
    raise errors.UsageError(f'{name}: no such folder')
  transductive = set(_subfolders(path)) != set(files.SPLITS)
  if not transductive:
    path = os.path.join(path, split)
  class_names = _subfolders(path)
  if class_names:
    found = [images.find(os.path.join(path, c)) for c in class_names]
    empty = [c for c, paths in zip(class_names, found) if not paths]
    if empty:
      raise errors.UsageError(
        f'{name}: no images in the class folders {", ".join(empty)}'
      )
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
    labels = labels.astype(np.int32)
  else:
    found, labels = [images.find(path)], None
    if not found[0]:
      raise errors.UsageError(
        f'{name}: no images; they end in {", ".join(images.EXTENSIONS)}'
      )
  paths = tuple(path for class_paths in found for path in class_paths)
  return files.Listing(paths, labels, class_names, transductive)


def _subfolders(root):
  return tuple(
    sorted(
      entry.name
      for entry in os.scandir(root)
      if entry.is_dir() and not entry.name.startswith('.')
    )
  )


# By what a domain's name begins with: the lister, which gets the rest of the
# name as its argument, and what that rest is.
LISTERS = {'folder:': (_folder, 'PATH')}
