"""CycleGAN: images of one domain look like those of another, without pairs.

Zhu, Park, Isola & Efros, "Unpaired Image-to-Image Translation using
Cycle-Consistent Adversarial Networks", ICCV 2017; what the paper leaves open is
as in its released code. With G: source -> target, F: target -> source and
discriminators D_T, D_S,

  L(G, F) = E (D_T(G(x)) - 1)^2 + E (D_S(F(y)) - 1)^2      (Eq. 1, Section 4)
          + lambda (E |F(G(x)) - x| + E |G(F(y)) - y|)     (Eq. 2)
          + mu (E |F(x) - x| + E |G(y) - y|)               (Section 5.2)
  L(D_T) = 1/2 (E (D_T(y) - 1)^2 + E D_T(G(x))^2)          (Section 4)

where D_T and D_S see G(x) and F(y) of the past too (ImagePool). In every step
the generators go first, and the discriminators then see what these made before.

  x, y          source, target images      lambda   cycle_weight
  G, F          source_to_target, ...      mu       identity_weight
  D_T, D_S      target_discriminator, ...

Deviations:
* Convolutions before a normalisation have no bias, which it would take away.
* Stride-2 convolutions of the generators pad below and to the right, and their
  counterparts cut there; the code pads above and to the left.
"""

import zlib

import numpy as np
import tensorflow as tf

from tfda import training
from tfda.evaluation import translations
from tfda.layers import convolution, image_pool, instance_norm
from tfda.layers.reflection_padding import ReflectionPadding

_PIXELS_AT_ONCE = 2**16  # In translating: 64 images of 32 x 32.

SIDES = ('source', 'target')
# {name of a direction: (from, to)}.
DIRECTIONS = {
  'source_to_target': ('source', 'target'),
  'target_to_source': ('target', 'source'),
}


def adversarial_loss(judged, real):
  """Mean squared distance of a discriminator's judgement from the truth.

  (D - 1)^2 for real images, or those that should pass for real; D^2 for others.
  For example judged = [0.5, 1]: 0.125 if real, else 0.625.

  Args:
    judged: outputs of a discriminator, of any shape.
    real: whether they should be 1; else 0.

  Returns:
    A scalar.
  """
  return tf.reduce_mean(tf.square(judged - float(real)))


def discriminator_loss(real, fake):
  """Half the sum of the adversarial losses (Section 4, "divide by 2").

  For example real = [0.5, 1], fake = [0.5, 0]: (0.125 + 0.125) / 2 = 0.125.

  Args:
    real: outputs for images of the domain, of any shape.
    fake: outputs for translated images.

  Returns:
    A scalar.
  """
  return 0.5 * (adversarial_loss(real, True) + adversarial_loss(fake, False))


def reconstruction_loss(images, restored):
  """Mean absolute difference, over images, pixels and channels (Eq. 2).

  For example [0, 1] and [0.5, -1]: (0.5 + 2) / 2 = 1.25.

  Args:
    images, restored: of one shape.

  Returns:
    A scalar; its gradient reaches both.
  """
  return tf.reduce_mean(tf.abs(images - restored))


def scaled(pixels):
  """0..255 of any type -> float32 in [-1, 1]."""
  return tf.cast(pixels, tf.float32) / 127.5 - 1.0


def unscaled(images):
  """[-1, 1] -> float32 in 0..255, whole numbers."""
  return tf.clip_by_value(tf.round((images + 1.0) * 127.5), 0.0, 255.0)


def _weights():
  # Section 7.1. One for every layer: used twice it would draw the same.
  return tf.keras.initializers.RandomNormal(stddev=0.02)


def _convolution(filters, size, **more):
  return convolution.Conv2D(
    filters, size, kernel_initializer=_weights(), **more
  )


