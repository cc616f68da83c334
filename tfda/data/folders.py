"""Domains of image files: (argument, split, data_dir) -> files.Listing.

  folder:PATH            one's own images: class sub-folders are labels, a flat
                         folder is unlabelled; one that holds just `train` and
                         `test` has these splits
  list:PATH              one's own text file of lines `image label`, as
                         ImageCLEF has them: paths relative to the file's
                         folder, labels 0 to C-1; PATH.classes has the C class
                         names, a line each, if it is there
  office31/PART          DATA_DIR/office31/PART/[images/]CLASS/*; amazon, dslr,
                         webcam (Saenko et al. 2010)
  office_home/PART       DATA_DIR/office_home/PART/CLASS/*, as is the archive's
                         OfficeHomeDataset_10072016 or OfficeHome; Art, Clipart,
                         Product, Real World (Venkateswara et al. 2017)
  icon_home/PART         DATA_DIR/icon_home/PART/CLASS/*; color, outline, solid
  visda2017/PART         DATA_DIR/visda2017/PART/image_list.txt, lines as of
                         list:PATH; train, validation (Peng et al. 2017)

All but folders with splits are transductive: train and test are the same
images, as in the papers.
"""

import collections
import dataclasses
import functools
import os

import numpy as np

from tfda import errors
from tfda.data import catalogue, files, images, layouts

# In the order of the labels in image_list.txt.
_VISDA2017_CLASSES = (
  *('aeroplane', 'bicycle', 'bus', 'car', 'horse', 'knife', 'motorcycle'),
  *('person', 'plant', 'skateboard', 'train', 'truck'),
)
_SPLIT_NAMES = {*files.SPLITS, 'val', 'valid', 'validation'}


def _folder(path, split, data_dir):
  del data_dir
  name = f'folder:{files.shown(path)}'
  if not os.path.isdir(path):
    raise errors.UsageError(f'{name}: no such folder')
  names, beside = _subfolders(name, path)
  transductive = set(names) != set(files.SPLITS)
  if not transductive:
    path = os.path.join(path, split)
  elif len(_SPLIT_NAMES.intersection(names)) > 1:
    raise errors.UsageError(
      f'{name}: holds {_series(names)}; a folder with splits holds train and '
      'test alone'
    )
  if _subfolders(name, path)[0]:
    listing = _class_folders(name, path)
    skipped = listing.skipped if transductive else beside + listing.skipped
    return dataclasses.replace(
      listing, transductive=transductive, skipped=skipped
    )
  paths = images.find(path)
  if not paths:
    raise errors.UsageError(
      f'{name}: no images; they end in {", ".join(images.EXTENSIONS)}'
    )
  skipped = () if transductive else beside
  return files.Listing(tuple(paths), None, (), transductive, skipped)


def _class_folders(name, path):
  """The Listing of a folder whose sub-folders are classes."""
  class_names, beside = _subfolders(name, path)
  folders = [os.path.join(path, class_name) for class_name in class_names]
  places = [os.path.realpath(folder) for folder in folders]
  found = [
    images.find(folder, set(places) - {place})
    for folder, place in zip(folders, places)
  ]
  labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
  paths = [path for class_paths in found for path in class_paths]
  return _listing(name, paths, labels, class_names, beside)


def _listing(name, paths, labels, class_names, skipped=()):
  by_likeness = collections.defaultdict(list)
  for class_name in class_names:
    by_likeness[files.alike(class_name)].append(class_name)
  for names in by_likeness.values():
    if len(names) > 1:
      raise errors.UsageError(
        f'{name}: {" and ".join(map(files.shown, names))} are one class to a '
        'reader: rename or join them'
      )
  counts = np.bincount(labels, minlength=len(class_names))
  empty = [c for c, count in zip(class_names, counts) if not count]
  if empty or not class_names:
    raise errors.UsageError(
      f'{name}: no images of the classes {_series(empty)}'
      if empty
      else f'{name}: no class folders'
    )
  return files.Listing(
    tuple(paths), labels.astype(np.int32), tuple(class_names), True, skipped
  )


