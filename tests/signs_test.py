"""Traffic signs: GTSRB as released and as gtsrb.npz, SYN SIGNS."""

import shutil

import numpy as np
import pytest

from tests import data_files
from tfda import errors
from tfda.data import domains, files, images, signs

_HEADER = 'Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId'


def test_class_names_are_43_and_good_names_of_folders():
  assert len(set(signs.CLASS_NAMES)) == 43
  # As GTSRB's ClassId has them.
  for label, name in ((0, 'speed limit 20'), (14, 'stop'), (42, 'trucks')):
    assert name in signs.CLASS_NAMES[label]
  for name in signs.CLASS_NAMES:
    assert name.replace(' ', '').isalnum() and name == name.lower().strip()


# GTSRB as released.


def _write_table(path, *lines):
  data_files.write(path, ''.join(f'{line}\r\n' for line in (_HEADER, *lines)))


@pytest.fixture
def released(tmp_path):
  """Two images of class 3, one of every other, and three for test."""
  images = tmp_path / 'GTSRB' / 'Final_Training' / 'Images'
  for label in range(43):
    lines = []
    for i in range(2 if label == 3 else 1):
      image = np.full([20, 30, 3], 255, np.uint8)
      image[5:15, 6:24] = [5 * label, 100 * i, 0]
      data_files.write(images / f'{label:05}' / f'0000{i}_00000.ppm', image)
      lines.append(f'0000{i}_00000.ppm;30;20;6;5;24;15;{label}')
    _write_table(images / f'{label:05}' / f'GT-{label:05}.csv', *lines)
  images = tmp_path / 'GTSRB' / 'Final_Test' / 'Images'
  for i in range(3):
    data_files.write(images / f'{i:05}.ppm', data_files.noise(9, 8, 3, seed=i))
  _write_table(
    images / 'GT-final_test.csv',
    '00000.ppm;8;9;1;2;5;6;16',
    '00001.ppm;8;9;4;5;8;9;0',
    '00002.ppm;8;9;0;0;4;4;42',
  )
  # The table without labels that comes with the images.
  data_files.write(images / 'GT-final_test.test.csv', 'Filename;Width\n')
  return tmp_path


def test_released_gtsrb_is_cut_to_the_signs(released):
  domain = domains.load('gtsrb', 'train', 8, str(released))
  np.testing.assert_array_equal(domain.labels, [0, 1, 2, 3, 3, *range(4, 43)])
  assert domain.class_names == signs.CLASS_NAMES
  assert domain.images.shape == (44, 8, 8, 3)
  assert domain.images.dtype == np.uint8
  colours = [
    [5 * label, 100 * (i == 4), 0] for i, label in enumerate(domain.labels)
  ]
  # Nothing of the white around the signs is left.
  np.testing.assert_array_equal(
    domain.images,
    np.broadcast_to(np.reshape(colours, [44, 1, 1, 3]), [44, 8, 8, 3]),
  )


@pytest.mark.parametrize('place', ['Final_Test/Images', '', '..'])
def test_released_gtsrb_for_test(released, place):
  root = released / 'GTSRB'
  table = root / 'Final_Test' / 'Images' / 'GT-final_test.csv'
  table.rename(root / place / 'GT-final_test.csv')
  domain = domains.load('gtsrb', 'test', 4, str(released))
  np.testing.assert_array_equal(domain.labels, [16, 0, 42])
  for i, (x, y) in enumerate([(1, 2), (4, 5), (0, 0)]):
    np.testing.assert_array_equal(
      domain.images[i],
      data_files.noise(9, 8, 3, seed=i)[y : y + 4, x : x + 4],
    )


def test_gtsrb_without_its_test_labels(released):
  (released / 'GTSRB/Final_Test/Images/GT-final_test.csv').unlink()
  message = data_files.refused('gtsrb', 'test', 8, released)
  for path in ('GTSRB/Final_Test/Images/', 'GTSRB/', ''):
    assert f'{released}/{path}GT-final_test.csv' in message
  assert 'GTSRB_Final_Test_GT.zip' in message


def test_half_of_the_released_gtsrb_is_not_completed_by_the_file(released):
  _write_npz(released)
  shutil.rmtree(released / 'GTSRB' / 'Final_Test')
  message = data_files.refused('gtsrb', 'test', 8, released)
  assert 'GTSRB/Final_Test/Images is missing' in message


