"""What a written model must pass before it is published, and the refusals."""

import concurrent.futures
import dataclasses
import json
import os
import shutil
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf

from tests import saved_outputs, tiny_run
from tfda import errors
from tfda.serving import export, gate, restore, versions
from tools import export as export_tool

NAMES = ('a', 'b', 'c')


def answers(logits):
  """What a model would answer, by hand."""
  logits = np.asarray(logits, np.float32)
  p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  order = np.argsort(-p, axis=-1)
  labels = np.array([name.encode() for name in NAMES])
  return {
    'serving_default/logits': logits,
    'serving_default/probabilities': p,
    'serving_default/label_index': order[:, 0],
    'serving_default/label': labels[order[:, 0]],
    'classify/classes': labels[order],
    'classify/scores': np.take_along_axis(p, order, axis=-1),
    'seconds/serving_default': np.array(0.5),
  }


def reference(logits):
  logits = np.asarray(logits, np.float32)
  return gate.Reference(None, logits, None, 'images')


LOGITS = np.array([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0], [1.0, 1.0, -1.0]])


def test_same_answers_pass():
  assert gate.compare(answers(LOGITS), reference(LOGITS), NAMES, 1e-5) < 1e-7


def test_logits_are_divided_for_probabilities():
  # softmax([ln 9, 0] / 2) = softmax([ln 3, 0]) = [3/4, 1/4].
  logits = np.log([[9.0, 1.0, 1e-9]])
  calibrated = dataclasses.replace(reference(logits), divisor=2.0)
  found = answers(logits / 2.0)
  np.testing.assert_allclose(
    found['classify/scores'], [[0.75, 0.25, 0.0]], atol=1e-4
  )
  assert gate.compare(found, calibrated, NAMES, 1e-5) < 1e-7
  for ours, theirs in [
    (found, reference(logits)),
    (answers(logits), calibrated),
  ]:
    # 9/10 is another probability.
    with pytest.raises(errors.RunError, match='by 0.15 in a probability'):
      gate.compare(ours, theirs, NAMES, 1e-5)


def test_largest_difference_of_a_probability_counts():
  # p = (1 + e)^-1 for each of two classes; d p / d logit = p (1 - p) = 1/4.
  moved = LOGITS + [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [3e-4, 0.0, 0.0]]
  found = gate.compare(answers(moved), reference(LOGITS), NAMES, 1e-3)
  p = 1 / (2 + np.exp(-2.0))
  assert found == pytest.approx(3e-4 * p * (1 - p), rel=1e-2)
  with pytest.raises(
    errors.RunError, match=r'by 7.5e-05 in a probability of its signature serv'
  ):
    gate.compare(answers(moved), reference(LOGITS), NAMES, 1e-5)


@pytest.mark.parametrize(
  'output', ['serving_default/label', 'serving_default/label_index']
)
def test_another_label_is_refused_unless_rounding_may_choose(output):
  found = answers(LOGITS)
  values = found[output].copy()
  # The first two classes of the last image are equally probable.
  values[2] = {'label': b'b', 'label_index': 1}[output.split('/')[1]]
  found[output] = values
  gate.compare(found, reference(LOGITS), NAMES, 1e-5)
  values[0] = values[1]
  with pytest.raises(errors.RunError, match='another for 1 of 3 images'):
    gate.compare(found, reference(LOGITS), NAMES, 1e-5)


def test_first_class_of_classify_counts():
  found = answers(LOGITS)
  found['classify/classes'] = found['classify/classes'][:, ::-1]
  with pytest.raises(
    errors.RunError, match='classes of its signature classify is another'
  ):
    gate.compare(found, reference(LOGITS), NAMES, 1e-5)


@pytest.mark.parametrize('output', ['probabilities', 'logits'])
def test_numbers_that_are_none_are_refused(output):
  found = answers(LOGITS)
  found[f'serving_default/{output}'] = np.full([3, 3], np.nan)
  with pytest.raises(errors.RunError, match='nothing was exported'):
    gate.compare(found, reference(LOGITS), NAMES, 1e-5)


