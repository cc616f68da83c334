"""Pictures that a method shows of itself (AdaptationModel.pictures)."""

import dataclasses
import functools
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf

from tfda.data import augmentation


@dataclasses.dataclass(frozen=True)
class MethodPicture:
  """One picture.

  Attributes:
    caption: () -> one or two sentences, with the numbers that matter.
    draw: () -> the bytes of a PNG file. Both take their time, and are called
      where they are needed alone.
    watched: whether TensorBoard gets it at every evaluation, not at the end of
      the run alone; for those that are cheap.
  """

  caption: Callable[[], str]
  draw: Callable[[], bytes]
  watched: bool = False


def of(measure, caption, draw, watched=False):
  """Returns the MethodPicture of what is measured, once, when it is needed.

  Args:
    measure: () -> something.
    caption: of that -> the caption.
    draw: of that -> the bytes of a PNG file.
    watched: see the class.
  """
  measured = functools.cache(measure)
  return MethodPicture(
    lambda: caption(measured()), lambda: draw(measured()), watched
  )


@dataclasses.dataclass(frozen=True)
class Excerpt:
  """Some images of a domain.

  Attributes:
    images: uint8 [n, S, S, 3], of the network's size.
    inputs: what the network takes for them: the same, or stored features.
    labels: int32 [n], or None.
  """

  images: np.ndarray
  inputs: Any
  labels: Optional[np.ndarray]


def excerpt(model, domain, count):
  """Returns the Excerpt of up to `count` images, the same random ones always.

  Args:
    model: a ClassificationModel.
    domain: a Domain; of images larger than the network's the centre counts.
    count: n at most.
  """
  rows = np.random.default_rng(0).permutation(len(domain.images))[:count]
  images = augmentation.centre_crop(
    domain.images[rows], model.backbone.image_size
  )
  inputs = domain.inputs()
  is_stored = model.backbone.is_stored(inputs)
  labels = None if domain.labels is None else domain.labels[rows]
  return Excerpt(images, inputs[rows] if is_stored else images, labels)


def log(name, png):
  """Adds a picture to TensorBoard, by the writer that is the default."""
  pixels = tf.io.decode_png(png, channels=3)
  tf.summary.image(f'pictures/{name}', pixels[tf.newaxis])
