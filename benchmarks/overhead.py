"""What the trainer costs beside the training step.

  python -m benchmarks.overhead

compares, interleaved in one process, the steps of the trainer (Keras' loop, the
input pipeline, progress, a log entry every 100 steps) with a bare loop over the
same tf.function on one fixed batch. Prints the medians and their ratio.
"""

import json
import platform
import statistics
import tempfile
import time

import tensorflow as tf

from tfda import callbacks, experiment, run_directory
from tfda.data import pipeline, task

_ROUNDS = 6
_STEPS = 50


class _Clock(tf.keras.callbacks.Callback):
  """Seconds from the end of a step to the end of the next."""

  _supports_tf_logs = True

  def __init__(self):
    super().__init__()
    self.seconds = []
    self._last = None

  def on_train_begin(self, logs=None):
    self._last = None

  def on_train_batch_end(self, batch, logs=None):
    now = time.perf_counter()
    if self._last is not None:
      self.seconds.append(now - self._last)
    self._last = now


def main():
  with tempfile.TemporaryDirectory() as folder:
    settings = experiment.Experiment(
      steps=10**6, evaluate_every=10**6, checkpoint_every=10**6, run_dir=folder
    )
    data = task.load(settings, 28)
    module = experiment.methods.load(settings.method)
    config = module.Config()
    model = experiment.build(settings, config, 10)
    (phase,) = model.phases(
      settings.steps, lambda: experiment.make_optimizer(settings, model)
    )
    model.begin_phase(phase, 0)
    run = run_directory.RunDirectory(folder)
    domains = task.training_domains(data)

    def batches(first, last):
      return pipeline.batches(
        model.STREAMS, domains, settings.batch_size, 0, first, last
      )

    fixed = next(iter(batches(0, 1)))
    bare_step = tf.function(model.train_step)
    clock, bare = _Clock(), []
    trainer = callbacks.Trainer(
      settings,
      model,
      data,
      run,
      manager=None,
      seconds=tf.Variable(0.0, dtype=tf.float64),
    )
    with trainer:
      for i in range(_ROUNDS + 1):
        first = i * _STEPS
        model.fit(
          batches(first, first + _STEPS),
          steps_per_epoch=_STEPS,
          callbacks=[trainer, clock],
          verbose=0,
        )
        for _ in range(_STEPS):
          start = time.perf_counter()
          bare_step(fixed)
          bare.append(time.perf_counter() - start)
        if i == 0:  # Tracing, and warm caches.
          clock.seconds, bare = [], []
  trained, alone = (statistics.median(s) for s in (clock.seconds, bare))
  print(
    json.dumps(
      {
        'trainer_ms': round(1e3 * trained, 2),
        'bare_ms': round(1e3 * alone, 2),
        'trainer_min_ms': round(1e3 * min(clock.seconds), 2),
        'bare_min_ms': round(1e3 * min(bare), 2),
        'ratio_of_steps_per_second': round(alone / trained, 3),
        'machine': platform.processor() or platform.machine(),
        'commit': run_directory.commit(),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
