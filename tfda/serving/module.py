"""What a SavedModel of a run computes, with TensorFlow alone.

Signature `serving_default`: `images` float32 [B, H, W, 3] in 0..255 of any size
-> `logits` [B, C], `probabilities` [B, C], `label_index` int64 [B], `label`
string [B]. assets/labels.txt has the class names, one a line.
"""

import tensorflow as tf

from tfda.data import images as image_files


class ServedModel(tf.Module):
  """What is exported: a model's inference part, and nothing it trained with.

  A variable that the graph reads and `weights` lacks is an error when saving.
  """

  def __init__(self, model, class_names, labels_file):
    """Makes the module.

    Args:
      model: an AdaptationModel; only its `inference_weights` are tracked.
      class_names: C names.
      labels_file: path of a file with these names, one a line.
    """
    super().__init__()
    self.weights = model.inference_weights()
    self.labels = tf.saved_model.Asset(labels_file)
    size = model.backbone.image_size

    def serve(images):
      fits = tf.reduce_all(tf.equal(tf.shape(images)[1:3], size))
      images = tf.cond(
        fits, lambda: images, lambda: image_files.resize(images, size)
      )
      images = tf.ensure_shape(images, [None, size, size, 3])
      logits = tf.cast(model.infer(images)['logits'], tf.float32)
      index = tf.argmax(logits, axis=-1, output_type=tf.int64)
      return {
        'logits': logits,
        'probabilities': tf.nn.softmax(logits),
        'label_index': index,
        'label': tf.gather(tf.constant(list(class_names)), index),
      }

    images = tf.TensorSpec([None, None, None, 3], tf.float32)
    self.serve = tf.function(serve, input_signature=[images])
    # Readers of large files need not hand over every pixel.
    self.image_size = tf.function(lambda: tf.constant(size), input_signature=[])
