"""Experiment, and `train`, which turns one into a run directory."""

import contextlib
import dataclasses
import functools
import math
import os
import re
import sys
from typing import Optional

import numpy as np
import tensorflow as tf

from tfda import (
  backbones,
  callbacks,
  checkpoints,
  distribution,
  errors,
  flag_config,
  methods,
  optimizers,
  run_directory,
  schedules,
  semi_supervised,
)
from tfda.data import augmentation, frozen, pipeline, task
from tfda.evaluation import evaluate, projector
from tfda.settings import check, setting

# Of the source, for methods that begin with its features: a small set may need
# all, and has other crops in each.
_ADAPT_EPOCHS = 4


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What is trained on what, how, and where it goes. Checked when made."""

  TOOL = 'train'

  method: str = setting('dann', 'method, a module of tfda/methods')
  source: str = setting('mnist_sample', 'labelled domain')
  target: str = setting('mnist_m_sample', 'domain to adapt to')
  data_dir: Optional[str] = setting(None, 'folder of downloaded data sets')
  translation: Optional[str] = setting(
    None,
    'run of the translate tool between the two domains, for methods that read '
    'translated images',
  )
  translated_share: float = setting(
    3 / 7,
    'translated images in a step for each that they are made of',
    minimum=0.0,
    maximum=1.0,
  )
  run_dir: Optional[str] = setting(
    None, 'run directory; runs/<flag file>/seed<N> if not set'
  )
  backbone: str = setting('dann_mnist', 'network, a function of backbones.py')
  backbone_weights: str = setting(
    'none', 'none, or the path of a Keras weights file'
  )
  image_size: Optional[int] = setting(
    None,
    'side of the input in pixels; the published one if not set',
    minimum=8,
  )
  resize: Optional[int] = setting(
    None,
    'side in pixels to which images are brought before image_size is cropped '
    'out of them; image_size if not set',
    minimum=8,
  )
  augmentation: str = setting(
    'none',
    'of training images; none is the centre crop',
    choices=augmentation.NAMES,
  )
  freeze_until: Optional[str] = setting(
    None, 'freeze the backbone up to and including this layer'
  )
  freeze_batch_norm: bool = setting(
    False, "batch normalisation as in the backbone's weights, for all images"
  )
  domain_batch_norm: bool = setting(
    False,
    'batch normalisation by the statistics of each domain, behind freeze_until',
  )
  cache_features: int = setting(
    0,
    'store what the frozen part makes of every image and train behind it: 0 '
    'for no, 1 or nothing for its centre crop, n for n augmented crops',
    minimum=0,
    maximum=1000,
    bare=1,
  )
  cache_dir: Optional[str] = setting(
    None, 'folder of decoded images and features; ~/.cache/tfda if not set'
  )
  on_bad_image: str = setting(
    'fail',
    'what to do about image files that cannot be read; skip lists them in '
    'skipped.csv',
    choices=('fail', 'skip'),
  )
  max_pixels: int = setting(
    100_000_000, 'width x height above which an image is bad', minimum=1
  )
  target_classes: Optional[str] = setting(
    None,
    'partial adaptation: classes that are left in the target, as first10, '
    'name,name or the path of a file with a name a line',
  )
  target_labelled: int = setting(
    0,
    'semi-supervised: so many random target images are the target, with their '
    'labels for the label loss; the others are for test',
    minimum=0,
  )
  class_balanced: bool = setting(
    False, 'all classes of the source equally often in training'
  )
  bottleneck: int = setting(
    0,
    'width in units of a linear layer on the features; 0 for none',
    minimum=0,
  )
  classifier_dropout: float = setting(
    0.0,
    "rate in the label classifier's hidden layers",
    minimum=0.0,
    maximum=0.99,
  )
  steps: int = setting(9000, 'training steps', minimum=1)
  batch_size: int = setting(
    64, 'images of each domain in a pass through the network', minimum=1
  )
  accumulate: int = setting(
    1,
    'passes of batch_size images whose gradients make one step: the step of '
    'a batch of so many times the size, in the memory of one',
    minimum=1,
  )
  optimizer: str = setting('sgd', 'optimizer', choices=('sgd', 'adam'))
  learning_rate: float = setting(0.01, 'learning rate at step 0', minimum=0.0)
  learning_rate_alpha: float = setting(
    10.0,
    'alpha in learning_rate / (1 + alpha p)^beta; 0 for constant',
    minimum=0.0,
  )
  learning_rate_beta: float = setting(0.75, 'beta in the same', minimum=0.0)
  momentum: float = setting(
    0.9, 'momentum of sgd, beta_1 of adam', minimum=0.0, maximum=1.0
  )
  nesterov: bool = setting(False, 'Nesterov momentum for sgd')
  adam_epsilon: float = setting(1e-7, 'epsilon of adam', minimum=0.0)
  weight_decay: float = setting(
    0.0, 'coupled (L2) weight decay on all trainable variables', minimum=0.0
  )
  clip_norm: float = setting(
    0.0,
    'norm that the gradients together are clipped to; 0 for none',
    minimum=0.0,
  )
  max_norm: float = setting(
    0.0,
    "norm that the weights of a unit's inputs are kept below; 0 for none",
    minimum=0.0,
  )
  new_layer_multiplier: float = setting(
    1.0,
    'learning-rate factor of layers outside the backbone; 10 for Office',
    minimum=0.0,
  )
  bias_multiplier: float = setting(
    1.0,
    'learning-rate factor of biases; 2 in the released Caffe networks',
    minimum=0.0,
  )
  seed: int = setting(
    0, 'seed of weights, order and noise', minimum=0, maximum=2**32 - 1
  )
  deterministic: bool = setting(
    False, 'the same bits in every run on this machine; somewhat slower'
  )
  strategy: str = setting(
    'one',
    'tf.distribute strategy: one device, mirrored over all of this machine, '
    'multi_worker over those of several, or tpu',
    choices=distribution.NAMES,
  )
  workers: Optional[str] = setting(
    None,
    'of multi_worker, host:port of each with commas between; the first is the '
    "chief; TF_CONFIG's if not set",
  )
  worker_index: Optional[int] = setting(
    None, 'which of these this process is, counted from 0', minimum=0
  )
  mixed_precision: str = setting(
    'none',
    'precision of the layers',
    choices=('none', 'float16', 'bfloat16'),
  )
  jit_compile: bool = setting(
    False, 'compile the training step with XLA; for GPUs, slower on a CPU'
  )
  steps_per_execution: int = setting(
    1,
    'steps that the device takes without a word to Python, at most: it hears '
    'of every interval in time, of a signal after them',
    minimum=1,
  )
  stop_after: Optional[str] = setting(
    None,
    'stop after this phase of the method, as after Ctrl-C; the same command '
    'without it goes on',
  )
  log_every: int = setting(100, 'steps between log entries', minimum=1)
  evaluate_every: int = setting(1000, 'steps between evaluations', minimum=1)
  checkpoint_every: int = setting(1000, 'steps between checkpoints', minimum=1)

  def __post_init__(self):
    check(self)
    if self.cache_features and not self.freeze_until:
      raise errors.UsageError(
        '--cache_features needs --freeze_until=LAYER, the last frozen layer'
      )
    if self.cache_features > 1 and self.augmentation == 'none':
      raise errors.UsageError(
        f'--cache_features={self.cache_features} stores augmented crops, and '
        '--augmentation is none'
      )
    if self.deterministic and self.jit_compile:
      raise errors.UsageError(
        '--deterministic takes no --jit_compile: XLA has no gradient of max '
        'pooling that is the same in every run'
      )

  @property
  def images_per_step(self):
    """Of each domain."""
    return self.batch_size * self.accumulate

  def directory(self):
    """The run directory, chosen by the names if it is not set."""
    if self.run_dir:
      return self.run_dir
    pair = re.sub(r'[^\w.-]+', '_', f'{self.source}2{self.target}')
    return os.path.join('runs', pair, self.method, f'seed{self.seed}')


# What may change when a run is resumed.
RESUMABLE = (
  'data_dir',
  'translation',
  'cache_dir',
  'run_dir',
  'strategy',
  'workers',
  'worker_index',
  'steps_per_execution',
  'stop_after',
  'log_every',
  'evaluate_every',
  'checkpoint_every',
)


def build(experiment, config, num_classes):
  """Makes the model of an experiment, untrained, in the current strategy.

  Args:
    experiment: an Experiment.
    config: the Config of its method.
    num_classes: C.

  Returns:
    The method's AdaptationModel, all variables made.

  Raises:
    UsageError: the method does not go with the settings.
  """
  # Weights are drawn in the order of creation: backbone, bottleneck and
  # classifier come first, so all methods start from the same ones.
  tf.keras.utils.set_random_seed(experiment.seed)
  backbone = backbones.load(
    experiment.backbone, experiment.backbone_weights, experiment.image_size
  )
  if experiment.freeze_until:
    backbone.freeze_until(experiment.freeze_until)
  if experiment.freeze_batch_norm:
    backbone.freeze_batch_norm()
  if experiment.domain_batch_norm:
    backbone.separate_batch_norm()
  model = _method(experiment)(
    backbone,
    num_classes,
    config,
    seed=experiment.seed,
    bottleneck_units=experiment.bottleneck,
    classifier_dropout=experiment.classifier_dropout,
    read_size=experiment.resize,
    accumulate=experiment.accumulate,
  )
  if experiment.accumulate > 1 and model.undivided:
    raise errors.UsageError(
      f'--accumulate={experiment.accumulate}: not with {experiment.method}: '
      f'{model.undivided}'
    )
  return model


def _method(experiment):
  """The method's class, as the settings want it."""
  method = methods.load(experiment.method).Method
  return (
    semi_supervised.extended(method) if experiment.target_labelled else method
  )