def test_accuracy_is_held_against_the_least():
  gate.check_accuracy(0.75, True, 0.75)
  gate.check_accuracy(0.0, False, None)
  with pytest.raises(errors.RunError, match='75.00% is below .*=0.76'):
    gate.check_accuracy(0.75, True, 0.76)
  with pytest.raises(errors.UsageError, match='no labels'):
    gate.check_accuracy(1.0, False, 0.5)


def test_size_speed_and_accuracy_are_measured(tmp_path):
  (tmp_path / 'a').mkdir()
  (tmp_path / 'a' / 'b').write_bytes(bytes(700_000))
  (tmp_path / 'c').write_bytes(bytes(800_000))
  predictions = np.array([2, 0, 2])
  unlabelled = reference(LOGITS)  # The run says 2, 0, 0.
  found = gate.measure(tmp_path, unlabelled, predictions, 0.5)
  assert found == gate.Measured(1_500_000, 6.0, pytest.approx(2 / 3))
  assert found.text('float16').split() == [
    *('float16', '1.50', 'MB', '6', 'images/s', '66.67%')
  ]
  labelled = gate.Reference(None, LOGITS, np.array([1, 0, 1]), 'images')
  found = gate.measure(tmp_path, labelled, predictions, 0.5)
  assert found.accuracy == pytest.approx(1 / 3)


def test_a_smaller_model_may_lose_the_margin():
  before, after = (gate.Measured(1, 1.0, share) for share in (0.75, 0.5))
  gate.check_margin(before, after, 0.25)
  gate.check_margin(after, before, 0.0)
  with pytest.raises(errors.RunError, match='from 75.00% to 50.00%, .*=0.2;'):
    gate.check_margin(before, after, 0.2)


@pytest.fixture
def runs(tmp_path):
  """Makes a finished run that has validators alone; returns its path."""

  def make(name, source_accuracy, score, target='t'):
    path = tmp_path / name
    path.mkdir()
    validators = {
      'source_accuracy': source_accuracy,
      'information_maximisation': score,
    }
    results = {'source': 's', 'target': target, 'validators': validators}
    (path / 'results.json').write_text(json.dumps(results))
    (path / 'classes.json').write_text('["a", "b"]')
    return str(path)

  return make


def test_negative_transfer_is_refused(runs):
  adapted, plain = runs('adapted', 0.9, 1.2), runs('plain', 0.91, 1.5)
  gate.check_transfer(plain, adapted)
  gate.check_transfer(adapted, adapted)
  with pytest.raises(
    errors.RunError,
    match='negative transfer: .* 1.2000 .* 90.00%, in .*plain 1.5000 .* 91.00%',
  ):
    gate.check_transfer(adapted, plain)
  # Sure of everything, and the source is lost.
  collapsed = runs('collapsed', 0.5, 2.0)
  with pytest.raises(errors.RunError, match='negative transfer'):
    gate.check_transfer(collapsed, plain)
  with pytest.raises(errors.UsageError, match='its target is u, not t'):
    gate.check_transfer(adapted, runs('other', 0.9, 1.0, 'u'))


def test_all_validators_warn_of_negative_transfer(tmp_path):
  made = saved_outputs.outputs(shift=1.0)
  plain = saved_outputs.write_run(tmp_path / 'before', made)
  made.arrays['target_logits'][:100] *= -1.0  # A quarter of them.
  made.arrays.pop('target_labels')  # Nor is it told by labels.
  hurt = saved_outputs.write_run(tmp_path / 'after', made)
  (line,) = gate.warnings(hurt, plain)
  assert line.startswith('warning: more validators are worse (')
  assert gate.warnings(plain, plain) == []
  os.remove(os.path.join(plain, 'evaluation.npz'))
  (line,) = gate.warnings(hurt, plain)
  assert line.startswith('not compared image by image: ')


@pytest.fixture(scope='module')
def run_dir(tmp_path_factory):
  return tiny_run.path(tmp_path_factory)


@pytest.fixture(scope='module')
def restored(run_dir):
  return restore.restore(run_dir)


