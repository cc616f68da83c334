"""What the frozen part of a network makes of a domain, computed once.

Training then starts behind it. The features are stored beside the decoded
images, under a key of the images and of the weights, for all runs that agree in
both.
"""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf
import tqdm

from tfda.data import augmentation as augmentations
from tfda.data import storage

_BATCH = 64
_VERSION = 1


def cached(domain, backbone, augmentation, copies, cache_dir=None):
  """Returns the Domain with the features of its images.

  Args:
    domain: a Domain.
    backbone: a Backbone that is cut (`cut_at`).
    augmentation: one of augmentation.NAMES.
    copies: 1 for the centre crop of every image alone; n > 1 for n augmented
      ones besides, of which training takes one at random.
    cache_dir: folder of the caches; None for the user's.

  Raises:
    RunError: the features cannot be written.
  """
  key = _key(domain, backbone, augmentation, copies)
  features = storage.find(key, cache_dir)
  if features is None:
    blocks = _blocks(domain, backbone, augmentation, copies)
    shape = backbone.suffix.input_shape[1:]
    features = storage.write(key, shape, np.float32, blocks, cache_dir)
  return dataclasses.replace(domain, features=features)


def _blocks(domain, backbone, augmentation, copies):
  """Yields float32 [n, ...]: all copies of an image, then of the next."""
  count = max(1, _BATCH // copies)
  bar = tqdm.tqdm(
    total=len(domain.images),
    desc=f'frozen features of {domain.name}, {domain.split}',
    unit='image',
    disable=None,
  )
  # Traced: crop by crop in Python, it would take longer than the network.
  make = tf.function(
    lambda images, start: _made(images, start, backbone, augmentation, copies),
    autograph=False,
  )
  with bar:
    for start in range(0, len(domain.images), count):
      images = domain.images[start : start + count]
      rows = len(images)
      # Always a whole batch: one trace.
      images = np.pad(images, [(0, count - rows)] + [(0, 0)] * 3)
      made = make(tf.constant(images), tf.constant(start))
      yield made.numpy().astype(np.float32)[: rows * copies]
      bar.update(rows)


def _made(images, start, backbone, augmentation, copies):
  """Features [n * copies, ...] of images [n, R, R, 3], the first `start`."""
  size = backbone.image_size
  crops = [augmentations.centre_crop(images, size)]
  for copy in range(1, copies):
    draws = tf.random.stateless_uniform(
      [images.shape[0], augmentations.DRAWS], tf.stack([copy, start])
    )
    crops.append(augmentations.augment(images, size, augmentation, draws))
  crops = tf.stack(crops, axis=1)
  return backbone.prefix(tf.reshape(crops, [-1, size, size, 3]))


def _key(domain, backbone, augmentation, copies):
  """A name for the features: another input or weight gives another one."""
  digest = hashlib.sha256()
  inputs = [
    _VERSION,
    backbone.name,
    backbone.cut_layer,  # A ReLU has no weights that would tell it apart.
    backbone.image_size,
    backbone.suffix.input_shape,
    copies,
    augmentation if copies > 1 else 'none',
    tf.keras.mixed_precision.global_policy().name,
  ]
  digest.update(repr(inputs).encode())
  for weight in backbone.prefix_weights():
    digest.update(weight.numpy().tobytes())
  for start in range(0, len(domain.images), 1000):
    digest.update(domain.images[start : start + 1000].tobytes())
  return f'features-{digest.hexdigest()[:32]}'
