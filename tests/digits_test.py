"""Digits of files: MNIST-M as released, SVHN, USPS, SYN NUMBERS."""

import bz2
import csv
import gzip
import pickle

import numpy as np
import pytest
import scipy.io

from tests import data_files
from tfda import errors, experiment
from tfda.data import domains, files, images

# MNIST.


def _write_mnist(data_dir, **changed):
  arrays = {
    'x_train': data_files.noise(6, 28, 28),
    'y_train': np.arange(6, dtype=np.uint8),
    'x_test': data_files.noise(3, 28, 28, seed=1),
    'y_test': np.array([9, 8, 7], np.uint8),
    **changed,
  }
  np.savez(data_dir / 'mnist.npz', **arrays)


@pytest.mark.parametrize(
  'changed, reason',
  [
    ({'x_train': np.zeros([6, 28, 28, 3], np.uint8)}, 'uint8'),
    ({'x_train': np.zeros([6, 28, 28])}, 'uint8'),
    ({'y_train': np.arange(7)}, 'not as many'),
    ({'y_train': np.arange(5, 11)}, 'image 5 is 10'),
  ],
)
@pytest.mark.parametrize('name', ['mnist', 'mnist_m'])
def test_mnist_file_that_is_not_mnist(tmp_path, name, changed, reason):
  _write_mnist(tmp_path, **changed)
  message = data_files.refused(name, 'train', 28, tmp_path)
  assert 'mnist.npz' in message and reason in message


def test_an_array_is_no_npz(tmp_path):
  with open(tmp_path / 'mnist.npz', 'wb') as file:
    np.save(file, np.zeros(3))
  message = data_files.refused('mnist', 'train', 28, tmp_path)
  assert 'mnist.npz' in message


# MNIST-M as released.


def _write_mnist_m(data_dir, split, labels, size=32):
  folder = data_dir / 'mnist_m'
  names = [f'{i:08}.png' for i in range(len(labels))]
  colours = [[20 * i, 30, 40 + label] for i, label in enumerate(labels)]
  for name, colour in zip(names, colours):
    image = np.full([size, size, 3], colour, np.uint8)
    data_files.write(folder / f'mnist_m_{split}' / name, image)
  lines = [f'{name} {label}\n' for name, label in zip(names, labels)]
  data_files.write(folder / f'mnist_m_{split}_labels.txt', ''.join(lines))
  return np.broadcast_to(
    np.array(colours).reshape(-1, 1, 1, 3), [len(labels), 28, 28, 3]
  )


def test_released_mnist_m(tmp_path):
  labels = {'train': [3, 0, 9, 3], 'test': [1, 7]}
  colours = {s: _write_mnist_m(tmp_path, s, labels[s]) for s in labels}
  # It is taken, not the rule over mnist.npz.
  _write_mnist(tmp_path)
  for split in domains.SPLITS:
    domain = domains.load('mnist_m', split, 28, str(tmp_path))
    np.testing.assert_array_equal(domain.images, colours[split])
    np.testing.assert_array_equal(domain.labels, labels[split])
    assert domain.images.dtype == np.uint8
    assert domain.labels.dtype == np.int32
    assert domain.class_names == tuple('0123456789')
    assert not domain.transductive


def test_half_of_the_released_mnist_m_is_not_completed_by_the_rule(tmp_path):
  _write_mnist(tmp_path)
  _write_mnist_m(tmp_path, 'train', [3])
  message = data_files.refused('mnist_m', 'test', 28, tmp_path)
  assert 'mnist_m_test_labels.txt is missing' in message


def test_no_mnist_m_at_all(tmp_path):
  message = data_files.refused('mnist_m', 'train', 28, tmp_path)
  assert str(tmp_path / 'mnist_m' / 'mnist_m_train_labels.txt') in message
  assert str(tmp_path / 'mnist.npz') in message and 'BSDS500' in message


@pytest.mark.parametrize(
  'line, reason',
  [
    ('00000000.png 10', "'10'"),
    ('00000000.png -1', "'-1'"),
    ('00000000.png one', "'one'"),
    ('00000000.png', 'form'),
    ('00000009.png 1', "00000009.png' is missing"),
    ('../mnist_m_test/00000000.png 1', 'outside'),
    ('sub/../../mnist_m_test/00000000.png 1', 'outside'),
    ('/mnist_m_test/00000000.png 1', 'outside'),
    ('. 1', 'missing'),
    ('\x00\x1b[2J 1', r"'\x00\x1b[2J' is missing"),
  ],
)
def test_bad_line_of_a_label_file(tmp_path, line, reason):
  _write_mnist_m(tmp_path, 'train', [3, 4])
  _write_mnist_m(tmp_path, 'test', [3])
  path = tmp_path / 'mnist_m' / 'mnist_m_train_labels.txt'
  path.write_text(f'00000001.png 4\n\n{line}\n')
  message = data_files.refused('mnist_m', 'train', 28, tmp_path)
  assert f'{path}, line 3: ' in message and reason in message


