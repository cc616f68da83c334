"""Makes the packaged sample of MNIST."""

import os
import zipfile

import numpy as np

from tfda import errors

_SAMPLES = {'train': 8000, 'test': 2000}
_SEED = 2015


def mnist_sample(mnist, out):
  """Draws 8,000 training and 2,000 test digits, at random, no two the same.

  Args:
    mnist: path of the file of tf.keras.datasets.mnist.
    out: the .npz file to write: {train,test}_{images,labels}, uint8.

  Returns:
    A line that says what was written.
  """
  if not os.path.isfile(mnist):
    raise errors.UsageError(f'--mnist={mnist}: no such file')
  random = np.random.default_rng(_SEED)
  arrays = {}
  try:
    with np.load(mnist, allow_pickle=False) as data:
      for split, count in _SAMPLES.items():
        chosen = random.choice(len(data[f'y_{split}']), count, replace=False)
        arrays[f'{split}_images'] = data[f'x_{split}'][chosen]
        arrays[f'{split}_labels'] = data[f'y_{split}'][chosen]
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise errors.UsageError(f'--mnist={mnist}: {error}') from error
  np.savez_compressed(out, **arrays)
  return f'{out}: {sum(_SAMPLES.values())} digits, {os.path.getsize(out)} bytes'
