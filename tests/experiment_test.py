"""Runs from the first step to results.json: resume, signals, refusals."""

import dataclasses
import glob
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import checkpoints, errors, experiment, run_directory
from tfda.evaluation import evaluate, selection, validators
from tfda.methods import dann
from tfda.serving import restore

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def settings(run_dir, **changed):
  return experiment.Experiment(
    **{
      'method': 'dann',
      'source': 'optdigits',
      'target': 'optdigits_m',
      'image_size': 8,
      'batch_size': 8,
      'steps': 6,
      'log_every': 2,
      'evaluate_every': 4,
      'checkpoint_every': 2,
      'run_dir': str(run_dir),
      **changed,
    }
  )


def checkpoint(run_dir):
  """{name: value} of the last checkpoint, without its clock."""
  reader = tf.train.load_checkpoint(os.path.join(run_dir, 'checkpoints'))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if not name.startswith(('seconds', 'save_counter', '_CHECKPOINTABLE'))
  }


def assert_same(one, other):
  assert set(one) == set(other)
  for name, value in one.items():
    np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  path = str(tmp_path_factory.mktemp('runs') / 'finished')
  assert experiment.train(settings(path)) == path
  return path


def test_results_say_what_was_done(finished):
  with open(os.path.join(finished, 'results.json')) as file:
    results = json.load(file)
  for name, value in [
    ('method', 'dann'),
    ('source', 'optdigits'),
    ('target', 'optdigits_m'),
    ('backbone', 'dann_mnist'),
    ('steps', 6),
    ('seed', 0),
  ]:
    assert results[name] == value
  assert set(results['accuracy']) == {'source', 'target'}
  assert results['images'] == {
    'source_train': 1297,
    'source_test': 500,
    'target_train': 1297,
    'target_test': 500,
  }
  # The headline is the last step, computed here from what was kept.
  with np.load(os.path.join(finished, 'evaluation.npz')) as kept:
    for side in ('source', 'target'):
      right = kept[f'{side}_logits'].argmax(-1) == kept[f'{side}_labels']
      assert results['accuracy'][side] == pytest.approx(right.mean())
      for digit in range(10):
        of_digit = right[kept[f'{side}_labels'] == digit]
        assert results['per_class_accuracy'][side][str(digit)] == pytest.approx(
          of_digit.mean()
        )
  assert results['validators'] == pytest.approx(
    validators.measure(selection.read_outputs(finished))
  )
  assert None not in results['validators'].values()
  assert results['images_per_second'] > 0
  assert results['oracle']['target_accuracy'] >= results['accuracy']['target']


def test_metrics_have_a_row_a_log_entry(finished):
  rows = run_directory.RunDirectory(finished).read_metrics()
  assert [row['step'] for row in rows] == [2, 4, 6]
  assert [row['accuracy/target'] is None for row in rows] == [
    True,
    False,
    False,
  ]
  # The last evaluation is of the weights that results.json is of.
  results = run_directory.RunDirectory(finished).read_results()
  for name in evaluate.WATCHED:
    assert rows[0][f'validator/{name}'] is None
    assert rows[2][f'validator/{name}'] == pytest.approx(
      results['validators'][name]
    )
  # 0.01 / (1 + 10 p)^0.75 and tanh(5 p) at p = 1/3.
  assert rows[0]['learning_rate'] == pytest.approx(
    0.01 / (1 + 10 / 3) ** 0.75, rel=1e-5
  )
  assert rows[0]['adaptation_factor'] == pytest.approx(np.tanh(5 / 3), rel=1e-5)


def test_tensorboard_has_scalars_and_samples_of_both_domains(finished):
  tags = set()
  for path in glob.glob(os.path.join(finished, 'logs', 'events*')):
    for event in tf.compat.v1.train.summary_iterator(path):
      tags.update(value.tag for value in event.summary.value)
  assert {
    'loss/label',
    'loss/domain',
    'adaptation_factor',
    'learning_rate',
    'images_per_second',
    'accuracy/source',
    'accuracy/target',
    'validator/information_maximisation',
    'samples/source',
    'samples/target',
  } <= tags


def test_finished_run_is_left_alone(finished):
  before = os.stat(os.path.join(finished, 'results.json')).st_mtime_ns
  experiment.train(settings(finished))
  after = os.stat(os.path.join(finished, 'results.json')).st_mtime_ns
  assert before == after