def test_gtsrb_without_a_class(released):
  shutil.rmtree(released / 'GTSRB/Final_Training/Images/00017')
  assert '00017' in data_files.refused('gtsrb', 'train', 8, released)


@pytest.mark.parametrize(
  'line, reason',
  [
    ('00001.ppm;8;9;1;2;5;6;43', "'43'"),
    ('00001.ppm;8;9;1;2;5;6;-1', "'-1'"),
    ('00001.ppm;8;9;1;2;5;6;', "''"),
    ('00001.ppm;8;9;1;2;5;6', _HEADER),
    ('00001.ppm;8;9;1;2;5;6;7;8', _HEADER),
    ('00001.ppm;8;9;1;2;five;6;7', _HEADER),
    ('00001.ppm,8,9,1,2,5,6,7', _HEADER),
    ('00009.ppm;8;9;1;2;5;6;7', "00009.ppm' is missing"),
    ('../../00001.ppm;8;9;1;2;5;6;7', 'outside'),
    ('/00001.ppm;8;9;1;2;5;6;7', 'outside'),
  ],
)
def test_bad_line_of_the_annotations(released, line, reason):
  table = released / 'GTSRB/Final_Test/Images/GT-final_test.csv'
  _write_table(table, '00000.ppm;8;9;1;2;5;6;16', line)
  message = data_files.refused('gtsrb', 'test', 8, released)
  assert f'{table}, line 3: ' in message and reason in message


def test_annotations_of_no_image(released):
  table = released / 'GTSRB/Final_Test/Images/GT-final_test.csv'
  _write_table(table)
  message = data_files.refused('gtsrb', 'test', 8, released)
  assert message == f'{table}: lists no images'


@pytest.mark.parametrize('content', ['', 'Filename;ClassId\n00001.ppm;7\n'])
def test_annotations_with_other_columns(released, content):
  table = released / 'GTSRB/Final_Training/Images/00007/GT-00007.csv'
  table.write_text(content)
  message = data_files.refused('gtsrb', 'train', 8, released)
  assert str(table) in message and _HEADER in message


def test_broken_images_of_gtsrb_are_named_or_skipped(released):
  folder = released / 'GTSRB' / 'Final_Test' / 'Images'
  data_files.cut(folder / '00000.ppm')
  # The sign would be outside of the second image.
  _write_table(
    folder / 'GT-final_test.csv',
    '00000.ppm;8;9;1;2;5;6;16',
    '00001.ppm;8;9;4;5;8;10;0',
    '00002.ppm;8;9;1;2;5;6;42',
    '00001.ppm;8;9;4;5;8;9;0',
    '00002.ppm;8;9;0;0;4;4;16',
  )
  message = data_files.refused('gtsrb', 'test', 4, released)
  outside = 'the region from (4, 5) to (8, 10) is not in the image, 8x9'
  assert message.startswith('2 of 5 images cannot be read: ')
  assert f'{folder}/00000.ppm (' in message
  assert f'{folder}/00001.ppm ({outside})' in message
  skip = files.Reading(on_bad_image='skip')
  domain = domains.load('gtsrb', 'test', 4, str(released), skip)
  (broken, _), misplaced = domain.skipped
  assert broken == str(folder / '00000.ppm')
  assert misplaced == (str(folder / '00001.ppm'), outside)
  np.testing.assert_array_equal(domain.labels, [42, 0, 16])
  for image, seed, (x, y) in zip(
    domain.images, (2, 1, 2), ((1, 2), (4, 5), (0, 0))
  ):
    np.testing.assert_array_equal(
      image, data_files.noise(9, 8, 3, seed=seed)[y : y + 4, x : x + 4]
    )


def test_images_of_gtsrb_have_a_limit_of_pixels(released):
  with pytest.raises(errors.UsageError, match='3 of 3 .*8x9 is over 71 pixels'):
    domains.load(
      'gtsrb', 'test', 4, str(released), files.Reading(max_pixels=71)
    )


def test_released_gtsrb_is_decoded_once_for_all_its_regions(
  released, monkeypatch
):
  def load():
    return domains.load('gtsrb', 'test', 4, str(released)).images

  first, decode, seen = load(), images.decode, []

  def record(file, *arguments):
    seen.append(file)
    return decode(file, *arguments)

  monkeypatch.setattr(images, 'decode', record)
  np.testing.assert_array_equal(load(), first)
  assert seen == []
  folder = released / 'GTSRB' / 'Final_Test' / 'Images'
  _write_table(
    folder / 'GT-final_test.csv',
    '00000.ppm;8;9;1;2;5;6;16',
    '00001.ppm;8;9;4;4;8;8;0',  # A row further up.
    '00002.ppm;8;9;0;0;4;4;42',
  )
  second = load()
  assert sorted(seen) == [str(folder / f'0000{i}.ppm') for i in range(3)]
  np.testing.assert_array_equal(second[[0, 2]], first[[0, 2]])
  np.testing.assert_array_equal(second[1, 1:], first[1, :-1])


