"""Translation, and `train`, which turns one into two translated domains."""

import dataclasses
import functools
import os
from typing import Optional

import tensorflow as tf
import tqdm

from tfda import (
  backbones,
  checkpoints,
  cyclegan,
  distribution,
  errors,
  experiment,
  flag_config,
  optimizers,
  run_directory,
  schedules,
  training,
)
from tfda.data import domains, pipeline, task, translated
from tfda.evaluation import evaluate, translations
from tfda.serving import restore, translator
from tfda.settings import check, setting, setting_of

_AS_THERE = functools.partial(setting_of, experiment.Experiment)
_BLOCK = 256  # Translated images that are written at a time.
# What may change when a run is resumed.
_RESUMABLE = (
  *experiment.RESUMABLE,
  'backbone',
  'backbone_weights',
  'classifier_steps',
  'label_threshold',
)


@dataclasses.dataclass(frozen=True)
class Translation:
  """What is translated into what, how, and where it goes.

  The defaults of CycleGAN's settings are its paper's and its code's.
  """

  TOOL = 'translate'
  method = 'cyclegan'
  directory = experiment.Experiment.directory
  images_per_step = experiment.Experiment.images_per_step
  # It reads the two domains as they are; both players see whole batches.
  class_balanced, translation, translated_share = False, None, 0.0
  stop_after = None
  accumulate = 1

  source: str = _AS_THERE('source')
  target: str = _AS_THERE('target', help='domain to translate it to')
  data_dir: Optional[str] = _AS_THERE('data_dir')
  run_dir: Optional[str] = _AS_THERE('run_dir')
  cache_dir: Optional[str] = _AS_THERE('cache_dir')
  on_bad_image: str = _AS_THERE('on_bad_image')
  max_pixels: int = _AS_THERE('max_pixels')
  target_classes: Optional[str] = _AS_THERE('target_classes')
  target_labelled: int = _AS_THERE('target_labelled')
  image_size: int = setting(
    32, 'side of the images in pixels, a multiple of 4', minimum=8
  )
  resize: Optional[int] = _AS_THERE('resize')
  augmentation: str = _AS_THERE('augmentation')
  residual_blocks: int = setting(9, 'of a generator', minimum=0)
  filters: int = setting(
    64, 'of the first convolution of a generator', minimum=1
  )
  discriminator_layers: int = setting(
    5,
    'convolutions: 5 judge patches of 70x70 pixels, 4 of 34x34, 3 of 16x16',
    minimum=3,
    maximum=7,
  )
  discriminator_filters: int = setting(
    64, 'of the first convolution of a discriminator', minimum=1
  )
  cycle_weight: float = setting(
    10.0, 'of what there and back should restore', minimum=0.0
  )
  identity_weight: float = setting(
    5.0, 'of what the target domain should stay as it is', minimum=0.0
  )
  pool_size: int = setting(
    50, 'translated images of the past for the discriminators', minimum=0
  )
  steps: int = _AS_THERE('steps', default=20_000)
  batch_size: int = _AS_THERE('batch_size', default=1)
  learning_rate: float = _AS_THERE('learning_rate', default=2e-4)
  decay_from: float = setting(
    0.5,
    'progress from which the learning rate falls to 0, linearly',
    minimum=0.0,
    maximum=0.99,
  )
  momentum: float = setting(0.5, 'beta_1 of adam', minimum=0.0, maximum=1.0)
  backbone: str = _AS_THERE(
    'backbone',
    help='of the classifier, trained on the source, that judges translations',
  )
  backbone_weights: str = _AS_THERE('backbone_weights')
  classifier_steps: int = setting(
    3000, 'training steps of that classifier', minimum=1
  )
  label_threshold: float = setting(
    0.5,
    'its accuracy on translations below which there is a warning; to look as '
    'the target does costs some, whatever becomes of the label',
    minimum=0.0,
    maximum=1.0,
  )
  seed: int = _AS_THERE('seed')
  deterministic: bool = _AS_THERE('deterministic')
  strategy: str = _AS_THERE('strategy')
  workers: Optional[str] = _AS_THERE('workers')
  worker_index: Optional[int] = _AS_THERE('worker_index')
  jit_compile: bool = _AS_THERE('jit_compile')
  steps_per_execution: int = _AS_THERE('steps_per_execution')
  log_every: int = _AS_THERE('log_every')
  evaluate_every: int = _AS_THERE('evaluate_every')
  checkpoint_every: int = _AS_THERE('checkpoint_every')

  def __post_init__(self):
    check(self)
    if self.image_size % 4:
      below = self.image_size // 4 * 4
      raise errors.UsageError(
        f'--image_size={self.image_size}: the generators halve images twice; '
        f'{below} and {below + 4} are multiples of 4'
      )
    if cyclegan.patches(self.image_size, self.discriminator_layers) < 1:
      raise errors.UsageError(
        f'--discriminator_layers={self.discriminator_layers} leave nothing of '
        f'--image_size={self.image_size}; 3 suit 28 to 40 pixels'
      )


def build(settings):
  """Makes the CycleGAN of a Translation, untrained, in the current strategy."""
  tf.keras.utils.set_random_seed(settings.seed)
  return cyclegan.CycleGAN(
    settings.image_size,
    settings.filters,
    settings.residual_blocks,
    settings.discriminator_filters,
    settings.discriminator_layers,
    settings.cycle_weight,
    settings.identity_weight,
    settings.pool_size,
    settings.seed,
  )


