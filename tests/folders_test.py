"""Domains of image files: their layouts, their labels, what is refused."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.data_files import cut, noise, refused, write
from tfda import errors
from tfda.data import domains, files, folders


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


def write_images(root, reds):
  """{'cat/1.png': red value} as images of one colour."""
  for name, red in reds.items():
    pixels = np.zeros([4, 4, 3], np.uint8)
    pixels[..., 0] = red
    write(root / name, pixels)


def load(name, split='train', data_dir=None, reading=None):
  return domains.load(name, split, 4, data_dir and str(data_dir), reading)


def reds(domain):
  """The red values, one an image; checks that it is of one colour."""
  values = domain.images[:, :1, :1]
  np.testing.assert_array_equal(
    domain.images, np.broadcast_to(values, domain.images.shape)
  )
  return domain.images[:, 0, 0, 0].tolist()


# folder:PATH


def test_class_folders_are_labels(tmp_path):
  write_images(
    tmp_path,
    {
      'dog/b.png': 4,
      'dog/a.BMP': 0,
      'cat/z.bmp': 2,
      'cat/deeper/y.png': 1,
      '.cache/x.png': 9,
      'cat/.hidden.png': 8,
    },
  )
  write(tmp_path / 'cat' / 'notes.txt', 'no image')
  write(tmp_path / 'LICENCE', 'beside the folders')
  name = f'folder:{tmp_path}'
  for split in domains.SPLITS:
    domain = load(name, split)
    assert (domain.name, domain.split) == (name, split)
    assert domain.class_names == ('cat', 'dog')
    assert domain.labels.dtype == np.int32
    np.testing.assert_array_equal(domain.labels, [0, 0, 1, 1])
    assert reds(domain) == [1, 2, 0, 4]
    assert domain.images.shape == (4, 4, 4, 3)
    assert domain.transductive and domain.skipped == ()


def test_a_flat_folder_is_unlabelled(tmp_path):
  write_images(tmp_path, {'b.png': 2, 'a.png': 1})
  domain = load(f'folder:{tmp_path}')
  assert domain.labels is None
  assert domain.class_names == ()
  assert domain.transductive
  assert reds(domain) == [1, 2]


def test_folders_with_splits(tmp_path):
  write_images(
    tmp_path,
    {
      'train/cat/1.png': 1,
      'train/dog/2.png': 2,
      'train/dog/3.png': 3,
      'test/cat/4.png': 4,
      'test/dog/5.png': 5,
    },
  )
  train, test = (load(f'folder:{tmp_path}', split) for split in domains.SPLITS)
  assert (reds(train), reds(test)) == ([1, 2, 3], [4, 5])
  assert train.labels.tolist() == [0, 1, 1]
  assert test.labels.tolist() == [0, 1]
  assert train.class_names == test.class_names == ('cat', 'dog')
  assert not train.transductive and not test.transductive


def test_flat_folders_with_splits(tmp_path):
  write_images(tmp_path, {'train/1.png': 1, 'test/2.png': 2})
  for split, red in (('train', [1]), ('test', [2])):
    domain = load(f'folder:{tmp_path}', split)
    assert reds(domain) == red
    assert domain.labels is None
    assert not domain.transductive


def test_images_are_brought_to_size(tmp_path):
  pixels = np.zeros([6, 20, 3], np.uint8)
  pixels[..., 0] = 77
  write(tmp_path / 'wide.png', pixels)
  assert reds(load(f'folder:{tmp_path}')) == [77]


def test_photographs_taken_sideways_are_upright_beside_others(tmp_path):
  # Left is bright in the scene; 6 and 8 are quarter turns, 3 a half turn.
  upright = np.repeat(np.repeat([[220, 40]], 8, axis=1), 16, axis=0)
  stored = {1: 0, 3: 2, 6: 1, 8: 3, None: 0}
  for orientation, turns in stored.items():
    exif = Image.Exif()
    if orientation:
      exif[0x0112] = orientation
    image = Image.fromarray(np.rot90(upright, turns).astype(np.uint8))
    image.convert('RGB').save(
      tmp_path / f'{orientation}.jpg', quality=100, exif=exif
    )
  domain = domains.load(f'folder:{tmp_path}', 'train', 16)
  assert domain.images.shape == (5, 16, 16, 3)
  np.testing.assert_allclose(
    domain.images[..., 1].astype(int), [upright] * 5, atol=2
  )


def test_classes_and_folders_that_are_links(tmp_path):
  write_images(tmp_path, {'store/a.png': 3, 'in/dog/b.png': 5})
  (tmp_path / 'in' / 'cat').symlink_to(tmp_path / 'store')
  (tmp_path / 'link').symlink_to('in')
  domain = load(f'folder:{tmp_path}/link')
  assert domain.class_names == ('cat', 'dog') and reds(domain) == [3, 5]


@pytest.mark.parametrize('name', ['two words', 'Ünï-猫', 'a\nb', 'a,b;"c\''])
def test_names_of_any_characters(tmp_path, name):
  write_images(tmp_path, {f'{name}/{name}.png': 3, f'{name} 2/x.png': 4})
  domain = load(f'folder:{tmp_path}')
  assert domain.class_names == (name, f'{name} 2') and reds(domain) == [3, 4]
  broken = write(tmp_path / name / f'{name}.png', b'')
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert f'{files.shown(broken)} (an empty file)' in message


def test_name_that_is_not_unicode(tmp_path):
  name = os.fsdecode(b'caf\xe9')
  write_images(tmp_path, {f'{name}/1.png': 3, 'dog/2.jpg': 0})
  assert load(f'folder:{tmp_path}').class_names == (name, 'dog')
  write(tmp_path / name / '1.png', b'')
  assert r'caf\udce9' in refused(f'folder:{tmp_path}', 'train', 4)


def test_a_newline_in_the_path_stays_in_quotes(tmp_path):
  assert r'a\nb' in refused(f'folder:{tmp_path}/a\nb', 'train', 4)


def test_missing_folder(tmp_path):
  assert 'nowhere' in refused(f'folder:{tmp_path}/nowhere', 'train', 4)
  write(tmp_path / 'file', '')
  assert 'file' in refused(f'folder:{tmp_path}/file', 'train', 4)
  assert 'no such folder' in refused('folder:', 'train', 4)
  assert 'no such folder' in refused('folder:a\0b', 'train', 4)


def test_empty_folder(tmp_path):
  write(tmp_path / 'notes.txt', '')
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert str(tmp_path) in message and '.png' in message


def test_empty_class_folder(tmp_path):
  write_images(tmp_path, {'cat/1.png': 1})
  (tmp_path / 'dog').mkdir()
  (tmp_path / 'eel').mkdir()
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert message.endswith('no images of the classes dog, eel')


@pytest.mark.parametrize('other', ['bike', 'BIKE', 'ｂｉｋｅ'])
def test_one_class_in_two_spellings(tmp_path, other):
  write_images(tmp_path, {'Bike/1.png': 1, f'{other}/2.png': 2, 'car/3.png': 3})
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert f'{min("Bike", other)} and {max("Bike", other)}' in message


def test_images_beside_folders_are_listed_as_skipped(tmp_path):
  write_images(tmp_path, {'cat/1.png': 1, 'y.jpg': 3, 'x.png': 2})
  domain = load(f'folder:{tmp_path}')
  assert reds(domain) == [1] and domain.class_names == ('cat',)
  reason = 'lies beside folders, in none of them'
  assert domain.skipped == (
    (f'{tmp_path}/x.png', reason),
    (f'{tmp_path}/y.jpg', reason),
  )


@pytest.mark.parametrize('folder', ['a/', ''])
def test_images_beside_splits_are_listed_as_skipped(tmp_path, folder):
  write_images(
    tmp_path,
    {'x.png': 1, f'train/{folder}1.png': 2, f'test/{folder}1.png': 3},
  )
  for split, red in (('train', 2), ('test', 3)):
    domain = load(f'folder:{tmp_path}', split)
    assert reds(domain) == [red]
    assert [path for path, _ in domain.skipped] == [f'{tmp_path}/x.png']


@pytest.mark.parametrize('others', ['train val', 'train test val'])
def test_splits_of_other_names_are_no_classes(tmp_path, others):
  write_images(tmp_path, {f'{name}/a/1.png': 1 for name in others.split()})
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert ', '.join(sorted(others.split())) in message


def test_a_class_may_be_called_train(tmp_path):
  write_images(tmp_path, {'train/1.png': 1, 'bus/2.png': 2})
  assert load(f'folder:{tmp_path}').class_names == ('bus', 'train')


def test_circles_of_links(tmp_path):
  write_images(tmp_path, {'cat/1.png': 1})
  (tmp_path / 'cat' / 'back').symlink_to(tmp_path)
  assert reds(load(f'folder:{tmp_path}')) == [1]
  # Nor do they lead from one class into another, by the root or directly.
  write_images(tmp_path, {'dog/2.png': 2})
  (tmp_path / 'cat' / 'friend').symlink_to(tmp_path / 'dog')
  domain = load(f'folder:{tmp_path}')
  assert reds(domain) == [1, 2] and list(domain.labels) == [0, 1]
  (tmp_path / 'self').symlink_to('self')
  assert 'symbolic links' in refused(f'folder:{tmp_path}', 'train', 4)


@pytest.mark.parametrize('damage', ['cut', 'text', 'empty'])
def test_broken_image(tmp_path, damage):
  write_images(tmp_path, {'cat/good.png': 1})
  path = write(tmp_path / 'cat' / 'broken.png', noise(16, 16, 3))
  if damage == 'cut':
    cut(path)
  else:
    write(path, 'hello' if damage == 'text' else b'')
  message = refused(f'folder:{tmp_path}', 'train', 4)
  assert str(path) in message and '1 of 2 images cannot be read' in message


def test_skipped_images_take_their_labels_with_them(tmp_path):
  write_images(tmp_path, {f'{c}/{i}.png': i for c in 'abc' for i in range(3)})
  first, last = (
    write(tmp_path / 'a/0.png', b''),
    write(tmp_path / 'c/1.png', b''),
  )
  reading = files.Reading(on_bad_image='skip')
  domain = load(f'folder:{tmp_path}', reading=reading)
  assert domain.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
  assert reds(domain) == [1, 2, 0, 1, 2, 0, 2]
  assert domain.skipped == (
    (str(first), 'an empty file'),
    (str(last), 'an empty file'),
  )


def test_a_class_of_bad_images_alone_is_refused(tmp_path):
  write_images(tmp_path, {'a/0.png': 0})
  write(tmp_path / 'b/0.png', b'')
  with pytest.raises(errors.UsageError, match='classes b$'):
    load(f'folder:{tmp_path}', reading=files.Reading(on_bad_image='skip'))


# list:PATH


def write_list(tmp_path, *lines, classes=None):
  write_images(tmp_path, {'in/a b.png': 1, 'in/c.png': 2, 'd.png': 3})
  path = write(tmp_path / 'list.txt', '\n'.join(lines))
  if classes is not None:
    write(tmp_path / 'list.txt.classes', '\n'.join(classes))
  return f'list:{path}'


def test_list_of_paths_and_labels(tmp_path):
  lines = ['in/a b.png 1', '', ' ./d.png\t0 ', 'in/c.png 1\r']
  name = write_list(tmp_path, *lines)
  for split in domains.SPLITS:
    domain = load(name, split)
    assert reds(domain) == [1, 3, 2]
    assert domain.labels.tolist() == [1, 0, 1]
    assert domain.labels.dtype == np.int32
    assert domain.class_names == ('0', '1') and domain.transductive


def test_list_with_class_names(tmp_path):
  name = write_list(
    tmp_path, 'd.png 1', 'in/c.png 0', classes=['ice cream', 'bike', '']
  )
  domain = load(name)
  assert domain.class_names == ('ice cream', 'bike')
  assert domain.labels.tolist() == [1, 0]


def test_relative_path_of_a_list(tmp_path, monkeypatch):
  write_list(tmp_path, 'd.png 0')
  monkeypatch.chdir(tmp_path)
  assert reds(load('list:list.txt')) == [3]


@pytest.mark.parametrize(
  'line, complaint',
  [
    ('in/c.png', 'not of the form'),
    ('in/c.png -1', "'-1' is no label"),
    ('in/c.png 2', "'2' is no label; labels are 0 to 1"),
    ('in/c.png 99999999999999999999', 'is no label'),
    ('in/c.png one', "'one' is no label"),
    ('in/c.png 1.0', "'1.0' is no label"),
    ('../list.txt 1', "'../list.txt' is outside"),
    ('in/../../list.txt 1', 'is outside'),
    ('/etc/passwd 1', "'/etc/passwd' is outside"),
    ('in/nothing.png 1', 'is missing'),
    ('in 1', 'is missing'),
  ],
)
def test_wrong_line_of_a_list(tmp_path, line, complaint):
  name = write_list(tmp_path, 'd.png 0', '', line, classes=['a', 'b'])
  message = refused(name, 'train', 4)
  assert 'list.txt, line 3: ' in message and complaint in message


def test_labels_without_names_have_no_gaps(tmp_path):
  name = write_list(tmp_path, 'd.png 0', 'in/c.png 7')
  message = refused(name, 'train', 4)
  assert "line 2: '7' is no label; labels are 0 to 1" in message


def test_list_without_images_of_a_class(tmp_path):
  name = write_list(tmp_path, 'd.png 0', classes=['cat', 'dog'])
  assert refused(name, 'train', 4).endswith('no images of the classes dog')


def test_list_with_a_class_name_twice(tmp_path):
  name = write_list(tmp_path, 'd.png 0', classes=['cat', 'Cat'])
  assert 'cat and Cat' in refused(name, 'train', 4)


def test_missing_and_empty_list(tmp_path):
  assert 'no such file' in refused(f'list:{tmp_path}/no.txt', 'train', 4)
  assert 'no such file' in refused(f'list:{tmp_path}', 'train', 4)
  assert 'lists no images' in refused(write_list(tmp_path, ''), 'train', 4)


def test_list_that_is_no_text(tmp_path):
  path = write(tmp_path / 'list.txt', noise(50).tobytes())
  assert 'list.txt' in refused(f'list:{path}', 'train', 4)


# Published sets.


def test_office31_in_both_layouts(tmp_path):
  write_images(
    tmp_path / 'office31',
    {
      'amazon/images/bike/frame_0001.jpg': 0,
      'amazon/images/mug/frame_0001.jpg': 0,
      'webcam/bike/frame_0001.jpg': 0,
      'webcam/mug/frame_0001.jpg': 0,
    },
  )
  for part in ('amazon', 'webcam'):
    for split in domains.SPLITS:
      domain = load(f'office31/{part}', split, tmp_path)
      assert domain.name == f'office31/{part}'
      assert domain.class_names == ('bike', 'mug')
      assert domain.labels.tolist() == [0, 1]
      assert domain.transductive
  message = refused('office31/dslr', 'train', 4, tmp_path)
  assert f'{tmp_path}/office31/dslr is missing; where it is had: https' in (
    message
  )
  (tmp_path / 'office31' / 'dslr').mkdir()
  message = refused('office31/dslr', 'train', 4, tmp_path)
  assert message == 'office31/dslr: no class folders'


@pytest.mark.parametrize(
  'root', ['office_home', 'OfficeHomeDataset_10072016', 'OfficeHome']
)
@pytest.mark.parametrize('folder', ['Real World', 'Real_World', 'RealWorld'])
def test_office_home_in_all_spellings(tmp_path, root, folder):
  images = {
    f'{folder}/Alarm_Clock/00001.png': 7,
    'Art/Alarm_Clock/00001.png': 8,
  }
  write_images(tmp_path / root, images)
  for part in ('Real World', 'Real_World', 'RealWorld'):
    domain = load(f'office_home/{part}', data_dir=tmp_path)
    assert reds(domain) == [7]
    assert domain.class_names == ('Alarm_Clock',)
  assert reds(load('office_home/Art', data_dir=tmp_path)) == [8]


def test_icon_home(tmp_path):
  write_images(
    tmp_path / 'icon_home',
    {
      'color/bell/a__b.png': 1,
      'color/train/c__d.png': 2,
      'solid/bell/e.png': 3,
    },
  )
  write(tmp_path / 'icon_home' / 'LICENSES.tsv', 'beside the styles')
  domain = load('icon_home/color', data_dir=tmp_path)
  assert reds(domain) == [1, 2] and domain.class_names == ('bell', 'train')
  assert reds(load('icon_home/solid', data_dir=tmp_path)) == [3]


@pytest.mark.parametrize(
  'name, archive',
  [
    ('icon_home/color', 'icon_home.zip'),
    ('office_home/Art', 'OfficeHomeDataset_10072016.zip'),
  ],
)
def test_archive_that_is_to_be_unzipped(tmp_path, name, archive):
  assert 'unzip' not in refused(name, 'train', 4, tmp_path)
  write(tmp_path / archive, b'')
  message = refused(name, 'train', 4, tmp_path)
  assert f'unzip {tmp_path}/{archive} into {tmp_path}' in message


def test_visda2017(tmp_path):
  classes = [
    *['aeroplane', 'bicycle', 'bus', 'car', 'horse', 'knife', 'motorcycle'],
    *['person', 'plant', 'skateboard', 'train', 'truck'],
  ]
  part = tmp_path / 'visda2017' / 'validation'
  order = np.random.default_rng(0).permutation(12)
  write_images(part, {f'{c}/{c} 1.png': i for i, c in enumerate(classes)})
  lines = [f'{classes[i]}/{classes[i]} 1.png {i}' for i in order]
  write(part / 'image_list.txt', '\n'.join(lines))
  domain = load('visda2017/validation', data_dir=tmp_path)
  assert domain.class_names == tuple(classes)
  assert domain.labels.tolist() == reds(domain) == order.tolist()
  assert domain.transductive
  write(part / 'image_list.txt', '\n'.join([*lines, 'bus/bus 1.png 12']))
  message = refused('visda2017/validation', 'test', 4, tmp_path)
  assert 'line 13' in message and 'labels are 0 to 11' in message
  os.remove(part / 'image_list.txt')
  message = refused('visda2017/validation', 'train', 4, tmp_path)
  assert message.endswith('image_list.txt is missing')


@pytest.mark.parametrize(
  'name, near',
  [
    ('office31/amazn', 'office31/amazon'),
    ('office31/Webcam', 'office31/webcam'),
    ('office_home/Real-World', 'office_home/Real World'),
    ('office_home/', 'office_home/Art'),
    ('visda2017/test', 'visda2017/train'),
    ('icon_home/colour', 'icon_home/color'),
    ('ofice31/amazon', 'office31/amazon'),
    ('ofice_home/Clipart', 'office_home/Clipart'),
  ],
)
def test_unknown_part_with_near_name(tmp_path, name, near):
  message = refused(name, 'train', 4, tmp_path)
  assert message.startswith(f'{name}: no such domain') and near in message


def test_all_names_are_told_where_none_is_near():
  message = refused('xyzzy', 'train', 4)
  for prefix, (_, endings) in folders.LISTERS.items():
    assert all(prefix + ending in message for ending in endings)
  assert 'tfds:NAME/SPLIT' in message


def test_sets_need_the_data_dir(tmp_path):
  for prefix, (_, endings) in folders.LISTERS.items():
    if not prefix.endswith(':'):
      name = prefix + endings[0]
      assert '--data_dir' in refused(name, 'train', 4)
      assert 'nowhere' in refused(name, 'train', 4, tmp_path / 'nowhere')