def _subfolders(name, path):
  """Returns (names of the folders in a folder; images beside them, skipped)."""
  try:
    entries = [e for e in os.scandir(path) if not e.name.startswith('.')]
    names = sorted(entry.name for entry in entries if entry.is_dir())
  except OSError as error:
    raise errors.UsageError(
      f'{name}: {files.shown(error.filename)}: {error.strerror}'
    ) from error
  beside = sorted(
    entry.path
    for entry in entries
    if entry.name not in names
    and entry.name.lower().endswith(images.EXTENSIONS)
  )
  reason = 'lies beside folders, in none of them'
  return names, tuple((image, reason) for image in beside)


def _series(names):
  return ', '.join(map(files.shown, names))


def _list(path, split, data_dir):
  del split, data_dir
  name = f'list:{files.shown(path)}'
  if not os.path.isfile(path):
    raise errors.UsageError(f'{name}: no such file')
  class_names = None
  if os.path.isfile(f'{path}.classes'):
    rows = layouts.rows(f'{path}.classes', separator='\n')
    class_names = [class_name for _, (class_name,) in rows]
  return _listed(name, path, class_names)


def _listed(name, path, class_names=None):
  """The Listing of a text file; class names are numbers if there are none."""
  lines = []
  for where, (line,) in layouts.rows(path, separator='\n'):
    # From the right: a path may have spaces in it.
    words = line.rsplit(maxsplit=1)
    if len(words) < 2:
      raise errors.UsageError(f'{where}: not of the form "path label"')
    lines.append((where, *words))
  if not lines:
    raise errors.UsageError(f'{name}: lists no images')
  if class_names is None:
    class_names = [str(i) for i in range(len({label for *_, label in lines}))]
  paths, labels = [], []
  for where, image, label in lines:
    labels.append(layouts.label(label, len(class_names), where))
    paths.append(layouts.image_file(os.path.dirname(path), image, where))
  return _listing(name, paths, np.array(labels), class_names)


def _in_parts(roots, parts, read, part, split, data_dir):
  """A set whose parts are folders, each a domain.

  Args:
    roots: names that the set's folder may have, the set's own first.
    parts: the names of the parts; a space may be written _, or not at all.
    read: (domain's name, folder of the part) -> Listing.
    part: which one is asked for.
    split: either; both are the same.
    data_dir: --data_dir.
  """
  del split
  name = f'{roots[0]}/{part}'
  spellings = [s for s in map(_spellings, parts) if part in s]
  if not spellings:
    known = [f'{roots[0]}/{part}' for part in parts]
    raise errors.UsageError(
      f'{name}: no such domain; {errors.near(name, known)}'
    )
  data_dir = files.data_dir(name, data_dir)
  for root in roots:
    for spelling in spellings[0]:
      path = os.path.join(data_dir, root, spelling)
      if os.path.isdir(path):
        return read(name, path)
  path = os.path.join(data_dir, roots[0], part)
  archives = [os.path.join(data_dir, f'{root}.zip') for root in roots]
  advice = [
    f'; unzip {a} into {data_dir}' for a in archives if os.path.isfile(a)
  ]
  raise errors.UsageError(
    f'{name}: {path} is missing'
    + (''.join(advice) or f'; where it is had: {catalogue.of(name).home}')
  )


def _spellings(part):
  return part, part.replace(' ', '_'), part.replace(' ', '')


def _with_images_folder(name, path):
  """The older layout of Office-31 has the class folders in `images`."""
  inner = os.path.join(path, 'images')
  return _class_folders(name, inner if os.path.isdir(inner) else path)


def _with_image_list(name, path):
  path = os.path.join(path, 'image_list.txt')
  if not os.path.isfile(path):
    raise errors.UsageError(f'{name}: {path} is missing')
  return _listed(name, path, _VISDA2017_CLASSES)


# (roots, parts, read) of _in_parts.
_SETS = (
  (('office31',), ('amazon', 'dslr', 'webcam'), _with_images_folder),
  (
    ('office_home', 'OfficeHomeDataset_10072016', 'OfficeHome'),
    ('Art', 'Clipart', 'Product', 'Real World'),
    _class_folders,
  ),
  (('icon_home',), ('color', 'outline', 'solid'), _class_folders),
  (('visda2017',), ('train', 'validation'), _with_image_list),
)

# By what a domain's name begins with: the lister, which gets the rest of the
# name as its argument, and what that rest may be.
LISTERS = {
  'folder:': (_folder, ('PATH',)),
  'list:': (_list, ('PATH',)),
  **{
    f'{roots[0]}/': (functools.partial(_in_parts, roots, parts, read), parts)
    for roots, parts, read in _SETS
  },
}
