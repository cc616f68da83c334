"""tools.prepare_data: what it makes, counts, checks and shows."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests import data_files, tiny_run
from tfda.data import catalogue, digits, domains, prepare, signs
from tools import prepare_data


def run(monkeypatch, capsys, *words):
  """(exit code, standard output, standard error) of the tool."""
  code = tiny_run.call(prepare_data, monkeypatch, *words)
  return (code, *capsys.readouterr())


def domain(name='source', labels=(), names=('a', 'b'), size=8, split='train'):
  """A Domain of grey images; labels None and a number for unlabelled ones."""
  count = labels if isinstance(labels, int) else len(labels)
  images = np.full([count, size, size, 3], 50, np.uint8)
  if isinstance(labels, int):
    return domains.Domain(name, split, images, None, ())
  return domains.Domain(name, split, images, np.array(labels), tuple(names))


def counted(name, train, test):
  """{split: Domain} of so many images, which take no memory."""
  return {
    split: domains.Domain(name, split, np.empty([count, 0]), None, ())
    for split, count in (('train', train), ('test', test))
  }


# What it makes.


@pytest.mark.parametrize('make', [[], ['--make=mnist_sample']])
def test_sample_of_mnist_is_drawn_without_repetition(
  make, tmp_path, monkeypatch, capsys
):
  arrays = {}
  for split, count in (('train', 8100), ('test', 2050)):
    arrays[f'x_{split}'] = np.arange(count, dtype=np.uint16).reshape(-1, 1, 1)
    arrays[f'y_{split}'] = np.arange(count) % 10
  np.savez(tmp_path / 'mnist.npz', **arrays)
  out = tmp_path / 'sample.npz'
  words = [*make, f'--mnist={tmp_path}/mnist.npz', f'--out={out}']
  code, printed, _ = run(monkeypatch, capsys, *words)
  assert code == 0 and printed.startswith(f'{out}: 10000 digits, ')
  with np.load(out) as sample:
    for split, count in (('train', 8000), ('test', 2000)):
      indices = sample[f'{split}_images'].ravel()
      assert len(set(indices)) == count
      np.testing.assert_array_equal(sample[f'{split}_labels'], indices % 10)


@pytest.mark.parametrize('form', ['a pickle', 'arrays of objects'])
def test_file_of_python_objects_is_refused_unread(
  form, tmp_path, monkeypatch, capsys
):
  path = tmp_path / 'mnist.npz'
  harmful = data_files.Harmful(tmp_path / 'harmed')
  if form == 'a pickle':
    path.write_bytes(pickle.dumps(harmful))
  else:
    objects = np.array([harmful], object)
    np.savez(path, x_train=objects, y_train=objects)
  words = [f'--mnist={path}', f'--out={tmp_path}/sample.npz']
  code, _, err = run(monkeypatch, capsys, *words)
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1
  assert str(path) in err
  assert os.listdir(tmp_path) == ['mnist.npz']  # Nothing harmed, nothing made.


@pytest.mark.parametrize(
  'name, classes, size', [('syn_numbers', 10, 32), ('syn_signs', 43, 40)]
)
def test_made_sets_are_domains(
  name, classes, size, tmp_path, monkeypatch, capsys
):
  words = [f'--make={name}', f'--out={tmp_path}', '--count=90', '--format=png']
  words += ['--test_count=50', '--processes=1', '--seed=3']
  code, printed, _ = run(monkeypatch, capsys, *words)
  assert code == 0
  assert printed == f'{tmp_path}/{name}: 90 train and 50 test images\n'
  loaded = {
    split: domains.load(name, split, size, str(tmp_path))
    for split in ('train', 'test')
  }
  for split, count in (('train', 90), ('test', 50)):
    assert loaded[split].images.shape == (count, size, size, 3)
    expected = np.bincount(np.arange(count) % classes)
    np.testing.assert_array_equal(np.bincount(loaded[split].labels), expected)
  assert len(loaded['train'].class_names) == classes
  assert list(prepare.check(loaded, str(tmp_path))) == [
    f'{name}: 90 train and 50 test, as made'
  ]


def test_number_of_images_is_the_published_one_unless_asked_for(monkeypatch):
  made = []
  monkeypatch.setattr(prepare.generate, 'write', lambda *a, **k: made.append(a))
  prepare.synthetic('syn_numbers', 'out')
  prepare.synthetic('syn_signs', 'out')
  prepare.synthetic('syn_signs', 'out', count=700)
  prepare.synthetic('syn_signs', 'out', test_count=7)
  assert [counts for _, _, _, _, counts, *_ in made] == [
    {'train': 479_400, 'test': 9_553},
    {'train': 100_000, 'test': 10_000},
    {'train': 700, 'test': 70},
    {'train': 100_000, 'test': 7},
  ]


def test_blended_digits_are_stored_as_they_are_released(
  tmp_path, monkeypatch, capsys
):
  data = tmp_path / 'data'
  data.mkdir()
  random = np.random.default_rng(0)
  np.savez(
    data / 'mnist.npz',
    **{
      f'x_{s}': random.integers(0, 256, [n, 28, 28]).astype(np.uint8)
      for s, n in (('train', 12), ('test', 7))
    },
    **{f'y_{s}': np.arange(n) % 10 for s, n in (('train', 12), ('test', 7))},
  )
  photograph = random.integers(0, 256, [40, 50, 3]).astype(np.uint8)
  with zipfile.ZipFile(data / 'bsds500_photos.zip', 'w') as archive:
    for folder in ('train', 'test'):
      file = io.BytesIO()
      Image.fromarray(photograph).save(file, 'JPEG')
      archive.writestr(f'bsds500/{folder}/1.jpg', file.getvalue())
  out = tmp_path / 'out'
  words = ['--make=mnist_m', f'--data_dir={data}', f'--out={out}']
  code, printed, _ = run(monkeypatch, capsys, *words)
  assert code == 0
  assert printed == f'{out}/mnist_m: 12 train and 7 test images\n'
  for split in ('train', 'test'):
    blended = domains.load('mnist_m', split, 28, str(data))
    stored = domains.load('mnist_m', split, 28, str(out))
    np.testing.assert_array_equal(stored.images, blended.images)
    np.testing.assert_array_equal(stored.labels, blended.labels)
  with open(out / 'mnist_m' / 'mnist_m_test_labels.txt') as file:
    assert file.readline() == '00000000.png 0\n'


# What it tells.


def test_every_data_set_that_is_read_is_in_the_list(monkeypatch, capsys):
  code, printed, _ = run(monkeypatch, capsys, '--list')
  assert code == 0
  packaged = {'mnist_sample', 'mnist_m_sample', 'optdigits', 'optdigits_m'}
  readers = {*digits.READERS, *signs.READERS}
  assert readers - packaged <= set(catalogue.DATA_SETS)
  for name, data_set in catalogue.DATA_SETS.items():
    assert f'\n{name}\n' in f'\n{printed}'
    assert data_set.home in printed and data_set.terms in printed
    assert 'http' in data_set.home
  for packaged_name in packaged:
    assert packaged_name in printed
  assert 'svhn: 73,257 train, 26,032 test\n' in printed
  assert 'office31/webcam: 795\n' in printed


@pytest.mark.parametrize(
  'name, train, test, told',
  [
    ('svhn', 73257, 26032, 'svhn: 73,257 train and 26,032 test, as expected'),
    ('mnist_m', 59001, 9001, 'as expected'),
    ('mnist_m', 60000, 10000, 'as expected'),
    ('gtsrb', 39209, 12630, 'gtsrb: 39,209 train and 12,630 test, as expected'),
    ('gtsrb', 10460, 2610, 'as expected'),
    (
      'gtsrb',
      26640,
      12630,
      'warning: gtsrb: 26,640 train and 12,630 test; expected are 39,209 train '
      'and 12,630 test or 10,460 train and 2,610 test',
    ),
    ('office31/dslr', 498, 498, 'as expected'),
    ('office_home/Real_World', 4357, 4357, 'as expected'),
    (
      'office_home/Art',
      2421,
      2421,
      'warning: office_home/Art: 2,421 train and 2,421 test; expected are '
      '2,427 train and 2,427 test',
    ),
    ('mnist_m', 60000, 9001, 'or 60,000 train and 10,000 test'),
    ('folder:mine', 3, 3, 'folder:mine: 3 train and 3 test'),
  ],
)
def test_counts_are_held_against_the_published_ones(name, train, test, told):
  (line,) = prepare.check(counted(name, train, test), None)
  assert line.endswith(told)
  assert line.startswith('warning') == ('expected are' in line)


def test_checksums_are_held_against_the_published_ones(tmp_path, monkeypatch):
  # RFC 1321, A.5.
  known = {'mnist.npz': ('md5', '900150983cd24fb0d6963f7d28e17f72')}
  mnist = dataclasses.replace(catalogue.DATA_SETS['mnist'], checksums=known)
  monkeypatch.setitem(catalogue.DATA_SETS, 'mnist', mnist)
  loaded = counted('mnist', 60000, 10000)
  assert len(list(prepare.check(loaded, str(tmp_path)))) == 1
  path = tmp_path / 'mnist.npz'
  path.write_bytes(b'abc')
  _, line = prepare.check(loaded, str(tmp_path))
  assert line == f'{path}: its md5 is the published one'
  path.write_bytes(b'abd')
  _, line = prepare.check(loaded, str(tmp_path))
  assert line.startswith(f'warning: {path}: its md5 is not the published one')


def test_published_checksums_are_of_their_algorithms():
  checksums = {
    file: checksum
    for data_set in catalogue.DATA_SETS.values()
    for file, checksum in data_set.checksums.items()
  }
  assert {'mnist.npz', 'train_32x32.mat', 'usps/usps.bz2'} <= set(checksums)
  for algorithm, digest in checksums.values():
    assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size


def test_images_that_are_left_out_are_told(tmp_path, monkeypatch, capsys):
  write_folder(tmp_path / 'mine', {'cat': 2, 'dog': 2})
  bad = tmp_path / 'mine' / 'cat' / 'bad.png'
  bad.write_bytes(b'no image')
  words = [f'--{side}=folder:{tmp_path}/mine' for side in ('source', 'target')]
  words += [f'--out={tmp_path}/page.html', '--image_size=8']
  code, printed, err = run(monkeypatch, capsys, *words)
  assert code == 0, err
  lines = printed.splitlines()
  assert lines[0] == f'folder:{tmp_path}/mine: 4 train and 4 test'
  assert lines[1].startswith(f'warning: {bad} is left out: ')


def test_classes_are_counted_by_name_and_inequality_is_remarked():
  # 50, 40, 10 and none of 100; 10, 40, 25 and 25 of 100, in another order.
  source = domain(labels=[0] * 50 + [1] * 40 + [2] * 10, names='abc')
  target = domain(
    labels=[0] * 25 + [1] * 25 + [2] * 40 + [3] * 10, names='dcba'
  )
  rows = prepare.class_counts(source, target)
  assert rows == [
    ('a', 50, 10, 'share / 5.0 in target'),
    ('b', 40, 40, ''),
    ('c', 10, 25, 'share x 2.5 in target'),
    ('d', 0, 25, 'none in source'),
  ]
  assert prepare.table(rows) == (
    'class  source  target\n'
    'a          50      10  share / 5.0 in target\n'
    'b          40      40\n'
    'c          10      25  share x 2.5 in target\n'
    'd           0      25  none in source'
  )
  assert prepare.spread(source) == (
    'source: 10 to 50 training images a class (1 : 5.0)'
  )
  unlabelled = prepare.class_counts(source, domain('target', 7))
  assert unlabelled[0] == ('a', 50, None, '')
  assert prepare.table(unlabelled).splitlines()[1] == 'a          50       -'
  assert prepare.spread(domain('target', 7)) == 'target: no labels'


# The page.


class Page(html.parser.HTMLParser):
  """Tags of a page, and the images in it."""

  def __init__(self, path):
    super().__init__()
    with open(path, encoding='ascii') as file:
      self.source = file.read()
    self.tags = []
    self.feed(self.source)

  def handle_starttag(self, tag, attributes):
    self.tags.append((tag, dict(attributes)))

  def images(self):
    return [attributes for tag, attributes in self.tags if tag == 'img']


def write_folder(root, counts):
  """Class folders of so many images, all of the class's own grey."""
  for i, (name, count) in enumerate(counts.items()):
    (root / name).mkdir(parents=True)
    for j in range(count):
      grey = np.full([8, 8, 3], 40 * i + 20, np.uint8)
      Image.fromarray(grey).save(root / name / f'{j}.png')


