"""AdaptationModel: the training step that every method shares.

A method is a subclass with LOSS_TERMS and

  def objective(self, batch, progress): -> (total, {term: value})

The bases own the tape, the division by the number of replicas (Keras optimizers
add gradients up over replicas), the passes of a step, the averages, progress
and the check for numbers that are not finite. A method of two players overrides
`train_step`; it, or one whose loss is no mean over images, is `undivided`.
"""

import tensorflow as tf

from tfda import classification, training
from tfda.evaluation import evaluate, validators
from tfda.layers import noise

Phase = training.Phase


def of_all_replicas(rows):
  """[b, ...] of this replica -> [B, ...], the rows of the whole batch.

  For losses that are no means over images, so that two replicas equal one.
  Gradients flow back to the replica that a row is of.
  """
  replica = tf.distribute.get_replica_context()
  if not replica or replica.num_replicas_in_sync == 1:
    return rows
  return replica.all_gather(rows, axis=0)


class AdaptationModel(
  training.TrainingModel, classification.ClassificationModel
):
  """A classifier and the training step.

  batch['source'] has 'image' [b, S, S, 3] uint8, 'label' [b] and 'index' [b];
  batch['target'] has 'image' and 'index', never a label.

  Attributes:
    undivided: why no step can be made of passes, where a loss is not a mean
      over images or the step is the method's own; else None.
  """

  SCORES = (
    'accuracy/source',
    'accuracy/target',
    *(f'validator/{name}' for name in evaluate.WATCHED),
  )
  undivided = None

  def __init__(self, backbone, num_classes, config, seed=0, **network):
    """Makes the classifier; a method adds what else it trains.

    Args:
      backbone: a backbones.Backbone.
      num_classes: C.
      config: the method's Config.
      seed: of the noise of training.
      **network: further arguments of ClassificationModel.
    """
    super().__init__(backbone, num_classes, seed=seed, **network)
    self.config = config

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
      batch: this replica's part of the batch, or what a pass sees of it; means
        are over this part.
      progress: scalar float32 in [0, 1].
    """
    raise NotImplementedError(f'{type(self).__name__} has no objective')

  def domain_logits(self, features, class_logits):
    """What the method's domain classifier says: [B], positive for the source.

    Args:
      features: [B, D], of `infer`.
      class_logits: [B, C], likewise.

    Returns:
      None where the method has none of the features that `infer` gives.
    """
    del features, class_logits

  def scores(self, data):
    """Accuracies in [0, 1], None without labels, and the cheap validators."""
    found = evaluate.outputs(self, data)
    measured = validators.measure(found, evaluate.WATCHED)
    return {
      'accuracy/source': found.accuracy('source'),
      'accuracy/target': found.accuracy('target'),
      **{f'validator/{name}': score for name, score in measured.items()},
    }

  def phases(self, steps, make_optimizer):
    """The phases of training, one by default.

    Args:
      steps: of the whole run.
      make_optimizer: (variables=None) -> an optimizer of these variables, of
        all that train if None, with the run's settings.
    """
    return [Phase('train', steps, None, (make_optimizer(),))]

  def noise(self, batch):
    """The noise of this step, for the layers that draw; see layers.noise."""
    stream = next(iter(batch.values()))
    rows = tf.shape(stream['image'])[0]
    context = tf.distribute.get_replica_context()
    place, places = 0, 1  # Of a step by hand.
    if context:
      place = context.replica_id_in_sync_group
      places = context.num_replicas_in_sync
    if 'pass' in stream:  # The passes of a replica see rows beside each other.
      place = place * self.accumulate + stream['pass']
      places *= self.accumulate
    return noise.Noise(self.seed, self.step, rows, place, places)

  # Here and elsewhere: AutoGraph takes longer than all else of a trace, and no
  # step branches on a tensor.
  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    variables = self._phase.trainable or self.trainable_variables
    find = self._pass if self.accumulate == 1 else self._passes
    gradients, terms = find(batch, variables)
    self.update(gradients, terms, variables, self.optimizer)
    return self.end_step(terms)

  def _pass(self, batch, variables):
    """(gradients of the variables, {term: value}), 'total' among the terms."""
    with tf.GradientTape() as tape:
      total, terms = self.objective(batch, self.progress())
    gradients = self.gradients(tape, total, variables, self.optimizer)
    return gradients, {'total': total, **terms}

  def _passes(self, batch, variables):
    """What `_pass` finds, by a pass over one part of the batch after another.

    The gradients' shares add up to those of the batch; values are means.
    """
    names, reached = self.averages.names, []

    def add(number, values, *sums):
      with tf.control_dependencies([values, *sums]):  # Not all at once.
        part = self._part(batch, number)
      gradients, terms = self._pass(part, variables)
      reached[:] = [gradient is not None for gradient in gradients]
      row = tf.stack([tf.cast(terms[name], tf.float32) for name in names])
      sums = [s if g is None else s + g for s, g in zip(sums, gradients)]
      return number + 1, values + row / self.accumulate, *sums

    state = 0, tf.zeros(len(names)), *[tf.zeros(v.shape) for v in variables]
    if self.distribute_strategy.num_replicas_in_sync == 1:
      state = tf.while_loop(
        lambda number, *_: number < self.accumulate,
        add,
        state,
        parallel_iterations=1,
      )
    else:  # Replicas cannot meet, for batch normalisation, in a loop.
      for _ in range(self.accumulate):
        state = add(*state)
    _, values, *sums = state
    gradients = [s if used else None for s, used in zip(sums, reached)]
    return gradients, dict(zip(names, tf.unstack(values)))

  def _part(self, batch, number):
    """What the pass of this number sees of a batch, and its number."""

    def split(x):
      return tf.reshape(x, [self.accumulate, -1, *x.shape[1:]])

    part = {}
    for stream, content in batch.items():
      part[stream] = {k: split(x)[number] for k, x in content.items()}
      part[stream]['pass'] = number
      if 'row' in content:  # They are spread alike over all passes.
        part[stream]['row'] = split(content['row'])[0]
    return part
