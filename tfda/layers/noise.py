"""Noise that is a function of (seed, step, call, row of the global batch).

A stateful generator would make a resumed run differ from an uninterrupted one
and two replicas differ from one. Here a mask depends on nothing but where in
the training it is drawn.
"""

import tensorflow as tf


class Noise:
  """The noise of one training step on one replica.

  Each draw takes the next key, in the order of the calls in the step, which is
  the same whenever the step is traced. Make a new object for every step.
  """

  def __init__(self, seed, step, rows, replica=0, replicas=1):
    """Makes the source of noise of a step.

    Args:
      seed: the seed of the run, an int.
      step: the step, a scalar integer tensor.
      rows: how many rows this replica has of each stream, b.
      replica: the number of this replica, 0 to replicas - 1.
      replicas: how many replicas share the global batch.
    """
    self._seed = seed
    self._step = tf.cast(step, tf.int32)
    self._rows = rows
    self._replica = replica
    self._replicas = replicas
    self._draws = 0

  def uniform(self, shape):
    """Draws from [0, 1) what two replicas and one draw alike.

    Args:
      shape: [n, ...] with n = k b: k streams, concatenated, of b rows each.

    Returns:
      A float32 tensor: this replica's rows of the noise of the global batch.
    """
    self._draws += 1
    draw = (self._seed * 1009 + self._draws) % 2**31
    key = tf.stack([draw, self._step])
    shape = tf.convert_to_tensor(shape)
    streams = shape[0] // self._rows
    values = tf.random.stateless_uniform(
      tf.concat([[streams, self._replicas, self._rows], shape[1:]], axis=0),
      seed=key,
    )
    return tf.reshape(values[:, self._replica], shape)
