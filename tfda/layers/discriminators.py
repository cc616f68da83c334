"""Domain discriminators."""

import tensorflow as tf

from tfda.layers import dropout, perceptron


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


class MultiHeadDiscriminator(tf.keras.layers.Layer):
  """Several `DomainDiscriminator`s of one shape, one batched product a layer.

  Call it with features [B, D], which every head sees, or [heads, B, D], one
  batch a head; it returns logits [heads, B] in float32. Head k has the weights
  [k] of every variable and is independent of the others.

  Args:
    num_heads: K.
    hidden_units: widths of the hidden layers of each head.
    dropout_rate: of every hidden layer, 0 for none.
  """

  def __init__(
    self, num_heads, hidden_units=(1024, 1024), dropout_rate=0.5, **kwargs
  ):
    super().__init__(**kwargs)
    self.num_heads = num_heads
    self.hidden_units = tuple(hidden_units)
    self.dropout_rate = dropout_rate
    self._dropout = dropout.Dropout(dropout_rate, row_axis=1)

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
          f'bias{i}', [self.num_heads, 1, units], initializer='zeros'
        )
      )
      width = units
    super().build(input_shape)

  def call(self, features, noise=None, training=False):
    for i, (kernel, bias) in enumerate(zip(self._kernels, self._biases)):
      if i > 0:
        features = tf.nn.relu(features)
        features = self._dropout(features, noise=noise, training=training)
      features = tf.matmul(features, kernel) + bias
    return tf.cast(tf.squeeze(features, axis=-1), tf.float32)

  def get_config(self):
    return {
      **super().get_config(),
      'num_heads': self.num_heads,
      'hidden_units': self.hidden_units,
      'dropout_rate': self.dropout_rate,
    }
