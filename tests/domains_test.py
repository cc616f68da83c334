"""Domains: the blend rule, the packaged digits, MNIST from files, classes."""

import dataclasses
import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from tfda import errors, experiment
from tfda.data import digits, domains, files, generators, task


def _one_line(error):
  """The message of a UsageError, which is one line."""
  message = str(error.value)
  assert message and '\n' not in message
  return message


def _refused(*arguments, **named):
  with pytest.raises(errors.UsageError) as error:
    domains.load(*arguments, **named)
  return _one_line(error)


# blend


def test_blend_examples():
  photograph = np.full([2, 2, 3], 50, np.uint8)
  digits = np.array([[[200, 0], [50, 255]]], np.uint8)
  blended = generators.blend(digits, [photograph], seed=0)
  assert blended.dtype == np.uint8
  # |200 - 50|, |0 - 50|, |50 - 50|, |255 - 50| in every channel.
  expected = np.array([[[150, 50], [0, 205]]])
  np.testing.assert_array_equal(
    blended, np.repeat(expected[..., np.newaxis], 3, axis=-1)
  )


def test_blend_by_hand_per_channel():
  photograph = np.array([[[0, 100, 255]]], np.uint8)
  digits = np.array([[[0]], [[90]], [[255]]], np.uint8)
  np.testing.assert_array_equal(
    generators.blend(digits, [photograph], seed=3).reshape(3, 3),
    [[0, 100, 255], [90, 10, 165], [255, 155, 0]],
  )