def make_phase(settings, model):
  """The one phase of training, with an optimizer for each kind of network."""
  rate = optimizers.ProgressSchedule(
    lambda progress: schedules.linearly_decayed_learning_rate(
      progress, settings.learning_rate, settings.decay_from
    ),
    model.progress,
  )
  made = []
  for variables in model.generator_variables(), model.discriminator_variables():
    # PyTorch's epsilon, which CycleGAN's code leaves as it is.
    made.append(
      optimizers.make('adam', rate, momentum=settings.momentum, epsilon=1e-8)
    )
    made[-1].build(variables)
  return training.Phase('train', settings.steps, None, tuple(made))


def train(settings):
  """Trains, or goes on training, and translates; a finished run is left alone.

  Unless its translated images were deleted: then they are made again.

  Of flags.txt, checkpoints/, logs/, metrics.csv and pictures/ see
  experiment.train. Beside them are source_to_target/ and target_to_source/, the
  domains `translated:...`; export/ with the generators; classifier/, the run of
  the one that judged the translations; and results.json.

  Args:
    settings: a Translation.

  Returns:
    The path of the run directory.

  Raises:
    UsageError, RunError, Interrupted: as experiment.train.
  """
  run = run_directory.RunDirectory(settings.directory())
  run.check(settings, None, _RESUMABLE)
  if run.finished() and all(
    translated.is_there(domain_path(run, direction))
    for direction in translated.DIRECTIONS
  ):
    return run.path
  judge = _judge(settings, run)
  commit = run_directory.commit()
  if settings.deterministic:
    tf.config.experimental.enable_op_determinism()
  strategy = distribution.make_strategy(settings)
  workers = distribution.Workers(strategy)
  # What is wrong with it shows before the hours of training.
  backbones.load(judge.backbone, judge.backbone_weights, judge.image_size)
  flags = flag_config.values(settings)
  with strategy.scope(), workers.together(flags, run) as writing:
    model, data, measured = _train(settings, run, writing, workers)
  if not workers.is_chief:
    return run.path
  found = translations.scores(model, data)
  if settings.resize:  # Whole images, not their centres.
    data = task.load(settings, settings.image_size)
  _write(settings, model, data, run)
  preserved = _preserved(judge, data, run)
  warnings = list(
    translations.warnings(found, preserved, settings.label_threshold)
  )
  for line in warnings:
    print(f'warning: {line}')
  run.write_results(
    settings,
    {
      'label_preservation': preserved,
      'scores': found,
      'warnings': warnings,
      **evaluate.counts(data),
    },
    commit=commit,
    **measured,
  )
  return run.path


def _train(settings, run, writing, workers):
  """Returns (model, data, what run_phases measured)."""
  experiment.check_compiled(settings)
  size = settings.image_size
  data = task.load(settings, experiment.read_size(settings, size))
  workers.agree(lambda: task.digests(data))
  model = build(settings)
  replicas = tf.distribute.get_strategy().num_replicas_in_sync
  pipeline.check(
    model.STREAMS,
    task.training_domains(data),
    settings.batch_size,
    replicas,
  )
  class_names = data['source', 'train'].class_names
  run.check_classes(class_names)
  writing.create(settings, None, class_names)
  workers.check_shared(run)
  writing.write_skipped(data)
  phases = [make_phase(settings, model)]
  measured = experiment.run_phases(
    settings,
    model,
    phases,
    data,
    experiment.make_batches(settings, data, size),
    checkpoints.Checkpoints(model, phases, run, writing),
    writing,
    workers,
  )
  return model, data, measured


def domain_path(run, direction):
  """The folder of what `translated:` reads, of a RunDirectory."""
  return os.path.join(run.path, direction)


def _write(settings, model, data, run):
  """Writes both translated domains, and the generators."""
  for direction, (here, _) in cyclegan.DIRECTIONS.items():
    for split in domains.SPLITS:
      domain = data[here, split]
      if split == 'train' or not domain.transductive:
        translated.write(
          domain_path(run, direction),
          domain,
          settings.image_size,
          functools.partial(_translations, model, domain, direction),
          labelled=here == 'source',
          made_of=translated.selection(settings, here),
        )
    path = os.path.join(run.export, direction, '1')
    translator.save(model.generators[direction], path)


def _translations(model, domain, direction):
  """Yields uint8 [n, S, S, 3] of all images of a Domain."""
  starts = range(0, len(domain.images), _BLOCK)
  title = f'{domain.name}, {domain.split}: {direction}'
  for start in tqdm.tqdm(starts, title, leave=False, disable=None):
    yield model.translate(domain.images[start : start + _BLOCK], direction)


def _judge(settings, run):
  """The Experiment of a classifier of the source, which sees nothing else."""
  return experiment.Experiment(
    method='source_only',
    source=settings.source,
    target=settings.source,
    data_dir=settings.data_dir,
    run_dir=os.path.join(run.path, 'classifier'),
    cache_dir=settings.cache_dir,
    on_bad_image=settings.on_bad_image,
    max_pixels=settings.max_pixels,
    backbone=settings.backbone,
    backbone_weights=settings.backbone_weights,
    image_size=settings.image_size,
    steps=settings.classifier_steps,
    seed=settings.seed,
    deterministic=settings.deterministic,
  )


def _preserved(judge, data, run):
  """Accuracies of the classifier on both domains and both translated ones.

  Those on target images need their labels, which only measure: None without.
  """
  _, _, model = restore.restore(experiment.train(judge))
  accuracies = {}
  for direction, side in translated.DIRECTIONS.items():
    domain = data[side, 'test']
    name = translated.PREFIX + domain_path(run, direction)
    made = domains.load(name, 'test', judge.image_size)
    made = dataclasses.replace(made, labels=domain.labels)
    for name, judged in ((side, domain), (direction, made)):
      labelled = domain.labels is not None
      accuracies[name] = (
        evaluate.accuracy(model, judged, 'source') if labelled else None
      )
  return accuracies
