"""A multi-layer perceptron: the label predictors and the discriminators."""

import tensorflow as tf

from tfda.layers import dropout


class Perceptron(tf.keras.layers.Layer):
  """hidden_units with ReLU, each followed by dropout, then a linear layer.

  Call it with [B, D]; it returns [B, output_units] in float32, whatever the
  precision of the hidden layers.

  Args:
    hidden_units: widths of the hidden layers, () for none.
    output_units: width of the linear output.
    dropout_rate: of every hidden layer, 0 for none.
    batch_norm: normalise before each ReLU, over all replicas.
  """

  def __init__(
    self,
    hidden_units,
    output_units,
    dropout_rate=0.0,
    batch_norm=False,
    **kwargs,
  ):
    super().__init__(**kwargs)
    self.hidden_units = tuple(hidden_units)
    self.output_units = output_units
    self.dropout_rate = dropout_rate
    self.batch_norm = batch_norm
    layers = tf.keras.layers
    self._hidden = [layers.Dense(units) for units in self.hidden_units]
    self._normalise = [
      layers.BatchNormalization(momentum=0.9, synchronized=True)
      for _ in self.hidden_units
      if batch_norm
    ]
    self._dropout = dropout.Dropout(dropout_rate)
    self._output = layers.Dense(output_units, dtype=tf.float32)

  def build(self, input_shape):
    width = input_shape[-1]
    for i, layer in enumerate(self._hidden):
      layer.build([None, width])
      width = layer.units
      if self.batch_norm:
        self._normalise[i].build([None, width])
    self._output.build([None, width])
    super().build(input_shape)

  def call(self, features, noise=None, training=False):
    return self.activations(features, noise, training)[-1]

  def activations(self, features, noise=None, training=False):
    """What every layer makes of [B, D], in order; the last, of the output."""
    activations = []
    for i, layer in enumerate(self._hidden):
      features = layer(features)
      if self.batch_norm:
        features = self._normalise[i](features, training=training)
      features = tf.nn.relu(features)
      features = self._dropout(features, noise=noise, training=training)
      activations.append(features)
    return [*activations, self._output(features)]

  def get_config(self):
    return {
      **super().get_config(),
      'hidden_units': self.hidden_units,
      'output_units': self.output_units,
      'dropout_rate': self.dropout_rate,
      'batch_norm': self.batch_norm,
    }
