"""Domains that are made: difference-blended digits."""

import numpy as np


def blend(digits, photographs, seed):
  """MNIST-M's rule: out = |digit - patch| for every pixel and channel.

  Ganin & Lempitsky 2015, Section 4.1. The patch is a random crop of a random
  photograph. For example a digit pixel of 200 over a photograph pixel of 50
  gives 150, a background pixel of 0 over it gives 50.

  Args:
    digits: uint8 [N, S, S].
    photographs: colour images, uint8 [H, W, 3], each at least S x S.
    seed: of the choice of photographs and crops.

  Returns:
    uint8 [N, S, S, 3].

  Raises:
    ValueError: a photograph is smaller than the digits.
  """
  size = digits.shape[1]
  for i, photograph in enumerate(photographs):
    if min(photograph.shape[:2]) < size:
      raise ValueError(
        f'photograph {i} is {photograph.shape[1]}x{photograph.shape[0]}, '
        f'smaller than the digits ({size}x{size})'
      )
  random = np.random.default_rng(seed)
  chosen = random.integers(len(photographs), size=len(digits))
  corners = random.random([len(digits), 2])
  blended = np.empty([len(digits), size, size, 3], np.uint8)
  for i, digit in enumerate(digits):
    photograph = photographs[chosen[i]]
    y = int(corners[i, 0] * (photograph.shape[0] - size + 1))
    x = int(corners[i, 1] * (photograph.shape[1] - size + 1))
    patch = photograph[y : y + size, x : x + size].astype(np.int16)
    blended[i] = np.abs(digit[:, :, np.newaxis].astype(np.int16) - patch)
  return blended
