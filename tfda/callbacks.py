"""What happens between steps: bar, log, evaluation, checkpoint, signals."""

import contextlib
import math
import signal
import sys
import time

import numpy as np
import tensorflow as tf
import tqdm

from tfda import errors, stopping, summaries
from tfda.data import pipeline
from tfda.evaluation import pictures

_BAR_SECONDS = 1.0  # Between refreshes of the numbers beside the bar.
_SAMPLES = 16  # Images of each domain in TensorBoard.


def not_finite(terms, when):
  """The RunError for {name: value} of a loss, of which some are not finite."""
  names = [
    name
    for name, value in terms.items()
    if not math.isfinite(value) and name != 'total'
  ]
  return errors.RunError(
    f'the loss term {" and ".join(names) or "total"} is not finite {when}; the '
    'last good checkpoint is kept; try a lower --learning_rate'
  )


class Trainer(tf.keras.callbacks.Callback):
  """The callback of `experiment.train`; a context manager over all phases.

  It counts steps itself: to ask the model would wait for the device after every
  step. Keras calls it after every execution, of --steps_per_execution steps or
  as many as are left until something is to happen.
  """

  # Keras then hands over tensors; to turn them into numbers waits too.
  _supports_tf_logs = True

  def __init__(self, experiment, model, data, run, checkpoints, workers):
    """Makes the callback.

    Args:
      experiment: the Experiment.
      model: its TrainingModel, restored to where training begins.
      data: {(side, split): Domain}.
      run: the RunDirectory to write to.
      checkpoints: the Checkpoints, restored too.
      workers: the distribution.Workers.
    """
    super().__init__()
    self._experiment = experiment
    self._adapted = model
    self._data = data
    self._run = run
    self._checkpoints = checkpoints
    self._seconds = checkpoints.seconds
    self._step = int(model.step.numpy())
    self._logged_step = self._step
    self._images = 0  # Read since then.
    self._logged_seconds = float(self._seconds.numpy())
    self._workers = workers
    self._requests = stopping.StopRequests(workers, self._step)
    self._opened = contextlib.ExitStack()
    self._scores = dict.fromkeys(model.SCORES)

  def __enter__(self):
    self._run.drop_metrics_after(self._step)
    self._writer = tf.summary.create_file_writer(self._run.logs)
    self._opened.callback(self._writer.close)
    self._bar = tqdm.tqdm(
      total=self._experiment.steps,
      initial=self._step,
      desc=self._experiment.method,
      unit='step',
      # Where nobody watches (no terminal), lines alone.
      disable=None if self._workers.is_chief else True,
    )
    self._opened.enter_context(self._bar)
    if self._step == 0:
      self._write_samples()
      self._write_settings()
    else:
      self._say(f'going on at step {self._step}')
    self._opened.enter_context(self._requests)
    self._bar_time = self._clock = time.monotonic()
    return self

  def __exit__(self, *exception):
    self._opened.__exit__(*exception)

  def on_train_begin(self, logs=None):
    del logs
    self._first_step = self._step
    self._limit_execution()

  def _limit_execution(self):
    """Has the next execution end where something is to happen at the latest."""
    settings = self._experiment
    if settings.steps_per_execution > 1:
      intervals = (
        settings.log_every,
        settings.evaluate_every,
        settings.checkpoint_every,
      )
      left = min(interval - self._step % interval for interval in intervals)
      # Keras reads it before every execution, and stops at the end of a phase.
      self._adapted.steps_per_execution = min(
        settings.steps_per_execution, left
      )

  def on_train_batch_end(self, batch, logs=None):
    del logs
    step = self._first_step + batch + 1  # The number of the execution's last.
    taken, self._step = step - self._step, step
    self._images += taken * self.images_of_a_step(self._adapted.streams)
    self._bar.update(taken)
    last = self._step == self._experiment.steps
    evaluates = last or self._step % self._experiment.evaluate_every == 0
    now = time.monotonic()
    if now - self._bar_time >= _BAR_SECONDS and not self._bar.disable:
      self._bar_time = now
      self._bar.set_postfix(self._shown())
    if evaluates or self._step % self._experiment.log_every == 0:
      self._log(evaluates)
    stops = self._requests.after(self._step)
    if last or stops or self._step % self._experiment.checkpoint_every == 0:
      self._save()
    if stops and not last:
      is_interrupt = self._requests.signal == signal.SIGINT
      self._stop('the same command', 130 if is_interrupt else 0)
    self._limit_execution()

  def images_of_a_step(self, streams):
    """How many images a step takes from these streams."""
    settings = self._experiment
    return sum(
      pipeline.stream_rows(
        stream, settings.images_per_step, settings.translated_share
      )
      for stream in streams
    )

  def stop_after(self, phase):
    """Raises Interrupted at the end of a phase, after its checkpoint."""
    self._save()
    self._say(f'the phase {phase.name} is done')
    self._stop('the same command without --stop_after', 0)

  def _stop(self, command, exit_code):
    raise errors.Interrupted(
      f'stopped at step {self._step} of {self._experiment.steps}; its '
      f'checkpoint is in {self._checkpoints.folder}; {command} goes on from '
      'there',
      exit_code,
    )

  def _shown(self):
    # Outside of replicas: `logs` are sums over them. Several workers would all
    # have to ask, and one alone has a bar.
    alone = self._workers.count == 1
    means = self._adapted.averages.result() if alone else {}
    return {
      **{k: f'{float(v):.3f}' for k, v in means.items() if k != 'total'},
      **self._shown_scores(1),
    }

  def _shown_scores(self, digits):
    """{name: text} of the last evaluation; accuracies, in %, by side alone."""
    shown = {}
    for name, value in self._scores.items():
      kind, _, side = name.partition('/')
      if value is None or kind == 'validator':
        continue
      if kind == 'accuracy':
        shown[side] = f'{value:.{digits}%}'
      else:
        shown[name] = f'{value:.2f}'
    return shown

  def _stop_clock(self):
    """Adds the seconds since the clock was started to the run's."""
    self._seconds.assign_add(time.monotonic() - self._clock)

  def _log(self, evaluates):
    """One entry in metrics.csv and TensorBoard; starts the averages anew."""
    model = self._adapted
    averages = {k: float(v) for k, v in model.averages.result().items()}
    if not all(map(math.isfinite, averages.values())):  # Compiled by XLA.
      raise not_finite(averages, f'after step {self._logged_step}')
    self._stop_clock()
    seconds = float(self._seconds.numpy())
    elapsed = max(seconds - self._logged_seconds, 1e-9)
    steps_per_second = (self._step - self._logged_step) / elapsed
    evaluates = evaluates and self._evaluate()
    progress = model.progress()
    row = {
      'step': self._step,
      'seconds': f'{seconds:.3f}',
      'images_per_second': f'{self._images / elapsed:.1f}',
      'learning_rate': float(self._learning_rate(progress)),
      **{k: float(v) for k, v in model.scheduled(progress).items()},
      **{f'loss/{k}': v for k, v in averages.items()},
      **{k: v if evaluates else None for k, v in self._scores.items()},
    }
    self._run.append_metrics(row)
    with self._writer.as_default(self._step):
      for name, value in row.items():
        if value is not None and name != 'step':
          tf.summary.scalar(name, float(value))
      if evaluates and self._step < self._experiment.steps:
        for name, picture in model.pictures(self._data).items():
          if picture.watched:
            pictures.log(name, picture.draw())
    self._writer.flush()
    if evaluates:
      self._say(
        ' '.join(
          [f'step {self._step}:']
          + [f'{k} {v:.4f}' for k, v in averages.items() if k != 'total']
          + [f'{k} {text}' for k, text in self._shown_scores(2).items()]
          + [f'{steps_per_second:.1f} steps/s']
        )
      )
    model.averages.reset()
    self._logged_step, self._logged_seconds = self._step, seconds
    self._images = 0
    self._clock = time.monotonic()

  def _evaluate(self):
    """Whether it was done: a scheduler that stops the run does not wait."""
    try:
      with self._requests.interruptible():
        self._scores = self._adapted.scores(self._data)
    except stopping.Stopped:
      return False
    return True

  def _learning_rate(self, progress):
    optimizer = self._adapted.optimizer
    if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
      optimizer = optimizer.inner_optimizer
    return optimizer.rate(progress)

  def _save(self):
    """Writes a checkpoint, unless the weights are beyond use."""
    self._stop_clock()
    for weight in self._adapted.trainable_variables:
      if not np.isfinite(weight.numpy()).all():
        raise errors.RunError(
          f'the weight {weight.name} is not finite at step {self._step}; the '
          'last good checkpoint is kept; try a lower --learning_rate'
        )
    self._checkpoints.save(self._step)
    self._clock = time.monotonic()

  def write_pictures(self):
    """Draws all that the method shows of itself, after the last step.

    Returns:
      {name: caption} of the files that were written.
    """
    made = self._adapted.pictures(self._data)
    with self._writer.as_default(self._step):
      for name, picture in made.items():
        png = picture.draw()
        self._run.write_picture(name, png)
        pictures.log(name, png)
      summaries.write_end()
    return {name: picture.caption() for name, picture in made.items()}

  def _write_samples(self):
    with self._writer.as_default(0):
      for side in ('source', 'target'):
        samples = self._data[side, 'train'].images[:_SAMPLES]
        tf.summary.image(f'samples/{side}', samples, max_outputs=_SAMPLES)

  def _write_settings(self):
    """Tells TensorBoard's tabs of HParams and custom scalars of the run."""
    model = self._adapted
    with open(self._run.flags, encoding='utf-8', errors='replace') as file:
      flags = file.read()
    with self._writer.as_default(0):
      summaries.write_settings(flags)
      summaries.write_layout(
        [
          *model.SCORES,
          *(f'loss/{name}' for name in model.averages.names),
          'learning_rate',
          *model.scheduled(model.progress()),
          'images_per_second',
          'seconds',
        ]
      )

  def _say(self, line):
    """A line above the bar; on standard output where there is no bar."""
    tqdm.tqdm.write(line, file=sys.stdout)
