"""Writing a generator of a CycleGAN as a SavedModel.

Signature `serving_default`: `images` float32 [B, H, W, 3] in 0..255, H and W
multiples of 4 -> `translated`, the same. TensorFlow alone runs it.
"""

import tensorflow as tf

from tfda import cyclegan


def save(generator, path):
  """Writes a generator.

  Args:
    generator: a network, [B, H, W, 3] in [-1, 1] -> the same.
    path: the SavedModel's folder, a number as TF Serving wants it.
  """
  module = tf.Module()
  module.weights = generator.variables

  def serve(images):
    made = generator(cyclegan.scaled(images))
    return {'translated': cyclegan.unscaled(made)}

  images = tf.TensorSpec([None, None, None, 3], tf.float32)
  module.serve = tf.function(serve, input_signature=[images], autograph=False)
  tf.saved_model.save(module, path, {'serving_default': module.serve})
