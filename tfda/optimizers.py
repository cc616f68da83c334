"""Optimizers with learning-rate multipliers and coupled weight decay.

What Caffe's `lr_mult` / `decay_mult` and PyTorch's parameter groups do, and
Keras' own optimizers do not. The update of a variable w with multiplier r is

  g = gradient + weight_decay * w           (coupled, the L2 form)
  v = momentum * v - r * learning_rate * g
  w = w + v                                 (SGD)

For example w = 1, gradient 1, learning rate 0.1, multiplier 2, weight decay
0.5, momentum 0.9: v = -0.3, w = 0.7; with gradient 1 again: g = 1.35,
v = -0.27 - 0.27 = -0.54, w = 0.16.
"""

import tensorflow as tf


class _Multipliers:
  """The part that SGD and Adam share; it comes before them in the bases."""

  _coupled_weight_decay = 0.0
  _multiplier = 1.0
  _multipliers = {}
  _max_norm = 0.0

  def set_multipliers(self, multipliers):
    """multipliers: pairs (variable, learning-rate factor); 1 elsewhere."""
    self._multipliers = {
      self._var_key(variable): factor for variable, factor in multipliers
    }

  def rate(self, progress):
    """The learning rate at a progress, for logs."""
    if isinstance(self._learning_rate, ProgressSchedule):
      return self._learning_rate.at(progress)
    return self.learning_rate

  def set_coupled_weight_decay(self, weight_decay):
    """weight_decay: what a gradient gains per unit of its variable."""
    self._coupled_weight_decay = weight_decay

  def set_max_norm(self, max_norm):
    """max_norm: what the weights of a unit's inputs are scaled down to."""
    self._max_norm = max_norm

  @property
  def learning_rate(self):
    rate = super().learning_rate
    # Outside `update_step` the multiplier is 1 and callers get the plain rate.
    return rate if self._multiplier == 1.0 else rate * self._multiplier

  @learning_rate.setter
  def learning_rate(self, value):
    tf.keras.optimizers.Optimizer.learning_rate.fset(self, value)

  def update_step(self, gradient, variable):
    if self._coupled_weight_decay:
      gradient += self._coupled_weight_decay * variable
    self._multiplier = self._multipliers.get(self._var_key(variable), 1.0)
    try:
      super().update_step(gradient, variable)
    finally:
      self._multiplier = 1.0
    rank = variable.shape.rank
    if self._max_norm and rank > 1:
      # [in, out], [height, width, in, out] and, of several heads, [k, in, out].
      axes = [1] if rank == 3 else list(range(rank - 1))
      variable.assign(tf.clip_by_norm(variable, self._max_norm, axes))


class _FusedSGD(tf.keras.optimizers.SGD):
  """Keras' SGD, an update in one operation: a pass over memory, not five."""

  def update_step(self, gradient, variable):
    momentum = self.momentums[self._index_dict[self._var_key(variable)]]
    tf.raw_ops.ResourceApplyKerasMomentum(
      var=variable.handle,
      accum=momentum.handle,
      lr=tf.cast(self.learning_rate, variable.dtype),
      grad=tf.convert_to_tensor(gradient),
      momentum=tf.cast(self.momentum, variable.dtype),
      use_nesterov=self.nesterov,
    )


class SGD(_Multipliers, _FusedSGD):
  """Keras' SGD with multipliers; see the module."""


class Adam(_Multipliers, tf.keras.optimizers.Adam):
  """Keras' Adam with multipliers; see the module."""


class ProgressSchedule(tf.keras.optimizers.schedules.LearningRateSchedule):
  """A learning rate that follows training progress, not the update counter.

  Accumulated gradients, skipped loss-scale steps and several optimizers make
  `optimizer.iterations` differ from the steps of the run.
  """

  def __init__(self, schedule, progress):
    """schedule: progress -> learning rate. progress: () -> scalar in [0, 1]."""
    self._schedule = schedule
    self._progress = progress

  def __call__(self, iterations):
    del iterations
    return self.at(self._progress())

  def at(self, progress):
    """The learning rate at a progress."""
    return self._schedule(progress)


def make(
  name,
  learning_rate,
  momentum=0.9,
  nesterov=False,
  weight_decay=0.0,
  clip_norm=0.0,
  max_norm=0.0,
  epsilon=1e-7,
):
  """Makes an optimizer; `set_multipliers` is the caller's.

  Args:
    name: 'sgd' or 'adam'.
    learning_rate: a number or a schedule.
    momentum: of SGD; beta_1 of Adam.
    nesterov: of SGD.
    weight_decay: coupled, on every trainable variable.
    clip_norm: the norm over all gradients together, before weight decay, that
      they are scaled down to where they are beyond it; 0 for no clipping.
    max_norm: see `set_max_norm`; 0 for none.
    epsilon: of Adam.

  Returns:
    A Keras optimizer.
  """
  clipping = {'global_clipnorm': clip_norm or None}
  if name == 'sgd':
    optimizer = SGD(
      learning_rate, momentum=momentum, nesterov=nesterov, **clipping
    )
  else:
    optimizer = Adam(
      learning_rate, beta_1=momentum, epsilon=epsilon, **clipping
    )
  optimizer.set_coupled_weight_decay(weight_decay)
  optimizer.set_max_norm(max_norm)
  return optimizer
