"""A method on a toy problem, step by step, for the tests of all methods."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tfda import backbones, experiment, methods
from tfda.data import domains, pipeline, task, translated
from tfda.layers import preprocessing

SIZE = 8


@functools.cache
def toy_domain(name, split, count=512):
  """Stripes, upright or level (the class), under a tint (the nuisance).

  In the source the tint tells the class as well, and is easier to see. In the
  target it is always that of class 1: who relies on it is right half the time.
  """
  random = np.random.default_rng([name == 'source', split == 'train'])
  labels = random.integers(2, size=count).astype(np.int32)
  rows, columns = np.mgrid[:SIZE, :SIZE]
  stripes = np.stack([rows % 4 < 2, columns % 4 < 2]) - 0.5
  tint = 2.0 * labels - 1.0 if name == 'source' else np.ones(count)
  tint = tint + random.normal(0.0, 0.5, count)
  images = np.full([count, SIZE, SIZE, 3], 128.0)
  images[..., 0] += 60.0 * stripes[labels]
  images[..., 1:] += 25.0 * tint[:, np.newaxis, np.newaxis, np.newaxis]
  images += random.normal(0.0, 20.0, images.shape)
  images = np.clip(images, 0, 255).astype(np.uint8)
  images.flags.writeable = labels.flags.writeable = False  # All share them.
  return domains.Domain(name, split, images, labels, ('level', 'upright'))


@functools.cache
def toy_translation(side):
  """The training images of a side under a tint of the other.

  Of the target under a tint of any class: whose it is, it cannot know.
  """
  domain = toy_domain(side, 'train')
  images = domain.images.astype(np.float64)
  if side == 'source':
    tint = 1.0 - (2.0 * domain.labels - 1.0)
  else:
    classes = np.random.default_rng(0).integers(2, size=len(images))
    tint = (2.0 * classes - 1.0) - 1.0
  images[..., 1:] += 25.0 * tint[:, np.newaxis, np.newaxis, np.newaxis]
  images = np.clip(images, 0, 255).astype(np.uint8)
  return dataclasses.replace(domain, images=images)


def toy_data():
  """{(side, split): Domain}, as the trainer has it."""
  data = {
    (side, split): toy_domain(side, split)
    for side in ('source', 'target')
    for split in ('train', 'test')
  }
  for direction, side in translated.DIRECTIONS.items():
    data[direction, 'train'] = toy_translation(side)
  return data


def calibrated(name, size=32):
  """A backbone of random weights whose features are of images, not rounding.

  As they are made, the averages of batch normalisation let a MobileNet's
  features shrink to 1e-21.
  """
  tf.keras.utils.set_random_seed(1)  # Not that of a run.
  backbone = backbones.load(name, requested_size=size)
  norms = [
    layer
    for layer in backbone.network.layers
    if isinstance(layer, tf.keras.layers.BatchNormalization)
  ]
  momenta = [norm.momentum for norm in norms]
  for norm in norms:
    norm.momentum = 0.0  # The averages are then those of one batch.
  images = np.random.default_rng(0).integers(0, 256, [32, size, size, 3])
  backbone.feature_map(images.astype(np.uint8), training=True)
  for norm, momentum in zip(norms, momenta):
    norm.momentum = momentum
  return backbone


def normalised(image_size):
  """A small backbone with batch normalisation, as those of libraries have."""
  layers = tf.keras.layers
  inputs = x = layers.Input([image_size, image_size, 3])
  x = layers.Conv2D(4, 3, 2, padding='same', name='conv1')(x)
  x = layers.BatchNormalization(name='norm')(x)
  x = layers.ReLU(name='relu')(x)
  x = layers.Conv2D(6, 3, padding='same', name='conv2')(x)
  return backbones.Backbone(
    backbones._for_adaptation(tf.keras.Model(inputs, x)),
    preprocessing.Normalise(),
    pooling='flatten',
    measures_mean=True,
  )


# Settings of methods whose widths cost seconds here and show nothing.
_NARROW = {
  'local_feature_patterns': {
    'num_patterns': 4,
    'holistic_units_1': 8,
    'holistic_units_2': 16,
    'local_units_1': 8,
    'local_units_2': 16,
  },
  # Of four steps, the last adapts.
  'adda': {'source_share': 0.75},
  # With more, a rounding error in one run alone grows to 0.01 in twenty steps.
  'dan': {'mmd_weight': 0.1},
  'jan': {'joint_mmd_weight': 0.03},
  # At the end of the run, progress is to be 1; some images are to be believed.
  'attention_alignment': {
    'source_share': 0.25,
    'restart_schedule': False,
    'refresh_every': 2,
    'posterior_threshold': 0.5,
  },
}


def narrow(method):
  """{setting: value} with which a method is as small as it can be."""
  return _NARROW.get(method, {})


_ADAM = {
  'optimizer': 'adam',
  'learning_rate': 1e-3,
  'learning_rate_alpha': 0.0,
}
# {method: (settings, settings of its Config)} with which it solves the toy
# problem, and `source_only` does not.
_SOLVED_BY = {
  'source_only': ({'steps': 150}, {}),
  'train_on_target': ({'steps': 150}, {}),
  'dann': ({}, {}),
  # The tint keeps the classifier unsure of half of the target: all take part.
  'gsda': ({}, {'confidence_threshold': 0.0}),
  'tada': ({}, {}),
  'adda': ({**_ADAM, 'momentum': 0.5}, {}),
  'bsp': ({}, {'conditioning': 'none'}),
  # At lambda = 1 the narrow discriminators of the next two are slower.
  'cdan': ({}, {'domain_weight': 3.0}),
  'mada': ({}, {'domain_weight': 3.0}),
  # By plain SGD, its adversary of three layers does not follow in 300 steps.
  'mdd': (_ADAM, {'adversarial_weight': 0.3}),
  # The features, which no label loss trains, take longer, by plain SGD longer
  # still; of five seeds 600 steps solve it for three.
  'symnets': ({**_ADAM, 'steps': 1000}, {}),
  'wdgrl': ({'steps': 100}, {'domain_weight': 1.0}),
  'deep_coral': ({}, {}),
  # The weights of the flag files of networks of random weights.
  'dan': ({}, {'mmd_weight': 0.03}),
  'rtn': ({}, {'entropy_weight': 0.1, 'mmd_weight': 0.1}),
  'jan': ({}, {}),
  'attention_alignment': (
    {
      'steps': 150,
      'batch_size': 16,
      'optimizer': 'adam',
      'learning_rate': 1e-3,
    },
    {'refresh_every': 40, 'posterior_threshold': 0.9},
  ),
  'local_feature_patterns': (
    {'steps': 75, 'optimizer': 'adam', 'learning_rate': 1e-3},
    {
      'num_patterns': 8,
      'local_units_1': 32,
      'local_units_2': 5,
      'classifier_rate': 10.0,
    },
  ),
}


def toy(method, **changed):
  """A Run that solves the toy problem in its `settings.steps`."""
  trained, config = _SOLVED_BY[method]
  trained = {'steps': 300, 'batch_size': 32, **trained, **changed}
  return Run(settings(method, **trained), methods.load(method).Config(**config))


def settings(method, **changed):
  """An Experiment of tiny size."""
  return experiment.Experiment(
    **{
      'method': method,
      'image_size': SIZE,
      'batch_size': 8,
      'steps': 4,
      **changed,
    }
  )


# Its trace takes as long as some steps, and many runs have the same batches.
@functools.lru_cache
def _batches(*arguments):
  domains = task.training_domains(toy_data())
  streams, *others = arguments
  return pipeline.batches(streams, domains, *others, translated_share=0.5)


_TRACED_STEPS = 4  # Of one trace, of which shorter runs take their part.


class Run:
  """A model, its optimizer and its batches, made as the trainer makes them."""

  def __init__(self, trained, config=None, replicas=1, path=None):
    """A new run, or one that goes on from the checkpoint at `path`."""
    self.data = toy_data()
    self.settings = trained
    module = methods.load(trained.method)
    small = narrow(trained.method)
    self.config = module.Config(**small) if config is None else config
    devices = [f'CPU:{i}' for i in range(replicas)]
    self.strategy = (
      tf.distribute.MirroredStrategy(
        devices, tf.distribute.ReductionToOneDevice()
      )
      if replicas > 1
      else tf.distribute.get_strategy()
    )
    with self.strategy.scope():
      self.model = experiment.build(trained, self.config, num_classes=2)
      self.model.backbone.normalise.measure(
        self.data['source', 'train'].images,
        self.data['target', 'train'].images,
      )
      if path is None and hasattr(self.model, 'adapt'):
        self.model.adapt(self.batches(0, 8))
      self.phases = self.model.phases(
        trained.steps,
        functools.partial(experiment.make_optimizer, trained, self.model),
      )
      self.phase = None  # Until it trains: the trainer restores before.
    self.optimizers = [o for phase in self.phases for o in phase.optimizers]
    self.checkpoint = tf.train.Checkpoint(
      model=self.model, optimizers=self.optimizers
    )
    if path is not None:
      self.checkpoint.restore(path).assert_consumed()

  def batches(self, first, last, replicas=1, streams=None):
    start = first if last > _TRACED_STEPS else 0
    parts = _batches(
      streams or self.model.STREAMS,
      self.settings.images_per_step,
      self.settings.seed,
      start,
      max(last, _TRACED_STEPS),
      replicas,
    ).skip((first - start) * replicas)
    return parts.take((last - first) * replicas)

  def train(self, steps, traced=True):
    """Takes steps from where the model is.

    Args:
      steps: how many.
      traced: whether they are made graphs, as in the trainer.

    Returns:
      {term: average since the model was made}.
    """
    start, last = 0, int(self.model.step.numpy()) + steps
    for phase in self.phases:
      end = start + phase.steps
      first, until = int(self.model.step.numpy()), min(end, last)
      if first < until:
        if phase is not self.phase:
          self._begin(phase, start)
        self._train(first, until, traced)
      start = end
    means = self.model.averages.result()
    return {name: float(mean) for name, mean in means.items()}

  def _begin(self, phase, start):
    self.phase = phase
    with self.strategy.scope():
      self.model.begin_phase(phase, start)

  def _train(self, first, last, traced):
    def batches(context, streams=self.model.streams):
      return self.batches(first, last, context.num_replicas_in_sync, streams)

    if traced:
      parts = iter(self.strategy.distribute_datasets_from_function(batches))
      for _ in range(first, last):
        self.model.make_train_function()(parts)
    else:  # Without what prefetches to devices: it takes longer than the steps.
      # One trace for all streams: what a phase does not read is dropped here.
      parts = (
        {name: part[name] for name in self.model.streams}
        for part in batches(self.strategy, self.model.STREAMS)
      )
      for _ in range(first, last):
        part = self.strategy.experimental_distribute_values_from_function(
          lambda _: next(parts)
        )
        self.strategy.run(self.model.train_step, [part])

  def weights(self):
    """Values of all that training changes or inference needs."""
    model = self.model
    return [
      weight.numpy()
      for weight in model.trainable_variables + model.inference_weights()
    ]

  def accuracy(self, side):
    domain = self.data[side, 'test']
    logits = self.model.infer(tf.constant(domain.images))['logits'].numpy()
    return np.mean(logits.argmax(axis=-1) == domain.labels)
