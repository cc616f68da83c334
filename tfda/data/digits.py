"""Digits: every reader is (split, data_dir, image_size) -> (images, labels).

  mnist_sample, mnist_m_sample    10,000 MNIST digits in the package; MNIST-M's
                                  rule over photographs of other packages
  optdigits, optdigits_m          scikit-learn's 1,797 digits, the same way
  mnist, mnist_m                  mnist.npz, and for mnist_m the photographs of
                                  BSDS500

Images are uint8 [N, H, W] or [N, H, W, 3] of any size: domains.load brings
them to image_size. Labels are integers [N] in [0, 10).
"""

import glob
import importlib.resources
import os
import zipfile
import zlib

import numpy as np

from tfda import errors
from tfda.data import files, generators, images

CLASS_NAMES = tuple(str(digit) for digit in range(10))

# One seed for all runs: the made domains are data sets, the same for everybody.
_SEED = 2015


def _mnist_sample_digits(split, half):
  """Half of the sample: 0 for the source, 1 for the target."""
  resource = importlib.resources.files('tfda.data') / 'mnist_sample.npz'
  with resource.open('rb') as file, np.load(file) as sample:
    return (
      sample[f'{split}_images'][half::2],
      sample[f'{split}_labels'][half::2],
    )


def _mnist_sample(split, data_dir, image_size):
  del data_dir, image_size
  return _mnist_sample_digits(split, 0)


def _mnist_m_sample(split, data_dir, image_size):
  del data_dir, image_size
  digits, labels = _mnist_sample_digits(split, 1)
  return _blend(digits, _packaged_photographs(split), split), labels


def _blend(digits, photographs, split):
  try:
    return generators.blend(
      digits, photographs, _SEED + files.SPLITS.index(split)
    )
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
  return photographs[files.SPLITS.index(split) :: 2]


def _optdigits(split, data_dir, image_size):
  del data_dir, image_size
  from sklearn import datasets

  digits, labels = datasets.load_digits(return_X_y=True)
  # 8x8 pixels of 0..16, brought to the size of MNIST's; the first 1,297 are for
  # training, the other 500 for test.
  grey = (digits.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).repeat(3, axis=-1)
  grey = images.resize(grey, 28).numpy()[..., 0].astype(np.uint8)
  part = slice(None, 1297) if split == 'train' else slice(1297, None)
  return grey[part], labels[part]


def _optdigits_m(split, data_dir, image_size):
  digits, labels = _optdigits(split, data_dir, image_size)
  return _blend(digits, _packaged_photographs(split), split), labels


def _mnist(split, data_dir, image_size):
  del image_size
  path = os.path.join(files.data_dir('mnist', data_dir), 'mnist.npz')
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


def _mnist_m(split, data_dir, image_size):
  digits, labels = _mnist(split, data_dir, image_size)
  return _blend(digits, _bsds500(split, data_dir), split), labels


def _bsds500(split, data_dir):
  """The photographs of BSDS500: train and val for train, test for test."""
  data_dir = files.data_dir('mnist_m', data_dir)
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


# By domain name.
READERS = {
  'mnist': _mnist,
  'mnist_m': _mnist_m,
  'mnist_sample': _mnist_sample,
  'mnist_m_sample': _mnist_m_sample,
  'optdigits': _optdigits,
  'optdigits_m': _optdigits_m,
}