# gtsrb.npz.


def _write_npz(data_dir, counts=(70, 10, 30), **changed):
  """Of each class so many images; a pixel tells an image's number."""
  labels = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
  number = np.arange(len(labels))
  images = np.zeros([len(labels), 32, 32, 3], np.uint8)
  images[:, 0, 0, 0], images[:, 0, 0, 1] = number % 256, number // 256
  arrays = {'x': images, 'y': labels, **changed}
  np.savez(data_dir / 'gtsrb.npz', **arrays)
  return labels


def test_gtsrb_npz_holds_out_whole_tracks(tmp_path):
  labels = _write_npz(tmp_path)
  # Tracks of ten: the third of class 0 (images 20-29), which has seven, none of
  # class 1, the third of class 2 (images 100-109).
  held_out = [*range(20, 30), *range(100, 110)]
  expected = {
    'test': held_out,
    'train': [i for i in range(110) if i not in held_out],
  }
  for split in domains.SPLITS:
    domain = domains.load('gtsrb', split, 32, str(tmp_path))
    numbers = domain.images[:, 0, 0].astype(int) @ [1, 256, 0]
    np.testing.assert_array_equal(numbers, expected[split])
    np.testing.assert_array_equal(domain.labels, labels[expected[split]])
    assert domain.class_names == signs.CLASS_NAMES
    assert not domain.transductive


def test_gtsrb_npz_holds_out_a_fifth_of_every_class(tmp_path):
  # A class of n tracks: round(n / 5).
  _write_npz(tmp_path, counts=[10 * n for n in range(1, 41)])
  domain = domains.load('gtsrb', 'test', 32, str(tmp_path))
  np.testing.assert_array_equal(
    np.bincount(domain.labels, minlength=40),
    [10 * round(n / 5) for n in range(1, 41)],
  )


@pytest.mark.parametrize(
  'changed, reason',
  [
    ({'x': np.zeros([110, 40, 40, 3], np.uint8)}, 'uint8 of 32x32x3'),
    ({'x': np.zeros([110, 32, 32], np.uint8)}, 'uint8 of 32x32x3'),
    ({'x': np.zeros([110, 32, 32, 3])}, 'uint8'),
    ({'y': np.zeros(100, np.uint8)}, 'not as many'),
    ({'y': np.full(110, 43)}, 'image 0 is 43'),
    ({'y': np.repeat([1, 0], [10, 100])}, 'tracks'),
    ({'y': np.repeat([0, 1], [55, 55])}, 'tracks'),
  ],
)
def test_gtsrb_npz_that_is_something_else(tmp_path, changed, reason):
  _write_npz(tmp_path, **changed)
  message = data_files.refused('gtsrb', 'train', 32, tmp_path)
  assert 'gtsrb.npz' in message and reason in message


@pytest.mark.parametrize('key', ['x', 'y'])
def test_gtsrb_npz_with_pickled_objects_is_not_unpickled(tmp_path, key):
  harmful = np.array([data_files.Harmful(tmp_path / 'harmed')], object)
  _write_npz(tmp_path, **{key: harmful})
  message = data_files.refused('gtsrb', 'train', 32, tmp_path)
  assert 'gtsrb.npz' in message and 'allow_pickle=False' in message
  assert not (tmp_path / 'harmed').exists()


@pytest.mark.parametrize('damage', ['cut', 'text', 'keys'])
def test_broken_gtsrb_npz(tmp_path, damage):
  _write_npz(tmp_path)
  path = tmp_path / 'gtsrb.npz'
  if damage == 'cut':
    data_files.cut(path)
  elif damage == 'text':
    path.write_text('<html>not found</html>')
  else:
    np.savez(path, images=np.zeros(3))
  message = data_files.refused('gtsrb', 'train', 32, tmp_path)
  assert f'{path}: cannot be read: ' in message


# SYN SIGNS.


