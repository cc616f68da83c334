"""Domains: a name gives images, labels where there are any, and class names.

  mnist_sample, mnist_m_sample    10,000 MNIST digits in the package; MNIST-M's
                                  rule over photographs of other packages
  optdigits, optdigits_m          scikit-learn's 1,797 digits, the same way
  mnist, mnist_m                  from --data_dir: mnist.npz, and for mnist_m
                                  the photographs of BSDS500
  folder:PATH                     one's own images

Adding one is a function (split, data_dir) -> Domain and its line in `_DOMAINS`.
"""

import concurrent.futures
import dataclasses
import glob
import importlib.resources
import os
import zipfile
import zlib
from typing import Optional

import numpy as np

from tfda import errors
from tfda.data import generators, images

SPLITS = ('train', 'test')

# One seed for all runs: the made domains are data sets, the same for everybody.
_SEED = 2015
_DIGITS = tuple(str(digit) for digit in range(10))


@dataclasses.dataclass(frozen=True)
class Domain:
  """Images of one kind.

  Attributes:
    name: as given, for example 'mnist' or 'folder:photos'.
    split: 'train' or 'test'.
    images: uint8 [N, S, S, 3].
    labels: int32 [N] in [0, C), or None.
    class_names: C names, or () where there are no labels.
    transductive: whether the other split is the same images.
  """

  name: str
  split: str
  images: np.ndarray
  labels: Optional[np.ndarray]
  class_names: tuple[str, ...]
  transductive: bool = False


def load(name, split, image_size, data_dir=None):
  """Loads a split of a domain.

  Args:
    name: see the module.
    split: 'train' or 'test'.
    image_size: side of the square images in pixels; others are resized.
    data_dir: where downloaded data sets are; not needed by all.

  Raises:
    UsageError: unknown name, missing or unreadable data; says which.
  """
  if name.startswith('folder:'):
    return _folder(name, split, image_size)
  if name not in _DOMAINS:
    known = [*_DOMAINS, 'folder:PATH']
    raise errors.UsageError(
      f'{name}: no such domain; {errors.near(name, known)}'
    )
  pixels, labels = _DOMAINS[name](split, data_dir)
  if pixels.ndim == 3:
    pixels = np.repeat(pixels[..., np.newaxis], 3, axis=-1)
  if pixels.shape[1] != image_size:
    chunks = [
      images.resize(pixels[i : i + 1000], image_size).numpy().astype(np.uint8)
      for i in range(0, len(pixels), 1000)
    ]
    pixels = np.concatenate(chunks)
  return Domain(name, split, pixels, labels.astype(np.int32), _DIGITS)


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


# Digits.


def _mnist_sample_digits(split, half):
  """Half of the sample: 0 for the source, 1 for the target."""
  resource = importlib.resources.files('tfda.data') / 'mnist_sample.npz'
  with resource.open('rb') as file, np.load(file) as sample:
    return (
      sample[f'{split}_images'][half::2],
      sample[f'{split}_labels'][half::2],
    )


def _mnist_sample(split, data_dir):
  del data_dir
  return _mnist_sample_digits(split, 0)


def _mnist_m_sample(split, data_dir):
  del data_dir
  digits, labels = _mnist_sample_digits(split, 1)
  return _blend(digits, _packaged_photographs(split), split), labels


def _blend(digits, photographs, split):
  try:
    return generators.blend(digits, photographs, _SEED + SPLITS.index(split))
  except ValueError as error:
    raise errors.UsageError(f'mnist_m: {error}') from error


def _packaged_photographs(split):
  """Photographs that pinned packages ship; others for test than for train.

  All of an everyday scene in colour whose 28x28 crops have a standard deviation
  of 20 or more on average, the lower quartile of BSDS500's photographs: over a
  plain ground the target would be the source again. By the alphabet, every
  second one is for test.
  """
  from skimage import data as skimage_data
  from sklearn import datasets

  photographs = [
    skimage_data.astronaut(),
    skimage_data.chelsea(),
    datasets.load_sample_image('china.jpg'),
    skimage_data.coffee(),
    skimage_data.stereo_motorcycle()[0],
  ]
  return photographs[SPLITS.index(split) :: 2]


def _optdigits(split, data_dir):
  del data_dir
  from sklearn import datasets

  digits, labels = datasets.load_digits(return_X_y=True)
  # 8x8 pixels of 0..16, brought to the size of MNIST's; the first 1,297 are for
  # training, the other 500 for test.
  grey = (digits.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).repeat(3, axis=-1)
  grey = images.resize(grey, 28).numpy()[..., 0].astype(np.uint8)
  part = slice(None, 1297) if split == 'train' else slice(1297, None)
  return grey[part], labels[part]


