"""TrainingModel: what the trainer needs of a model, whatever it learns."""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import averages


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stretch of training with its own optimizers, variables and progress."""

  name: str
  steps: int
  trainable: Optional[tuple[tf.Variable, ...]]  # By the first; None: all.
  optimizers: tuple[tf.keras.optimizers.Optimizer, ...]
  streams: Optional[tuple[str, ...]] = None  # None: all of the model's.


class TrainingModel(tf.keras.Model):
  """Steps that are counted, averaged and checked; a subclass takes them.

  Attributes:
    LOSS_TERMS: names of the terms of the loss.
    STREAMS: names of the streams of a batch that it reads.
    SCORES: names of what an evaluation gives, in the order of the log.
    seed: of the noise of training.
    step: int64, steps taken; it is in the checkpoint, and progress follows it.
    averages: of the loss, since the last log entry.
    accumulate: passes whose gradients are added up to those of a step.
  """

  LOSS_TERMS = ()
  STREAMS = ('source', 'target')
  SCORES = ()

  def __init__(self, *network, seed=0, accumulate=1, **more):
    """network, more: of the next base's."""
    super().__init__(*network, **more)
    self.seed = seed
    self.accumulate = accumulate
    first = tf.VariableAggregation.ONLY_FIRST_REPLICA
    self.step = tf.Variable(0, False, dtype=tf.int64, aggregation=first)
    # No metrics, which `fit` would reset: they run from one log entry to the
    # next, across an interruption too.
    self.averages = averages.Averages(('total', *self.LOSS_TERMS))
    self._phase = self._phase_start = None

  @property
  def streams(self):
    """Names of the streams that the phase reads."""
    return (self._phase and self._phase.streams) or self.STREAMS

  def scores(self, data):
    """Evaluates: {name: number, or None where there is none} of all SCORES.

    Args:
      data: as for `pictures`.
    """
    raise NotImplementedError(f'{type(self).__name__} has no scores')

  def scheduled(self, progress):
    """{name: value} of the method's schedules, to be logged."""
    del progress
    return {}

  def pictures(self, data):
    """{name: pictures.MethodPicture} of what the method has learned.

    It is called at every evaluation, between steps and outside of replicas;
    the pictures themselves are drawn where they are needed.

    Args:
      data: {(side, split): Domain}, sides 'source' and 'target', splits 'train'
        and 'test'.
    """
    del data
    return {}

  @tf.__internal__.tracking.no_automatic_dependency_tracking
  def begin_phase(self, phase, start):
    """Trains `phase` from step `start` on. Its optimizers are not tracked."""
    self._phase, self._phase_start = phase, start
    self.compile(optimizer=phase.optimizers[0])

  def progress(self):
    """Progress within the phase, from 0 at its first step, below 1."""
    if self._phase is None:
      return tf.constant(0.0)  # An optimizer asks while it is made.
    done = tf.cast(self.step - self._phase_start, tf.float32)
    return done / float(self._phase.steps)

  def descend(self, tape, terms, variables, optimizer):
    """Updates variables by the gradient of terms['total'], if all is finite."""
    gradients = self.gradients(tape, terms['total'], variables, optimizer)
    self.update(gradients, terms, variables, optimizer)

  def gradients(self, tape, total, variables, optimizer):
    """Those of this pass's share of the loss, scaled as the optimizer scales.

    Returns:
      A tensor for every variable; None where the loss does not depend on it.
    """
    parts = self.distribute_strategy.num_replicas_in_sync * self.accumulate
    share = tf.constant(1.0 / parts)
    if _scales(optimizer):
      share = optimizer.get_scaled_loss(share)
    return tape.gradient(total, variables, share)

  def update(self, gradients, terms, variables, optimizer):
    """Updates variables by the sums of their `gradients`, if all is finite.

    Compiled by XLA, which has no way out of a step, even if not: the trainer
    sees it in the averages.
    """
    if _scales(optimizer):
      gradients = optimizer.get_unscaled_gradients(gradients)
    if not self.jit_compile:
      # In the order of the averages, by which the trainer names a bad one.
      values = [
        tf.cast(terms.get(k, 0.0), tf.float32) for k in self.averages.names
      ]
      finite = tf.reduce_all(tf.math.is_finite(values))
      data = ['not finite', self.step, values]
      check = tf.debugging.Assert(finite, data, len(values))
      with tf.control_dependencies([check]):
        gradients = tf.nest.map_structure(tf.identity, gradients)
    optimizer.apply_gradients(zip(gradients, variables))

  def end_step(self, terms):
    """Counts a step and the values of its terms; returns the averages."""
    self.step.assign_add(1)
    self.averages.add(terms)
    return self.averages.result()


def _scales(optimizer):
  """Whether it scales the loss, for gradients in float16."""
  scaling = tf.keras.mixed_precision.LossScaleOptimizer
  return isinstance(optimizer, scaling)
