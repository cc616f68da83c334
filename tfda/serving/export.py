"""Writing a run as a SavedModel, checked, under a version number of its own."""

import os
import shutil

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.serving import classifier, module, restore

_CHECKED = 4  # Random images on which the written model is compared.
# Differences beyond these are no rounding, relative to the largest value. In
# half precision (bfloat16: 8 bits) fused operations round elsewhere.
_TOLERANCE = {'float32': 1e-5, 'float16': 1e-2, 'bfloat16': 5e-2}


def export(run_dir, out=None):
  """Exports the latest checkpoint of a run, which may still go on.

  Args:
    run_dir: path of the run.
    out: the folder of versions; None for the run's own, `export`.

  Returns:
    The path of the new version.

  Raises:
    UsageError: there is no such run or checkpoint; `out` cannot be written to.
    RunError: see `save`.
  """
  run, _, model = restore.restore(run_dir)
  return save(model, run.class_names(), os.fspath(out or run.export))


def save(model, class_names, out):
  """Writes a model as a SavedModel, under the next version number.

  The version appears at once and whole: a TF Serving that watches the folder
  never sees half of it.

  Args:
    model: an AdaptationModel.
    class_names: C names.
    out: the folder of versions; made if it is not there.

  Returns:
    The path of the new version, a number higher than all in the folder.

  Raises:
    UsageError: `out` cannot be written to.
    RunError: the writing failed, or the written model differs from `model`.
  """
  # TF Serving looks at numbers only, so not at this one.
  temporary = os.path.join(out, f'.writing-{os.getpid()}')
  try:
    os.makedirs(temporary, exist_ok=True)
  except OSError as error:
    raise errors.UsageError(
      f'--out={out}: cannot be written: {error.strerror}'
    ) from error
  try:
    written = _write(model, class_names, temporary)
    _check(model, written)
    return _publish(written, out)
  except (OSError, tf.errors.OpError) as error:
    raise errors.RunError(
      f'{out}: the export could not be written: {str(error).splitlines()[0]}'
    ) from error
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _write(model, class_names, temporary):
  labels_file = os.path.join(temporary, 'labels.txt')
  with open(labels_file, 'w', encoding='utf-8') as file:
    file.write('\n'.join(class_names) + '\n')
  served = module.ServedModel(model, class_names, labels_file)
  written = os.path.join(temporary, 'model')
  # It infers; to save gradients of our own takes a trace of each.
  options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  tf.saved_model.save(served, written, dict(served.endpoints), options)
  return written


def _check(model, written):
  """Raises RunError unless the written model infers what the run does."""
  shape = [_CHECKED, model.read_size, model.read_size, 3]
  images = np.random.default_rng(0).uniform(0.0, 255.0, shape)
  images = tf.constant(images, tf.float32)
  expected = model.infer(model.prepare(images))
  loaded = tf.saved_model.load(written)
  for serve in loaded.signatures.values():
    found = serve(images=images)
    for name in expected.keys() & found.keys():
      _compare(name, found[name].numpy(), expected[name].numpy(), model)


def _compare(name, found, expected, model):
  tolerance = _TOLERANCE[model.compute_dtype] * max(1.0, abs(expected).max())
  difference = abs(found - expected).max()
  if not difference <= tolerance:  # NaN too.
    raise errors.RunError(
      f'the written model differs from the run: by {difference:.2g} in its '
      f'{name}, where {tolerance:.2g} is rounding; nothing was exported'
    )


def _publish(written, out):
  while True:
    version = 1 + max(classifier.versions(out), default=0)
    path = os.path.join(out, str(version))
    try:
      os.rename(written, path)
      return path
    except OSError:
      if not os.path.exists(path):  # Else another export took the number.
        raise
