"""Writing a generator of a CycleGAN as a SavedModel.

Signature `serving_default`: `images` float32 [B, H, W, 3] in 0..255, H and W
multiples of 4 -> `translated`, the same. TensorFlow alone runs it.
"""

import os
import shutil

import tensorflow as tf

from tfda import cyclegan, errors


def save(generator, path):
  """Writes a generator; what watches the folder never sees half of it.

  Args:
    generator: a network, [B, H, W, 3] in [-1, 1] -> the same.
    path: the SavedModel's folder, a number as TF Serving wants it; one that is
      there is replaced.

  Raises:
    RunError: it cannot be written.
  """
  module = tf.Module()
  module.weights = generator.variables

  def serve(images):
    made = generator(cyclegan.scaled(images))
    return {'translated': cyclegan.unscaled(made)}

  images = tf.TensorSpec([None, None, None, 3], tf.float32)
  module.serve = tf.function(serve, input_signature=[images], autograph=False)
  # TF Serving looks at numbers only, so not at this one.
  written = os.path.join(os.path.dirname(path), '.writing')
  shutil.rmtree(written, ignore_errors=True)
  try:
    tf.saved_model.save(module, written, {'serving_default': module.serve})
    shutil.rmtree(path, ignore_errors=True)
    os.rename(written, path)
  except (OSError, tf.errors.OpError) as error:
    shutil.rmtree(written, ignore_errors=True)
    raise errors.RunError(
      f'{path}: the generator could not be written: '
      f'{str(error).splitlines()[0]}'
    ) from error
