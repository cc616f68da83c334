"""The attention of a finished run to any folder of images."""

import numpy as np
import tensorflow as tf

from tfda import errors
from tfda.data import augmentation, folders, images
from tfda.evaluation import attention, figures, pages
from tfda.serving import restore


def write(run_dir, folder, out=None, count=16):
  """Draws the attention maps of a folder's first images, by name.

  Args:
    run_dir: a run whose model has attention; its last checkpoint counts.
    folder: path of what `folder:` reads; of splits it is `test`.
    out: the PNG file to write; attention.png in the run if not given.
    count: of the images at most.

  Returns:
    The path of the file.

  Raises:
    UsageError: no such run or folder, a run without attention, no images, a
      broken one, or a file that cannot be written.
  """
  list_folder, _ = folders.LISTERS['folder:']
  paths = list_folder(folder, 'test', None).paths[:count]
  run, experiment, model = restore.restore(run_dir)
  pixels = np.stack([images.read(path, model.read_size) for path in paths])
  pixels = augmentation.centre_crop(pixels, model.backbone.image_size)
  outputs = model.infer(tf.constant(pixels))
  if 'attention' not in outputs:
    raise errors.UsageError(
      f'{run.path}: a run of {experiment.method} with these settings has no '
      'attention to regions; tada has'
    )
  probabilities = tf.nn.softmax(outputs['logits']).numpy()
  names = run.class_names()
  predicted = probabilities.argmax(axis=-1)
  captions = [
    f'{figures.axis_name(names[k], k)} {row[k]:.0%}'
    for k, row in zip(predicted, probabilities)
  ]
  out = out or run.attention
  pages.write(
    out, attention.draw(pixels, outputs['attention'].numpy(), captions)
  )
  return out
