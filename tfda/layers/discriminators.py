"""Domain discriminators."""

import tensorflow as tf

from tfda.layers import dropout, perceptron

_EPSILON = 1e-12  # Under the root of a norm, which has no gradient at 0.


class DomainDiscriminator(tf.keras.layers.Layer):
  """An MLP from features to one logit: positive says source.

  hidden_units with ReLU and dropout, then one linear unit. The DANN paper's
  heads end in two outputs, x-100-2 and x-1024-1024-2; one logit is the same
  model. Call it with features [B, D]; it returns logits [B] in float32.
  """

  def __init__(
    self,
    hidden_units=(1024, 1024),
    dropout_rate=0.5,
    batch_norm=False,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.hidden_units = tuple(hidden_units)
    self.dropout_rate = dropout_rate
    self.batch_norm = batch_norm
    self._perceptron = perceptron.Perceptron(
      self.hidden_units, 1, dropout_rate, batch_norm
    )

  def build(self, input_shape):
    self._perceptron.build(input_shape)
    super().build(input_shape)

  def call(self, features, noise=None, training=False):
    logits = self._perceptron(features, noise=noise, training=training)
    return tf.squeeze(logits, axis=-1)

  def get_config(self):
    return {
      **super().get_config(),
      'hidden_units': self.hidden_units,
      'dropout_rate': self.dropout_rate,
      'batch_norm': self.batch_norm,
    }


def _times_transposed(x, kernels):
  """[K, n, u] times the transposes of [K, d, u] -> [K, n, d].

  The large operand is read as it lies in memory: on a CPU almost three times as
  fast as tf.matmul(x, kernels, transpose_b=True).
  """
  return tf.transpose(tf.matmul(kernels, x, transpose_b=True), [0, 2, 1])


@tf.custom_gradient
def _product(x, kernels):
  """[K, n, d] times [K, d, u] -> [K, n, u]."""

  def gradient(upstream):
    to_kernels = tf.matmul(x, upstream, transpose_a=True)
    return _times_transposed(upstream, kernels), to_kernels

  return tf.matmul(x, kernels), gradient


def _forward(features, kernels, biases, dropped):
  """Logits [K, n], and the slopes of every hidden layer: 0 or what is kept."""
  x, masks = features, []
  for i, (kernel, bias) in enumerate(zip(kernels, biases)):
    if i > 0:
      masks.append(tf.cast(x > 0, x.dtype) * dropped[i - 1])
      x *= masks[-1]
    x = _product(x, kernel) + bias
  return tf.squeeze(x, axis=-1), masks


def _logits_and_slopes(features, kernels, biases, dropped):
  """Logits [K, n] and dlogit/dfeature [K, n, d], differentiable once more.

  With its masks fixed a head is linear, so the gradient of a logit + b . slope
  to its kernels is that of the linear head at u = a feature + b, its biases
  times a: u^T delta in every layer, with the deltas that made the slopes. For
  two hidden layers these are 8 large products; two nested tapes take 12.

  The gradient cannot itself be differentiated.
  """
  depth = len(kernels)

  @tf.custom_gradient
  def call(features, *weights):
    kernels, biases = weights[:depth], weights[depth:]
    logits, masks = _forward(features, kernels, biases, dropped)
    delta = tf.ones_like(logits)[..., tf.newaxis]
    deltas = [delta]
    for kernel, mask in zip(kernels[:0:-1], masks[::-1]):
      delta = _times_transposed(delta, kernel) * mask
      deltas.insert(0, delta)
    slopes = _times_transposed(delta, kernels[0])

    def gradient(to_logits, to_slopes):
      to_logits = to_logits[..., tf.newaxis]
      to_features = to_logits * slopes
      to_kernels, to_biases = [], []
      u = to_logits * features + to_slopes
      for i in range(depth):
        if i > 0:
          u = tf.matmul(u, kernels[i - 1]) + to_logits * biases[i - 1]
          u *= masks[i - 1]
        to_kernels.append(tf.matmul(u, deltas[i], transpose_a=True))
        to_biases.append(tf.matmul(to_logits, deltas[i], transpose_a=True))
      return (to_features, *to_kernels, *to_biases)

    return (logits, slopes), gradient

  return call(features, *kernels, *biases)


class MultiHeadDiscriminator(tf.keras.layers.Layer):
  """Several `DomainDiscriminator`s of one shape, one batched product a layer.

  Call it with features [B, D], which every head sees, or [heads, B, D], one
  batch a head; it returns logits [heads, B] in the precision of its variables.
  Head k has the weights [k] of every variable and is independent of the others.

  With slopes=True it returns (logits, slopes [heads, B, D]): the gradient of
  each logit to its row of the features. A loss of slopes can be differentiated,
  the gradient of that loss cannot.

  Args:
    num_heads: K.
    hidden_units: widths of the hidden layers of each head.
    dropout_rate: of every hidden layer, 0 for none.
    output_bias: whether the offset of the logits trains; a critic's, of whose
      values only differences matter, need not.
  """

  def __init__(
    self,
    num_heads,
    hidden_units=(1024, 1024),
    dropout_rate=0.5,
    output_bias=True,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.num_heads = num_heads
    self.output_bias = output_bias
    self.hidden_units = tuple(hidden_units)
    self.dropout_rate = dropout_rate
    self._dropout = dropout.Dropout(
      dropout_rate, row_axis=1, dtype=self.dtype_policy
    )

  def build(self, input_shape):
    width = input_shape[-1]
    self._kernels, self._biases = [], []
    for i, units in enumerate((*self.hidden_units, 1)):
      # Glorot's limit of one head; Keras would count the heads into the fan.
      limit = (6.0 / (width + units)) ** 0.5
      self._kernels.append(
        self.add_weight(
          f'kernel{i}',
          [self.num_heads, width, units],
          initializer=tf.keras.initializers.RandomUniform(-limit, limit),
        )
      )
      self._biases.append(
        self.add_weight(
          f'bias{i}',
          [self.num_heads, 1, units],
          initializer='zeros',
          trainable=self.output_bias or i < len(self.hidden_units),
        )
      )
      width = units
    super().build(input_shape)

  def call(self, features, noise=None, training=False, slopes=False):
    if features.shape.rank == 2:
      features = tf.tile(features[tf.newaxis], [self.num_heads, 1, 1])
    kernels = [tf.convert_to_tensor(kernel) for kernel in self._kernels]
    biases = [tf.convert_to_tensor(bias) for bias in self._biases]
    dropped = [1.0] * len(self.hidden_units)
    if training and self.dropout_rate:
      rows = tf.shape(features)[1]
      dropped = [
        self._dropout(
          tf.ones([self.num_heads, rows, units], features.dtype),
          noise=noise,
          training=True,
        )
        for units in self.hidden_units
      ]
    if not slopes:
      logits, _ = _forward(features, kernels, biases, dropped)
      return tf.cast(logits, self.dtype)
    logits, slopes = _logits_and_slopes(features, kernels, biases, dropped)
    return tf.cast(logits, self.dtype), tf.cast(slopes, self.dtype)

  def compare_domains(
    self, features, weights, noise=None, norm='l2', training=True
  ):
    """The domain losses of all heads, and how they pull at every feature.

    As in GSDA (Hu et al. 2020), Eq. 6-8 and 10-11.

    Args:
      features: [2b, D], those of the source first.
      weights: [heads, 2b], the p of Eq. 7-8; no gradient flows to them.
      noise: of the step.
      norm: 'l1' or 'l2'.
      training: whether the heads drop units.

    Returns:
      losses [heads], means over the rows of p H(D(f), d);
      norms [heads], means over the rows of ||d(p H(D(f), d)) / df||;
      the gradient [2b, D] of the sum of the losses, without one of its own.
    """
    rows = tf.shape(features)[0]
    weights = tf.stop_gradient(weights) / tf.cast(rows, weights.dtype)
    logits, slopes = self(features, noise=noise, training=training, slopes=True)
    ones = tf.ones([rows // 2], logits.dtype)
    signs = tf.concat([-ones, ones], axis=0)  # d = 1, 0: H(D, d) = -ln D, ...
    cross_entropies = weights * tf.nn.softplus(signs * logits)
    # dH/df is the slope dlogit/df times this, up to the sign.
    steepness = weights * tf.sigmoid(signs * logits)
    if norm == 'l1':
      lengths = tf.reduce_sum(tf.abs(slopes), axis=2)
    else:
      lengths = tf.sqrt(tf.reduce_sum(slopes**2, axis=2) + _EPSILON)
    gradients = (signs * steepness)[..., tf.newaxis] * slopes
    return (
      tf.reduce_sum(cross_entropies, axis=1),
      tf.reduce_sum(steepness * lengths, axis=1),
      tf.stop_gradient(tf.reduce_sum(gradients, axis=0)),
    )

  def get_config(self):
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'hidden_units': self.hidden_units,
      'dropout_rate': self.dropout_rate,
      'output_bias': self.output_bias,
    }
