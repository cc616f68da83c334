"""Traffic signs; their readers are as those of digits.

  gtsrb       the German Traffic Sign Recognition Benchmark (Stallkamp et al.
              2011) as released, 39,209 and 12,630 photographs, cut to the
              signs; or gtsrb.npz, every third of the former, not cut
  syn_signs   SYN SIGNS (Moiseev et al. 2013): 100,000 rendered signs as
              released, or those of tools.prepare_data

Labels are GTSRB's, in [0, 43).
"""

import os

import numpy as np

from tfda import errors
from tfda.data import files, layouts

# In the order of GTSRB's ClassId; all of them are good names of folders.
CLASS_NAMES = (
  'speed limit 20',
  'speed limit 30',
  'speed limit 50',
  'speed limit 60',
  'speed limit 70',
  'speed limit 80',
  'end of speed limit 80',
  'speed limit 100',
  'speed limit 120',
  'no overtaking',
  'no overtaking by trucks',
  'priority at next intersection',
  'priority road',
  'give way',
  'stop',
  'no vehicles',
  'no trucks',
  'no entry',
  'danger',
  'bend left',
  'bend right',
  'double bend',
  'uneven road',
  'slippery road',
  'road narrows',
  'road works',
  'traffic signals',
  'pedestrians',
  'children',
  'cyclists',
  'snow',
  'wild animals',
  'end of restrictions',
  'turn right',
  'turn left',
  'straight ahead',
  'straight ahead or right',
  'straight ahead or left',
  'keep right',
  'keep left',
  'roundabout',
  'end of no overtaking',
  'end of no overtaking by trucks',
)

_COLUMNS = 'Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId'


def _photographs(paths, split, image_size, reading):
  """As released: a folder of each class for training, one folder for test."""
  del image_size, reading
  (root,) = paths
  if split == 'train':
    folders = [os.path.join(root, f'{i:05}') for i in range(len(CLASS_NAMES))]
    tables = [os.path.join(f, f'GT-{os.path.basename(f)}.csv') for f in folders]
  else:
    # The labels are in an archive of their own, without folders.
    folders = [root]
    above = [root, *(os.path.join(root, *[os.pardir] * n) for n in (2, 3))]
    found = [os.path.normpath(f'{a}/GT-final_test.csv') for a in above]
    tables = [path for path in found if os.path.isfile(path)][:1]
    if not tables:
      raise errors.UsageError(
        f'gtsrb: there is no {" or ".join(found)}, the labels of the test '
        'images; it is in GTSRB_Final_Test_GT.zip'
      )
  found = [
    (layouts.image_file(folder, name, where), label, region)
    for folder, table in zip(folders, tables)
    for where, name, region, label in _annotations(table)
  ]
  if not found:
    raise errors.UsageError(f'{tables[0]}: lists no images')
  photographs, labels, regions = zip(*found)
  labels = np.array(labels, np.int32)
  return files.Listing(photographs, labels, CLASS_NAMES, regions=regions)


def _annotations(table):
  """Yields (where, name of the image, region of the sign in it, label)."""
  lines = layouts.rows(table, ';')
  _, header = next(lines, (None, []))
  if ';'.join(header) != _COLUMNS:
    raise errors.UsageError(f'{table}: the columns are not {_COLUMNS}')
  for where, words in lines:
    try:
      name, _, _, *region, label = words
      left, top, right, bottom = (int(word) for word in region)
    except ValueError as error:
      raise errors.UsageError(f'{where}: not of the form {_COLUMNS}') from error
    label = layouts.label(label, len(CLASS_NAMES), where)
    # Without the row and the column of the second corner there is the border
    # of at least 5 pixels that the data set's Readme tells of, on all sides.
    yield where, name, (left, top, right, bottom), label


def _tracks(paths, split, image_size, reading):
  """gtsrb.npz: x and y, ten frames each of the tracks of each class in turn.

  A track is one sign, filmed while passing it. The file has no split; ours
  holds out the third of every five tracks of a class for test, as its frames
  would be too like those of the same track in training.
  """
  del image_size, reading
  (path,) = paths
  pixels, labels = layouts.npz(path, 'x', 'y')
  pixels, labels = layouts.checked(
    path, pixels, labels, (32, 32, 3), 0, len(CLASS_NAMES) - 1
  )
  if (np.diff(labels) < 0).any() or (np.bincount(labels) % 10).any():
    raise errors.UsageError(
      f'{path}: the images are not sorted by class, in tracks of ten'
    )
  frame = np.arange(len(labels)) - np.searchsorted(labels, labels)
  chosen = (frame // 10 % 5 == 2) == (split == 'test')
  return files.Arrays(pixels[chosen], labels[chosen])


def _released_syn_signs(paths, split, image_size, reading):
  """Images in folders, and their labels in lines of 'path label ...'.

  The released set has no test images: where there is no test_labelling.txt, the
  first of every ten lines is for test, our choice.
  """
  del image_size, reading
  (train,) = paths
  folder = os.path.dirname(train)
  test = os.path.join(folder, 'test_labelling.txt')
  has_test = os.path.isfile(test)
  label_file = test if has_test and split == 'test' else train
  images, labels = layouts.listed(label_file, folder, len(CLASS_NAMES))
  if not has_test:
    chosen = (np.arange(len(labels)) % 10 == 0) == (split == 'test')
    images = [path for path, keep in zip(images, chosen) if keep]
    labels = labels[chosen]
  return files.Listing(tuple(images), labels, CLASS_NAMES)


_LABELLING = tuple(
  f'{folder}synthetic_data/train_labelling.txt' for folder in ('', 'syn_signs/')
)
# By domain name.
READERS = layouts.readers(
  {
    'gtsrb': (
      [
        (
          'GTSRB/Final_Training/Images',
          'GTSRB/Final_Test/Images',
          _photographs,
        ),
        ('gtsrb.npz', 'gtsrb.npz', _tracks),
      ],
      'unzip GTSRB_Final_{Training_Images,Test_Images,Test_GT}.zip of '
      'https://benchmark.ini.rub.de',
    ),
    'syn_signs': (
      [
        *((path, path, _released_syn_signs) for path in _LABELLING),
        *layouts.made('syn_signs', CLASS_NAMES),
      ],
      'unzip synthetic_data.zip of http://graphics.cs.msu.ru/en/node/1337',
    ),
  }
)