def test_page_shows_images_of_each_class_and_asks_no_network(
  tmp_path, monkeypatch, capsys
):
  write_folder(tmp_path / 'left', {'cat': 10, 'd<b>g': 3})
  write_folder(tmp_path / 'right', {'cat': 2, 'd<b>g': 3})
  names = [f'folder:{tmp_path}/{side}' for side in ('left', 'right')]
  out = tmp_path / 'new' / 'page.html'
  words = [f'--source={names[0]}', f'--target={names[1]}', f'--out={out}']
  code, printed, err = run(monkeypatch, capsys, *words, '--image_size=8')
  assert code == 0, err
  lines = printed.splitlines()
  assert lines[0] == f'{names[0]}: 13 train and 13 test'
  assert 'cat        10       2' in lines
  assert 'd<b>g       3       3  share x 2.6 in target' in lines
  assert lines[-1] == str(out)
  page = Page(out)
  images = page.images()
  # At most eight of a class and domain: 8 + 2 of cats, 3 + 3 of dogs.
  assert [image['alt'] for image in images[7:10]] == [
    f'cat, source: {names[0]}, 8',
    f'cat, target: {names[1]}, 1',
    f'cat, target: {names[1]}, 2',
  ]
  assert len(images) == 16
  for image in images:
    kind, data = image['src'].split(',')
    assert kind == 'data:image/png;base64'
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert pixels.shape == (8, 8, 3)
    assert (pixels == (20 if image['alt'].startswith('cat') else 60)).all()
  # Nothing is loaded, nothing is run, and names are text.
  assert "default-src 'none'" in page.source
  assert not re.search(r'https?:|url\(|@import|<script|<link', page.source)
  assert 'd&lt;b&gt;g' in page.source and 'd<b>g' not in page.source


