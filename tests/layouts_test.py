"""Layouts: which is read, what is refused, what TensorFlow's records hold.

The domain is syn_numbers, which has them all.
"""

import numpy as np
import pytest
import scipy.io

from tests import data_files
from tfda import errors
from tfda.data import domains, files, layouts

_RED = np.full([4, 4, 3], [200, 0, 0], np.uint8)


def _load(data_dir, split='train', size=4):
  return domains.load('syn_numbers', split, size, str(data_dir))


def _refused(data_dir, split='train'):
  return data_files.refused('syn_numbers', split, 4, data_dir)


# Which layout.


def _write_mat(path, digits, labels, **changed):
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {
    'X': digits.transpose(1, 2, 3, 0),
    'y': np.array(labels, np.uint8)[:, np.newaxis],
  }
  scipy.io.savemat(path, {**arrays, **changed}, do_compression=True)


def _write_all(data_dir):
  """Every layout of both splits, the later ones with a higher label."""
  for split in domains.SPLITS:
    for label, folder in enumerate(['', 'syn_numbers/']):
      path = data_dir / f'{folder}synth_{split}_32x32.mat'
      _write_mat(path, np.zeros([2, 32, 32, 3], np.uint8), [label] * 2)
    folder = data_dir / 'syn_numbers'
    data_files.write_records(
      folder / f'{split}-00000-of-00001.tfrecord', [data_files.example(_RED, 2)]
    )
    data_files.write(folder / split / '3' / 'a.png', _RED)
  return [
    'synth_{}_32x32.mat',
    'syn_numbers/synth_{}_32x32.mat',
    'syn_numbers/{}-00000-of-00001.tfrecord',
    'syn_numbers/{}/3/a.png',
  ]


def test_the_first_layout_that_is_there_is_read(tmp_path):
  for label, path in enumerate(_write_all(tmp_path)):
    for split in domains.SPLITS:
      assert set(_load(tmp_path, split).labels) == {label}
      (tmp_path / path.format(split)).unlink()


def test_splits_of_two_layouts_do_not_mix(tmp_path):
  for path in _write_all(tmp_path)[:3]:
    (tmp_path / path.format('test')).unlink()
    _load(tmp_path, 'train')
    message = _refused(tmp_path, 'test')
    assert path.format('test')[:16] in message
    assert str(tmp_path / path.format('train')) in message
    (tmp_path / path.format('train')).unlink()
  _load(tmp_path, 'test')


def test_nothing_there_names_all_that_could_be(tmp_path):
  message = _refused(tmp_path, 'test')
  for name in (
    'synth_test_32x32.mat',
    'syn_numbers/synth_test_32x32.mat',
    'syn_numbers/test-?????-of-?????.tfrecord',
    'syn_numbers/test',
  ):
    assert str(tmp_path / name) in message
  assert 'SynthDigits.zip' in message and 'yaroslav.ganin.net' in message


@pytest.mark.parametrize(
  'name', ['gtsrb', 'mnist_m', 'svhn', 'syn_numbers', 'syn_signs', 'usps']
)
def test_data_dir_is_asked_for(name, tmp_path):
  assert '--data_dir' in data_files.refused(name, 'train', 4)
  assert 'nowhere' in data_files.refused(name, 'train', 4, tmp_path / 'nowhere')
  assert 'http' in data_files.refused(name, 'train', 4, tmp_path)


# TFRecords.


def test_records_of_all_shards_in_order(tmp_path):
  images = data_files.noise(7, 4, 4, 3)
  labels = [3, 1, 4, 1, 5, 9, 2]
  records = [data_files.example(*pair) for pair in zip(images, labels)]
  folder = tmp_path / 'syn_numbers'
  for i, shard in enumerate([records[:3], records[3:6], records[6:]]):
    data_files.write_records(folder / f'train-{i:05}-of-00003.tfrecord', shard)
  domain = _load(tmp_path)
  np.testing.assert_array_equal(domain.images, images)
  np.testing.assert_array_equal(domain.labels, labels)
  assert domain.labels.dtype == np.int32
  assert domain.class_names == tuple('0123456789')


