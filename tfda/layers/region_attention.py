"""The transferable local attention of Wang et al. 2019 (TADA), Eq. 2-4."""

import tensorflow as tf

from tfda import losses
from tfda.layers import discriminators


class RegionDiscriminators(tf.keras.layers.Layer):
  """A domain discriminator for every region of a feature map (Eq. 2).

  Call it with feature maps [B, H, W, D]; it returns logits [B, H, W] in
  float32, positive for the source. There are K = H W of them; that of row r,
  column c is head r W + c of one `MultiHeadDiscriminator`, [k] of every weight.

  Args:
    hidden_units: widths of the hidden layers of each.
    dropout_rate: of every hidden layer, 0 for none.
  """

  def __init__(self, hidden_units=(1024, 1024), dropout_rate=0.0, **kwargs):
    super().__init__(**kwargs)
    self.hidden_units = tuple(hidden_units)
    self.dropout_rate = dropout_rate

  def build(self, input_shape):
    _, self._height, self._width, depth = input_shape
    self._heads = discriminators.MultiHeadDiscriminator(
      self._height * self._width, self.hidden_units, self.dropout_rate
    )
    self._heads.build([None, depth])
    super().build(input_shape)

  def call(self, feature_map, noise=None, training=False):
    regions = self._heads.num_heads
    features = tf.reshape(feature_map, [-1, regions, feature_map.shape[-1]])
    by_region = tf.transpose(features, [1, 0, 2])
    logits = self._heads(by_region, noise=noise, training=training)
    return tf.reshape(tf.transpose(logits), [-1, self._height, self._width])

  def get_config(self):
    return {
      **super().get_config(),
      'hidden_units': self.hidden_units,
      'dropout_rate': self.dropout_rate,
    }


def local_attention(logits, uncertain=False):
  """The attention of regions by their discriminators: w = 1 - H (Eq. 3).

  1 where the domain is certain, lowest at probability one half, 1 - ln 2 =
  0.3069. For example logit ln 3, the probabilities (3/4, 1/4): 1 - 0.5623 =
  0.4377.

  Args:
    logits: [B, H, W], of `RegionDiscriminators`.
    uncertain: w = H instead, in [0, ln 2]: the largest where the domain cannot
      be told, which is what the paper's text asks for.

  Returns:
    The same shape.
  """
  uncertainty = losses.binary_entropy(logits)
  return uncertainty if uncertain else 1.0 - uncertainty


def attend(feature_map, attention):
  """The residual attention h = (1 + w) f (Eq. 4).

  Args:
    feature_map: [B, H, W, D].
    attention: [B, H, W].

  Returns:
    [B, H, W, D] in the precision of the feature map.
  """
  weight = 1.0 + tf.cast(attention, feature_map.dtype)
  return weight[..., tf.newaxis] * feature_map