def test_page_of_an_unlabelled_target_shows_it_apart(
  tmp_path, monkeypatch, capsys
):
  write_folder(tmp_path / 'left', {'cat': 1, 'dog': 2})
  write_folder(tmp_path, {'right': 3})
  words = [f'--source=folder:{tmp_path}/left', '--image_size=8']
  words += [f'--target=folder:{tmp_path}/right', f'--out={tmp_path}/page.html']
  code, printed, _ = run(monkeypatch, capsys, *words)
  assert code == 0
  assert 'cat         1       -' in printed.splitlines()
  page = Page(tmp_path / 'page.html')
  alts = [image['alt'].split(', ')[0] for image in page.images()]
  assert alts == ['without labels'] * 3 + ['cat', 'dog', 'dog']
  assert page.source.count('<td>no labels</td>') == 2


@pytest.mark.parametrize(
  'words, told',
  [
    ([], 'one of --list, --make=NAME'),
    (['--list', '--make=syn_signs'], 'one of --list, --make=NAME'),
    (['--make=syn_nmbers'], 'syn_numbers'),
    (['--make=syn_numbers'], '--out=DIR is needed'),
    (['--make=mnist_sample'], '--mnist=PATH/mnist.npz'),
    (['--mnist=/nowhere.npz'], '/nowhere.npz: no such file'),
    (['--make=mnist_m', '--out=OUT'], '--data_dir'),
    (['--make=syn_numbers', '--out=OUT', '--count=0'], '--count=0 is below 1'),
    (['--make=syn_numbers', '--out=OUT', '--seed=-1'], '--seed=-1 is below 0'),
    (['--make=syn_numbers', '--out=OUT', '--format=jpg'], '--format=jpg'),
    (['--make=syn_numbers', '--out=OUT', '--font_dir=/nowhere'], '/nowhere'),
    (
      ['--make=syn_signs', '--out=OUT', '--font_dir=.'],
      'syn_signs has no fonts',
    ),
    (['--make=syn_signs', '--out=/dev/null/x'], '--out=/dev/null/x'),
    (['--source=optdigits'], '--source=NAME and --target=NAME'),
    (['--source=optdigits', '--target=optdigit_m'], 'optdigits_m'),
    (['--source=svhn', '--target=optdigits'], '--data_dir'),
    (
      ['--source=optdigits', '--target=optdigits', '--out=/dev/null/x'],
      '--out',
    ),
    (['--list', 'stray'], 'stray'),
  ],
)
def test_wrong_words_give_one_line_and_write_nothing(
  words, told, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  words = [word.replace('OUT', str(tmp_path)) for word in words]
  code, _, err = run(monkeypatch, capsys, *words)
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1
  assert told in err
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('damage', ['array', 'few images', 'number'])
def test_file_that_is_not_mnist_is_one_line(
  damage, tmp_path, monkeypatch, capsys
):
  path = tmp_path / 'mnist.npz'
  if damage == 'array':
    with open(path, 'wb') as file:
      np.save(file, np.zeros([3, 3]))
  else:
    labels = 3 if damage == 'number' else np.zeros(8000)
    np.savez(path, x_train=np.zeros([5, 28, 28]), y_train=labels)
  words = [f'--mnist={path}', f'--out={tmp_path}/sample.npz']
  code, _, err = run(monkeypatch, capsys, *words)
  assert code == 2
  assert err.startswith(f'error: {path}: cannot be read: ')
  assert err.count('\n') == 1