@pytest.mark.parametrize('content', [b'', b'\n', b'\xff\xfe1\x00'])
def test_label_file_without_lines(tmp_path, content):
  _write_mnist_m(tmp_path, 'train', [3])
  path = tmp_path / 'mnist_m' / 'mnist_m_train_labels.txt'
  path.write_bytes(content)
  assert str(path) in data_files.refused('mnist_m', 'train', 28, tmp_path)


def _cut_mnist_m(data_dir, split, *numbers):
  folder = data_dir / 'mnist_m' / f'mnist_m_{split}'
  paths = [folder / f'{number:08}.png' for number in numbers]
  for path in paths:
    data_files.cut(path)
  return [str(path) for path in paths]


def test_broken_images_of_mnist_m_are_all_named(tmp_path):
  _write_mnist_m(tmp_path, 'train', [3, 0, 9, 3, 9])
  broken = _cut_mnist_m(tmp_path, 'train', 0, 2)
  message = data_files.refused('mnist_m', 'train', 28, tmp_path)
  assert message.startswith(f'2 of 5 images cannot be read: {broken[0]} (')
  assert f', {broken[1]} (' in message and '--on_bad_image=skip' in message


def test_broken_images_of_mnist_m_are_skipped_with_their_labels(tmp_path):
  colours = _write_mnist_m(tmp_path, 'train', [3, 0, 9, 3, 9])
  broken = _cut_mnist_m(tmp_path, 'train', 0, 2)
  skip = files.Reading(on_bad_image='skip')
  domain = domains.load('mnist_m', 'train', 28, str(tmp_path), skip)
  assert [path for path, _ in domain.skipped] == broken
  assert all(reason for _, reason in domain.skipped)
  np.testing.assert_array_equal(domain.images, colours[[1, 3, 4]])
  np.testing.assert_array_equal(domain.labels, [0, 3, 9])
  assert domain.labels.dtype == np.int32
  # A class of which nothing is left is no class to train on.
  _cut_mnist_m(tmp_path, 'train', 4)
  with pytest.raises(errors.UsageError) as error:
    domains.load('mnist_m', 'train', 28, str(tmp_path), skip)
  assert str(error.value) == 'mnist_m: no image can be read of the classes 9'


def test_images_of_mnist_m_have_a_limit_of_pixels(tmp_path):
  _write_mnist_m(tmp_path, 'train', [3, 4])
  load = domains.load
  with pytest.raises(errors.UsageError, match='2 of 2.*32x32 is over 1023 pi'):
    load('mnist_m', 'train', 28, str(tmp_path), files.Reading(max_pixels=1023))
  domain = load(
    'mnist_m', 'train', 28, str(tmp_path), files.Reading(max_pixels=1024)
  )
  np.testing.assert_array_equal(domain.labels, [3, 4])


def test_released_mnist_m_is_decoded_once(tmp_path, monkeypatch):
  colours = _write_mnist_m(tmp_path, 'train', [3, 0, 9])
  reading = files.Reading(str(tmp_path / 'cache'))
  domains.load('mnist_m', 'train', 28, str(tmp_path), reading)

  def never(*arguments):
    raise AssertionError('decoded twice')

  monkeypatch.setattr(images, 'decode', never)
  domain = domains.load('mnist_m', 'train', 28, str(tmp_path), reading)
  np.testing.assert_array_equal(domain.images, colours)
  np.testing.assert_array_equal(domain.labels, [3, 0, 9])
  with pytest.raises(AssertionError, match='decoded twice'):
    domains.load('mnist_m', 'train', 27, str(tmp_path), reading)


