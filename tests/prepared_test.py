"""Domains that tensorflow_datasets has prepared."""

import numpy as np
import pytest

from tests.data_files import cut, file_size_limit, noise, refused
from tfda import errors
from tfda.data import domains, files, images, prepared


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """Two versions of shapes, one set of several sizes, two without labels."""
  import tensorflow_datasets as tfds

  folder = tmp_path_factory.mktemp('prepared')
  image = tfds.features.Image(shape=(None, None, 3))
  label = tfds.features.ClassLabel(names=['cat', 'dog', 'eel'])

  def store(name, version, features, count, narrower=0, **more):
    examples = [
      (
        i,
        {
          'image': noise(8, 9 - narrower * i, 3, seed=i),
          **{k: f(i) for k, f in more.items()},
        },
      )
      for i in range(count)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
      name,
      version,
      tfds.features.FeaturesDict(features),
      {'train': examples, 'test': examples[:2]},
      data_dir=str(folder),
      disable_shuffling=True,
    )

  both = {'image': image, 'label': label}
  store('shapes', '1.9.0', both, 3, label=lambda i: i)
  store('shapes', '1.10.0', both, 6, label=lambda i: i % 3)
  store('narrower', '1.0.0', both, 3, narrower=1, label=lambda i: i)
  store('plain', '1.0.0', {'image': image}, 2)
  store('hidden', '1.0.0', both, 3, label=lambda i: -1)
  return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def load(name, data_dir, size=5, **reading):
  return domains.load(
    name, 'train', size, str(data_dir), files.Reading(**reading)
  )


def test_images_and_labels_of_the_newest_version(data_dir, monkeypatch):
  expected = [
    images.resize(noise(8, 9, 3, seed=i)[np.newaxis], 5)[0] for i in range(6)
  ]
  for _ in range(2):  # Decoded, then from the cache.
    domain = load('tfds:shapes/train', data_dir)
    np.testing.assert_array_equal(domain.images, expected)
    assert domain.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert domain.labels.dtype == np.int32
    assert domain.class_names == ('cat', 'dog', 'eel')
    assert domain.name == 'tfds:shapes/train' and domain.transductive

    def never(*arguments):
      raise AssertionError('decoded twice')

    monkeypatch.setattr(images, 'read', never)


def test_version_and_part_of_a_split(data_dir):
  domain = load('tfds:shapes:1.9.0/train', data_dir)
  assert domain.labels.tolist() == [0, 1, 2]
  domain = load('tfds:shapes/train[:50%]', data_dir)
  assert domain.labels.tolist() == [0, 1, 2]
  assert len(load('tfds:shapes/test', data_dir).images) == 2


def test_labels_that_are_kept_back_are_none(data_dir):
  domain = load('tfds:hidden/train', data_dir)
  assert domain.labels is None and domain.class_names == ()


@pytest.mark.parametrize(
  'name', ['mnist/train', 'shapes:9.9.9/train', 'shapes', '/', '']
)
def test_set_that_is_not_prepared(data_dir, name):
  message = refused(f'tfds:{name}', 'train', 5, data_dir)
  assert f'--data_dir={data_dir}" prepares it' in message
  assert 'tfds:NAME/SPLIT' in message


@pytest.mark.parametrize('split', ['valid', 'train[:', ''])
def test_unknown_split(data_dir, split):
  message = refused(f'tfds:shapes/{split}', 'train', 5, data_dir)
  assert message.endswith(f'no split {split}; there are: test, train')


def test_set_that_is_not_for_classification(data_dir):
  message = refused('tfds:plain/train', 'train', 5, data_dir)
  assert 'it has image' in message


def test_data_dir_is_needed():
  assert '--data_dir' in refused('tfds:shapes/train', 'train', 5)


def test_bad_images_are_named_by_their_number(data_dir):
  # Images of 72 pixels are too large for 71.
  with pytest.raises(errors.UsageError) as error:
    load('tfds:shapes/test', data_dir, max_pixels=71)
  assert str(error.value).startswith(
    '2 of 2 images cannot be read: tfds:shapes/test, example 0 (9x8 is over 71'
  )


def test_broken_records_are_one_line(data_dir):
  (path,) = (data_dir / 'shapes' / '1.9.0').glob('*-train.*')
  cut(path)
  message = refused('tfds:shapes:1.9.0/train', 'train', 5, data_dir)
  assert message.startswith('tfds:shapes:1.9.0/train: cannot be read: ')


@pytest.mark.parametrize('limit', [0, 200])
def test_full_disk_is_one_line_and_images_are_in_memory(
  data_dir, tmp_path, capsys, limit
):
  expected = load('tfds:shapes/train', data_dir)
  cache_dir = str(tmp_path / 'full')
  with file_size_limit(limit):  # Of 6 x 75 bytes.
    domain = load('tfds:shapes/train', data_dir, cache_dir=cache_dir)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(cache_dir)
  assert line.endswith('File too large; images are decoded into memory')
  assert isinstance(domain.images, np.ndarray)
  np.testing.assert_array_equal(domain.images, expected.images)
  assert domain.labels.tolist() == [0, 1, 2, 0, 1, 2]
  assert domain.class_names == ('cat', 'dog', 'eel')


@pytest.mark.parametrize('limit', [2**30, 0])
def test_bad_images_are_skipped_on_demand(data_dir, tmp_path, capsys, limit):
  # Of 72, 64 and 56 pixels; on a full disk, too.
  with file_size_limit(limit):
    domain = load(
      'tfds:narrower/train',
      data_dir,
      cache_dir=str(tmp_path / 'cache'),
      on_bad_image='skip',
      max_pixels=71,
    )
  assert ('into memory' in capsys.readouterr().err) == (limit == 0)
  assert domain.labels.tolist() == [1, 2]
  np.testing.assert_array_equal(
    domain.images,
    [
      images.resize(noise(8, 9 - i, 3, seed=i)[np.newaxis], 5)[0]
      for i in (1, 2)
    ],
  )
  assert domain.skipped == (
    ('tfds:narrower/train, example 0', '9x8 is over 71 pixels'),
  )


def test_full_disk_and_little_memory_are_one_line(
  data_dir, tmp_path, monkeypatch
):
  (tmp_path / 'file').write_text('')
  # 2 x 5 x 5 x 3 bytes do not fit.
  monkeypatch.setattr(prepared, '_IN_MEMORY_BYTES', 149)
  with pytest.raises(errors.RunError) as error:
    load('tfds:shapes/test', data_dir, cache_dir=str(tmp_path / 'file'))
  assert str(error.value).startswith(f'{tmp_path}/file/v1/')
  assert str(error.value).endswith(
    'cannot be written: Not a directory; --cache_dir needs a disk with room '
    'for 0.0 GiB of images'
  )
