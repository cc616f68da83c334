"""Running means of the terms of a loss."""

import tensorflow as tf


class Averages(tf.Module):
  """Means since the last reset: outside of replicas, those of all of them.

  One variable for all: a Keras metric for each adds some ten operations a term
  to a step and to its trace.
  """

  def __init__(self, names):
    """names: of the numbers, in an order of their own."""
    super().__init__()
    self.names = tuple(names)
    self._sums = tf.Variable(  # The last is how many were added up.
      tf.zeros([len(self.names) + 1]),
      trainable=False,
      synchronization=tf.VariableSynchronization.ON_READ,
      aggregation=tf.VariableAggregation.SUM,
      name='averages',
    )

  def add(self, values):
    """values: {name: scalar of any float type}, one for every name."""
    row = [tf.cast(values[name], tf.float32) for name in self.names]
    # A step counts once, however many replicas a run is resumed on.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    self._sums.assign_add(tf.stack([*row, 1.0]) / replicas)

  def result(self):
    """{name: scalar float32}; 0 where nothing was added."""
    *sums, count = tf.unstack(self._sums)
    means = tf.math.divide_no_nan(tf.stack(sums), count)
    return dict(zip(self.names, tf.unstack(means)))

  def reset(self):
    """Starts anew."""
    self._sums.assign(tf.zeros_like(self._sums))