def _write_syn_signs(folder, split, labels):
  lines = []
  for i, label in enumerate(labels):
    image = np.full([40, 40, 3], [i, label, split == 'train'], np.uint8)
    data_files.write(folder / split / f'{i}.png', image)
    lines.append(f'{split}/{i}.png {label} 0\n')
  data_files.write(folder / f'{split}_labelling.txt', ''.join(lines))


@pytest.mark.parametrize('folder', ['', 'syn_signs'])
def test_released_syn_signs_holds_out_every_tenth(tmp_path, folder):
  labels = [3 * i % 43 for i in range(25)]
  _write_syn_signs(tmp_path / folder / 'synthetic_data', 'train', labels)
  tenth = [0, 10, 20]
  for split, chosen in (
    ('test', tenth),
    ('train', [i for i in range(25) if i not in tenth]),
  ):
    domain = domains.load('syn_signs', split, 32, str(tmp_path))
    np.testing.assert_array_equal(domain.labels, np.array(labels)[chosen])
    expected = np.stack([chosen, domain.labels, [1] * len(chosen)], -1)
    np.testing.assert_array_equal(
      domain.images,
      np.broadcast_to(expected[:, None, None], [len(chosen), 32, 32, 3]),
    )
    assert domain.class_names == signs.CLASS_NAMES


def test_syn_signs_with_test_images_of_their_own(tmp_path):
  _write_syn_signs(tmp_path / 'synthetic_data', 'train', [5] * 11)
  _write_syn_signs(tmp_path / 'synthetic_data', 'test', [42, 0])
  train, test = (
    domains.load('syn_signs', split, 40, str(tmp_path))
    for split in domains.SPLITS
  )
  np.testing.assert_array_equal(train.labels, [5] * 11)
  assert (train.images[..., 2] == 1).all()
  np.testing.assert_array_equal(test.labels, [42, 0])
  assert (test.images[..., 2] == 0).all()


def test_broken_images_of_syn_signs_are_skipped_with_their_labels(tmp_path):
  folder = tmp_path / 'synthetic_data'
  _write_syn_signs(folder, 'train', [7, 5, 6, 5, 6])
  path = data_files.write(folder / 'train' / '2.png', b'')
  skip = files.Reading(on_bad_image='skip')
  domain = domains.load('syn_signs', 'train', 32, str(tmp_path), skip)
  # The first is for test.
  np.testing.assert_array_equal(domain.labels, [5, 5, 6])
  np.testing.assert_array_equal(
    domain.images[:, 0, 0], [[1, 5, 1], [3, 5, 1], [4, 6, 1]]
  )
  assert domain.skipped == ((str(path), 'an empty file'),)


@pytest.mark.parametrize(
  'line, reason',
  [
    ('train/0.png 43 0', "'43'"),
    ('train/0.png', 'form'),
    ('train/7.png 1 0', "train/7.png' is missing"),
    ('../secret.png 1 0', 'outside'),
  ],
)
def test_bad_line_of_syn_signs(tmp_path, line, reason):
  folder = tmp_path / 'synthetic_data'
  _write_syn_signs(folder, 'train', [1, 2])
  data_files.write(tmp_path / 'secret.png', data_files.noise(4, 4, 3))
  path = folder / 'train_labelling.txt'
  path.write_text(f'{line}\ntrain/1.png 2 0\n')
  message = data_files.refused('syn_signs', 'train', 40, tmp_path)
  assert f'{path}, line 1: ' in message and reason in message


def test_class_folders_of_signs_have_numbers_or_names(tmp_path):
  images = data_files.noise(3, 8, 8, 3)
  for image, name in zip(images, ['00014', '7', 'no entry']):
    data_files.write(tmp_path / 'syn_signs/test' / name / 'a.png', image)
  domain = domains.load('syn_signs', 'test', 8, str(tmp_path))
  np.testing.assert_array_equal(domain.labels, [14, 7, 17])
  np.testing.assert_array_equal(domain.images, images)


def test_records_of_signs_have_43_labels(tmp_path):
  images = data_files.noise(2, 40, 40, 3)
  path = tmp_path / 'syn_signs/train-00000-of-00001.tfrecord'
  for label in (42, 43):
    data_files.write_records(path, map(data_files.example, images, [0, label]))
    if label == 42:
      domain = domains.load('syn_signs', 'train', 40, str(tmp_path))
      np.testing.assert_array_equal(domain.images, images)
      np.testing.assert_array_equal(domain.labels, [0, 42])
  message = data_files.refused('syn_signs', 'train', 40, tmp_path)
  assert 'image 1 is 43' in message
