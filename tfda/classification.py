"""ClassificationModel: backbone, bottleneck and classifier; image to label.

What inference needs, and all that an export holds. The methods' models are
subclasses that add what they train with (adaptation.AdaptationModel).
"""

import tensorflow as tf

from tfda.layers import perceptron


class ClassificationModel(tf.keras.Model):
  """Images [B, S, S, 3] in 0..255 -> class logits [B, C]."""

  def __init__(
    self, backbone, num_classes, bottleneck_units=0, classifier_dropout=0.0
  ):
    """Makes the model, all variables built.

    Args:
      backbone: a backbones.Backbone.
      num_classes: C.
      bottleneck_units: width of a linear layer between the backbone's features
        and everything else, as in the DANN release's Office network; 0: none.
      classifier_dropout: rate in the classifier's hidden layers.
    """
    super().__init__()
    self.backbone = backbone
    self.feature_width = bottleneck_units or backbone.feature_width
    self.bottleneck = None
    if bottleneck_units:
      self.bottleneck = tf.keras.layers.Dense(bottleneck_units)
      self.bottleneck.build([None, backbone.feature_width])
    self.classifier = perceptron.Perceptron(
      backbone.label_units, num_classes, classifier_dropout
    )
    self.classifier.build([None, self.feature_width])
    self._accuracy = tf.keras.metrics.SparseCategoricalAccuracy('accuracy')

  def statistics_of(self, domain):
    """The domain whose batch statistics serve images of `domain`.

    Itself, unless a method never sees it in training.
    """
    return domain

  def features(self, images, training=False, domain='target'):
    """[B, S, S, 3] in 0..255 -> features [B, D], what the methods align.

    Args:
      images: a batch of one domain.
      training: whether batch normalisation uses the batch's statistics.
      domain: 'source' or 'target', for backbones with statistics of each.
    """
    features = self.backbone(
      images, training=training, domain=self.statistics_of(domain)
    )
    return features if self.bottleneck is None else self.bottleneck(features)

  def call(self, images, training=False):
    """[B, S, S, 3] in 0..255 -> class logits [B, C], for target images."""
    return self.classifier(self.features(images, training=training))

  @tf.function(reduce_retracing=True)
  def infer(self, images, domain='target'):
    """{'logits': [B, C], 'features': [B, D]} as one compiled function."""
    features = self.features(images, domain=domain)
    return {'logits': self.classifier(features), 'features': features}

  def inference_weights(self):
    """The variables that classifying target images needs."""
    weights = self.backbone.inference_weights(self.statistics_of('target'))
    if self.bottleneck is not None:
      weights += self.bottleneck.weights
    return weights + self.classifier.weights

  @property
  def metrics(self):
    return [self._accuracy]

  def test_step(self, batch):
    """Accuracy on {'image', 'label'} of the target, for Keras' `evaluate`."""
    self._accuracy.update_state(batch['label'], self(batch['image']))
    return {'accuracy': self._accuracy.result()}