def _optdigits_m(split, data_dir):
  digits, labels = _optdigits(split, data_dir)
  return _blend(digits, _packaged_photographs(split), split), labels


def _mnist(split, data_dir):
  path = os.path.join(_data_dir('mnist', data_dir), 'mnist.npz')
  if not os.path.isfile(path):
    raise errors.UsageError(
      f'mnist: {path} is missing; it is the file that '
      'tf.keras.datasets.mnist.load_data() downloads (without it, the '
      'packaged mnist_sample serves to try things out)'
    )
  try:
    with np.load(path, allow_pickle=False) as data:
      return data[f'x_{split}'], data[f'y_{split}']
  except (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise errors.UsageError(f'mnist: {path}: {error}') from error


def _mnist_m(split, data_dir):
  digits, labels = _mnist(split, data_dir)
  return _blend(digits, _bsds500(split, data_dir), split), labels


def _bsds500(split, data_dir):
  """The photographs of BSDS500: train and val for train, test for test."""
  data_dir = _data_dir('mnist_m', data_dir)
  archive = os.path.join(data_dir, 'bsds500_photos.zip')
  folders = ('train', 'val') if split == 'train' else ('test',)
  for root in ('bsds500', os.path.join('BSDS500', 'data', 'images')):
    paths = [
      path
      for folder in folders
      for path in sorted(
        glob.glob(os.path.join(glob.escape(data_dir), root, folder, '*.jpg'))
      )
    ]
    if paths:
      return [images.decode(path, path) for path in paths]
  if not os.path.isfile(archive):
    raise errors.UsageError(
      f'mnist_m: needs the photographs of BSDS500 as {data_dir}/bsds500/'
      f'{{train,val,test}}/*.jpg or {archive}; neither is there'
    )
  try:
    with zipfile.ZipFile(archive) as photographs:
      names = [
        name
        for folder in folders
        for name in sorted(photographs.namelist())
        if name.startswith(f'bsds500/{folder}/') and name.endswith('.jpg')
      ]
      found = [
        images.decode(photographs.open(name), f'{archive}: {name}')
        for name in names
      ]
  except zipfile.BadZipFile as error:
    raise errors.UsageError(f'mnist_m: {archive}: {error}') from error
  if not found:
    raise errors.UsageError(
      f'mnist_m: {archive} has no bsds500/{"|".join(folders)}/*.jpg'
    )
  return found


def _data_dir(name, data_dir):
  if not data_dir:
    raise errors.UsageError(
      f'{name} is read from --data_dir, which is not set (without it there '
      'are mnist_sample, mnist_m_sample, optdigits, optdigits_m)'
    )
  if not os.path.isdir(data_dir):
    raise errors.UsageError(f'--data_dir={data_dir}: no such folder')
  return data_dir


_DOMAINS = {
  'mnist': _mnist,
  'mnist_m': _mnist_m,
  'mnist_sample': _mnist_sample,
  'mnist_m_sample': _mnist_m_sample,
  'optdigits': _optdigits,
  'optdigits_m': _optdigits_m,
}


# Folders.


def _folder(name, split, image_size):
  """Class sub-folders are labels; a flat folder is unlabelled.

  A folder that holds just `train` and `test` has these splits; in any other all
  images are both.
  """
  root = name[len('folder:') :]
  if not os.path.isdir(root):
    raise errors.UsageError(f'{name}: no such folder')
  transductive = set(_subfolders(root)) != set(SPLITS)
  if not transductive:
    root = os.path.join(root, split)
  class_names = _subfolders(root)
  if class_names:
    found = [images.find(os.path.join(root, c)) for c in class_names]
    empty = [c for c, paths in zip(class_names, found) if not paths]
    if empty:
      raise errors.UsageError(
        f'{name}: no images in the class folders {", ".join(empty)}'
      )
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
    labels = labels.astype(np.int32)
  else:
    found, labels = [images.find(root)], None
    if not found[0]:
      raise errors.UsageError(
        f'{name}: no images; they end in {", ".join(images.EXTENSIONS)}'
      )
  paths = [path for class_paths in found for path in class_paths]
  with concurrent.futures.ThreadPoolExecutor() as pool:
    pixels = np.stack(
      list(pool.map(lambda path: images.read(path, image_size), paths))
    )
  return Domain(name, split, pixels, labels, class_names, transductive)


def _subfolders(root):
  return tuple(
    sorted(
      entry.name
      for entry in os.scandir(root)
      if entry.is_dir() and not entry.name.startswith('.')
    )
  )