def test_blend_cuts_every_patch_out_of_every_photograph():
  # Black digits: the blend is the patch. Every pixel tells where it is from.
  rows, columns = np.mgrid[:3, :4]
  photographs = [
    np.stack([np.full([3, 4], i), rows, columns], axis=-1).astype(np.uint8)
    for i in (10, 20)
  ]
  patches = generators.blend(np.zeros([400, 2, 2], np.uint8), photographs, 1)
  corners = set()
  for patch in patches:
    i, y, x = (int(n) for n in patch[0, 0])
    np.testing.assert_array_equal(
      patch, photographs[i // 10 - 1][y : y + 2, x : x + 2]
    )
    corners.add((i, y, x))
  # 2 photographs x 2 x 3 corners, the outermost ones too.
  assert len(corners) == 12


def test_blend_is_a_function_of_the_seed():
  random = np.random.default_rng(0)
  digits = random.integers(0, 256, [20, 4, 4]).astype(np.uint8)
  photographs = [random.integers(0, 256, [9, 9, 3]).astype(np.uint8)] * 2
  first = generators.blend(digits, photographs, 5)
  np.testing.assert_array_equal(first, generators.blend(digits, photographs, 5))
  assert (first != generators.blend(digits, photographs, 6)).any()


@pytest.mark.parametrize('shape', [(3, 9, 3), (9, 3, 3)])
def test_blend_refuses_a_photograph_that_is_too_small(shape):
  photographs = [np.zeros([4, 4, 3], np.uint8), np.zeros(shape, np.uint8)]
  with pytest.raises(ValueError, match='photograph 1 .*smaller'):
    generators.blend(np.zeros([1, 4, 4], np.uint8), photographs, 0)


# The packaged digits.


@pytest.fixture(scope='module')
def packaged():
  return {
    (name, split): domains.load(name, split, 28)
    for name in ('mnist_sample', 'mnist_m_sample')
    for split in domains.SPLITS
  }


@pytest.fixture(scope='module')
def sample():
  path = os.path.join(os.path.dirname(domains.__file__), 'mnist_sample.npz')
  with np.load(path) as arrays:
    return dict(arrays)


def test_packaged_digits_have_their_sizes_and_classes(packaged):
  for (name, split), domain in packaged.items():
    count = {'train': 4000, 'test': 1000}[split]
    assert (domain.name, domain.split) == (name, split)
    assert domain.images.shape == (count, 28, 28, 3)
    assert domain.images.dtype == np.uint8
    assert domain.labels.shape == (count,)
    assert domain.labels.dtype == np.int32
    assert domain.class_names == tuple('0123456789')
    assert not domain.transductive
    # Every class is there, none rare: MNIST has 9 to 11.3 % of each.
    shares = np.bincount(domain.labels, minlength=10) / count
    assert len(shares) == 10
    assert shares.min() > 0.06 and shares.max() < 0.14


def test_packaged_digits_are_disjoint(sample):
  """No digit is in two of: source train, source test, target train, test."""
  digits = np.concatenate([sample['train_images'], sample['test_images']])
  assert digits.shape == (10000, 28, 28)
  assert len({digit.tobytes() for digit in digits}) == 10000


def test_packaged_domains_share_no_digit(packaged, sample, monkeypatch):
  blended = {}
  blend = generators.blend

  def record(digits, photographs, seed):
    blended[len(digits)] = digits
    return blend(digits, photographs, seed)

  monkeypatch.setattr(generators, 'blend', record)
  for split, count in (('train', 4000), ('test', 1000)):
    target = domains.load('mnist_m_sample', split, 28)
    source = packaged['mnist_sample', split]
    grey = source.images[..., 0]
    np.testing.assert_array_equal(source.images, np.stack([grey] * 3, -1))
    # Together they are the sample, in which every digit is there once.
    drawn = [digit.tobytes() for digit in sample[f'{split}_images']]
    both = [digit.tobytes() for digit in (*grey, *blended[count])]
    assert len(set(both)) == len(both) == 2 * count
    assert set(both) == set(drawn)
    labels = dict(zip(drawn, sample[f'{split}_labels']))
    for images, given in (
      (grey, source.labels),
      (blended[count], target.labels),
    ):
      np.testing.assert_array_equal(
        given, [labels[image.tobytes()] for image in images]
      )


def test_packaged_digits_are_the_same_every_time(packaged):
  again = domains.load('mnist_m_sample', 'test', 28)
  first = packaged['mnist_m_sample', 'test']
  np.testing.assert_array_equal(again.images, first.images)
  np.testing.assert_array_equal(again.labels, first.labels)


def test_mnist_m_sample_is_the_blend_of_colour_photographs(packaged):
  images = packaged['mnist_m_sample', 'train'].images.astype(int)
  # The channels differ, and there is no black background as in MNIST.
  assert (images[..., 0] != images[..., 2]).mean() > 0.5
  assert (images == 0).mean() < 0.1
  assert (packaged['mnist_sample', 'train'].images == 0).mean() > 0.7


def test_packaged_photographs_are_textured_as_bsds500_is():
  random = np.random.default_rng(0)
  for split in domains.SPLITS:
    for photograph in digits._packaged_photographs(split):
      corners = random.random([2000, 2]) * np.subtract(
        photograph.shape[:2], [27, 27]
      )
      deviations = [
        photograph[y : y + 28, x : x + 28].std(axis=(0, 1)).mean()
        for y, x in corners.astype(int)
      ]
      assert np.mean(deviations) > 20


@pytest.mark.parametrize('name', ['mnist_m_sample', 'optdigits_m'])
def test_test_photographs_are_others_than_train_photographs(name, monkeypatch):
  seen = {}

  def record(digits, photographs, seed):
    seen[len(digits)] = photographs, seed
    return np.zeros([*digits.shape, 3], np.uint8)

  monkeypatch.setattr(generators, 'blend', record)
  counts = [len(domains.load(name, s, 28).images) for s in domains.SPLITS]
  (train, train_seed), (test, test_seed) = (seen[count] for count in counts)
  assert train_seed != test_seed
  train, test = ({p.tobytes() for p in photos} for photos in (train, test))
  assert len(train) >= 2 and len(test) >= 2
  assert not train & test


def test_digits_in_another_size(packaged):
  domain = domains.load('mnist_sample', 'test', 14)
  assert domain.images.shape == (1000, 14, 14, 3)
  # Halving by an antialiased filter keeps the mean, but for what is rounded.
  np.testing.assert_allclose(
    domain.images.mean(axis=(1, 2, 3)),
    packaged['mnist_sample', 'test'].images.mean(axis=(1, 2, 3)),
    atol=2.0,
  )


def test_optdigits():
  from sklearn import datasets

  digits, labels = datasets.load_digits(return_X_y=True)
  train, test = (domains.load('optdigits', s, 28) for s in domains.SPLITS)
  assert train.images.shape == (1297, 28, 28, 3)
  assert test.images.shape == (500, 28, 28, 3)
  np.testing.assert_array_equal(
    np.concatenate([train.labels, test.labels]), labels
  )
  assert train.class_names == tuple('0123456789')
  # Enlarged, an image keeps its mean (of 0..16, brought to 0..255) roughly.
  images = np.concatenate([train.images, test.images])
  np.testing.assert_array_equal(images[..., 0], images[..., 2])
  means = images.mean(axis=(1, 2, 3))
  assert np.corrcoef(means, digits.mean(axis=1))[0, 1] > 0.98
  np.testing.assert_allclose(
    means.mean(), digits.mean() * 255.0 / 16.0, rtol=0.05
  )
  blended = domains.load('optdigits_m', 'test', 28)
  np.testing.assert_array_equal(blended.labels, test.labels)
  assert (blended.images != test.images).mean() > 0.5


# MNIST and MNIST-M from files.


def _grey(count, seed=0):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, [count, 28, 28]).astype(np.uint8)