def make_optimizer(experiment, model, variables=None):
  """Makes an optimizer of an experiment; variables: None for all that train."""
  variables = variables or model.trainable_variables
  network = {v.ref() for v in model.backbone.network.trainable_variables}

  def multiplier(variable):
    is_new = variable.ref() not in network
    factor = experiment.new_layer_multiplier if is_new else 1.0
    is_bias = 'bias' in variable.name.split('/')[-1]
    return factor * (experiment.bias_multiplier if is_bias else 1.0)

  schedule = optimizers.ProgressSchedule(
    lambda progress: schedules.annealed_learning_rate(
      progress,
      experiment.learning_rate,
      experiment.learning_rate_alpha,
      experiment.learning_rate_beta,
    ),
    model.progress,
  )
  optimizer = optimizers.make(
    experiment.optimizer,
    schedule,
    momentum=experiment.momentum,
    nesterov=experiment.nesterov,
    epsilon=experiment.adam_epsilon,
    weight_decay=experiment.weight_decay,
    clip_norm=experiment.clip_norm,
    max_norm=experiment.max_norm,
  )
  optimizer.build(variables)
  optimizer.set_multipliers([(v, multiplier(v)) for v in variables])
  if experiment.mixed_precision == 'float16':
    optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
  return optimizer


