"""The discriminator of features and predictions together (CDAN)."""

import tensorflow as tf

from tfda import losses
from tfda.layers import discriminators

_LARGEST_PRODUCT = 4096  # Long et al. 2018, Section 3.2.


class ConditionalDiscriminator(tf.keras.layers.Layer):
  """A `DomainDiscriminator` of features f and the class probabilities g.

  Long et al. 2018, Section 3.2: it sees every product of a feature and a
  probability or, where those are more than 4096 numbers, as many products of
  random mixtures as `random_width`, d, which have the same inner products on
  average:

    f (x) g,  or  (R_f f) * (R_g g) / sqrt d

  with R_f and R_g of standard normal numbers, drawn once and fixed. For example
  f = [2, 3], g = [1/4, 3/4]: f (x) g = [1/2, 3/4, 3/2, 9/4], class by class.

  Call it with features [B, D] and class logits [B, C]; it returns logits [B] in
  float32. g is a condition: no gradient flows to the class logits.

  Args:
    num_classes: C.
    hidden_units: of the `DomainDiscriminator`.
    dropout_rate: likewise.
    random_width: d; 0 for all products, however many.
  """

  def __init__(
    self,
    num_classes,
    hidden_units=(1024, 1024),
    dropout_rate=0.5,
    random_width=1024,
    **kwargs,
  ):
    kwargs['dtype'] = tf.float32  # Its own config names it too.
    super().__init__(**kwargs)
    self.num_classes = num_classes
    self.random_width = random_width
    self._discriminator = discriminators.DomainDiscriminator(
      hidden_units, dropout_rate
    )

  def build(self, input_shape):
    width = input_shape[-1]
    self.is_random = (
      self.random_width > 0 and width * self.num_classes > _LARGEST_PRODUCT
    )
    if self.is_random:
      self._mixtures = [
        self.add_weight(
          name,
          [size, self.random_width],
          initializer=tf.keras.initializers.RandomNormal(stddev=1.0),
          trainable=False,
        )
        for name, size in (('features', width), ('classes', self.num_classes))
      ]
    products = self.random_width if self.is_random else width * self.num_classes
    self._discriminator.build([None, products])
    super().build(input_shape)

  def condition(self, features, class_logits):
    """What the discriminator sees: [B, D C], class by class, or [B, d]."""
    features = losses.at_least_float32(features)
    class_logits = losses.at_least_float32(class_logits)
    probabilities = tf.stop_gradient(tf.nn.softmax(class_logits))
    if self.is_random:
      of_features, of_classes = self._mixtures
      mixed = (features @ of_features) * (probabilities @ of_classes)
      return mixed / self.random_width**0.5
    products = probabilities[:, :, tf.newaxis] * features[:, tf.newaxis]
    return tf.reshape(products, [-1, products.shape[1] * products.shape[2]])

  def call(self, features, class_logits, noise=None, training=False):
    seen = self.condition(features, class_logits)
    return self._discriminator(seen, noise=noise, training=training)

  def get_config(self):
    return {
      **super().get_config(),
      'num_classes': self.num_classes,
      'hidden_units': self._discriminator.hidden_units,
      'dropout_rate': self._discriminator.dropout_rate,
      'random_width': self.random_width,
    }
