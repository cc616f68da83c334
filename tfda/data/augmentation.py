"""Augmentations: functions of an image, its new size and numbers drawn for it.

The numbers are the pipeline's, keyed on where in the training they are drawn;
nothing here has a generator of its own.
"""

import functools

import tensorflow as tf

# Numbers in [0, 1) that one image needs, at most.
DRAWS = 15
# RandAugment as keras-cv has it: operations, their rate and magnitude.
_OPERATIONS = 3
_RATE = 10 / 11
_MAGNITUDE = 0.5
_MAGNITUDE_STDDEV = 0.15


def centre_crop(images, size):
  """[..., R, R, 3] -> [..., size, size, 3], what evaluation and serving see."""
  start = (images.shape[-2] - size) // 2
  end = start + size
  return images[..., start:end, start:end, :]


def _crop_flip(image, size, draws):
  """A random crop, in half of the cases mirrored: the recipe of Office."""
  margin = image.shape[0] - size
  corner = tf.cast(draws[:2] * float(margin + 1), tf.int32)
  crop = tf.slice(image, [corner[0], corner[1], 0], [size, size, 3])
  return _mirrored(crop, draws[2])


def _resized_crop(image, size, draws):
  """A crop of 8 to 100 % of the area, 3:4 to 4:3, resized (Szegedy 2015)."""
  side = float(image.shape[0])
  area = tf.square(side) * (0.08 + 0.92 * draws[0])
  ratio = tf.exp(tf.math.log(4.0 / 3.0) * (2.0 * draws[1] - 1.0))
  # Where one side does not fit the other is cut as well, and the ratio is kept.
  width = tf.minimum(tf.sqrt(area * ratio), side * tf.minimum(1.0, ratio))
  lengths = tf.clip_by_value(
    tf.round(tf.stack([width / ratio, width])), 1.0, side
  )
  corner = tf.cast(tf.floor(draws[2:4] * (side - lengths + 1.0)), tf.int32)
  lengths = tf.cast(lengths, tf.int32)
  crop = tf.slice(image, [corner[0], corner[1], 0], [lengths[0], lengths[1], 3])
  resized = tf.round(tf.image.resize(crop, [size, size]))
  return _mirrored(tf.cast(resized, tf.uint8), draws[4])


def _mirrored(image, draw):
  return tf.cond(draw < 0.5, lambda: tf.reverse(image, [1]), lambda: image)


def _rand_augment(image, size, draws):
  """`crop_flip`, then three random operations (Cubuk et al. 2020)."""
  image = tf.cast(_crop_flip(image, size, draws), tf.float32)
  operations = _operations()
  for i in range(_OPERATIONS):
    skip, which, amount, sign = tf.unstack(draws[4 * i + 3 : 4 * i + 7])
    sign = tf.where(sign < 0.5, -1.0, 1.0)
    branches = [
      functools.partial(operation, image[tf.newaxis], amount, sign)
      for operation in operations
    ]
    chosen = tf.cast(which * len(branches), tf.int32)
    image = tf.cond(
      skip < _RATE,
      lambda chosen=chosen, branches=branches: tf.switch_case(chosen, branches)[
        0
      ],
      lambda image=image: image,
    )
    image = tf.ensure_shape(image, [size, size, 3])
  return tf.cast(tf.round(image), tf.uint8)


@functools.cache
def _operations():
  """The policy of keras_cv.layers.RandAugment, with numbers from outside.

  Its layers draw from hidden generators; what they do to an image, given the
  numbers, is public (`augment_images`).

  Returns:
    Functions (image [1, S, S, 3] in 0..255, amount in [0, 1), sign) -> image.
  """
  from keras_cv import layers

  pixels = (0, 255)
  shear = layers.RandomShear(1.0, 1.0)
  translation = layers.RandomTranslation(1.0, 1.0)
  solarization = layers.Solarization(pixels)
  contrast = layers.RandomContrast(pixels, 1.0)
  brightness = layers.RandomBrightness(1.0)
  colour = layers.RandomColorDegeneration(1.0)
  auto_contrast = layers.AutoContrast(pixels)
  equalization = layers.Equalization(pixels)

  def magnitude(amount):
    """Normal(0.5, 0.15), within [0, 1]."""
    amount = tf.clip_by_value(amount, 1e-3, 1.0 - 1e-3)  # Finite quantiles.
    normal = _MAGNITUDE + _MAGNITUDE_STDDEV * tf.math.ndtri(amount)
    return tf.clip_by_value(normal, 0.0, 1.0)

  def sheared(image, x, y):
    both = {'shear_x': tf.reshape(x, [1, 1]), 'shear_y': tf.reshape(y, [1, 1])}
    return shear.augment_images(image, both)

  def translated(image, x, y):
    both = {
      'width_translations': tf.reshape(x, [1, 1]),
      'height_translations': tf.reshape(y, [1, 1]),
    }
    return translation.augment_images(image, both)

  def solarized(image, amount, sign):
    del sign
    level = magnitude(amount)
    return solarization.augment_images(
      image, {'additions': 110.0 * level, 'thresholds': 255.0 * (1.0 - level)}
    )

  return (
    lambda image, amount, sign: auto_contrast.augment_images(image),
    lambda image, amount, sign: equalization.augment_images(image),
    solarized,
    lambda image, amount, sign: colour.augment_images(image, magnitude(amount)),
    lambda image, amount, sign: contrast.augment_images(
      image, 1.0 + sign * _MAGNITUDE * amount
    ),
    lambda image, amount, sign: brightness.augment_images(
      image, 255.0 * sign * _MAGNITUDE * amount
    ),
    lambda image, amount, sign: sheared(image, sign * magnitude(amount), 0.0),
    lambda image, amount, sign: sheared(image, 0.0, sign * magnitude(amount)),
    lambda image, amount, sign: translated(
      image, sign * _MAGNITUDE * amount, 0.0
    ),
    lambda image, amount, sign: translated(
      image, 0.0, sign * _MAGNITUDE * amount
    ),
  )


_AUGMENTATIONS = {
  'crop_flip': _crop_flip,
  'resized_crop': _resized_crop,
  'rand_augment': _rand_augment,
}
NAMES = ('none', *_AUGMENTATIONS)


def augment(images, size, name, draws):
  """Augments a batch.

  Args:
    images: uint8 [B, R, R, 3].
    size: side of the result in pixels, at most R.
    name: one of NAMES; 'none' is the centre crop.
    draws: float32 [B, DRAWS] in [0, 1).

  Returns:
    uint8 [B, size, size, 3].
  """
  if name == 'none':
    return centre_crop(images, size)
  one = _AUGMENTATIONS[name]
  return tf.map_fn(
    lambda pair: one(pair[0], size, pair[1]),
    (images, draws),
    fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
  )
