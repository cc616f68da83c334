"""ClassificationModel: backbone, bottleneck and classifier; image to label.

What inference needs, and all that an export holds. The methods' models are
subclasses that add what they train with (adaptation.AdaptationModel).
"""

import tensorflow as tf

from tfda.data import augmentation
from tfda.data import images as image_files
from tfda.layers import perceptron


class ClassificationModel(tf.keras.Model):
  """Images [B, S, S, 3] in 0..255 -> class logits [B, C].

  Attributes:
    read_size: side in pixels to which images of other sizes are brought, of
      which the network then sees the centre.
  """

  def __init__(
    self,
    backbone,
    num_classes,
    bottleneck_units=0,
    classifier_dropout=0.0,
    read_size=None,
  ):
    """Makes the model, all variables built.

    Args:
      backbone: a backbones.Backbone.
      num_classes: C.
      bottleneck_units: width of a linear layer between the backbone's features
        and everything else, as in the DANN release's Office network; 0: none.
      classifier_dropout: rate in the classifier's hidden layers.
      read_size: see the class; the network's own size if None.
    """
    super().__init__()
    self.backbone = backbone
    self.read_size = read_size or backbone.image_size
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

  def copy(self):
    """Returns the same network with weights of its own, which do not train."""
    copied = ClassificationModel(
      self.backbone.copy(),
      self.classifier.output_units,
      0 if self.bottleneck is None else self.bottleneck.units,
      read_size=self.read_size,
    )
    copied.trainable = False
    for weight, ours in self.weights_beside(copied):
      weight.assign(ours)
    return copied

  def weights_beside(self, copied):
    """Pairs (weight of a copy, of this network), less what they share."""
    pairs = zip(copied.inference_weights(), self.inference_weights())
    return [pair for pair in pairs if pair[0] is not pair[1]]

  def cut_at(self, layer_name):
    """Has the network begin behind a layer; see Backbone.cut_at."""
    self.backbone.cut_at(layer_name)

  def statistics_of(self, domain):
    """The domain whose batch statistics serve images of `domain`.

    Itself, unless a method never sees it in training.
    """
    return domain

  def prepare(self, images):
    """[B, H, W, 3] in 0..255 of any size -> [B, S, S, 3] for the network."""
    size = self.read_size
    fits = tf.reduce_all(tf.equal(tf.shape(images)[1:3], size))
    images = tf.cond(
      fits,
      lambda: tf.cast(images, tf.float32),
      lambda: image_files.resize(images, size),
    )
    images = tf.ensure_shape(images, [None, size, size, 3])
    return augmentation.centre_crop(images, self.backbone.image_size)

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

  def infer(self, images, domain='target'):
    """{'logits': [B, C], 'features': [B, D]} as one compiled function."""
    # Apart, lest one trace be made for both with their shapes unknown.
    stored = self.backbone.is_stored(images)
    return (self._infer_stored if stored else self._infer)(images, domain)

  def _classify(self, images, domain):
    features = self.features(images, domain=domain)
    return {'logits': self.classifier(features), 'features': features}

  def _run(self, images, domain):
    return self._classify(images, domain)

  _infer = tf.function(_run, reduce_retracing=True, autograph=False)
  _infer_stored = tf.function(_run, reduce_retracing=True, autograph=False)

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