def _write_mnist(folder, **changed):
  arrays = {
    'x_train': _grey(6),
    'y_train': np.arange(6, dtype=np.uint8),
    'x_test': _grey(3, seed=1),
    'y_test': np.array([9, 8, 7], np.uint8),
    **changed,
  }
  np.savez(folder / 'mnist.npz', **arrays)
  return arrays


def _png_of(value, size=(40, 30)):
  """A photograph of one colour, without loss, under whatever name."""
  file = io.BytesIO()
  Image.new('RGB', size, value).save(file, 'png')
  return file.getvalue()


# Value of the photographs of each folder: train and val are for training.
_PHOTOGRAPHS = {'train': (10, 0, 0), 'val': (20, 0, 0), 'test': (30, 0, 0)}


def _write_photographs(data_dir, layout):
  for folder, value in _PHOTOGRAPHS.items():
    for number in range(2):
      name = f'{folder}/{number}.jpg'
      if layout == 'zip':
        with zipfile.ZipFile(data_dir / 'bsds500_photos.zip', 'a') as file:
          file.writestr(f'bsds500/{name}', _png_of(value))
      else:
        path = data_dir / layout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png_of(value))


def test_mnist_from_a_file(tmp_path):
  arrays = _write_mnist(tmp_path)
  for split in domains.SPLITS:
    domain = domains.load('mnist', split, 28, str(tmp_path))
    np.testing.assert_array_equal(
      domain.images, np.stack([arrays[f'x_{split}']] * 3, axis=-1)
    )
    np.testing.assert_array_equal(domain.labels, arrays[f'y_{split}'])
    assert domain.labels.dtype == np.int32
    assert domain.class_names == tuple('0123456789')
    assert not domain.transductive


