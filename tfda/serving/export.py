"""Writing a run to be served, checked, under a version number of its own."""

import dataclasses
import os
import sys
from typing import Optional

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import files
from tfda.serving import (
  compact,
  gate,
  loading,
  module,
  restore,
  server_files,
  versions,
  warmup,
)
from tfda.settings import check, setting

_CHECKED = 4  # Random images on which the written model is compared.
_NAME = 'tfda'  # Of a model whose server is not known.


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a run is exported."""

  run_dir: Optional[str] = setting(None, 'the run; its last checkpoint counts')
  out: Optional[str] = setting(
    None, "folder of versions to write to; the run's export/ if not set"
  )
  keep: Optional[int] = setting(
    None, 'versions to keep, the highest; all if not set', minimum=1
  )
  min_accuracy: Optional[float] = setting(
    None,
    'least accuracy on the target images for test',
    minimum=0.0,
    maximum=1.0,
  )
  compare: Optional[str] = setting(
    None,
    'run without adaptation on the same domains, against which the run must '
    'not have lost by information maximisation',
  )
  force: bool = setting(False, 'export also what lost against --compare')
  data_dir: Optional[str] = setting(
    None, "folder of downloaded data sets; the run's if not set"
  )
  checked_images: int = setting(
    2000, 'target images for test that are checked, at most', minimum=1
  )
  optimize: str = setting(
    'none',
    'weights of 16 bits, or of 8 with a scale a channel',
    choices=compact.OPTIMIZATIONS,
  )
  format: str = setting(
    'saved_model',
    'of what is written; onnx needs the extra packages of tfda[onnx]',
    choices=tuple(compact.FILES),
  )
  margin: float = setting(
    0.01,
    'accuracy, in 0..1, that --optimize and --format may cost',
    minimum=0.0,
    maximum=1.0,
  )
  tolerance: Optional[float] = setting(
    None,
    'largest difference of a probability from the run that is rounding; 1e-5 '
    'if not set, more in half precision',
    minimum=0.0,
  )
  calibrate: bool = setting(
    False,
    "probabilities of logits divided by the run's temperature, which is fitted "
    'on the source; labels stay',
  )

  def __post_init__(self):
    check(self)
    if self.format == 'onnx' and self.optimize != 'none':
      raise errors.UsageError('--optimize: not with --format=onnx')


def export(run_dir, out=None, settings=None):
  """Exports the latest checkpoint of a run, which may still go on.

  Args:
    run_dir: path of the run.
    out: the folder of versions; None for the run's own, `export`.
    settings: Settings, of which these two do not count; None for Settings().

  Returns:
    The path of the new version.

  Raises:
    UsageError: there is no such run or checkpoint, or no temperature of it to
      calibrate by; `out` cannot be written to.
    RunError: see `save`, and gate.py.
  """
  settings = settings or Settings()
  if settings.compare:
    if not settings.force:
      gate.check_transfer(os.fspath(run_dir), settings.compare)
    for line in gate.warnings(os.fspath(run_dir), settings.compare):
      _tell(line)
  run, experiment, model = restore.restore(run_dir)
  if settings.data_dir:
    experiment = dataclasses.replace(experiment, data_dir=settings.data_dir)
  is_saved_model = settings.format == 'saved_model'
  beside = run.export if is_saved_model else f'{run.export}_{settings.format}'
  out = os.fspath(out or beside)
  versions.refuse_others(out, compact.FILES, settings.format)
  name = server_files.model_name(out)
  class_names, max_pixels = run.class_names(), experiment.max_pixels
  calibration, about = _calibration(run, settings.calibrate)

  def passes(written):
    _tell(about)
    expected = gate.reference(run, experiment, model, settings.checked_images)
    expected = dataclasses.replace(expected, divisor=calibration.divisor)
    tolerance = settings.tolerance
    if tolerance is None:
      tolerance = gate.TOLERANCE[model.compute_dtype]
      # Differences of the logits are divided, too.
      tolerance /= min(1.0, calibration.divisor)
    found = gate.answers(written, expected.images)
    largest = gate.compare(found, expected, class_names, tolerance)
    _tell(
      f'checked on {len(expected.images)} {expected.origin}: probabilities '
      f'differ by {largest:.1g} at most'
    )
    kept = measured = _measured(written, expected, found)
    _tell(measured.text('float32'))
    if not is_saved_model or settings.optimize != 'none':
      written = f'{written}-{settings.optimize}'
      if is_saved_model:
        network = compact.infer(model, settings.optimize)
        _write(
          model, class_names, written, name, calibration, max_pixels, network
        )
        found = gate.answers(written, expected.images)
        logits = found['serving_default/logits']
        # All signatures say the same, if not the same as the run.
        same = dataclasses.replace(expected, logits=logits)
        gate.compare(found, same, class_names, tolerance)
        kept = _measured(written, expected, found)
      else:
        os.mkdir(written)
        _write_assets(class_names, calibration, written)
        compact.write(
          model,
          settings.optimize,
          settings.format,
          written,
          calibration.divisor,
        )
        probabilities, seconds = compact.probabilities(
          written, settings.format, expected.images
        )
        best = probabilities.argmax(axis=-1)
        kept = gate.measure(written, expected, best, seconds)
      _tell(kept.text(f'{settings.optimize} {settings.format}'))
      gate.check_margin(measured, kept, settings.margin)
    has_labels = expected.labels is not None
    gate.check_accuracy(kept.accuracy, has_labels, settings.min_accuracy)
    return written

  path = save(model, class_names, out, name, max_pixels, passes, calibration)
  if not settings.compare and experiment.method != 'source_only':
    _tell('negative transfer was not looked for: --compare=RUN_OF_SOURCE_ONLY')
  if is_saved_model:
    server_files.write(out, name)
  if settings.keep:
    versions.prune(out, settings.keep)
  return path


def _calibration(run, applied):
  """Returns a run's module.Calibration, and a line about it."""
  temperature, reason, seen = None, 'it is not finished', False
  target = None
  if run.finished():
    results = run.read_results()
    measured = results.get('calibration', {})
    temperature, target = map(measured.get, ('temperature', 'oracle_target'))
    seen = results.get('transductive', {}).get('source', False)
    # Of a run of long ago nothing was measured.
    reason = (
      'it misclassifies no image of the source'
      if 'calibration' in results
      else 'its results.json has none'
    )
  if temperature is None:
    if applied:
      raise errors.UsageError(
        f'--calibrate: {run.path} has no temperature: {reason}'
      )
    return module.Calibration(), f'no temperature for calibration: {reason}'
  where = ', on images that it was trained on' if seen else ''
  does = 'divides the logits' if applied else 'divides no logits (--calibrate)'
  effect = ''
  if target:
    before, after = (f'{target[k]:.2%}' for k in ('error', 'error_scaled'))
    effect = (
      f'; the calibration error on the target (oracle) is {before} without, '
      f'{after} with it'
    )
  return (
    module.Calibration(temperature, applied),
    f'temperature {temperature:.4g}, fitted on the source{where}: {does}'
    f'{effect}',
  )