def generator(filters=64, residual_blocks=9):
  """The ResNet generator of Johnson et al. 2016 (Section 7.2).

  [B, H, W, 3] in [-1, 1] -> the same; H and W are multiples of 4, at least 8.

  Args:
    filters: of the first convolution; twice and four times as many follow.
    residual_blocks: 9 for 256 pixels, 6 for 128 in the paper.
  """
  layers = tf.keras.layers

  def normalised(x):
    return layers.ReLU()(instance_norm.instance_norm()(x))

  def padded(x, filters, size, **more):
    x = ReflectionPadding(size // 2)(x)
    return _convolution(filters, size, **more)(x)

  inputs = layers.Input([None, None, 3])
  x = normalised(padded(inputs, filters, 7, use_bias=False))
  for width in (2 * filters, 4 * filters):
    more = {'strides': 2, 'padding': 'same', 'use_bias': False}
    x = normalised(_convolution(width, 3, **more)(x))
  for _ in range(residual_blocks):
    y = normalised(padded(x, 4 * filters, 3, use_bias=False))
    y = padded(y, 4 * filters, 3, use_bias=False)
    x = layers.Add()([x, instance_norm.instance_norm()(y)])
  for width in (2 * filters, filters):
    x = layers.Conv2DTranspose(width, 3, kernel_initializer=_weights(), **more)(
      x
    )
    x = normalised(x)
  return tf.keras.Model(inputs, padded(x, 3, 7, activation='tanh'))


def discriminator(filters=64, layers=5):
  """The PatchGAN discriminator (Section 7.2).

  [B, H, W, 3] in [-1, 1] -> [B, h, w, 1], a judgement of every patch, of 70x70
  pixels with 5 layers, 34x34 with 4, 16x16 with 3; see `patches`.

  Args:
    filters: of the first convolution; they double up to eight times as many.
    layers: convolutions, all but the last two of stride 2.
  """
  inputs = x = tf.keras.layers.Input([None, None, 3])
  for i in range(layers):
    x = tf.keras.layers.ZeroPadding2D()(x)
    last = i == layers - 1
    x = _convolution(
      1 if last else filters * min(2**i, 8),
      4,
      strides=2 if i < layers - 2 else 1,
      use_bias=i == 0 or last,
    )(x)
    if i > 0 and not last:
      x = instance_norm.instance_norm()(x)
    if not last:
      x = tf.keras.layers.LeakyReLU(0.2)(x)
  return tf.keras.Model(inputs, x)


def patches(image_size, layers):
  """Side of a discriminator's output: 30 for 256 pixels and 5 layers.

  Args:
    image_size: side of the images in pixels.
    layers: of the discriminator.

  Returns:
    An integer, below 1 if the images are too small for so many layers.
  """
  return image_size // 2 ** (layers - 2) - 2


class CycleGAN(training.TrainingModel):
  """Two generators and two discriminators, and their training step.

  Attributes:
    image_size: side of training images in pixels.
    generators: {direction: network} of DIRECTIONS.
    discriminators: {side: network} of SIDES.
    pools: {side: ImagePool} of what was translated to that side.
  """

  # How F fares against D_S, |F(G(x)) - x|, |F(x) - x| and D_S; then the other.
  LOSS_TERMS = tuple(
    f'{term}_{side}'
    for side in SIDES
    for term in ('generator', 'cycle', 'identity', 'discriminator')
  )
  SCORES = tuple(
    f'{score}/{direction}'
    for score in translations.SCORES
    for direction in DIRECTIONS
  )

  def __init__(
    self,
    image_size,
    filters=64,
    residual_blocks=9,
    discriminator_filters=64,
    discriminator_layers=5,
    cycle_weight=10.0,
    identity_weight=5.0,
    pool_size=50,
    seed=0,
  ):
    """Makes the networks, the generators first; the defaults are the paper's.

    Args:
      image_size: side of training images in pixels, a multiple of 4.
      filters, residual_blocks: see `generator`.
      discriminator_filters, discriminator_layers: see `discriminator`.
      cycle_weight: lambda.
      identity_weight: mu; with 0 that term takes no time.
      pool_size: images of the past that a discriminator may see.
      seed: of the choice among them.
    """
    super().__init__(seed=seed)
    self.image_size = image_size
    self.cycle_weight = cycle_weight
    self.identity_weight = identity_weight
    self.generators = {
      direction: generator(filters, residual_blocks) for direction in DIRECTIONS
    }
    self.discriminators = {
      side: discriminator(discriminator_filters, discriminator_layers)
      for side in SIDES
    }
    shape = [image_size, image_size, 3]
    self.pools = {
      side: image_pool.ImagePool(pool_size, shape) for side in SIDES
    }

  def generator_variables(self):
    """Of both generators, which share an optimizer."""
    return _variables(self.generators)

  def discriminator_variables(self):
    """Of both discriminators, which share another."""
    return _variables(self.discriminators)

  def translate(self, images, direction):
    """uint8 [N, S, S, 3] -> a NumPy array uint8 [N, S, S, 3].

    So many at a time always that one trace serves all.
    """
    count = max(1, _PIXELS_AT_ONCE // self.image_size**2)
    made = [images[:0]]
    for start in range(0, len(images), count):
      part = images[start : start + count]
      padding = [(0, count - len(part)), (0, 0), (0, 0), (0, 0)]
      whole = self._translate(tf.constant(np.pad(part, padding)), direction)
      made.append(whole.numpy()[: len(part)])
    return np.concatenate(made)

  @tf.function(autograph=False)
  def _translate(self, images, direction):
    translated = self.generators[direction](scaled(images))
    return tf.cast(unscaled(translated), tf.uint8)

  def objective(self, source, target):
    """What the generators minimise.

    Args:
      source, target: float32 [b, S, S, 3] in [-1, 1].

    Returns:
      (total, {term: value}, {side: translated images [b, S, S, 3]}).
    """
    own = {'source': source, 'target': target}
    fakes, terms = {}, {}
    for direction, (here, there) in DIRECTIONS.items():
      images, same = own[here], own[there]
      if self.identity_weight:  # Images do not see each other: one pass.
        images = tf.concat([images, same], axis=0)
      made = self.generators[direction](images)
      if self.identity_weight:
        made, same = tf.split(made, 2)
      fakes[there] = made
      judged = self.discriminators[there](made)
      terms[f'generator_{there}'] = adversarial_loss(judged, True)
      terms[f'identity_{there}'] = reconstruction_loss(own[there], same)
    for direction, (here, there) in DIRECTIONS.items():
      restored = self.generators[direction](fakes[here])
      terms[f'cycle_{there}'] = reconstruction_loss(own[there], restored)
    total = sum(
      terms[f'generator_{side}']
      + self.cycle_weight * terms[f'cycle_{side}']
      + self.identity_weight * terms[f'identity_{side}']
      for side in SIDES
    )
    return total, terms, fakes

  def pooled(self, fakes):
    """{side: translated images} with some of the past in their place.

    The pools are of the global batch: they do not depend on the replicas.
    """
    context = tf.distribute.get_replica_context()
    replicas, rows = context.num_replicas_in_sync, fakes['source'].shape[0]
    count = rows * replicas
    first = rows * context.replica_id_in_sync_group
    shown = {}
    for side, images in fakes.items():
      key = self.seed + zlib.crc32(f'pool of {side}'.encode())
      draws = tf.random.stateless_uniform(
        [count, 2], tf.stack([key, self.step])
      )
      if replicas > 1:
        images = tf.ensure_shape(
          context.all_gather(images, axis=0), [count, *images.shape[1:]]
        )
      images = self.pools[side].exchange(images, self.step * count, draws)
      shown[side] = images[first : first + rows]
    return shown

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    own = {side: scaled(batch[side]['image']) for side in SIDES}
    of_generators, of_discriminators = self._phase.optimizers
    with tf.GradientTape() as tape:
      total, terms, fakes = self.objective(**own)
    self.descend(
      tape,
      {'total': total, **terms},
      self.generator_variables(),
      of_generators,
    )
    shown = self.pooled(fakes)
    judgements = {}
    with tf.GradientTape() as tape:
      for side in SIDES:
        both = tf.concat([own[side], shown[side]], axis=0)
        real, fake = tf.split(self.discriminators[side](both), 2)
        judgements[f'discriminator_{side}'] = discriminator_loss(real, fake)
      judged = sum(judgements.values())
    self.descend(
      tape,
      {'total': judged, **judgements},
      self.discriminator_variables(),
      of_discriminators,
    )
    return self.end_step({'total': total + judged, **terms, **judgements})

  def scores(self, data):
    """Of some test images: see evaluation.translations."""
    return translations.scores(self, data)

  def pictures(self, data):
    """'pairs_source_to_target' and '..._target_to_source', watched."""
    return translations.show(self, data)


def _variables(networks):
  return [v for network in networks.values() for v in network.variables]