@pytest.mark.parametrize('layout', ['zip', 'bsds500', 'BSDS500/data/images'])
def test_mnist_m_from_files(tmp_path, layout):
  arrays = _write_mnist(tmp_path)
  _write_photographs(tmp_path, layout)
  red = {}
  for split in domains.SPLITS:
    domain = domains.load('mnist_m', split, 28, str(tmp_path))
    digits = arrays[f'x_{split}'].astype(int)
    np.testing.assert_array_equal(domain.labels, arrays[f'y_{split}'])
    # The photographs are 0 in green and blue: |digit - 0|.
    for channel in (1, 2):
      np.testing.assert_array_equal(domain.images[..., channel], digits)
    red[split] = set()
    for image, digit in zip(domain.images, digits):
      (value,) = [
        v
        for v, _, _ in _PHOTOGRAPHS.values()
        if (image[..., 0] == np.abs(digit - v)).all()
      ]
      red[split].add(value)
  assert red['train'] <= {10, 20}
  assert red['test'] == {30}
  again = domains.load('mnist_m', 'train', 28, str(tmp_path))
  first = domains.load('mnist_m', 'train', 28, str(tmp_path))
  np.testing.assert_array_equal(again.images, first.images)


def test_data_dir_may_hold_what_glob_reads(tmp_path):
  folder = tmp_path / 'data [v1] *'
  folder.mkdir()
  _write_mnist(folder)
  _write_photographs(folder, 'bsds500')
  assert len(domains.load('mnist_m', 'test', 28, str(folder)).images) == 3


def test_digits_without_their_data():
  for name in ('mnist', 'mnist_m'):
    message = _refused(name, 'train', 28)
    assert name in message and '--data_dir' in message
    message = _refused(name, 'train', 28, '/no/such/place')
    assert '/no/such/place' in message


def test_missing_mnist_file(tmp_path):
  message = _refused('mnist', 'train', 28, str(tmp_path))
  assert str(tmp_path / 'mnist.npz') in message
  assert 'mnist_sample' in message


def test_missing_photographs(tmp_path):
  _write_mnist(tmp_path)
  message = _refused('mnist_m', 'train', 28, str(tmp_path))
  assert 'BSDS500' in message and 'bsds500_photos.zip' in message


def test_mnist_with_pickled_objects_is_not_unpickled(tmp_path):
  class Harmful:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / 'harmed'),)

  _write_mnist(tmp_path, x_train=np.array([Harmful()], object))
  message = _refused('mnist', 'train', 28, str(tmp_path))
  assert 'mnist.npz' in message
  assert not (tmp_path / 'harmed').exists()


@pytest.mark.parametrize('damage', ['empty', 'text', 'cut', 'keys'])
def test_broken_mnist_file(tmp_path, damage):
  path = tmp_path / 'mnist.npz'
  _write_mnist(tmp_path)
  if damage == 'keys':
    np.savez(path, images=_grey(3))
  else:
    path.write_bytes(
      {
        'empty': b'',
        'text': b'<html>not found</html>',
        'cut': path.read_bytes()[:1000],
      }[damage]
    )
  assert 'mnist.npz' in _refused('mnist', 'train', 28, str(tmp_path))