def test_reference_is_what_the_run_saved(run_dir, restored):
  found = gate.reference(*restored, 7)
  with np.load(os.path.join(run_dir, 'evaluation.npz')) as saved:
    rows = np.sort(np.random.default_rng(0).permutation(500)[:7])
    np.testing.assert_array_equal(found.logits, saved['target_logits'][rows])
    np.testing.assert_array_equal(found.labels, saved['target_labels'][rows])
  ours = restored[2].infer(tf.constant(found.images, tf.float32))['logits']
  np.testing.assert_allclose(found.logits, ours, atol=1e-5)


def test_reference_of_an_unfinished_run_is_its_model(run_dir, restored):
  unfinished = types.SimpleNamespace(finished=lambda: False)
  found = gate.reference(unfinished, *restored[1:], 7)
  saved = gate.reference(*restored, 7)
  np.testing.assert_array_equal(found.images, saved.images)
  np.testing.assert_array_equal(found.labels, saved.labels)
  np.testing.assert_allclose(found.logits, saved.logits, atol=1e-5)


def test_reference_without_the_data_is_the_saved_images(restored, monkeypatch):
  def fail(*_):
    raise errors.UsageError('no such folder')

  monkeypatch.setattr(gate.task, 'load', fail)
  run, experiment, model = restored
  found = gate.reference(run, experiment, model, 2000)
  with np.load(run.evaluation) as saved:
    np.testing.assert_array_equal(found.images, saved['target_images'])
  assert len(found.images) == len(found.logits) == len(found.labels)
  assert 'no such folder' in found.origin
  ours = model.infer(tf.constant(found.images, tf.float32))['logits']
  np.testing.assert_allclose(found.logits, ours, atol=1e-5)
  unfinished = types.SimpleNamespace(finished=lambda: False)
  with pytest.raises(errors.UsageError, match='no such folder'):
    gate.reference(unfinished, experiment, model, 2000)


@pytest.fixture
def served(tmp_path):
  """A folder with a version that is served."""
  (tmp_path / 'parts' / '1').mkdir(parents=True)
  (tmp_path / 'parts' / '1' / 'saved_model.pb').write_text('old')
  yield tmp_path / 'parts'
  found = sorted(path.name for path in (tmp_path / 'parts').rglob('*'))
  assert found == ['1', 'saved_model.pb']


@pytest.mark.slow
def test_what_is_refused_is_not_published(
  run_dir, tmp_path, served, monkeypatch, capsys
):
  """In the whole way through the tool, beside what is served and without."""
  copy, out = tmp_path / 'run', tmp_path / 'new'
  shutil.copytree(run_dir, copy)
  words = f'--run_dir={copy}', f'--out={served}', '--checked_images=64'
  more = (*words, '--min_accuracy=0.99')
  assert tiny_run.call(export_tool, monkeypatch, *more) == 1
  assert 'is below --min_accuracy=0.99; nothing' in capsys.readouterr().err
  # A model of another run's evaluation.
  with np.load(copy / 'evaluation.npz') as saved:
    arrays = dict(saved)
  arrays['target_logits'] = arrays['target_logits'][::-1]
  np.savez(copy / 'evaluation.npz', **arrays)
  for folder in (served, out):
    words = f'--run_dir={copy}', f'--out={folder}'
    assert tiny_run.call(export_tool, monkeypatch, *words) == 1
    assert 'error: the written model differs from the run' in (
      capsys.readouterr().err
    )
  assert not out.exists()


def test_what_lost_against_the_source_alone_is_not_published(
  runs, served, monkeypatch, capsys
):
  adapted, plain = runs('adapted', 0.9, 1.2), runs('plain', 0.9, 1.5)
  words = f'--run_dir={adapted}', f'--out={served}', f'--compare={plain}'
  assert tiny_run.call(export_tool, monkeypatch, *words) == 1
  told = capsys.readouterr().err
  assert told.startswith('error: negative transfer: ') and '--force' in told
  assert told.count('\n') == 1
  # By force it goes on, and is told of all the same; this run has no weights.
  assert tiny_run.call(export_tool, monkeypatch, *words, '--force') == 2
  told = capsys.readouterr().err
  assert 'negative transfer: ' not in told and 'not compared image' in told


