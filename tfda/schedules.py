"""Schedules: pure functions of training progress, which runs from 0 to 1."""

import tensorflow as tf


def adaptation_factor(progress, gamma=10.0):
  """The DANN ramp 2 / (1 + exp(-gamma p)) - 1, from 0 to nearly 1.

  Ganin & Lempitsky 2015, Eq. 14. For example 0 at p = 0, 0.98661 at p = 0.5
  and 0.99991 at p = 1 with gamma = 10.

  Args:
    progress: scalar in [0, 1].
    gamma: steepness, 10 in the paper.

  Returns:
    A float32 scalar tensor.
  """
  # tanh(x / 2) is the same function and does not overflow.
  return tf.tanh(0.5 * gamma * tf.cast(progress, tf.float32))


def annealed_learning_rate(progress, initial=0.01, alpha=10.0, beta=0.75):
  """The learning rate initial / (1 + alpha p)^beta.

  Ganin & Lempitsky 2015, Appendix C. For example 0.01 at p = 0 and
  0.01 / 11^0.75 = 0.0016556 at p = 1.

  Args:
    progress: scalar in [0, 1].
    initial: the learning rate at p = 0.
    alpha: how fast it falls; 0 keeps it constant.
    beta: the exponent.

  Returns:
    A float32 scalar tensor.
  """
  return initial * (1.0 + alpha * tf.cast(progress, tf.float32)) ** -beta


def linearly_decayed_learning_rate(progress, initial=2e-4, start=0.5):
  """The learning rate: constant up to p = start, then linearly to 0 at p = 1.

  CycleGAN (Zhu et al. 2017, Section 4). For example 2e-4 at p = 0 and p = 0.5,
  1e-4 at p = 0.75.

  Args:
    progress: scalar in [0, 1].
    initial: the learning rate at p = 0.
    start: where it begins to fall, below 1.

  Returns:
    A float32 scalar tensor.
  """
  left = (1.0 - tf.cast(progress, tf.float32)) / (1.0 - start)
  return initial * tf.minimum(left, 1.0)