def test_mnist_file_with_wrong_bytes(tmp_path):
  path = tmp_path / 'mnist.npz'
  np.savez_compressed(path, x_train=_grey(9) // 16, y_train=np.zeros(9))
  content = path.read_bytes()
  # In the middle of the compressed images: not what was compressed, or nothing
  # that could be.
  for start in range(300, 3000, 100):
    damaged = bytearray(content)
    damaged[start : start + 8] = b'\xff' * 8
    path.write_bytes(damaged)
    assert 'mnist.npz' in _refused('mnist', 'train', 28, str(tmp_path))


@pytest.mark.parametrize('layout', ['zip', 'bsds500'])
def test_broken_photograph(tmp_path, layout):
  _write_mnist(tmp_path)
  if layout == 'zip':
    with zipfile.ZipFile(tmp_path / 'bsds500_photos.zip', 'w') as file:
      file.writestr('bsds500/test/7.jpg', b'no image')
  else:
    (tmp_path / 'bsds500' / 'test').mkdir(parents=True)
    (tmp_path / 'bsds500' / 'test' / '7.jpg').write_bytes(b'no image')
  message = _refused('mnist_m', 'test', 28, str(tmp_path))
  assert message.startswith('1 of 1 images cannot be read: ')
  assert '7.jpg (no image of a known kind)' in message


@pytest.mark.parametrize('layout', ['zip', 'bsds500'])
def test_photographs_are_skipped_on_demand(tmp_path, layout):
  _write_mnist(tmp_path)
  _write_photographs(tmp_path, layout)
  expected = domains.load('mnist_m', 'train', 28, str(tmp_path))
  # One that is the first of all, and one that is too large.
  large = _png_of((10, 0, 0), size=(41, 30))
  for name, content in (('0', b'no image'), ('9', large)):
    name = f'bsds500/train/{name}a.jpg'
    if layout == 'zip':
      with zipfile.ZipFile(tmp_path / 'bsds500_photos.zip', 'a') as file:
        file.writestr(name, content)
    else:
      (tmp_path / name).write_bytes(content)
  place = tmp_path / 'bsds500'
  if layout == 'zip':
    place = f'{tmp_path}/bsds500_photos.zip: bsds500'
  reading = files.Reading(on_bad_image='skip', max_pixels=1200)
  domain = domains.load('mnist_m', 'train', 28, str(tmp_path), reading)
  assert domain.skipped == (
    (f'{place}/train/0a.jpg', 'no image of a known kind'),
    (f'{place}/train/9a.jpg', '41x30 is over 1200 pixels'),
  )
  # What is blended is what would be without these files.
  np.testing.assert_array_equal(domain.images, expected.images)
  np.testing.assert_array_equal(domain.labels, expected.labels)
  with pytest.raises(errors.UsageError) as error:
    domains.load(
      'mnist_m', 'train', 28, str(tmp_path), files.Reading(max_pixels=1200)
    )
  assert _one_line(error).startswith(
    f'2 of 6 images cannot be read: {place}/train/0a.jpg (no image of a known '
    f'kind), {place}/train/9a.jpg (41x30 is over 1200 pixels); '
  )


@pytest.mark.parametrize('content', ['no zip', 'no photographs'])
def test_broken_photograph_archive(tmp_path, content):
  _write_mnist(tmp_path)
  path = tmp_path / 'bsds500_photos.zip'
  if content == 'no zip':
    path.write_bytes(b'<html>not found</html>')
  else:
    with zipfile.ZipFile(path, 'w') as file:
      file.writestr('photos/test/7.jpg', _png_of((1, 2, 3)))
  message = _refused('mnist_m', 'test', 28, str(tmp_path))
  assert 'bsds500_photos.zip' in message


def test_photograph_that_is_too_small(tmp_path):
  _write_mnist(tmp_path)
  folder = tmp_path / 'bsds500' / 'test'
  folder.mkdir(parents=True)
  (folder / '7.jpg').write_bytes(_png_of((1, 2, 3), size=(20, 40)))
  message = _refused('mnist_m', 'test', 28, str(tmp_path))
  assert 'smaller' in message and '20x40' in message


# Errors.


@pytest.mark.parametrize(
  'name, near',
  [
    ('mnist_n', 'mnist_m'),
    ('mnist_sampel', 'mnist_sample'),
    ('optdigit', 'optdigits'),
  ],
)
def test_unknown_domain_with_near_name(name, near):
  message = _refused(name, 'train', 28)
  assert message.startswith(f'{name}:')
  assert near in message.split('did you mean')[1]


def test_unknown_domain_far_from_all():
  message = _refused('xyzzy', 'train', 28)
  for known in ('mnist_sample', 'optdigits_m', 'folder:PATH'):
    assert known in message


def _write_images(root, colours, size=(4, 4)):
  """{'cat/1.png': red value} as images of one colour."""
  for name, red in colours.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (red, 0, 0)).save(path)