def test_a_process_that_fails_says_why(tmp_path):
  (tmp_path / 'saved_model.pb').write_bytes(b'no model')
  with pytest.raises(
    errors.RunError, match='does not answer in a process of its own: OSError'
  ):
    gate.answers(tmp_path, np.zeros([1, 4, 4, 3], np.uint8))


def test_versions_are_whole_and_the_highest_are_kept(tmp_path):
  out = str(tmp_path / 'parts')
  for i in range(12):
    with versions.writing(out) as temporary:
      written = os.path.join(temporary, 'model')
      os.makedirs(os.path.join(written, 'assets'))
      for name in ('saved_model.pb', 'assets/labels.txt'):
        with open(os.path.join(written, name), 'w') as file:
          file.write(str(i))
      path = versions.publish(written, out)
    assert path == os.path.join(out, str(i + 1))
    versions.prune(out, 3)
  # By number, not by name.
  assert sorted(os.listdir(out), key=int) == ['10', '11', '12']
  with pytest.raises(ZeroDivisionError), versions.writing(out):
    _ = 1 / 0
  assert sorted(os.listdir(out), key=int) == ['10', '11', '12']


def write_version(out, name):
  with versions.writing(out) as temporary:
    assert os.listdir(temporary) == []
    written = os.path.join(temporary, 'model')
    os.mkdir(written)
    with open(os.path.join(written, name), 'w') as file:
      file.write(name)
    return versions.publish(written, out)


def test_what_a_killed_export_left_is_in_no_version(tmp_path, monkeypatch):
  """Nor in the way, with the same process number: in containers all are 1."""
  monkeypatch.setattr(os, 'getpid', lambda: 1)
  for name in ('.writing-1/model', '.removing-1-1', '.removing-1'):
    left = tmp_path / name
    left.mkdir(parents=True)
    (left / 'stale').write_text('')
  paths = [write_version(str(tmp_path), f'file{i}') for i in range(2)]
  assert [os.listdir(path) for path in paths] == [['file0'], ['file1']]
  assert versions.prune(str(tmp_path), 1) == [1]
  assert versions.numbers(str(tmp_path)) == [2]


def test_exports_at_the_same_time_take_different_numbers(tmp_path, monkeypatch):
  monkeypatch.setattr(os, 'getpid', lambda: 1)
  count = 8
  at_once = threading.Barrier(count, timeout=20.0)
  publish = versions.publish

  def wait_and_publish(written, out):
    at_once.wait()
    return publish(written, out)

  monkeypatch.setattr(versions, 'publish', wait_and_publish)
  with concurrent.futures.ThreadPoolExecutor(count) as pool:
    paths = list(
      pool.map(lambda i: write_version(str(tmp_path), str(i)), range(count))
    )
  assert sorted(os.listdir(tmp_path)) == [str(i + 1) for i in range(count)]
  assert [os.listdir(path) for path in paths] == [
    [str(i)] for i in range(count)
  ]


def test_a_reader_never_sees_half_a_version(tmp_path):
  """While versions come and go, as a server polls."""
  out, names = str(tmp_path), [f'part{i}' for i in range(6)]
  halves, polls, done = [], [], threading.Event()

  def poll():
    while not done.is_set():
      for number in versions.numbers(out):
        found = [
          os.path.exists(os.path.join(out, str(number), name)) for name in names
        ]
        # One that has gone meanwhile is no half.
        if not all(found) and number in versions.numbers(out):
          halves.append(number)
        polls.append(number)
      time.sleep(1e-3)

  reader = threading.Thread(target=poll)
  reader.start()
  try:
    for _ in range(10):
      with versions.writing(out) as temporary:
        written = os.path.join(temporary, 'model')
        os.mkdir(written)
        for name in names:
          with open(os.path.join(written, name), 'w') as file:
            file.write(name)
        versions.publish(written, out)
      versions.prune(out, 2)
  finally:
    done.set()
    reader.join()
  assert not halves and len(set(polls)) > 2
  assert sorted(map(int, os.listdir(out))) == [9, 10]


def test_settings_are_checked():
  with pytest.raises(errors.UsageError, match='--keep=0 is below 1'):
    export.Settings(keep=0)
  with pytest.raises(errors.UsageError, match='--min_accuracy=85'):
    export.Settings(min_accuracy=85.0)