def test_a_run_lists_what_it_skipped_of_mnist_m(tmp_path):
  _write_mnist_m(tmp_path, 'train', [3, 0, 3, 3])
  _write_mnist_m(tmp_path, 'test', [1, 7])
  (broken,) = _cut_mnist_m(tmp_path, 'train', 2)
  run = experiment.train(
    experiment.Experiment(
      method='source_only',
      source='mnist_m',
      target='mnist_m',
      data_dir=str(tmp_path),
      on_bad_image='skip',
      image_size=8,
      steps=1,
      batch_size=2,
      cache_dir=str(tmp_path / 'cache'),
      run_dir=str(tmp_path / 'run'),
    )
  )
  with open(f'{run}/skipped.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [row['side'] for row in rows] == ['source', 'target']
  for row in rows:
    assert (row['split'], row['path']) == ('train', broken) and row['reason']


# SVHN.

# What differs from pixel to pixel, from channel to channel and between images.
_DIGITS = data_files.noise(4, 32, 32, 3)
_FILE = {
  'X': _DIGITS.transpose(1, 2, 3, 0),
  'y': np.array([[1], [10], [9], [10]], np.uint8),
}


def _write_mat(path, **changed):
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {**_FILE, **changed}
  scipy.io.savemat(path, {k: v for k, v in arrays.items() if v is not None})


@pytest.mark.parametrize('folder', ['', 'svhn'])
def test_svhn(tmp_path, folder):
  _write_mat(tmp_path / folder / 'train_32x32.mat')
  _write_mat(
    tmp_path / folder / 'test_32x32.mat',
    X=_FILE['X'][..., :2],
    y=np.array([[10.0], [2.0]]),
  )
  domain = domains.load('svhn', 'train', 32, str(tmp_path))
  np.testing.assert_array_equal(domain.images, _DIGITS)
  assert domain.images.flags['C_CONTIGUOUS']
  # A zero's label is 10.
  np.testing.assert_array_equal(domain.labels, [1, 0, 9, 0])
  assert domain.class_names == tuple('0123456789')
  domain = domains.load('svhn', 'test', 32, str(tmp_path))
  np.testing.assert_array_equal(domain.images, _DIGITS[:2])
  np.testing.assert_array_equal(domain.labels, [0, 2])


def _cells(*values):
  cells = np.empty([len(values), 1], object)
  cells[:, 0] = values
  return cells


@pytest.mark.parametrize(
  'changed, reason',
  [
    ({'X': None}, 'no X and y'),
    ({'y': None}, 'no X and y'),
    ({'X': _FILE['X'].astype(np.float64)}, 'uint8'),
    ({'X': _FILE['X'][..., 0]}, 'uint8'),
    ({'X': _FILE['X'][:16]}, 'uint8'),
    ({'X': _FILE['X'][:, :, :1]}, 'uint8'),
    ({'X': _cells(*_DIGITS)}, 'uint8'),
    ({'X': {'field': _DIGITS}}, 'uint8'),
    ({'X': 'text'}, 'uint8'),
    ({'X': scipy.sparse.csc_matrix(np.eye(3))}, ''),
    ({'y': _cells(1, 2, 3, 4)}, 'numbers'),
    ({'y': np.array([[1], [2], [3]])}, 'not as many'),
    ({'y': np.array([[1], [2], [3], [0]])}, 'image 3 is 0'),
    ({'y': np.array([[1], [11], [3], [4]])}, 'image 1 is 11'),
    ({'y': np.array([[1], [2.5], [3], [4]])}, 'image 1 is 2.5'),
  ],
)
def test_svhn_file_that_is_not_svhn(tmp_path, changed, reason):
  path = tmp_path / 'train_32x32.mat'
  _write_mat(path, **changed)
  message = data_files.refused('svhn', 'train', 32, tmp_path)
  assert str(path) in message and reason in message


@pytest.mark.parametrize(
  'damage',
  ['empty', 'text', 'cut', 'compressed and cut', 'MATLAB 7.3', 'pickle'],
)
def test_broken_svhn_file(tmp_path, damage):
  path = tmp_path / 'train_32x32.mat'
  scipy.io.savemat(path, _FILE, do_compression=damage == 'compressed and cut')
  content = path.read_bytes()
  path.write_bytes(
    {
      'empty': b'',
      'text': b'<html>not found</html>' * 99,
      # The version of MATLAB's file format is in bytes 124 and 125.
      'MATLAB 7.3': content[:124] + b'\x00\x02IM' + content[128:],
      'pickle': pickle.dumps(data_files.Harmful(tmp_path / 'harmed')),
    }.get(damage, content[: len(content) // 2])
  )
  message = data_files.refused('svhn', 'train', 32, tmp_path)
  assert f'{path}: cannot be read: ' in message
  assert not (tmp_path / 'harmed').exists()


def test_syn_numbers_has_zeros_of_label_0(tmp_path):
  path = tmp_path / 'synth_train_32x32.mat'
  _write_mat(path, y=np.array([[0], [1], [9], [0]], np.uint8))
  domain = domains.load('syn_numbers', 'train', 32, str(tmp_path))
  np.testing.assert_array_equal(domain.images, _DIGITS)
  np.testing.assert_array_equal(domain.labels, [0, 1, 9, 0])
  _write_mat(path)
  message = data_files.refused('syn_numbers', 'train', 32, tmp_path)
  assert path.name in message and 'image 1 is 10' in message


# USPS.

# -1 is 0, 1 is 255, and in between round(127.5 (grey + 1)).
_GREYS = [-1.0, 1.0, 0.5, -0.2] + [-1.0] * 252
_PIXELS = [0, 255, 191, 102] + [0] * 252
_ENDED = {'.gz': gzip.compress, 'bz2': bz2.compress}


def _write_usps(path, lines):
  content = ''.join(f'{line}\n' for line in lines).encode()
  return data_files.write(path, _ENDED[path.name[-3:]](content))


def _text(label, greys):
  return ' '.join([label, *(f'{grey:.4f}' for grey in greys), ''])


def _libsvm(label, greys):
  pairs = (f'{i}:{grey:.6g}' for i, grey in enumerate(greys, 1))
  return ' '.join([label, *pairs, ''])


@pytest.mark.parametrize('folder', ['', 'usps'])
@pytest.mark.parametrize(
  'names, line, labels',
  [
    (['zip.train.gz', 'zip.test.gz'], _text, ['6.0000', '0', '9']),
    (['usps.bz2', 'usps.t.bz2'], _libsvm, ['7', '1', '10']),
  ],
)
def test_usps(tmp_path, folder, names, line, labels):
  train, test = (tmp_path / folder / name for name in names)
  _write_usps(train, [line(labels[0], _GREYS), line(labels[1], _GREYS[::-1])])
  _write_usps(test, [line(labels[2], _GREYS)])
  domain = domains.load('usps', 'train', 16, str(tmp_path))
  expected = np.reshape([_PIXELS, _PIXELS[::-1]], [2, 16, 16, 1])
  np.testing.assert_array_equal(domain.images, expected.repeat(3, -1))
  assert domain.images.dtype == np.uint8
  np.testing.assert_array_equal(domain.labels, [6, 0])
  domain = domains.load('usps', 'test', 16, str(tmp_path))
  np.testing.assert_array_equal(domain.images, expected[:1].repeat(3, -1))
  np.testing.assert_array_equal(domain.labels, [9])


def test_usps_in_the_size_of_mnist(tmp_path):
  _write_usps(tmp_path / 'usps.bz2', [_libsvm('1', [0.6] * 256)])
  domain = domains.load('usps', 'train', 28, str(tmp_path))
  assert domain.images.shape == (1, 28, 28, 3)
  assert (domain.images == 204).all()


def test_what_libsvm_leaves_out_is_0(tmp_path):
  _write_usps(tmp_path / 'usps.bz2', ['3 2:1 256:-1'])
  domain = domains.load('usps', 'train', 16, str(tmp_path))
  expected = np.full(256, 128)  # round(127.5)
  expected[1], expected[255] = 255, 0
  np.testing.assert_array_equal(domain.images[0, ..., 0].ravel(), expected)


@pytest.mark.parametrize(
  'line',
  [
    'six',
    _text('10', _GREYS),
    _text('-1', _GREYS),
    _text('1.5', _GREYS),
    _text('nan', _GREYS),
    _text('1', _GREYS[1:]),
    _text('1', [*_GREYS, 0.0]),
    _text('1', [*_GREYS[1:], 1.1]),
    _text('1', [*_GREYS[1:], np.nan]),
    _text('1', _GREYS[1:]) + 'grey',
  ],
)
def test_bad_line_of_usps(tmp_path, line):
  path = _write_usps(tmp_path / 'zip.train.gz', [_text('1', _GREYS), '', line])
  message = data_files.refused('usps', 'train', 16, tmp_path)
  assert f'{path}, line 3: ' in message and '256 greys' in message


@pytest.mark.parametrize(
  'line',
  [
    '',
    '0 1:1',
    '11 1:1',
    '1 0:1',
    '1 257:1',
    '1 1:2',
    '1 1',
    '1 1:1:1',
    '1 a:1',
  ],
)
def test_bad_line_of_usps_as_libsvm_has_it(tmp_path, line):
  path = _write_usps(tmp_path / 'usps.bz2', [line])
  message = data_files.refused('usps', 'train', 16, tmp_path)
  assert str(path) in message
  assert ('no digits' if not line else 'line 1: ') in message


@pytest.mark.parametrize('name', ['zip.train.gz', 'usps.bz2'])
@pytest.mark.parametrize('damage', ['cut', 'text'])
def test_broken_archive_of_usps(tmp_path, name, damage):
  # Greys that cannot be compressed away: the cut is in the middle of them.
  greys = np.random.default_rng(0).uniform(-1, 1, 256)
  line = (_text if name.endswith('gz') else _libsvm)('1', greys)
  path = _write_usps(tmp_path / name, [line] * 3)
  if damage == 'cut':
    path.write_bytes(path.read_bytes()[:-8])
  else:
    path.write_bytes(b'<html>not found</html>')
  message = data_files.refused('usps', 'train', 16, tmp_path)
  assert f'{path}: cannot be read: ' in message
