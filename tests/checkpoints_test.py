"""A checkpoint that was damaged is named, and the one before is used."""

import os

import numpy as np
import pytest
import tensorflow as tf

from tfda import checkpoints, errors, run_directory, training


@pytest.fixture
def run(tmp_path):
  return run_directory.RunDirectory(str(tmp_path))


class Model(training.TrainingModel):
  """A weight of 64 numbers."""

  def __init__(self):
    super().__init__()
    self.weight = tf.Variable(tf.zeros([64]), name='weight')


def saved(run, steps):
  """Checkpoints of a weight that is the step everywhere, and its model."""
  model = Model()
  made = checkpoints.Checkpoints(model, [], run, run)
  for step in steps:
    model.weight.assign(tf.fill([64], float(step)))
    made.save(step)
  return made, model


def weight_after_restoring(run):
  made, model = saved(run, [])
  made.restore()
  return model.weight.numpy()


def test_newest_two_are_kept_by_the_number_of_their_step(run):
  saved(run, [9, 10, 100])
  assert checkpoints.paths(run.checkpoints) == [
    os.path.join(run.checkpoints, name) for name in ('ckpt-10', 'ckpt-100')
  ]
  np.testing.assert_array_equal(weight_after_restoring(run), np.full(64, 100.0))


def test_without_any_nothing_is_restored(run):
  np.testing.assert_array_equal(weight_after_restoring(run), np.zeros(64))


def test_lost_list_of_checkpoints_is_not_needed(run):
  saved(run, [1, 2])
  os.remove(os.path.join(run.checkpoints, 'checkpoint'))
  np.testing.assert_array_equal(weight_after_restoring(run), np.full(64, 2.0))


@pytest.mark.parametrize('ending', ['index', 'data-00000-of-00001'])
def test_truncated_checkpoint_is_named_and_skipped(run, ending, capsys):
  saved(run, [1, 2])
  path = os.path.join(run.checkpoints, f'ckpt-2.{ending}')
  os.truncate(path, os.path.getsize(path) // 2)
  np.testing.assert_array_equal(weight_after_restoring(run), np.full(64, 1.0))
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith(os.path.join(run.checkpoints, 'ckpt-2: '))
  assert line.endswith(f'going back to {run.checkpoints}/ckpt-1')


@pytest.mark.parametrize('ending', ['index', 'data-00000-of-00001'])
def test_no_flipped_bit_gets_into_the_weights(run, ending):
  saved(run, [1, 2])
  path = os.path.join(run.checkpoints, f'ckpt-2.{ending}')
  with open(path, 'rb') as file:
    whole = file.read()
  random = np.random.default_rng(0)
  went_back = 0
  for place in random.integers(len(whole), size=60):
    flipped = bytearray(whole)
    flipped[place] ^= 1 << random.integers(8)
    with open(path, 'wb') as file:
      file.write(flipped)
    weight = weight_after_restoring(run)
    assert weight[0] in (1.0, 2.0)
    np.testing.assert_array_equal(weight, np.full(64, weight[0]))
    went_back += weight[0] == 1.0
  assert went_back > 30


def test_all_damaged_is_an_error_of_one_line(run):
  saved(run, [1, 2])
  for step in (1, 2):
    os.truncate(os.path.join(run.checkpoints, f'ckpt-{step}.index'), 10)
  with pytest.raises(errors.UsageError, match='ckpt-1: .* cannot be read'):
    weight_after_restoring(run)


@pytest.mark.parametrize(
  'error, raised',
  [
    (
      tf.errors.ResourceExhaustedError(None, None, 'ckpt-3; No space left'),
      errors.RunError,
    ),
    # The disk is not to blame.
    (
      tf.errors.UnavailableError(
        None, None, 'Collective ops is aborted by: Connection reset by peer'
      ),
      tf.errors.UnavailableError,
    ),
  ],
)
def test_lost_worker_is_not_taken_for_a_full_disk(
  run, error, raised, monkeypatch
):
  made, _ = saved(run, [1])

  def fail(checkpoint_number):
    raise error

  monkeypatch.setattr(made._manager, 'save', fail)
  with pytest.raises(raised):
    made.save(3)
