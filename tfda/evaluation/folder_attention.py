"""The attention of finished runs to any folder of images."""

import os

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import augmentation, folders, images
from tfda.evaluation import attention, figures, pages
from tfda.serving import restore


def write(run_dirs, folder, out=None, count=16):
  """Draws the attention maps of a folder's first images, by name.

  Of one run those that its method has, with the predicted classes. Of several
  runs, of any method, those of their feature maps beside each other, as in
  Figure 1 of Kang et al. 2018.

  Args:
    run_dirs: paths of runs; their last checkpoints count.
    folder: path of what `folder:` reads; of splits it is `test`.
    out: the PNG file to write; attention.png in the last run if not given.
    count: of the images at most.

  Returns:
    The path of the file.

  Raises:
    UsageError: no such run or folder, one run without attention, no images, a
      broken one, or a file that cannot be written.
  """
  list_folder, _ = folders.LISTERS['folder:']
  paths = list_folder(folder, 'test', None).paths[:count]
  restored = [restore.restore(run_dir) for run_dir in run_dirs]
  run, _, _ = restored[-1]
  out = out or run.attention
  drawn = _compared(restored, paths) if restored[1:] else _own(restored, paths)
  pages.write(out, drawn)
  return out


def _own(restored, paths):
  """The picture of a run whose model infers an attention."""
  ((run, experiment, model),) = restored
  pixels = _read(paths, model)
  outputs = model.infer(tf.constant(pixels))
  if 'attention' not in outputs:
    raise errors.UsageError(
      f'{run.path}: a run of {experiment.method} with these settings has no '
      'attention to regions; tada has, and of several runs their feature maps '
      'are compared'
    )
  probabilities = tf.nn.softmax(outputs['logits']).numpy()
  names = run.class_names()
  predicted = probabilities.argmax(axis=-1)
  captions = [
    f'{figures.axis_name(names[k], k)} {row[k]:.0%}'
    for k, row in zip(predicted, probabilities)
  ]
  return attention.draw(pixels, outputs['attention'].numpy(), captions)


def _compared(restored, paths):
  """The picture of several runs, named by the ends of their paths."""
  columns = {'image': (_read(paths, restored[0][2]), None)}
  for run, _, model in restored:
    parent, name = os.path.split(os.path.abspath(run.path))
    pixels = _read(paths, model)
    title = f'{os.path.basename(parent)}: {name}'
    columns[title] = pixels, attention.of_feature_map(model, pixels)
  return attention.draw_columns(columns)


def _read(paths, model):
  """Images as the network sees them, uint8 [n, S, S, 3]."""
  pixels = np.stack([images.read(path, model.read_size) for path in paths])
  return augmentation.centre_crop(pixels, model.backbone.image_size)