def _domain(name, class_names):
  images = np.zeros([len(class_names) or 1, 1, 1, 3], np.uint8)
  labels = np.arange(len(class_names), dtype=np.int32) if class_names else None
  return domains.Domain(name, 'train', images, labels, tuple(class_names))


def test_class_lists_that_differ():
  with pytest.raises(errors.UsageError) as error:
    domains.check_classes(
      _domain('shop', ['bike', 'cup']), _domain('street', ['car', 'cup'])
    )
  message = _one_line(error)
  assert 'only in shop: bike' in message and 'only in street: car' in message
  with pytest.raises(errors.UsageError) as error:
    domains.check_classes(
      _domain('shop', ['bike', 'cup']), _domain('street', ['cup'])
    )
  message = _one_line(error)
  assert 'only in shop: bike' in message
  assert message.endswith('only in street: none')


@pytest.mark.parametrize(
  'source, target, advice',
  [
    (['cup'], ['car', 'cup'], '--target_classes restricts a target'),
    (['Bike', 'cup'], ['bike', 'cup'], 'two spellings: Bike and bike'),
    (['caf\u00e9'], ['cafe\u0301'], 'two spellings: caf'),
    (['cup', 'bike'], ['bike', 'cup'], 'the order differs'),
    (['two\nlines'], ['cup'], r"only in shop: 'two\nlines'"),
  ],
)
def test_class_lists_that_differ_in_a_way_of_their_own(source, target, advice):
  with pytest.raises(errors.UsageError) as error:
    domains.check_classes(_domain('shop', source), _domain('street', target))
  assert advice in _one_line(error)


def test_class_lists_of_the_splits_of_a_domain_that_differ():
  with pytest.raises(errors.UsageError) as error:
    domains.check_classes(
      _domain('shop', ['cup']),
      dataclasses.replace(_domain('shop', ['bike', 'cup']), split='test'),
    )
  assert _one_line(error) == (
    'the class lists differ: only in shop (train): none; only in shop (test): '
    'bike'
  )


def test_class_lists_that_fit():
  source = _domain('shop', ['bike', 'cup'])
  domains.check_classes(source, _domain('street', ['bike', 'cup']))
  domains.check_classes(source, _domain('unlabelled', []))


def test_a_source_needs_labels():
  with pytest.raises(errors.UsageError, match='photos .*labels'):
    domains.check_classes(_domain('photos', []), _domain('street', ['cup']))


def test_load_domains_compares_all_four(tmp_path):
  """The source's test split too: a missing class would shift its labels."""
  complete = {
    f'{split}/{c}/1.png': 1 for split in domains.SPLITS for c in 'abc'
  }
  for side in ('source', 'target'):
    _write_images(tmp_path / 'good' / side, complete)
    _write_images(
      tmp_path / 'bad' / side,
      {k: v for k, v in complete.items() if k != 'test/b/1.png'},
    )

  def load(source, target):
    return task.load(
      experiment.Experiment(
        source=f'folder:{tmp_path}/{source}/source',
        target=f'folder:{tmp_path}/{target}/target',
      ),
      8,
    )

  assert set(load('good', 'good')) == {
    (side, split) for side in ('source', 'target') for split in domains.SPLITS
  }
  for source, target in (('good', 'bad'), ('bad', 'good')):
    with pytest.raises(errors.UsageError) as error:
      load(source, target)
    assert _one_line(error).startswith('the class lists differ')
    assert ': b' in str(error.value)


def test_load_domains_needs_labels_in_both_splits_of_the_source(tmp_path):
  _write_images(
    tmp_path, {'train/a/1.png': 1, 'train/b/2.png': 2, 'test/3.png': 3}
  )
  settings = experiment.Experiment(
    source=f'folder:{tmp_path}', target=f'folder:{tmp_path}/test'
  )
  with pytest.raises(errors.UsageError) as error:
    task.load(settings, 8)
  assert 'labels' in _one_line(error) and str(tmp_path) in str(error.value)
