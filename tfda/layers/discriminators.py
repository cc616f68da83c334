"""Domain discriminators."""

import tensorflow as tf

from tfda.layers import perceptron


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
