"""Instance normalisation: the one place that knows where it comes from."""

import warnings


def instance_norm():
  """A layer that gives every channel of every image mean 0 and variance 1.

  Without a scale and an offset of its own, epsilon 1e-5, as CycleGAN's code has
  it. It has no statistics, so training and inference are the same.
  """
  with warnings.catch_warnings():
    # That the package is at its end, which is why its version is pinned.
    warnings.simplefilter('ignore', UserWarning)
    from tensorflow_addons.layers import InstanceNormalization

  return InstanceNormalization(epsilon=1e-5, center=False, scale=False)
