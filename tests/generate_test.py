"""tfda.data.generate: the same bytes however they are made, whole or not."""

import functools
import glob
import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from tests.data_files import file_size_limit
from tfda import errors
from tfda.data import generate, syn_numbers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = syn_numbers.FOLDERS


def speckle(label, random):
  """Noise that depends on the label too."""
  return random.integers(label, 256, [8, 8, 3]).astype(np.uint8)


def dying(label, random):
  os._exit(label)


def write(out, draw=speckle, form='png', processes=1, **counts):
  counts = counts or {'train': 23, 'test': 11}
  return generate.write(
    str(out), 'syn_numbers', draw, FOLDERS, counts, 5, form, processes
  )


def contents(folder):
  paths = sorted(glob.glob(os.path.join(folder, '**', '*'), recursive=True))
  files = [path for path in paths if os.path.isfile(path)]
  return {os.path.relpath(p, folder): open(p, 'rb').read() for p in files}


def test_image_is_a_function_of_seed_split_and_index():
  def drawn(*key):
    return generate.image(speckle, 10, *key)[0].tolist()

  assert drawn(5, 'train', 3) == drawn(5, 'train', 3)
  others = [(6, 'train', 3), (5, 'test', 3), (5, 'train', 13)]
  assert all(drawn(*key) != drawn(5, 'train', 3) for key in others)
  expected = speckle(3, np.random.default_rng([5, 0, 13]))
  np.testing.assert_array_equal(drawn(5, 'train', 13), expected)


@pytest.mark.parametrize('form', generate.FORMATS)
def test_the_number_of_processes_changes_no_byte(form, tmp_path, monkeypatch):
  monkeypatch.setattr(generate, '_CHUNK', 4)
  draw = functools.partial(syn_numbers.draw, fonts=syn_numbers.find_fonts()[:2])
  alone = contents(write(tmp_path / '1', draw, form))
  assert len(alone) == (35 if form == 'png' else 3)
  assert contents(write(tmp_path / '2', draw, form, processes=2)) == alone


@pytest.mark.parametrize('form', generate.FORMATS)
def test_what_is_written_is_read_again(form, tmp_path, monkeypatch):
  # Not at the top: the processes that draw import this file.
  from tfda.data import domains

  monkeypatch.setattr(generate, '_SHARD', 10)
  write(tmp_path, form=form)
  for split, count in (('train', 23), ('test', 11)):
    drawn = [generate.image(speckle, 10, 5, split, i) for i in range(count)]
    domain = domains.load('syn_numbers', split, 8, str(tmp_path))
    # Folders are read class by class.
    order = np.argsort([label for _, label in drawn], kind='stable')
    order = order if form == 'png' else np.arange(count)
    np.testing.assert_array_equal(domain.labels, order % 10)
    np.testing.assert_array_equal(
      domain.images, np.stack([drawn[i][0] for i in order])
    )


class Terminal(io.StringIO):
  """A standard error that somebody watches."""

  def isatty(self):
    return True


def test_progress_counts_the_images_of_both_splits(tmp_path, monkeypatch):
  monkeypatch.setattr(generate, '_CHUNK', 4)
  monkeypatch.setattr(sys, 'stderr', Terminal())
  write(tmp_path)
  shown = re.split(r'[\r\n]+', sys.stderr.getvalue().strip())
  assert re.match(r'syn_numbers: +0%.* 0/34 ', shown[0])
  assert re.match(r'syn_numbers: 100%.* 34/34 .*images/s', shown[-1])


def test_names_of_shards_tell_how_many_there_are(tmp_path, monkeypatch):
  monkeypatch.setattr(generate, '_SHARD', 10)
  folder = write(tmp_path, form='tfrecord', train=30, test=11)
  assert sorted(os.listdir(folder)) == [
    'made.json',
    'test-00000-of-00002.tfrecord',
    'test-00001-of-00002.tfrecord',
    'train-00000-of-00003.tfrecord',
    'train-00001-of-00003.tfrecord',
    'train-00002-of-00003.tfrecord',
  ]


