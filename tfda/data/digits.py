"""Digits: readers (split, data_dir, image_size, reading) -> images and labels.

  mnist_sample, mnist_m_sample    10,000 MNIST digits in the package; MNIST-M's
                                  rule over photographs of other packages
  optdigits, optdigits_m          scikit-learn's 1,797 digits, the same way
  mnist                           60,000 and 10,000, mnist.npz
  mnist_m                         59,001 and 9,001 as released (Ganin et al.
                                  2016); else MNIST-M's rule over mnist.npz and
                                  the photographs of BSDS500
  svhn                            Street View House Numbers (Netzer et al.
                                  2011), cropped: 73,257 and 26,032
  usps                            7,291 and 2,007 of 16x16 (LeCun et al. 1990)
  syn_numbers                     SYN NUMBERS (Ganin et al. 2016): 479,400 and
                                  9,553 as released; or tools.prepare_data's

They return files.Arrays, of images of any size, or the files.Listing of a set
of image files: domains.load brings them to image_size, so few readers need it,
or `reading`, a files.Reading, themselves. Labels are in [0, 10).
"""

import bz2
import functools
import glob
import gzip
import importlib.resources
import os
import zipfile

import numpy as np

from tfda import errors
from tfda.data import files, generators, images, layouts, storage

CLASS_NAMES = tuple(str(digit) for digit in range(10))

# One seed for all runs: the made domains are data sets, the same for everybody.
_SEED = 2015


def _sample(split, half):
  """Half of the sample: 0 for the source, 1 for the target."""
  resource = importlib.resources.files('tfda.data') / 'mnist_sample.npz'
  with resource.open('rb') as file, np.load(file) as sample:
    return (
      sample[f'{split}_images'][half::2],
      sample[f'{split}_labels'][half::2],
    )


def _mnist_sample(split, data_dir, image_size, reading):
  del data_dir, image_size, reading
  return files.Arrays(*_sample(split, 0))


def _mnist_m_sample(split, data_dir, image_size, reading):
  del data_dir, image_size, reading
  return _blend(*_sample(split, 1), _packaged_photographs(split), split)


def _blend(digits, labels, photographs, split, skipped=()):
  seed = _SEED + files.SPLITS.index(split)
  try:
    blended = generators.blend(digits, photographs, seed)
  except ValueError as error:
    raise errors.UsageError(f'mnist_m: {error}') from error
  return files.Arrays(blended, labels, skipped)


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


def _optdigits(split, data_dir, image_size, reading):
  del data_dir, image_size, reading
  from sklearn import datasets

  digits, labels = datasets.load_digits(return_X_y=True)
  # 8x8 pixels of 0..16, brought to the size of MNIST's; the first 1,297 are for
  # training, the other 500 for test.
  grey = (digits.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).repeat(3, axis=-1)
  grey = images.resize(grey, 28).numpy()[..., 0].astype(np.uint8)
  part = slice(None, 1297) if split == 'train' else slice(1297, None)
  return files.Arrays(grey[part], labels[part])


def _optdigits_m(split, data_dir, image_size, reading):
  digits, labels, _ = _optdigits(split, data_dir, image_size, reading)
  return _blend(digits, labels, _packaged_photographs(split), split)


def _mnist(paths, split, image_size, reading):
  del image_size, reading
  (path,) = paths
  digits, labels = layouts.npz(path, f'x_{split}', f'y_{split}')
  return files.Arrays(
    *layouts.checked(path, digits, labels, (None, None), 0, 9)
  )


def _released_mnist_m(paths, split, image_size, reading):
  del image_size, reading
  (label_file,) = paths
  folder = os.path.join(os.path.dirname(label_file), f'mnist_m_{split}')
  digits, labels = layouts.listed(label_file, folder, 10)
  return files.Listing(tuple(digits), labels, CLASS_NAMES)


def _blended_mnist(paths, split, image_size, reading):
  digits, labels, _ = _mnist(paths, split, image_size, reading)
  photographs, skipped = _bsds500(split, os.path.dirname(paths[0]), reading)
  return _blend(digits, labels, photographs, split, skipped)


def _bsds500(split, data_dir, reading):
  """The photographs of BSDS500: train and val for train, test for test.

  Returns:
    (photographs uint8 [H, W, 3]; ((path, reason), ...) of those skipped).
  """
  folders, paths, archive = _bsds500_files(split, data_dir)
  if paths:
    return _photographs(zip(paths, paths), reading)
  with layouts.refusing(archive), zipfile.ZipFile(archive) as photographs:
    names = [
      name
      for folder in folders
      for name in sorted(photographs.namelist())
      if name.startswith(f'bsds500/{folder}/') and name.endswith('.jpg')
    ]
    if not names:
      raise errors.UsageError(
        f'mnist_m: {archive} has no bsds500/{"|".join(folders)}/*.jpg'
      )
    return _photographs(
      ((f'{archive}: {name}', photographs.open(name)) for name in names),
      reading,
    )


