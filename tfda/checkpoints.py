"""Checkpoints of a run: written whole, and read from the last that is whole."""

import os
import re
import sys

import tensorflow as tf

from tfda import errors, run_directory


class Checkpoints:
  """All that a run must remember between two processes.

  Attributes:
    folder: of the checkpoints of the run.
    seconds: float64 variable, seconds of training.
  """

  def __init__(self, model, phases, run, writing):
    """Makes them of a model and the optimizers of its phases.

    Args:
      model: a TrainingModel, all variables made.
      phases: what it goes through, in order.
      run: the RunDirectory to read from.
      writing: the one to write to; see distribution.Workers.together.
    """
    self.folder = run.checkpoints
    self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    self._manager = tf.train.CheckpointManager(
      tf.train.Checkpoint(
        model=model,
        optimizers=[o for phase in phases for o in phase.optimizers],
        seconds=self.seconds,
      ),
      writing.checkpoints,
      max_to_keep=2,
    )

  def restore(self):
    """Restores the newest that can be read, and says which ones cannot.

    Raises:
      UsageError: there are some, and none can be read.
    """
    problem = None
    for path in reversed(paths(self.folder)):
      if problem:
        print(f'{problem}; going back to {path}', file=sys.stderr)
      try:
        with run_directory.reading(path):
          self._manager.checkpoint.restore(path).assert_consumed()
        return
      except errors.UsageError as error:
        problem = error
    if problem:
      raise problem

  def save(self, step):
    """Writes one; the one before is kept beside it.

    Raises:
      RunError: it could not be written.
      OpError: another worker was lost; see distribution.Workers.together.
    """
    try:
      self._manager.save(checkpoint_number=step)
    except (OSError, tf.errors.OpError) as error:
      # What is saved of several workers is summed over them before.
      if 'Collective ops is aborted' in str(error):
        raise
      raise errors.RunError(
        f'the checkpoint of step {step} could not be written to '
        f'{self.folder}: {str(error).splitlines()[0]}; the one before is kept'
      ) from error


def paths(folder):
  """Paths of the checkpoints in a folder, by step.

  By their own names: the file that lists them may be the one that was lost.
  """
  names = os.listdir(folder) if os.path.isdir(folder) else []
  found = filter(None, (re.fullmatch(r'ckpt-(\d+)\.index', n) for n in names))
  steps = sorted(int(match.group(1)) for match in found)
  return [os.path.join(folder, f'ckpt-{step}') for step in steps]