@contextlib.contextmanager
def precision(experiment):
  """Keras' precision policy for the time of a run."""
  policy = tf.keras.mixed_precision.global_policy()
  if experiment.mixed_precision != 'none':
    tf.keras.mixed_precision.set_global_policy(
      f'mixed_{experiment.mixed_precision}'
    )
  try:
    yield
  finally:
    tf.keras.mixed_precision.set_global_policy(policy)


def train(experiment, method_config=None):
  """Trains, or goes on training, and evaluates; a finished run is left alone.

  The run directory then holds flags.txt, classes.json, checkpoints/, logs/
  (TensorBoard), metrics.csv, pictures/ (where the method shows some),
  evaluation.npz and results.json.

  Args:
    experiment: an Experiment.
    method_config: the Config of its method; None for its defaults.

  Returns:
    The path of the run directory.

  Raises:
    UsageError: the settings or the data do not fit; nothing was written.
    RunError: the training failed (a loss that is not finite, a full disk).
    Interrupted: stopped by Ctrl-C, SIGTERM or `stop_after`; the same call goes
      on.
  """
  method = methods.load(experiment.method)
  config = method.Config() if method_config is None else method_config
  run = run_directory.RunDirectory(experiment.directory())
  run.check(experiment, config, RESUMABLE)
  if run.finished():
    return run.path
  if experiment.deterministic:
    tf.config.experimental.enable_op_determinism()
  strategy = distribution.make_strategy(experiment)
  workers = distribution.Workers(strategy)
  with precision(experiment), strategy.scope():
    flags = flag_config.values(experiment, config)
    with workers.together(flags, run) as writing:
      return _train(experiment, config, run, writing, workers)


