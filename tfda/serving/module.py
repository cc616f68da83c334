"""What a SavedModel of a run computes, with TensorFlow alone.

Signature `serving_default`: `images` float32 [B, H, W, 3] in 0..255 of any size
-> `logits` [B, C], `probabilities` [B, C], `label_index` int64 [B], `label`
string [B]. assets/labels.txt has the class names, one a line.

What a model infers besides logits and features has a signature of its name that
gives it too: `attention` of TADA, float32 [B, h, w], one weight a region.

A GPU with TensorFloat-32 must serve local_feature_patterns without it, which a
SavedModel cannot ask for: NVIDIA_TF32_OVERRIDE=0. See layers/netvlad.py.
"""

import tensorflow as tf


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
    names = tf.constant(list(class_names))

    def infer(images):
      return model.infer(model.prepare(images))

    def serve(images, *further):
      inferred = infer(images)
      logits = tf.cast(inferred['logits'], tf.float32)
      index = tf.argmax(logits, axis=-1, output_type=tf.int64)
      return {
        'logits': logits,
        'probabilities': tf.nn.softmax(logits),
        'label_index': index,
        'label': tf.gather(names, index),
        **{name: tf.cast(inferred[name], tf.float32) for name in further},
      }

    def endpoint(function):
      images = tf.TensorSpec([None, None, None, 3], tf.float32)
      traced = tf.function(function, autograph=False)
      return traced.get_concrete_function(images)

    def serving(*further):
      return endpoint(lambda images: serve(images, *further))

    # Traced here: within a save each would trace the network once more.
    outputs = set(endpoint(infer).structured_outputs)
    self.endpoints = {
      'serving_default': serving(),
      **{name: serving(name) for name in outputs - {'logits', 'features'}},
    }
    # Readers of large files need not hand over every pixel.
    self.image_size = tf.function(
      lambda: tf.constant(model.read_size), input_signature=[], autograph=False
    )