def test_other_settings_are_refused_by_name(finished):
  for changed, flag in [
    ({'learning_rate': 0.02}, '--learning_rate was 0.01, is 0.02'),
    ({'steps': 7}, '--steps was 6, is 7'),
    ({'method': 'source_only'}, '--method was dann, is source_only'),
  ]:
    with pytest.raises(errors.UsageError, match=flag):
      experiment.train(settings(finished, **changed))
  with pytest.raises(errors.UsageError, match='--dann.gamma was 10.0, is 5.0'):
    experiment.train(settings(finished), dann.Config(gamma=5.0))
  # Intervals and the strategy may change.
  experiment.train(settings(finished, log_every=3, strategy='mirrored'))


def test_foreign_directory_is_refused_and_not_touched(tmp_path):
  (tmp_path / 'thesis.txt').write_text('mine')
  with pytest.raises(errors.UsageError, match='not a run directory'):
    experiment.train(settings(tmp_path))
  assert os.listdir(tmp_path) == ['thesis.txt']


def test_unwritable_directory(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.UsageError, match='cannot be written'):
    experiment.train(settings(tmp_path / 'file' / 'run'))


@pytest.mark.parametrize(
  'number, exit_code', [(signal.SIGINT, 130), (signal.SIGTERM, 0)]
)
def test_signal_writes_a_checkpoint_and_the_run_goes_on(
  number, exit_code, finished, tmp_path
):
  run_dir = tmp_path / 'run'

  def interrupt():
    while not (run_dir / 'metrics.csv').exists():
      time.sleep(0.001)
    os.kill(os.getpid(), number)

  # So many steps that the signal arrives between the first log entry and them.
  many = settings(
    run_dir, steps=150, log_every=10, evaluate_every=150, checkpoint_every=150
  )
  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(errors.Interrupted, match='same command') as caught:
    experiment.train(many)
  thread.join()
  assert caught.value.exit_code == exit_code
  stopped = run_directory.RunDirectory(str(run_dir))
  assert not stopped.finished()
  reader = tf.train.load_checkpoint(stopped.checkpoints)
  step = reader.get_tensor('model/step/.ATTRIBUTES/VARIABLE_VALUE')
  assert 10 <= step < 150
  experiment.train(many)
  assert stopped.finished()
  steps = [row['step'] for row in stopped.read_metrics()]
  assert steps == list(range(10, 151, 10))


def test_loss_that_is_not_finite_names_term_and_step(tmp_path, monkeypatch):
  objective = dann.Method.objective

  def poisoned(self, batch, progress):
    total, terms = objective(self, batch, progress)
    bad = tf.where(self.step >= 3, float('nan'), 0.0)
    terms['domain'] += bad
    return total + bad, terms

  monkeypatch.setattr(dann.Method, 'objective', poisoned)
  with pytest.raises(
    errors.RunError, match='loss term domain is not finite at step 3;'
  ):
    experiment.train(settings(tmp_path / 'run'))
  kept = tf.train.latest_checkpoint(str(tmp_path / 'run' / 'checkpoints'))
  assert kept.endswith('-2')
  assert not (tmp_path / 'run' / 'results.json').exists()


def folders(path, **changed):
  """Settings of a run of three images a class and an unlabelled target."""
  from PIL import Image

  random = np.random.default_rng(0)
  for folder in ('labelled/a', 'labelled/b', 'flat'):
    (path / folder).mkdir(parents=True)
    for i in range(3):
      pixels = random.integers(256, size=[10, 12, 3], dtype=np.uint8)
      Image.fromarray(pixels).save(path / folder / f'{i}.png')
  return settings(
    path / 'run',
    source=f'folder:{path}/labelled',
    target=f'folder:{path}/flat',
    **changed,
  )


def test_class_balanced_run_tells_how_many_images_the_classes_have(
  tmp_path, capsys
):
  asked = folders(tmp_path, steps=1, class_balanced=True)
  os.remove(tmp_path / 'labelled' / 'b' / '1.png')
  experiment.train(asked)
  told = capsys.readouterr().out.splitlines()
  assert told[0] == (
    f'{asked.source}: 5 images; b 2, a 3; all classes equally often'
  )


def test_stream_without_its_labels_is_refused_and_nothing_written(tmp_path):
  with pytest.raises(errors.UsageError, match='has no labels'):
    experiment.train(folders(tmp_path, method='train_on_target'))
  assert not (tmp_path / 'run').exists()


