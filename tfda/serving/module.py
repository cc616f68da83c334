"""What a SavedModel of a run computes, with TensorFlow alone.

| signature | input |
|---|---|
| `serving_default` | `images` float32 [B, H, W, 3] in 0..255, of any size |
| `serving_uint8` | `images` uint8 [B, H, W, 3], of any size |
| `serving_bytes` | `image_bytes` string [B], JPEG or PNG files |
| `classify` | `inputs` string [B], tf.Examples with `image/encoded` |
| `embed` | `images` as in `serving_default` |

The first three give `logits` [B, C], `probabilities` [B, C], `label_index`
int64 [B] and `label` string [B]; `classify`, which is for TF Serving's Classify
calls, `classes` string [B, C] and `scores` [B, C], the most probable first;
`embed` the bottleneck's `features` [B, D]. No images give no answers.
assets/labels.txt has the class names, one a line.

assets/calibration.json, {"temperature": T, "applied": false}, has the T by
which dividing logits fits the labels of the source's test images best
(evaluation/calibration.py; null where the run has none): `probabilities` and
`scores` are the softmax of the logits as they are, and who wants them
calibrated takes that of `logits` / T. An export with `--calibrate` does so
itself, "applied": true. `logits`, the labels and their order are the same
either way. Images of another domain may be worse off with T than without, above
all where the source's test images are those of training, which make T small
(results/README.md); `tools.export` says what is known of it. T is of the
source's own statistics where a network has some of each domain.

What a model infers besides logits and features has a signature of its name that
gives it too: `attention` of TADA, float32 [B, h, w], one weight a region.

Bad input is an InvalidArgument error that names the images by their number in
the request: files that are no whole JPEG or PNG (decoding.py) or are too large,
pixels that are no numbers in 0..255.

A GPU with TensorFloat-32 must serve local_feature_patterns without it, which a
SavedModel cannot ask for: NVIDIA_TF32_OVERRIDE=0. See layers/netvlad.py.
"""

import dataclasses
import json
from typing import Optional

import tensorflow as tf

from tfda.data import augmentation, files
from tfda.serving import decoding

# Where a tf.Example has the file, as in the examples of most data sets.
ENCODED = 'image/encoded'


@dataclasses.dataclass(frozen=True)
class Calibration:
  """What calibration.json says.

  Attributes:
    temperature: T; None where the run has none.
    applied: whether probabilities are those of logits divided by it.
  """

  temperature: Optional[float] = None
  applied: bool = False

  @property
  def divisor(self):
    """By what logits are divided for probabilities."""
    return self.temperature if self.applied else 1.0

  def text(self):
    """The file's content."""
    return json.dumps(dataclasses.asdict(self)) + '\n'


class ServedModel(tf.Module):
  """What is exported: a model's inference part, and nothing it trained with.

  A variable that the graph reads and `weights` lacks is an error when saving.
  """

  def __init__(
    self,
    model,
    class_names,
    labels_file,
    calibration_file,
    max_pixels=files.Reading.max_pixels,
    network=None,
  ):
    """Makes the module.

    Args:
      model: an AdaptationModel; only its `inference_weights` are tracked.
      class_names: C names.
      labels_file: path of a file with these names, one a line.
      calibration_file: path of a calibration.json.
      max_pixels: width x height beyond which an image file is refused.
      network: in place of the model's `infer`, without variables.
    """
    super().__init__()
    self.weights = [] if network else model.inference_weights()
    network = _of_any_batch(network or model.infer)
    self.labels = tf.saved_model.Asset(labels_file)
    self.calibration = tf.saved_model.Asset(calibration_file)
    with open(calibration_file, encoding='utf-8') as file:
      divisor = Calibration(**json.load(file)).divisor
    names = tf.constant(list(class_names))

    def infer(images):
      if images.dtype.is_floating:
        # NaN is neither.
        is_pixel = (images >= 0.0) & (images <= 255.0)
        is_bad = tf.logical_not(tf.reduce_all(is_pixel, axis=[1, 2, 3]))
        decoding.refuse(is_bad, 'has pixels that are no numbers in 0..255')
      return network(model.prepare(images))

    def answer(inferred, *further):
      logits = tf.cast(inferred['logits'], tf.float32)
      index = tf.argmax(logits, axis=-1, output_type=tf.int64)
      return {
        'logits': logits,
        'probabilities': tf.nn.softmax(logits / divisor),
        'label_index': index,
        'label': tf.gather(names, index),
        **{name: tf.cast(inferred[name], tf.float32) for name in further},
      }

    def serving(*further):
      return lambda images: answer(infer(images), *further)

    def infer_files(encoded):
      pixels = decoding.decoder(model.read_size, max_pixels)(encoded)
      cropped = augmentation.centre_crop(pixels, model.backbone.image_size)
      return network(tf.cast(cropped, tf.float32))

    def classify(inputs):
      # Without one it is no image; an error here would not say of which.
      feature = {ENCODED: tf.io.FixedLenFeature([], tf.string, b'')}
      encoded = tf.io.parse_example(inputs, feature)[ENCODED]
      probabilities = answer(infer_files(encoded))['probabilities']
      scores, index = tf.math.top_k(probabilities, len(class_names))
      return {'classes': tf.gather(names, index), 'scores': scores}

    def embed(images):
      return {'features': tf.cast(infer(images)['features'], tf.float32)}

    def endpoint(function, argument, dtype, shape):
      spec = tf.TensorSpec(shape, dtype, argument)
      traced = tf.function(function, autograph=False)
      return traced.get_concrete_function(spec)

    def of_images(function, dtype=tf.float32):
      return endpoint(function, 'images', dtype, [None, None, None, 3])

    def of_strings(function, argument):
      return endpoint(function, argument, tf.string, [None])

    # Traced here: within a save each would trace the network once more.
    outputs = set(of_images(infer).structured_outputs)
    self.endpoints = {
      'serving_default': of_images(serving()),
      'serving_uint8': of_images(serving(), tf.uint8),
      'serving_bytes': of_strings(
        lambda encoded: answer(infer_files(encoded)), 'image_bytes'
      ),
      'classify': of_strings(classify, 'inputs'),
      'embed': of_images(embed),
      **{
        name: of_images(serving(name))
        for name in outputs - {'logits', 'features'}
      },
    }
    # Readers of large files need not hand over every pixel.
    self.image_size = tf.function(
      lambda: tf.constant(model.read_size), input_signature=[], autograph=False
    )


def _of_any_batch(network):
  """A network that gives no answers to no images.

  Some kernels of TensorFlow fail there, on some processors: it sees one blank
  image then.
  """

  def infer(images):
    count = tf.shape(images)[0]
    blanks = tf.maximum(1 - count, 0)
    padded = tf.pad(images, [[0, blanks], [0, 0], [0, 0], [0, 0]])
    padded.set_shape([None, *images.shape[1:]])
    return {name: rows[:count] for name, rows in network(padded).items()}

  return infer


def set_methods(path):
  """Makes `classify` of a SavedModel a Classify call; Keras' saver cannot."""
  saved_model = tf.compat.v1.saved_model
  updater = saved_model.signature_def_utils.MethodNameUpdater(path)
  updater.replace_method_name('classify', saved_model.CLASSIFY_METHOD_NAME)
  updater.save()