def check_compiled(experiment):
  """Raises UsageError if XLA is to compile steps of several CPUs."""
  replicas = tf.distribute.get_strategy().num_replicas_in_sync
  kinds = {device.device_type for device in tf.config.list_logical_devices()}
  if experiment.jit_compile and replicas > 1 and kinds == {'CPU'}:
    raise errors.UsageError(
      f'--jit_compile: XLA compiles no steps of {replicas} replicas on CPUs; '
      'take one, or GPUs'
    )


def _train(experiment, config, run, writing, workers):
  """Trains; `writing` is the RunDirectory that this worker writes to."""
  # Of the code that is imported now; a commit may be made while it trains.
  commit = run_directory.commit()
  check_compiled(experiment)
  _method(experiment)  # What is wrong with it shows before data are read.
  # The size is known from the network, the number of classes from the data.
  image_size = backbones.image_size(experiment.backbone, experiment.image_size)
  data = task.load(experiment, read_size(experiment, image_size))
  workers.agree(lambda: task.digests(data))
  source, target = data['source', 'train'], data['target', 'train']
  model = build(experiment, config, len(source.class_names))
  pipeline.check(
    model.STREAMS,
    task.training_domains(data),
    experiment.batch_size,
    tf.distribute.get_strategy().num_replicas_in_sync,
    experiment.translated_share,
    experiment.accumulate,
  )
  if model.backbone.measures_mean:
    model.backbone.normalise.measure(source.images, target.images)
  if experiment.class_balanced:
    print(f'{task.class_counts(source)}; all classes equally often')
  phases = model.phases(
    experiment.steps, functools.partial(make_optimizer, experiment, model)
  )
  if sum(phase.steps for phase in phases) != experiment.steps:
    raise ValueError(f'the phases of {experiment.method} miss its steps')
  names = [phase.name for phase in phases]
  if experiment.stop_after not in (None, *names):
    raise errors.UsageError(
      f'--stop_after={experiment.stop_after}: no such phase of '
      f'{experiment.method}; {errors.near(experiment.stop_after, names)}'
    )
  if experiment.cache_features:
    model.cut_at(experiment.freeze_until)
    data = _with_stored_features(experiment, model.backbone, data)
  batches = make_batches(experiment, data, image_size)
  is_new = not checkpoints.paths(run.checkpoints)
  if is_new and hasattr(model, 'adapt'):
    epoch = math.ceil(len(source.images) / experiment.images_per_step)
    model.adapt(batches(model.STREAMS, 0, _ADAPT_EPOCHS * epoch))
  workers.share(model.backbone.normalise.weights + model.trainable_variables)
  run.check_classes(source.class_names)
  writing.create(experiment, config, source.class_names)
  workers.check_shared(run)
  writing.write_skipped(data)
  measured = run_phases(
    experiment,
    model,
    phases,
    data,
    batches,
    checkpoints.Checkpoints(model, phases, run, writing),
    writing,
    workers,
  )
  evaluation = evaluate.evaluate(model, data, writing.evaluation)
  with np.load(writing.evaluation) as arrays:
    projector.write(arrays, source.class_names, writing.logs)
  writing.write_results(
    experiment,
    evaluation,
    commit=commit,
    **measured,
  )
  return run.path


def read_size(experiment, image_size):
  """Side in pixels to which images are brought before they are cropped.

  Raises:
    UsageError: --resize is smaller than the crop.
  """
  if experiment.resize and experiment.resize < image_size:
    raise errors.UsageError(
      f'--resize={experiment.resize} is below the image size, {image_size}'
    )
  return experiment.resize or image_size