def test_other_classes_are_refused_and_nothing_overwritten(tmp_path):
  asked = folders(tmp_path)
  run = run_directory.RunDirectory(experiment.train(asked))
  os.remove(run.results)
  os.rename(tmp_path / 'labelled' / 'a', tmp_path / 'labelled' / 'c')
  with pytest.raises(errors.UsageError, match='they were a, b, are b, c'):
    experiment.train(asked)
  assert run.class_names() == ['a', 'b']


def test_broken_checkpoint_is_named_and_training_goes_back(tmp_path, capsys):
  asked = settings(tmp_path / 'run')
  run = run_directory.RunDirectory(experiment.train(asked))
  os.remove(run.results)
  latest = checkpoints.paths(run.checkpoints)[-1]
  os.truncate(f'{latest}.index', 10)
  with pytest.raises(errors.UsageError, match='cannot be read'):
    restore.restore(run.path)  # Who predicts wants no other model.
  experiment.train(asked)
  told = capsys.readouterr()
  assert told.err.startswith(f'{latest}: ')
  assert 'going on at step 4' in told.out
  assert [row['step'] for row in run.read_metrics()] == [2, 4, 6]
  restore.restore(run.path)


def test_header_of_metrics_that_was_cut_short_is_written_anew(tmp_path):
  run = run_directory.RunDirectory(str(tmp_path))
  for torn in ('', 'ste', 'step,x\n', 'step,x\n2,0'):
    with open(run.metrics, 'w') as file:
      file.write(torn)
    run.drop_metrics_after(0)
    run.append_metrics({'step': 2, 'x': 0.5})
    assert run.read_metrics() == [{'step': 2.0, 'x': 0.5}]


def test_metrics_of_another_version_get_the_columns_of_this_one(tmp_path):
  run = run_directory.RunDirectory(str(tmp_path))
  run.append_metrics({'step': 1, 'old': 2.0, 'x': 0.5})
  run.append_metrics({'step': 2, 'x': 0.25, 'new': None})
  run.append_metrics({'step': 3, 'x': 0.125, 'new': 4.0})
  assert run.read_metrics() == [
    {'step': 1.0, 'x': 0.5, 'new': None},
    {'step': 2.0, 'x': 0.25, 'new': None},
    {'step': 3.0, 'x': 0.125, 'new': 4.0},
  ]


def test_speed_is_that_of_all_steps_since_the_last_entry(tmp_path):
  asked = settings(
    tmp_path, steps=40, log_every=20, evaluate_every=40, checkpoint_every=19
  )
  rows = run_directory.RunDirectory(experiment.train(asked)).read_metrics()
  # 20 steps of 8 + 8 images, with a checkpoint at step 38.
  seconds = rows[1]['seconds'] - rows[0]['seconds']
  assert rows[1]['images_per_second'] == pytest.approx(320 / seconds, rel=0.05)


def test_unlabelled_target_has_null_accuracy(tmp_path):
  path = experiment.train(folders(tmp_path))
  results = run_directory.RunDirectory(path).read_results()
  assert results['accuracy']['target'] is None
  assert results['per_class_accuracy']['target'] is None
  assert results['oracle'] is None
  assert results['transductive'] == {'source': True, 'target': True}
  assert 0 <= results['validators']['target_entropy'] <= np.log(2) + 1e-6


def test_features_are_kept_of_the_images_that_are_asked_for():
  run = harness.Run(harness.settings('dann'))
  domain = run.data['target', 'test']  # 512 images: two batches.
  logits, features = evaluate.predict(run.model, domain)
  images = tf.constant(domain.images[500:])
  np.testing.assert_allclose(
    features[500:], run.model.infer(images)['features'], rtol=1e-5, atol=1e-6
  )
  same, some = evaluate.predict(run.model, domain, kept=np.array([501, 3, 7]))
  np.testing.assert_array_equal(same, logits)
  np.testing.assert_array_equal(some, features[[501, 3, 7]])


def test_mirrored_run_gives_the_weights_of_one_device(finished, tmp_path):
  path = experiment.train(settings(tmp_path / 'run', strategy='mirrored'))
  ours, theirs = checkpoint(path), checkpoint(finished)
  assert set(ours) == set(theirs)
  for name, value in theirs.items():
    if 'averages' not in name:  # Sums over replicas.
      np.testing.assert_allclose(ours[name], value, atol=1e-5, err_msg=name)


def test_mirrored_runs_of_other_shapes_follow_each_other(tmp_path):
  for method in ('dann', 'gsda'):  # The second reduces within its step, too.
    run = settings(
      tmp_path / method, method=method, strategy='mirrored', steps=2
    )
    assert run_directory.RunDirectory(experiment.train(run)).finished()