def _tell(line):
  print(line, file=sys.stderr)


def _measured(written, expected, found):
  best = found['serving_default/label_index']
  seconds = float(found['seconds/serving_default'])
  return gate.measure(written, expected, best, seconds)


def save(
  model,
  class_names,
  out,
  name=_NAME,
  max_pixels=files.Reading.max_pixels,
  passes=None,
  calibration=None,
):
  """Writes a model as a SavedModel, under the next version number.

  The version appears at once and whole: a TF Serving that watches the folder
  never sees half of it.

  Args:
    model: an AdaptationModel.
    class_names: C names.
    out: the folder of versions; made if it is not there.
    name: that a server has for the model.
    max_pixels: width x height beyond which an image file is refused.
    passes: (path of what is written) -> of what is published, in the same
      folder; it may refuse by an error.
    calibration: module.Calibration; None for one without a temperature.

  Returns:
    The path of the new version, a number higher than all in the folder.

  Raises:
    UsageError: `out` cannot be written to.
    RunError: the writing failed, or the written model differs from `model`.
  """
  calibration = calibration or module.Calibration()
  with versions.writing(out) as temporary:
    try:
      written = os.path.join(temporary, 'model')
      _write(model, class_names, written, name, calibration, max_pixels)
      _check(model, written)
      if passes:
        written = passes(written)
      return versions.publish(written, out)
    except (OSError, tf.errors.OpError) as error:
      raise errors.RunError(
        f'{out}: the export could not be written: {str(error).splitlines()[0]}'
      ) from error


def _write(
  model, class_names, written, name, calibration, max_pixels, network=None
):
  """Writes a SavedModel with its warm-up requests."""
  assets = _write_assets(class_names, calibration, os.path.dirname(written))
  served = module.ServedModel(model, class_names, *assets, max_pixels, network)
  # It infers; to save gradients of our own takes a trace of each.
  options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  tf.saved_model.save(served, written, dict(served.endpoints), options)
  module.set_methods(written)
  warmup.write(written, name, served.endpoints, model.read_size)


def _write_assets(class_names, calibration, folder):
  """Returns the paths of the files that are beside all models."""
  paths = []
  for name, text in {
    'labels.txt': '\n'.join(class_names) + '\n',
    'calibration.json': calibration.text(),
  }.items():
    paths.append(os.path.join(folder, name))
    with open(paths[-1], 'w', encoding='utf-8') as file:
      file.write(text)
  return paths


def _check(model, written):
  """Raises RunError unless the written model infers what the run does."""
  shape = [_CHECKED, model.read_size, model.read_size, 3]
  images = np.random.default_rng(0).uniform(0.0, 255.0, shape)
  images = tf.constant(images, tf.float32)
  expected = model.infer(model.prepare(images))
  loaded = loading.load(written)
  for serve in loaded.signatures.values():
    specs = serve.structured_input_signature[1]
    if 'images' not in specs or specs['images'].dtype != tf.float32:
      continue  # Of bytes, which these images are not: for the gate.
    found = serve(images=images)
    for name in expected.keys() & found.keys():
      _compare(name, found[name].numpy(), expected[name].numpy(), model)


def _compare(name, found, expected, model):
  tolerance = gate.TOLERANCE[model.compute_dtype] * max(
    1.0, abs(expected).max()
  )
  difference = abs(found - expected).max()
  if not difference <= tolerance:  # NaN too.
    raise errors.RunError(
      f'the written model differs from the run: by {difference:.2g} in its '
      f'{name}, where {tolerance:.2g} is rounding; nothing was exported'
    )