def test_records_are_brought_to_size(tmp_path):
  # Halved: each pixel is nearest to the mean of its 2x2, the edge aside.
  columns = np.repeat(np.arange(0, 160, 10, dtype=np.uint8)[np.newaxis], 16, 0)
  data_files.write_records(
    tmp_path / 'syn_numbers/train-00000-of-00001.tfrecord',
    [data_files.example(np.stack([columns] * 3, -1), 0)],
  )
  (image,) = _load(tmp_path, size=8).images
  np.testing.assert_array_equal(
    image[:, 1:-1, 1], np.tile([25, 45, 65, 85, 105, 125], [8, 1])
  )


@pytest.mark.parametrize(
  'there', ['00000-of-00002', '00001-of-00002', '00000-of-00001 00000-of-00002']
)
def test_a_shard_is_missing_or_too_many(tmp_path, there):
  for name in there.split():
    data_files.write_records(
      tmp_path / f'syn_numbers/train-{name}.tfrecord',
      [data_files.example(_RED, 0)],
    )
  message = _refused(tmp_path)
  assert str(tmp_path / 'syn_numbers/train-') in message and 'shards' in message


@pytest.mark.parametrize(
  'records, reason',
  [
    ([], 'no examples'),
    ([b'no example'], 'parse'),
    ([data_files.example(b'no image', 1)], 'image'),
    ([data_files.example(_RED, 1), data_files.example(_RED, 10)], 'image 1'),
    ([data_files.example(_RED, -1)], '-1'),
    (
      [data_files.example(_RED, 1), data_files.example(_RED[:2], 1)],
      'number of elements',
    ),
  ],
)
def test_bad_records(tmp_path, records, reason):
  folder = tmp_path / 'syn_numbers'
  data_files.write_records(
    folder / 'train-00000-of-00002.tfrecord', [data_files.example(_RED, 1)]
  )
  data_files.write_records(folder / 'train-00001-of-00002.tfrecord', records)
  message = _refused(tmp_path)
  assert 'train-00001-of-00002.tfrecord' in message and reason in message
  assert '{{' not in message and '[Op' not in message


def test_a_record_without_a_label(tmp_path):
  record = data_files.example(_RED, 1).replace(b'label', b'lapel')
  path = tmp_path / 'syn_numbers/train-00000-of-00001.tfrecord'
  data_files.write_records(path, [record])
  message = _refused(tmp_path)
  assert path.name in message and 'label' in message


def test_truncated_records(tmp_path):
  path = tmp_path / 'syn_numbers/train-00000-of-00001.tfrecord'
  data_files.write_records(path, [data_files.example(_RED, 1)] * 3)
  data_files.cut(path)
  message = _refused(tmp_path)
  assert path.name in message and 'truncated' in message


# Class folders.


def test_class_folders(tmp_path):
  folder = tmp_path / 'syn_numbers' / 'train'
  images = data_files.noise(4, 4, 4, 3)
  for image, name in zip(images, ['0/b', '0/c', '07/a', '9/a']):
    data_files.write(folder / f'{name}.png', image)
  data_files.write(folder / 'notes.txt', 'no class')
  data_files.write(folder / '.cache' / 'x.png', images[0])
  domain = _load(tmp_path)
  np.testing.assert_array_equal(domain.images, images)
  np.testing.assert_array_equal(domain.labels, [0, 0, 7, 9])


@pytest.mark.parametrize('name', ['10', '-1', 'ten', '1.0'])
def test_a_folder_that_is_no_class(tmp_path, name):
  data_files.write(tmp_path / 'syn_numbers/train/0/a.png', _RED)
  data_files.write(tmp_path / f'syn_numbers/train/{name}/a.png', _RED)
  message = _refused(tmp_path)
  assert f'train/{name}' in message and '0 to 9' in message


