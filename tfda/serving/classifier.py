"""Predicting with a trained model: a run directory or an exported one."""

import concurrent.futures
import dataclasses
import os
from typing import Optional

import numpy as np
import tensorflow as tf
import tqdm

from tfda import errors
from tfda.data import images as image_files
from tfda.serving import decoding, inputs, loading, restore, versions

_BAR_FROM = 10  # Batches; fewer are done before a bar is read.


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a classifier says of N images.

  Attributes:
    labels: N names, of the most probable classes.
    probabilities: float32 [N, C]; calibrated where an export is (module.py).
    paths: N paths in the order of the rest; None if the images were an array.
  """

  labels: list[str]
  probabilities: np.ndarray
  paths: Optional[list[str]]


class Classifier:
  """Images in, class names and probabilities out; `load` makes one.

  Attributes:
    class_names: C names, in the order of the probabilities.
    image_size: side in pixels to which all images are brought; None for an
      export, which does so itself.
  """

  def __init__(self, probabilities, class_names, image_size, read_size):
    """Makes a classifier.

    Args:
      probabilities: float32 [B, H, W, 3] in 0..255 -> [B, C].
      class_names: C names.
      image_size: see the class.
      read_size: side in pixels to which image files are brought when read.
    """
    self.class_names = tuple(class_names)
    self.image_size = image_size
    self._probabilities = probabilities
    self._read_size = read_size

  def predict(self, images, batch_size=64, progress=False):
    """Classifies images.

    Args:
      images: the path of an image or of a folder (all images below it, sorted);
        a list of such paths; or an array [N, H, W, 3] in 0..255, uint8 or
        float.
      batch_size: images at a time.
      progress: show a bar on standard error if there are many.

    Returns:
      Predictions.

    Raises:
      UsageError: no such path, a broken image, an array of another shape.
    """
    paths, pixels = inputs.resolve(images)
    count = len(pixels if paths is None else paths)
    hidden = None if progress and count > _BAR_FROM * batch_size else True
    bar = tqdm.tqdm(total=count, unit='image', disable=hidden)
    found = [np.zeros([0, len(self.class_names)], np.float32)]
    with concurrent.futures.ThreadPoolExecutor() as pool, bar:
      for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        if paths is None:
          batch = pixels[part]
        else:
          batch = np.stack(list(pool.map(self._read, paths[part])))
        found.append(self._probabilities(tf.cast(batch, tf.float32)).numpy())
        bar.update(len(batch))
    probabilities = np.concatenate(found)
    labels = [self.class_names[i] for i in probabilities.argmax(axis=-1)]
    return Predictions(labels, probabilities, paths)

  def _read(self, path):
    return image_files.read(path, self._read_size)


def load(path):
  """Loads a trained classifier.

  Args:
    path: a run directory, of a run that goes on too (its latest checkpoint
      counts); or an export: the version, or the folder of versions, of which
      the highest counts.

  Returns:
    A Classifier.

  Raises:
    UsageError: there is nothing of this kind, or it cannot be read.
  """
  path = os.fspath(path)
  if not os.path.isdir(path):
    raise errors.UsageError(f'{path}: no such folder')
  if os.path.exists(os.path.join(path, 'flags.txt')):
    return _of_run(path)
  if versions.numbers(path):
    path = os.path.join(path, str(max(versions.numbers(path))))
  if os.path.exists(os.path.join(path, 'saved_model.pb')):
    return _of_export(path)
  raise errors.UsageError(
    f'{path}: neither a run directory (flags.txt) nor an export '
    '(saved_model.pb, or numbered versions)'
  )


def _of_run(path):
  run, _, model = restore.restore(path)
  size = model.read_size

  def probabilities(pixels):
    return tf.nn.softmax(model.infer(model.prepare(pixels))['logits'])

  return Classifier(probabilities, run.class_names(), size, size)


def _of_export(path):
  try:
    module = loading.load(path)
    size = int(module.image_size())
    labels = os.path.join(path, 'assets', 'labels.txt')
    with open(labels, encoding='utf-8') as file:
      class_names = file.read().rstrip('\n').split('\n')
  except (OSError, ValueError, AttributeError, tf.errors.OpError) as error:
    raise errors.UsageError(
      f'{path}: not a whole export of a run: {str(error).splitlines()[0]}'
    ) from error

  def probabilities(pixels):
    # Through the module: a signature alone does not keep its variables.
    serve = module.signatures['serving_default']
    try:
      return serve(images=pixels)['probabilities']
    except tf.errors.InvalidArgumentError as error:
      raise errors.UsageError(decoding.reason(error.message)) from error

  return Classifier(probabilities, class_names, None, size)
