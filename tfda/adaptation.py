"""AdaptationModel: the training step that every method shares.

A method is a subclass with LOSS_TERMS and

  def objective(self, batch, progress): -> (total, {term: value})

The base owns the tape, the division by the number of replicas (Keras optimizers
add gradients up over replicas), the averages, progress and the check for
numbers that are not finite. A method of two players overrides `train_step`.
"""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import averages, classification
from tfda.layers import noise


@dataclasses.dataclass(frozen=True)
class Phase:
  """A stretch of training with its own optimizers, variables and progress."""

  name: str
  steps: int
  trainable: Optional[tuple[tf.Variable, ...]]  # By the first; None: all.
  optimizers: tuple[tf.keras.optimizers.Optimizer, ...]
  streams: Optional[tuple[str, ...]] = None  # None: all of the method's.


class AdaptationModel(classification.ClassificationModel):
  """A classifier and the training step.

  batch['source'] has 'image' [b, S, S, 3] uint8, 'label' [b] and 'index' [b];
  batch['target'] has 'image' and 'index', never a label.

  Attributes:
    LOSS_TERMS: names of the terms that `objective` returns.
    STREAMS: names of the streams of a batch that it reads.
    step: int64, steps taken; it is in the checkpoint, and progress follows it.
  """

  LOSS_TERMS = ()
  STREAMS = ('source', 'target')

  def __init__(self, backbone, num_classes, config, seed=0, **network):
    """Makes the classifier; a method adds what else it trains.

    Args:
      backbone: a backbones.Backbone.
      num_classes: C.
      config: the method's Config.
      seed: of the noise of training.
      **network: further arguments of ClassificationModel.
    """
    super().__init__(backbone, num_classes, **network)
    self.config = config
    self.seed = seed
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

  def statistics_of(self, domain):
    seen = {name.split('_')[-1] for name in self.STREAMS}
    return domain if domain in seen else seen.pop()

  def both_features(self, source_images, target_images, extract=None):
    """Features [2b, ...] in training, those of the source first.

    In one pass, the fast form on a CPU, in which batch normalisation sees both
    domains; in two where the backbone has statistics of each. `extract` is
    (images, training, domain) -> features, `features` if None.
    """
    extract = extract or self.features
    images = {'source': source_images, 'target': target_images}
    if not self.backbone.has_domain_statistics:
      return extract(tf.concat(list(images.values()), axis=0), True)
    return tf.concat([extract(x, True, d) for d, x in images.items()], axis=0)

  def objective(self, batch, progress):
    """The method: (scalar to minimise, {term: scalar for every LOSS_TERMS}).

    Args:
      batch: this replica's part of the batch; means are over this part.
      progress: scalar float32 in [0, 1].
    """
    raise NotImplementedError(f'{type(self).__name__} has no objective')

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

  def phases(self, steps, make_optimizer):
    """The phases of training, one by default.

    Args:
      steps: of the whole run.
      make_optimizer: (variables=None) -> an optimizer of these variables, of
        all that train if None, with the run's settings.
    """
    return [Phase('train', steps, None, (make_optimizer(),))]

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

  def noise(self, batch):
    """The noise of this step, for the layers that draw; see layers.noise."""
    rows = tf.shape(next(iter(batch.values()))['image'])[0]
    context = tf.distribute.get_replica_context()
    place = (0, 1)  # Of a step by hand.
    if context:
      place = context.replica_id_in_sync_group, context.num_replicas_in_sync
    return noise.Noise(self.seed, self.step, rows, *place)

  # Here and elsewhere: AutoGraph takes longer than all else of a trace, and no
  # step branches on a tensor.
  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    with tf.GradientTape() as tape:
      total, terms = self.objective(batch, self.progress())
    terms = {'total': total, **terms}
    variables = self._phase.trainable or self.trainable_variables
    self.descend(tape, terms, variables, self.optimizer)
    return self.end_step(terms)

  def descend(self, tape, terms, variables, optimizer):
    """Updates variables by the gradient of terms['total'], if all is finite."""
    scales = isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    share = tf.constant(1.0 / self.distribute_strategy.num_replicas_in_sync)
    share = optimizer.get_scaled_loss(share) if scales else share
    gradients = tape.gradient(terms['total'], variables, share)
    if scales:
      gradients = optimizer.get_unscaled_gradients(gradients)
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