def test_empty_class_folders(tmp_path):
  folder = tmp_path / 'syn_numbers' / 'train'
  folder.mkdir(parents=True)
  message = _refused(tmp_path)
  assert str(folder) in message and 'no folders' in message
  data_files.write(folder / '0' / 'a.png', _RED)
  (folder / '1').mkdir()
  message = _refused(tmp_path)
  assert str(folder / '1') in message and 'no images' in message


def test_a_broken_image(tmp_path):
  data_files.write(tmp_path / 'syn_numbers/train/0/a.png', _RED)
  bad = data_files.write(tmp_path / 'syn_numbers/train/1/b.png', b'no image')
  assert f'1 of 2 images cannot be read: {bad} (' in _refused(tmp_path)


def test_a_broken_image_is_skipped_on_demand(tmp_path):
  folder = tmp_path / 'syn_numbers' / 'train'
  pictures = data_files.noise(4, 4, 4, 3)
  for picture, name in zip(pictures, ['0/a', '2/a', '2/b', '7/a']):
    data_files.write(folder / f'{name}.png', picture)
  data_files.write(folder / '2' / 'a.png', b'')
  skip = files.Reading(on_bad_image='skip')
  domain = domains.load('syn_numbers', 'train', 4, str(tmp_path), skip)
  assert domain.skipped == ((str(folder / '2' / 'a.png'), 'an empty file'),)
  np.testing.assert_array_equal(domain.images, pictures[[0, 2, 3]])
  np.testing.assert_array_equal(domain.labels, [0, 2, 7])


# MATLAB.


@pytest.mark.parametrize('size', [32, 16])
def test_a_large_file_is_resized_part_by_part(tmp_path, monkeypatch, size):
  monkeypatch.setattr(layouts, '_PART', 4)
  # Halving an image of 2x2 squares of one value keeps the values.
  squares = data_files.noise(10, 1, 1, 3)
  digits = np.broadcast_to(squares, [10, 32, 32, 3])
  _write_mat(tmp_path / 'synth_train_32x32.mat', digits, np.arange(10))
  domain = _load(tmp_path, size=size)
  np.testing.assert_array_equal(
    domain.images, np.broadcast_to(squares, [10, size, size, 3])
  )
  np.testing.assert_array_equal(domain.labels, np.arange(10))


# What an archive holds.

_IMAGES = np.zeros([3, 8, 8, 3], np.uint8)


def _checked(pixels=_IMAGES, labels=(0, 1, 2)):
  return layouts.checked(
    'a.npz', pixels, np.asarray(labels), (8, None, 3), 0, 9
  )


@pytest.mark.parametrize(
  'labels', [[0, 1, 9], [[0], [1], [9]], [[0.0, 1.0, 9.0]]]
)
def test_labels_of_any_layout(labels):
  pixels, labels = _checked(labels=labels)
  assert pixels is _IMAGES
  assert labels.dtype == np.int64
  np.testing.assert_array_equal(labels, [0, 1, 9])


@pytest.mark.parametrize(
  'pixels',
  [
    _IMAGES.astype(np.float32),
    _IMAGES.astype(object),
    _IMAGES[..., 0],
    _IMAGES[:, :7],
    _IMAGES[..., :2],
    _IMAGES[:0],
  ],
)
def test_arrays_that_are_no_images(pixels):
  with pytest.raises(errors.UsageError, match=r'a\.npz: .* uint8 of 8xanyx3'):
    _checked(pixels)


@pytest.mark.parametrize(
  'labels, reason',
  [
    ([0, 1], 'not as many'),
    ([0, 1, 2, 3], 'not as many'),
    (['0', '1', '2'], 'numbers'),
    (np.array([0, 1, None]), 'numbers'),
    ([0, 10, 2], 'image 1 is 10'),
    ([0, 1, -1], 'image 2 is -1'),
    ([0.5, 1, 2], 'image 0 is 0.5'),
    ([0, np.nan, 2], 'image 1 is nan'),
    ([0, np.inf, 2], 'image 1 is inf'),
  ],
)
def test_arrays_that_are_no_labels(labels, reason):
  with pytest.raises(errors.UsageError, match=reason):
    _checked(labels=labels)
