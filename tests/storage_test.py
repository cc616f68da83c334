"""The cache: arrays on disk, whole or not there, and images decoded once."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.data_files import cut, file_size_limit, noise, write
from tests.images_test import break_tables
from tfda import errors
from tfda.data import files, images, storage

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def small_shards(monkeypatch):
  monkeypatch.setattr(storage, '_SHARD_BYTES', 100)


@pytest.fixture
def on_disk(monkeypatch):
  """However small, images stay on the disk."""
  monkeypatch.setattr(storage, '_IN_MEMORY_BYTES', 0)


def made(cache_dir, key='a', count=5):
  rows = np.arange(3 * count).reshape(count, 3)
  array = storage.write(key, [3], np.int64, [rows], str(cache_dir))
  np.testing.assert_array_equal(array[:], rows)
  return array


def stored_files(cache_dir):
  """Paths of all files but locks, below the folder of the version."""
  return sorted(
    str(path.relative_to(cache_dir / storage._VERSION))
    for path in cache_dir.rglob('*')
    if path.is_file() and path.name != 'lock'
  )


# Arrays.


def test_rows_of_any_shape_and_type_are_read_as_written(tmp_path, small_shards):
  values = np.random.default_rng(0).normal(size=[11, 2, 1, 2, 1, 2])
  for dtype in (np.float32, np.uint8, np.float64, np.float16):
    expected = values.astype(dtype)
    blocks = iter([expected[:1], expected[1:8], expected[8:8], expected[8:]])
    key = np.dtype(dtype).name
    notes = {'words': ['a', 'b\n']}
    storage.write(key, values.shape[1:], dtype, blocks, str(tmp_path), notes)
    array = storage.find(key, str(tmp_path))
    assert array.shape == expected.shape and len(array) == 11
    assert array.dtype == expected.dtype and array.nbytes == expected.nbytes
    assert array.notes == notes
    for index in (
      slice(None),
      slice(2, 9),
      slice(9, 2, -3),
      slice(4, 4),
      np.array([7, 0, 7, 8, 9, 10, 3, -1]),
      np.zeros([0], np.int64),
      [1, 2],
      [[1, 2], [10, 0]],
      -2,
    ):
      np.testing.assert_array_equal(array[index], expected[index])
      assert array[index].dtype == expected.dtype
    np.testing.assert_array_equal(array.take(np.array([3, 4])), expected[3:5])
    with pytest.raises(IndexError):
      array[np.array([11])]


def test_no_shard_is_larger_than_its_limit(tmp_path, small_shards):
  made(tmp_path, count=13)
  # 4 rows of 24 bytes in 100.
  sizes = {
    f: os.path.getsize(tmp_path / 'v1' / f) for f in stored_files(tmp_path)
  }
  del sizes['a/array/index.json']
  assert sizes == {
    'a/array/00000.bin': 96,
    'a/array/00001.bin': 96,
    'a/array/00002.bin': 96,
    'a/array/00003.bin': 24,
  }


def test_array_without_rows(tmp_path):
  array = storage.write('a', [2, 3], np.float32, [], str(tmp_path))
  assert array.shape == (0, 2, 3) and array[:].shape == (0, 2, 3)
  assert storage.find('a', str(tmp_path)).shape == (0, 2, 3)


def test_rows_of_another_shape_are_refused_and_leave_nothing(tmp_path):
  with pytest.raises(ValueError, match='rows of'):
    storage.write('a', [2], np.uint8, [np.zeros([4, 3])], str(tmp_path))
  assert stored_files(tmp_path) == []


def test_what_was_not_made_is_not_found(tmp_path):
  assert storage.find('a', str(tmp_path / 'nowhere')) is None
  made(tmp_path)
  assert storage.find('b', str(tmp_path)) is None


def test_the_user_s_cache_is_where_the_system_wants_it(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
  storage.write('a', [1], np.uint8, [], None)
  assert stored_files(tmp_path / 'xdg' / 'tfda') == ['a/array/index.json']
  monkeypatch.delenv('XDG_CACHE_HOME')
  monkeypatch.setenv('HOME', str(tmp_path))
  assert storage.find('a', None) is None
  storage.write('a', [1], np.uint8, [], None)
  assert stored_files(tmp_path / '.cache' / 'tfda') == ['a/array/index.json']


def test_threads_read_their_own_rows(tmp_path, small_shards):
  array = made(tmp_path, count=1000)

  def rows_are_right(seed):
    index = np.random.default_rng(seed).integers(1000, size=64)
    return (array[index] == 3 * index[:, np.newaxis] + [0, 1, 2]).all()

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(pool.map(rows_are_right, range(200)))


def test_open_files_are_closed_with_the_array(tmp_path):
  before = len(os.listdir('/proc/self/fd'))
  array = made(tmp_path)
  assert len(os.listdir('/proc/self/fd')) == before + 1
  del array
  assert len(os.listdir('/proc/self/fd')) == before


def test_array_that_is_deleted_while_it_is_in_use_is_still_read(tmp_path):
  array = made(tmp_path)
  for file in stored_files(tmp_path):
    os.remove(tmp_path / 'v1' / file)
  assert array[:].sum() == sum(range(15))


def test_array_that_is_cut_off_while_it_is_in_use_is_no_endless_loop(tmp_path):
  array = made(tmp_path)
  cut(tmp_path / 'v1' / 'a' / 'array' / '00000.bin')
  with pytest.raises(OSError, match='cut off'):
    array[:]


# Damage.


def _damage(path, how):
  if how == 'missing':
    path.unlink()
  elif how == 'cut':
    cut(path)
  elif how == 'longer':
    path.write_bytes(path.read_bytes() + b'0')
  else:
    path.write_bytes(how)


@pytest.mark.parametrize(
  'file, how',
  [
    ('00000.bin', 'missing'),
    ('00000.bin', 'cut'),
    ('00000.bin', 'longer'),
    ('index.json', 'missing'),
    ('index.json', 'cut'),
    ('index.json', b''),
    ('index.json', b'\xff\xfe'),
    ('index.json', b'[]'),
    ('index.json', b'{"sha256": ""}'),
  ],
)
def test_damaged_array_is_made_anew_and_says_so(tmp_path, capsys, file, how):
  made(tmp_path)
  _damage(tmp_path / 'v1' / 'a' / 'array' / file, how)
  assert storage.find('a', str(tmp_path)) is None
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(f'{tmp_path}/v1/a/array is damaged and made anew: ')
  made(tmp_path)
  assert capsys.readouterr().err == ''
  assert storage.find('a', str(tmp_path)) is not None


def test_index_that_was_changed_is_damaged(tmp_path, capsys):
  made(tmp_path, count=4)
  path = tmp_path / 'v1' / 'a' / 'array' / 'index.json'
  signed = json.loads(path.read_text())
  signed['index'].update(shape=[2, 6])  # As many bytes.
  path.write_text(json.dumps(signed))
  assert storage.find('a', str(tmp_path)) is None
  assert 'index.json' in capsys.readouterr().err


# Interrupted builds, and two at once.


def test_interrupted_build_leaves_nothing(tmp_path):
  def blocks():
    yield np.zeros([9, 3])
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    storage.write('a', [3], np.int64, blocks(), str(tmp_path))
  assert stored_files(tmp_path) == []
  assert storage.find('a', str(tmp_path)) is None
  made(tmp_path)


def test_parts_of_dead_builds_are_removed_and_of_living_ones_kept(tmp_path):
  write(tmp_path / 'v1' / 'dead' / 'part' / '00000.bin', b'half of it')
  write(tmp_path / 'v1' / 'a' / 'part' / '00007.bin', b'of an earlier try')

  def blocks():
    yield np.zeros([1, 3])
    made(tmp_path, 'b')
    assert os.path.exists(tmp_path / 'v1' / 'a' / 'part' / '00000.bin')
    yield np.ones([1, 3])

  array = storage.write('a', [3], np.int64, blocks(), str(tmp_path))
  np.testing.assert_array_equal(array[:], [[0, 0, 0], [1, 1, 1]])
  assert stored_files(tmp_path) == [
    f'{key}/array/{file}'
    for key in 'ab'
    for file in ('00000.bin', 'index.json')
  ]


def test_of_two_builds_at_once_one_waits_and_takes_the_other_s(
  tmp_path, capsys
):
  waiting = threading.Event()

  def slow():
    yield np.zeros([1, 3])
    waiting.wait(10)
    time.sleep(0.2)  # For the other to come to the lock.
    yield np.ones([1, 3])

  def never():
    raise AssertionError('made twice')
    yield

  with concurrent.futures.ThreadPoolExecutor() as pool:
    first = pool.submit(
      storage.write, 'a', [3], np.int64, slow(), str(tmp_path)
    )
    while not (tmp_path / 'v1' / 'a' / 'part' / '00000.bin').exists():
      time.sleep(0.01)
    second = pool.submit(
      storage.write, 'a', [3], np.int64, never(), str(tmp_path)
    )
    waiting.set()
    np.testing.assert_array_equal(first.result()[:], [[0] * 3, [1] * 3])
    np.testing.assert_array_equal(second.result()[:], [[0] * 3, [1] * 3])
  (line,) = capsys.readouterr().err.splitlines()
  assert line == f'waiting for another run to write {tmp_path}/v1/a'


_PROGRAM = """
import sys
import numpy as np
from tfda.data import files, storage
paths = [f'{sys.argv[1]}/{i}.png' for i in range(200)]
images, kept, skipped = storage.decoded(paths, 64, files.Reading(sys.argv[2]))
print(len(images), int(np.asarray(images[:], np.int64).sum()))
"""


@pytest.mark.slow
def test_processes_killed_while_they_decode_leave_the_others_right(tmp_path):
  for i in range(200):
    write(tmp_path / f'{i}.png', noise(70, 60, 3, seed=i))
  command = [sys.executable, '-c', _PROGRAM, str(tmp_path), str(tmp_path / 'c')]
  runs = [
    subprocess.Popen(
      command,
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(3)
  ]
  while not list((tmp_path / 'c').glob('v1/*/part')):
    assert any(run.poll() is None for run in runs)
    time.sleep(0.005)
  # One of the three holds the lock; whichever it is, some may die in the work.
  runs[0].send_signal(signal.SIGKILL)
  outputs = [run.communicate(timeout=120) for run in runs]
  expected = sum(
    int(images.read(str(tmp_path / f'{i}.png'), 64).sum()) for i in range(200)
  )
  for output, _ in outputs[1:]:
    assert output.split() == ['200', str(expected)]
  assert not list((tmp_path / 'c').glob('v1/*/part'))


# Images.


def photographs(folder, count=6):
  return [
    str(write(folder / f'{i}.png', noise(9, 8, 3, seed=i)))
    for i in range(count)
  ]


def decoded(paths, tmp_path, size=5, **reading):
  return storage.decoded(
    paths, size, files.Reading(str(tmp_path / 'cache'), **reading)
  )


def count_reads(monkeypatch):
  """The list of the files that are read from now on."""
  read, seen = images.read, []

  def record(file, *arguments):
    seen.append(file)
    return read(file, *arguments)

  monkeypatch.setattr(images, 'read', record)
  return seen


def test_images_are_decoded_once(tmp_path, monkeypatch):
  paths = photographs(tmp_path)
  expected = np.stack([images.read(path, 5) for path in paths])
  seen = count_reads(monkeypatch)
  for _ in range(2):
    found, positions, skipped = decoded(paths, tmp_path)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8
    assert positions.tolist() == [0, 1, 2, 3, 4, 5] and skipped == ()
  assert sorted(seen) == sorted(paths)


def test_files_of_all_kinds_keep_their_order(tmp_path):
  paths = photographs(tmp_path)
  for i in range(6, 12):
    paths.append(str(write(tmp_path / f'{i}.jpg', noise(9, 8, 3, seed=i))))
  paths = paths[::2] + paths[1::2]
  bad = [2, 5, 10]
  cut(pathlib.Path(paths[bad[0]]))  # A PNG.
  cut(pathlib.Path(paths[bad[1]]))  # A JPEG without its end.
  break_tables(paths[bad[2]])
  found, positions, skipped = decoded(paths, tmp_path, on_bad_image='skip')
  assert skipped == tuple(
    (paths[i], storage.or_reason(images.read, paths[i], 5)) for i in bad
  )
  assert positions.tolist() == [0, 1, 3, 4, 6, 7, 8, 9, 11]
  np.testing.assert_array_equal(
    found, [images.read(paths[i], 5) for i in positions]
  )


@pytest.mark.parametrize(
  'name, limit',
  [('_IN_MEMORY_BYTES', 6 * 5 * 5 * 3), ('_SMALL_ROW_BYTES', 5 * 5 * 3)],
)
def test_small_sets_of_small_images_are_in_memory_and_others_are_not(
  tmp_path, monkeypatch, name, limit
):
  monkeypatch.setattr(storage, name, limit)
  paths = photographs(tmp_path)
  in_memory = decoded(paths, tmp_path)[0]
  assert isinstance(in_memory, np.ndarray)
  assert in_memory.nbytes == 6 * 5 * 5 * 3
  monkeypatch.setattr(storage, name, limit - 1)
  array = decoded(paths, tmp_path)[0]
  assert isinstance(array, storage.StoredArray)
  np.testing.assert_array_equal(array[np.array([4, 0])], in_memory[[4, 0]])


def test_other_files_or_settings_are_decoded_anew(tmp_path, monkeypatch):
  paths = photographs(tmp_path)
  decoded(paths, tmp_path)
  seen = count_reads(monkeypatch)

  def write_at_the_same_time():
    time = os.stat(paths[2]).st_mtime_ns
    written = (tmp_path / '2.png').read_bytes()
    write(tmp_path / '2.png', written[:-1] + written[-1:])
    os.utime(paths[2], ns=(time, time))

  changes = [
    lambda: decoded(paths, tmp_path, size=6),
    lambda: (write_at_the_same_time(), decoded(paths, tmp_path)),
    lambda: decoded(paths, tmp_path, max_pixels=1000),
    lambda: decoded(paths[::-1], tmp_path),
    lambda: (os.utime(paths[3], ns=(0, 0)), decoded(paths, tmp_path)),
    lambda: (
      write(tmp_path / '2.png', noise(9, 8, 3, seed=9)),
      decoded(paths, tmp_path),
    ),
  ]
  for i, change in enumerate(changes, 1):
    change()
    assert len(seen) == 6 * i
  np.testing.assert_array_equal(
    decoded(paths, tmp_path)[0][2], images.read(paths[2], 5)
  )


def test_files_of_one_name_size_and_time_in_two_folders_are_two_images(
  tmp_path,
):
  for folder, value in (('amazon', 1), ('dslr', 200)):
    path = write(
      tmp_path / folder / '1.bmp', np.full([4, 4, 3], value, np.uint8)
    )
    os.utime(path, ns=(0, 0))
    assert (decoded([str(path)], tmp_path)[0] == value).all()


def _with_regions(tmp_path):
  """Files of several shapes and kinds, a region of 4x4 in each, and these."""
  paths, regions, parts = [], [], []
  for i, ending in enumerate(['png', 'jpg', 'ppm', 'jpg', 'png', 'bmp']):
    image = noise(9 + i % 2, 8 + i, 3, seed=i)
    paths.append(str(write(tmp_path / f'{i}.{ending}', image)))
    regions.append((i % 4, i, i % 4 + 4, i + 4))
    pixels = images.decode(paths[-1], paths[-1])
    parts.append(pixels[i : i + 4, i % 4 : i % 4 + 4])
  return paths, tuple(regions), np.stack(parts)


def test_regions_are_cut_out_and_other_regions_are_decoded_anew(
  tmp_path, monkeypatch
):
  paths, regions, parts = _with_regions(tmp_path)
  reading = files.Reading(str(tmp_path / 'cache'))
  for _ in range(2):
    found, positions, _ = storage.decoded(paths, 4, reading, regions)
    np.testing.assert_array_equal(found, parts)
    assert positions.tolist() == [0, 1, 2, 3, 4, 5]
  seen = count_reads(monkeypatch)
  storage.decoded(paths, 4, reading, regions)
  assert seen == []
  # One row further down in the third image.
  moved = regions[:2] + ((2, 3, 6, 7),) + regions[3:]
  found = storage.decoded(paths, 4, reading, moved)[0]
  assert sorted(seen) == sorted(paths)
  (differ,) = np.nonzero((found != parts).any(axis=(1, 2, 3)))
  assert differ.tolist() == [2]
  np.testing.assert_array_equal(found[2, :-1], parts[2, 1:])
  # The whole images are a third set.
  found = storage.decoded(paths, 4, reading)[0]
  np.testing.assert_array_equal(found, [images.read(p, 4) for p in paths])


def test_regions_are_cut_out_where_the_cache_cannot_be_made(
  tmp_path, on_disk, capsys
):
  paths, regions, parts = _with_regions(tmp_path)
  write(tmp_path / 'cache', 'a file, not a folder')
  write(tmp_path / '0.png', b'')
  reading = files.Reading(str(tmp_path / 'cache'), 'skip')
  found, positions, skipped = storage.decoded(paths, 4, reading, regions)
  assert 'decoded at every read' in capsys.readouterr().err
  assert positions.tolist() == [1, 2, 3, 4, 5]
  assert skipped == ((paths[0], 'an empty file'),)
  np.testing.assert_array_equal(found[[4, 0]], parts[[5, 1]])
  np.testing.assert_array_equal(found[2], parts[3])


@pytest.mark.parametrize(
  'region',
  [(1, 2, 9, 6), (1, 2, 5, 10), (-1, 2, 5, 6), (1, -2, 5, 6)]
  + [(5, 2, 5, 6), (1, 6, 5, 2)],
)
def test_image_is_bad_whose_region_is_outside_of_it_or_empty(tmp_path, region):
  path = str(write(tmp_path / 'a.png', noise(9, 8, 3)))
  with pytest.raises(images.BadImage) as error:
    images.read(path, 4, region=region)
  left, top, right, bottom = region
  assert str(error.value) == (
    f'{path}: cannot be read: the region from ({left}, {top}) to ({right}, '
    f'{bottom}) is not in the image, 8x9'
  )
  np.testing.assert_array_equal(
    images.read(path, 4, region=(4, 5, 8, 9)), noise(9, 8, 3)[5:, 4:]
  )


def _spoilt(tmp_path):
  paths = photographs(tmp_path)
  for i in (1, 4):
    write(tmp_path / f'{i}.png', b'')
  return paths


def test_bad_images_are_all_named_in_one_line(tmp_path, monkeypatch):
  paths = _spoilt(tmp_path)
  for _ in range(2):  # Decoded, then from the cache.
    with pytest.raises(errors.UsageError) as error:
      decoded(paths, tmp_path)
    assert str(error.value) == (
      f'2 of 6 images cannot be read: {paths[1]} (an empty file), {paths[4]} '
      '(an empty file); --on_bad_image=skip leaves them out'
    )


def test_of_many_bad_images_the_first_ten_are_named(tmp_path):
  paths = [str(write(tmp_path / f'{i}\n.png', b'')) for i in range(25)]
  with pytest.raises(errors.UsageError) as error:
    decoded([*paths, *photographs(tmp_path)], tmp_path)
  message = str(error.value)
  assert message.startswith('25 of 31 images cannot be read: ')
  assert '\n' not in message
  assert [repr(path) in message for path in paths] == 10 * [True] + 15 * [False]
  assert 'and 15 more;' in message


def test_bad_images_are_skipped_on_demand(tmp_path, monkeypatch):
  paths = _spoilt(tmp_path)
  with pytest.raises(errors.UsageError):
    decoded(paths, tmp_path)
  seen = count_reads(monkeypatch)
  found, positions, skipped = decoded(paths, tmp_path, on_bad_image='skip')
  assert positions.tolist() == [0, 2, 3, 5]
  assert skipped == (
    (paths[1], 'an empty file'),
    (paths[4], 'an empty file'),
  )
  assert seen == []  # They were decoded when the first call refused them.
  np.testing.assert_array_equal(
    found, [images.read(paths[i], 5) for i in positions]
  )


def test_skipping_all_images_is_refused(tmp_path):
  paths = [str(write(tmp_path / 'a.png', b'')), str(tmp_path / 'missing.png')]
  with pytest.raises(errors.UsageError) as error:
    decoded(paths, tmp_path, on_bad_image='skip')
  assert str(error.value).startswith('2 of 2 images cannot be read: ')
  assert 'No such file' in str(error.value)


def test_damaged_cache_is_decoded_anew(tmp_path, capsys):
  paths = photographs(tmp_path)
  expected = decoded(paths, tmp_path)[0]
  (shard,) = (tmp_path / 'cache').glob('v1/*/array/00000.bin')
  cut(shard)
  np.testing.assert_array_equal(decoded(paths, tmp_path)[0], expected)
  assert len(capsys.readouterr().err.splitlines()) == 1
  decoded(paths, tmp_path)
  assert capsys.readouterr().err == ''


def test_full_disk_leaves_images_to_be_decoded_at_every_read(
  tmp_path, monkeypatch, capfd, on_disk
):
  paths = photographs(tmp_path, count=300)
  write(tmp_path / '70.png', b'')
  write(tmp_path / '299.png', b'')
  seen = count_reads(monkeypatch)
  with file_size_limit(9000):  # 120 of 300 images of 75 bytes.
    found, positions, skipped = decoded(paths, tmp_path, on_bad_image='skip')
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith(str(tmp_path / 'cache'))
  assert 'File too large; images are decoded at every read' in line
  assert stored_files(tmp_path / 'cache') == []
  # Every file was looked at once, so that all bad ones are known.
  assert sorted(seen) == sorted(paths)
  assert skipped == (
    (paths[70], 'an empty file'),
    (paths[299], 'an empty file'),
  )
  assert positions.tolist() == [i for i in range(300) if i not in (70, 299)]
  assert found.shape == (298, 5, 5, 3) and found.dtype == np.uint8
  assert len(found) == 298
  for index in (slice(60, 80), np.array([297, 5, 5]), np.zeros([0], np.int64)):
    expected = [images.read(paths[i], 5) for i in positions[index]]
    np.testing.assert_array_equal(
      found[index], np.reshape(expected, [-1, 5, 5, 3])
    )


def test_cache_that_cannot_be_made_serves_small_sets_from_memory(
  tmp_path, capfd
):
  paths = photographs(tmp_path)
  write(tmp_path / 'cache', 'a file, not a folder')
  found = decoded(paths, tmp_path)[0]
  assert isinstance(found, np.ndarray)
  np.testing.assert_array_equal(found, [images.read(path, 5) for path in paths])
  (line,) = capfd.readouterr().err.splitlines()
  assert 'Not a directory' in line


def test_full_disk_leaves_a_small_set_of_large_images_in_memory(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(storage, '_SMALL_ROW_BYTES', 1)
  paths = photographs(tmp_path, count=300)
  with file_size_limit(9000):  # 120 of 300 images of 75 bytes.
    found = decoded(paths, tmp_path)[0]
  assert isinstance(found, np.ndarray) and found.shape == (300, 5, 5, 3)


def test_array_that_cannot_be_written_is_one_line(tmp_path):
  with (
    file_size_limit(100),
    pytest.raises(errors.RunError, match='v1/a cannot be written: File too'),
  ):
    storage.write('a', [], np.float64, [np.zeros(50)], str(tmp_path))
  assert stored_files(tmp_path) == []


_MEMORY_PROGRAM = """
import resource, sys
import numpy as np
from tfda.data import files, storage

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

paths = [f'{sys.argv[1]}/{i}.png' for i in range(int(sys.argv[2]))]
storage.decoded(paths[:500], 64, files.Reading(sys.argv[3]))
before = peak()
images = storage.decoded(paths, 64, files.Reading(sys.argv[3]))[0]
random = np.random.default_rng(0)
for _ in range(500):
  images[random.integers(len(images), size=64)]
print(len(images), images.nbytes // 2**20, peak() - before)
"""


@pytest.mark.slow
def test_many_images_are_cached_and_read_in_little_memory(tmp_path):
  """234 MiB of images; what a run keeps of them is below a fifth."""
  count = 20_000
  for i in range(count):
    write(tmp_path / f'{i}.png', np.full([16, 16, 3], i % 251, np.uint8))
  arguments = [str(tmp_path), str(count), str(tmp_path / 'cache')]
  output = subprocess.run(
    [sys.executable, '-c', _MEMORY_PROGRAM, *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  images_count, megabytes, growth = map(int, output.split())
  assert images_count == count and megabytes == 234
  assert growth < 50
