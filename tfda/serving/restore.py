"""The model of a run, as its latest checkpoint has it."""

import dataclasses
import os

import tensorflow as tf

from tfda import checkpoints, errors, experiment, flag_config, run_directory


def restore(run_dir):
  """Makes the model of a run and restores it from the latest checkpoint.

  Args:
    run_dir: path of the run, which may still go on.

  Returns:
    (RunDirectory, Experiment, AdaptationModel).

  Raises:
    UsageError: there is no such run, or no checkpoint that can be read.
  """
  run = run_directory.RunDirectory(os.fspath(run_dir))
  if not os.path.isfile(run.flags):
    raise errors.UsageError(f'{run.path}: no run directory (no flags.txt)')
  settings, config = flag_config.read(run.flags)
  saved = checkpoints.paths(run.checkpoints)
  if not saved:
    raise errors.UsageError(
      f'{run.path}: no checkpoint in {run.checkpoints}; train it first'
    )
  # The checkpoint has the weights; the file of those that training began with
  # need not be there any more.
  began = dataclasses.replace(settings, backbone_weights='none')
  with experiment.precision(began):
    model = experiment.build(began, config, len(run.class_names()))
  with run_directory.reading(saved[-1]):
    status = tf.train.Checkpoint(model=model).restore(saved[-1])
    # Optimizers and counters are left in it, weights are not.
    status.expect_partial().assert_existing_objects_matched()
  return run, settings, model