def test_files_of_images_are_named_by_class_and_index(tmp_path):
  folder = write(tmp_path, train=12, test=3)
  files = contents(folder)
  assert json.loads(files.pop('made.json')) == {
    'seed': 5,
    'counts': {'train': 12, 'test': 3},
  }
  assert sorted(files) == sorted(
    [f'train/{i % 10}/{i:06}.png' for i in range(12)]
    + [f'test/{i}/{i:06}.png' for i in range(3)]
  )
  pixels = np.asarray(Image.open(io.BytesIO(files['train/1/000011.png'])))
  expected = speckle(1, np.random.default_rng([5, 0, 11]))
  np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize('form', generate.FORMATS)
@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_interrupted_writing_leaves_nothing(form, error, tmp_path):
  drawn = []

  def draw(label, random):
    drawn.append(label)
    if len(drawn) > 25:
      raise error('disturbed')
    return speckle(label, random)

  with pytest.raises(error, match='disturbed'):
    write(tmp_path, draw, form)
  assert os.listdir(tmp_path) == []


def test_process_that_dies_is_told_in_one_line(tmp_path):
  with pytest.raises(errors.RunError, match='fewer --processes'):
    write(tmp_path, dying, processes=2)
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize('form', generate.FORMATS)
def test_full_disk_is_told_in_one_line(form, tmp_path):
  with (
    file_size_limit(50),
    pytest.raises(errors.RunError, match='syn_numbers: cannot be written: '),
  ):
    write(tmp_path, form=form)
  assert os.listdir(tmp_path) == []


def test_two_do_not_write_into_each_other_s_folder(tmp_path):
  with generate.whole_folder(str(tmp_path), 'syn_numbers'):
    with pytest.raises(errors.UsageError, match='another process'):
      write(tmp_path)
    assert os.listdir(tmp_path) == ['.syn_numbers.unfinished']
  assert os.listdir(tmp_path) == ['syn_numbers']


def test_set_that_exists_is_left_alone(tmp_path):
  before = contents(write(tmp_path))
  with pytest.raises(errors.UsageError, match='exists; remove it'):
    write(tmp_path, form='tfrecord')
  assert contents(tmp_path / 'syn_numbers') == before


def test_processes_that_draw_do_without_tensorflow():
  code = (
    'import numpy, sys\n'
    'from tfda.data import generate, syn_numbers, syn_signs\n'
    'random = numpy.random.default_rng(0)\n'
    'syn_signs.draw(3, random)\n'
    'syn_numbers.draw(3, random, syn_numbers.find_fonts())\n'
    'sys.exit("tensorflow" in sys.modules)\n'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_killed_writing_leaves_no_set_and_no_process(tmp_path):
  command = ['-m', 'tools.prepare_data', '--make=syn_signs', '--processes=2']
  process = subprocess.Popen(
    [sys.executable, *command, '--count=20000', f'--out={tmp_path}'],
    cwd=ROOT,
    stderr=subprocess.DEVNULL,
  )
  unfinished = tmp_path / '.syn_signs.unfinished'
  while not glob.glob(f'{unfinished}/train-*'):
    assert process.poll() is None
    time.sleep(0.1)
  children = f'/proc/{process.pid}/task/{process.pid}/children'
  with open(children) as file:
    workers = file.read().split()
  assert len(workers) >= 2
  process.send_signal(signal.SIGKILL)
  process.wait()
  deadline = time.monotonic() + 20
  while any(running(worker) for worker in workers):
    assert time.monotonic() < deadline
    time.sleep(0.1)
  assert os.listdir(tmp_path) == ['.syn_signs.unfinished']
  with generate.whole_folder(str(tmp_path), 'syn_signs'):
    pass
  assert os.listdir(tmp_path) == ['syn_signs']


def running(pid):
  try:
    with open(f'/proc/{pid}/stat') as file:
      return file.read().rsplit(')', 1)[1].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_no_progress_is_shown_where_nobody_watches(tmp_path, capsys):
  write(tmp_path)
  assert capsys.readouterr().err == ''