def make_batches(experiment, data, image_size):
  """Returns (streams, first step, last step, replicas=1, ...) -> Dataset.

  As pipeline.batches, whose other arguments are in the settings.
  """

  def batches(streams, first_step, last_step, replicas=1, replica_range=None):
    return pipeline.batches(
      streams,
      task.training_domains(data),
      experiment.images_per_step,
      experiment.seed,
      first_step,
      last_step,
      replicas,
      replica_range,
      image_size,
      experiment.augmentation,
      experiment.class_balanced,
      experiment.translated_share,
    )

  return batches


def run_phases(
  experiment, model, phases, data, batches, saved, writing, workers
):
  """Trains through all phases, from the last checkpoint if there is one.

  Args:
    experiment: an Experiment or a Translation.
    model: its TrainingModel, made in the current strategy.
    phases: what it goes through.
    data: {(side, split): Domain}.
    batches: of `make_batches`.
    saved: the Checkpoints.
    writing: the RunDirectory to write to, which exists.
    workers: the distribution.Workers.

  Returns:
    {'pictures', 'seconds', 'images_per_second'} for results.json.

  Raises:
    RunError, Interrupted: see `train`.
  """
  saved.restore()
  trainer = callbacks.Trainer(experiment, model, data, writing, saved, workers)
  with trainer:
    start = 0
    for phase in phases:
      end = start + phase.steps
      if int(model.step.numpy()) < end:
        model.begin_phase(phase, start)
        model.jit_compile = experiment.jit_compile
        model.steps_per_execution = experiment.steps_per_execution
        _fit(model, batches, end, trainer)
      if phase.name == experiment.stop_after and end < experiment.steps:
        trainer.stop_after(phase)
      start = end
    captions = trainer.write_pictures()
  images = sum(
    phase.steps * trainer.images_of_a_step(phase.streams or model.STREAMS)
    for phase in phases
  )
  seconds = float(saved.seconds.numpy())
  return {
    'pictures': captions,
    'seconds': seconds,
    'images_per_second': images / max(seconds, 1e-9),
  }


def _with_stored_features(experiment, backbone, data):
  """The domains with what the frozen part of the backbone makes of them."""
  crops = experiment.cache_features
  try:
    return {
      (side, split): frozen.cached(
        domain,
        backbone,
        experiment.augmentation,
        crops + 1 if crops > 1 and split == 'train' else 1,
        experiment.cache_dir,
      )
      for (side, split), domain in data.items()
    }
  except errors.RunError as error:
    print(f'{error}; the frozen part runs at every step', file=sys.stderr)
    return data


def _fit(model, batches, last_step, trainer):
  """One phase from the model's step to last_step, in Keras' own loop."""
  first_step = int(model.step.numpy())
  strategy = tf.distribute.get_strategy()

  def dataset(context):
    replicas = context.num_replicas_in_sync
    per_worker = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * per_worker
    replica_range = first, first + per_worker
    return batches(
      model.streams, first_step, last_step, replicas, replica_range
    )

  try:
    model.fit(
      strategy.distribute_datasets_from_function(dataset),
      steps_per_epoch=last_step - first_step,
      callbacks=[trainer],
      verbose=0,
    )
  except tf.errors.OpError as error:
    known = _not_finite(model, error) or _unread(error) or _uncompiled(error)
    raise known or error from error


def _unread(error):
  """The RunError for images that could not be read; None for another error."""
  found = re.search(r'\b(?:RunError|UsageError|BadImage): (.+)', str(error))
  return found and errors.RunError(found.group(1))


def _uncompiled(error):
  """The RunError for a step that XLA cannot compile; None for another error."""
  text = str(error)
  found = re.search(r'XLA_\w+: (\w+) \(No|\n(.+)\n\s*\[\[\{\{node', text)
  if 'tf2xla conversion failed' not in text or not found:
    return None
  return errors.RunError(
    f'--jit_compile: XLA does not compile a step: {found[1] or found[2]}; '
    'train without it'
  )


def _not_finite(model, error):
  """The RunError for a loss that is not finite; None for another error."""
  found = re.search(r'not finite\] \[(\d+)\] \[(.*?)\]', str(error))
  if not found:
    return None
  values = [float(value) for value in found.group(2).split()]
  terms = dict(zip(model.averages.names, values))
  return callbacks.not_finite(terms, f'at step {found.group(1)}')