def _bsds500_files(split, data_dir):
  """(folders of the split, paths of files in them, the archive if no files)."""
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
      return folders, paths, None
  if not os.path.isfile(archive):
    raise errors.UsageError(
      f'mnist_m: needs the photographs of BSDS500 as {data_dir}/bsds500/'
      f'{{train,val,test}}/*.jpg or {archive}; neither is there'
    )
  return folders, [], archive


_blended_mnist.needs = _bsds500_files  # For layouts.check_present.


def _photographs(named, reading):
  """Decodes (name, file) in the images' own sizes; returns as _bsds500."""
  names, found = zip(
    *(
      (name, storage.or_reason(images.decode, file, name, reading.max_pixels))
      for name, file in named
    )
  )
  bad = [[i, found[i]] for i in range(len(found)) if isinstance(found[i], str)]
  skipped = storage.skipped(bad, names, reading)
  return [image for image in found if not isinstance(image, str)], skipped


def _house_numbers(lowest, paths, split, image_size, reading):
  del split, reading
  (path,) = paths
  digits, labels = layouts.mat(path, image_size, lowest, lowest + 9)
  return files.Arrays(digits, labels % 10)  # SVHN's label of a zero is 10.


def _usps_text(paths, split, image_size, reading):
  """Lines of the digit and 256 greys."""
  del split, image_size, reading

  def parse(words):
    return float(words[0]), [float(word) for word in words[1:]]

  return _usps_digits(paths[0], gzip.open, parse)


def _usps_libsvm(paths, split, image_size, reading):
  """Lines of the digit + 1 and `index:grey`; 0 where there is no index."""
  del split, image_size, reading

  def parse(words):
    pairs = [word.split(':') for word in words[1:]]
    greys = {int(index): float(grey) for index, grey in pairs}
    if not greys.keys() <= set(range(1, 257)):
      raise ValueError
    return float(words[0]) - 1, [greys.get(i, 0.0) for i in range(1, 257)]

  return _usps_digits(paths[0], bz2.open, parse)


def _usps_digits(path, opened, parse):
  """Images uint8 [N, 16, 16], from greys in -1..1, and labels."""
  digits, labels = [], []
  for where, words in layouts.rows(path, opened=opened):
    try:
      label, greys = parse(words)
    except ValueError:
      label, greys = -1, []
    # A comparison with NaN is false.
    if label not in range(10) or not (
      len(greys) == 256 and np.all(np.abs(greys) <= 1)
    ):
      raise errors.UsageError(
        f'{where}: no digit of USPS, a label and 256 greys in -1..1'
      )
    digits.append(np.round((np.array(greys) + 1) * 127.5).astype(np.uint8))
    labels.append(int(label))
  if not digits:
    raise errors.UsageError(f'{path}: no digits')
  return files.Arrays(np.reshape(digits, [-1, 16, 16]), np.array(labels))


# By domain name.
READERS = {
  'mnist_sample': _mnist_sample,
  'mnist_m_sample': _mnist_m_sample,
  'optdigits': _optdigits,
  'optdigits_m': _optdigits_m,
  **layouts.readers(
    {
      'mnist': (
        [('mnist.npz', 'mnist.npz', _mnist)],
        'it is the file that tf.keras.datasets.mnist.load_data() downloads '
        '(without it, the packaged mnist_sample serves to try things out)',
      ),
      'mnist_m': (
        [
          (
            'mnist_m/mnist_m_train_labels.txt',
            'mnist_m/mnist_m_test_labels.txt',
            _released_mnist_m,
          ),
          ('mnist.npz', 'mnist.npz', _blended_mnist),
        ],
        'the first is released at http://yaroslav.ganin.net, the other, of '
        'tf.keras.datasets.mnist, is blended with the photographs of BSDS500',
      ),
      'svhn': (
        [
          (
            f'{folder}train_32x32.mat',
            f'{folder}test_32x32.mat',
            functools.partial(_house_numbers, 1),
          )
          for folder in ('', 'svhn/')
        ],
        'it is released at http://ufldl.stanford.edu/housenumbers',
      ),
      'syn_numbers': (
        [
          (
            f'{folder}synth_train_32x32.mat',
            f'{folder}synth_test_32x32.mat',
            functools.partial(_house_numbers, 0),
          )
          for folder in ('', 'syn_numbers/')
        ]
        + layouts.made('syn_numbers', CLASS_NAMES),
        'unzip SynthDigits.zip of http://yaroslav.ganin.net',
      ),
      'usps': (
        [
          (folder + train, folder + test, reader)
          for train, test, reader in (
            ('zip.train.gz', 'zip.test.gz', _usps_text),
            ('usps.bz2', 'usps.t.bz2', _usps_libsvm),
          )
          for folder in ('', 'usps/')
        ],
        'it is at https://hastie.su.domains/ElemStatLearn/data.html (.gz) and '
        'at https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets (.bz2)',
      ),
    }
  ),
}