@pytest.mark.parametrize('form', ['reversal', 'two_losses'])
@pytest.mark.parametrize('precision', ['float16', 'bfloat16'])
def test_mixed_precision_trains(precision, form, tmp_path):
  path = experiment.train(
    settings(tmp_path / 'run', mixed_precision=precision, steps=2),
    dann.Config(domain_losses=form),
  )
  results = run_directory.RunDirectory(path).read_results()
  assert np.isfinite(results['validators']['target_entropy'])
  assert tf.keras.mixed_precision.global_policy().name == 'float32'


def child(run_dir, *more):
  flags = settings(
    run_dir, steps=40, checkpoint_every=7, evaluate_every=20, log_every=5
  )
  words = [
    f'--{field.name}={getattr(flags, field.name)}'
    for field in dataclasses.fields(flags)
    if getattr(flags, field.name) is not None
  ]
  return subprocess.Popen(
    [sys.executable, '-m', 'tools.train', *words, '--deterministic', *more],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


@pytest.mark.slow
def test_killed_process_ends_with_the_same_bits(tmp_path):
  straight = child(tmp_path / 'straight')
  killed = child(tmp_path / 'killed')
  # Killed at whatever step it is after its first checkpoint.
  index = tmp_path / 'killed' / 'checkpoints' / 'checkpoint'
  while not index.exists() and killed.poll() is None:
    time.sleep(0.01)
  killed.send_signal(signal.SIGKILL)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  assert not (tmp_path / 'killed' / 'results.json').exists()
  resumed = child(tmp_path / 'killed')
  output, _ = resumed.communicate()
  assert resumed.returncode == 0, output
  assert 'going on at step' in output
  assert straight.communicate()[0] and straight.returncode == 0
  assert_same(
    checkpoint(tmp_path / 'killed'), checkpoint(tmp_path / 'straight')
  )
  rows = {
    name: run_directory.RunDirectory(str(tmp_path / name)).read_metrics()
    for name in ('killed', 'straight')
  }
  clocks = ('seconds', 'images_per_second')
  for ours, theirs in zip(rows['killed'], rows['straight']):
    for clock in clocks:
      ours.pop(clock), theirs.pop(clock)
  assert rows['killed'] == rows['straight']


@pytest.mark.slow
def test_memory_does_not_grow_with_a_folder_of_100_000_images(tmp_path):
  from PIL import Image

  # Of 56 x 56 pixels in memory they would take 0.9 GB, beside 0.6 GB for
  # TensorFlow, the model and a few batches.
  random = np.random.default_rng(0)
  encoded = []
  for i in range(200):
    blocks = random.integers(256, size=[7, 7, 3], dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(np.kron(blocks, np.ones([8, 8, 1], np.uint8)))
    image.save(file, ('png', 'jpeg')[i % 2])
    encoded.append(file.getvalue())
  for digit in range(10):
    folder = tmp_path / 'images' / str(digit)
    folder.mkdir(parents=True)
    for i in range(10_000):
      with open(f'{folder}/{i}.{("png", "jpg")[i % 2]}', 'wb') as file:
        file.write(encoded[i % 200])
  domain = f'folder:{tmp_path}/images'
  words = [
    *('--method=dann', f'--source={domain}', f'--target={domain}'),
    *('--resize=56', '--image_size=8', '--steps=30', '--batch_size=64'),
    *(f'--cache_dir={tmp_path}/cache', f'--run_dir={tmp_path}/run'),
  ]
  # The high-water mark since exec: that of getrusage has the parent's in it.
  code = (
    'import sys\n'
    'from tools import train\n'
    'train.main(sys.argv[1:])\n'
    'with open("/proc/self/status") as status:\n'
    '  print(status.read())\n'
  )
  try:
    trained = subprocess.run(
      [sys.executable, '-c', code, *words],
      cwd=ROOT,
      env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1'},  # Its libraries count.
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
  finally:
    shutil.rmtree(tmp_path / 'images')
    shutil.rmtree(tmp_path / 'cache', ignore_errors=True)
  assert trained.returncode == 0, trained.stdout
  results = run_directory.RunDirectory(str(tmp_path / 'run')).read_results()
  assert set(results['images'].values()) == {100_000}
  peak = re.search(r'VmHWM:\s*(\d+) kB', trained.stdout)
  assert int(peak[1]) / 2**20 < 1.25  # GiB
