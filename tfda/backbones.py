"""Backbones: images in, feature maps out, each with its own preprocessing.

`load(name)` makes one. Adding one is a function here and its line in the table
below; everything else asks the Backbone.
"""

import functools
import inspect
import os

import tensorflow as tf

from tfda import errors
from tfda.layers import convolution, preprocessing, statistics

# Mean and standard deviation of ImageNet per channel, of images in 0..1, as
# used by most published ResNet weights.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STDDEV = (0.229, 0.224, 0.225)


class Backbone(tf.keras.layers.Layer):
  """Preprocessing and a convolutional network, up to its features.

  Attributes:
    image_size: side of the square input in pixels.
    label_units: widths of the hidden layers of the label predictor that the
      paper puts on top of this network.
    discriminator_units: the same for the domain discriminator.
    measures_mean: whether the input's mean is measured on the training images.
    aligns_first: whether `alignable_layers` has the first convolution.
    network: the Keras functional model, preprocessed images -> feature map.
    source_network: the same with the source's batch statistics, after
      `separate_batch_norm`; else `network` itself.
    has_domain_statistics: whether it is another.
    cut_layer: the layer of `cut_at`; None before.
    prefix, suffix: the network in two parts, after `cut_at`; else None.
    source_suffix: the second part of `source_network`.
  """

  def __init__(
    self,
    network,
    normalise,
    pooling,
    label_units=(),
    discriminator_units=(1024, 1024),
    measures_mean=False,
    aligns_first=False,
  ):
    super().__init__(name=network.name)
    self.network = self.source_network = network
    self.normalise = normalise
    self.pooling = pooling
    self.label_units = label_units
    self.discriminator_units = discriminator_units
    self.measures_mean = measures_mean
    self.aligns_first = aligns_first
    self.image_size = network.input_shape[1]
    self.cut_layer = self.prefix = self.suffix = self.source_suffix = None
    # Not a dict, of which Keras would have every checkpoint hold the models.
    self._network_to = functools.lru_cache(maxsize=None)(self._make_network_to)
    self.built = True

  @property
  def has_domain_statistics(self):
    return self.source_network is not self.network

  @property
  def feature_map_shape(self):
    """(height, width, depth) of the feature map."""
    return tuple(self.network.output_shape[1:])

  @property
  def feature_width(self):
    """Width of the features that `call` returns."""
    height, width, depth = self.feature_map_shape
    return height * width * depth if self.pooling == 'flatten' else depth

  def feature_map(self, images, training=False, domain='target'):
    """[B, S, S, 3] in 0..255 -> [B, H, W, D].

    After `cut_at` also from what the prefix makes of the images.
    """
    if self.is_stored(images):
      suffix = self.source_suffix if domain == 'source' else self.suffix
      return suffix(images, training=training)
    network = self.source_network if domain == 'source' else self.network
    return network(self.normalise(images), training=training)

  @property
  def alignable_layers(self):
    """Names of the convolutions whose attention a method may align, in order.

    All but the first, of the digit net all, as in Kang et al. 2018, Section
    4.2; less those that are frozen, which no method can change.
    """
    kinds = tf.keras.layers.Conv2D, tf.keras.layers.DepthwiseConv2D
    convolutions = [x for x in self.network.layers if isinstance(x, kinds)]
    candidates = convolutions[0 if self.aligns_first else 1 :]
    return [layer.name for layer in candidates if layer.trainable]

  def feature_maps(self, images, layers, training=False, domain='target'):
    """[B, S, S, 3] in 0..255 -> a list of [B, H, W, D], one a layer.

    In one pass, which ends at the last of them; the layer of `feature_map` is
    `network.layers[-1].name`. After `cut_at` also from what the prefix makes of
    the images.

    Args:
      images: a batch of one domain.
      layers: names of layers of the network.
      training: whether batch normalisation uses the batch's statistics.
      domain: 'source' or 'target', for backbones with statistics of each.

    Raises:
      UsageError: there is no such layer, or it is one of the prefix, from whose
        outputs its map cannot be had.
    """
    stored = self.is_stored(images)
    network = self._network_to(
      tuple(layers), domain, self.cut_layer if stored else None
    )
    inputs = images if stored else self.normalise(images)
    maps = network(inputs, training=training)
    return [maps[name] for name in layers]

  def check_maps(self, layers):
    """Raises UsageError unless `feature_maps` has maps of these layers."""
    if not layers:
      return
    network = self._network_to(tuple(layers), 'target', self.cut_layer)
    for name, shape in network.output_shape.items():
      if len(shape) != 4:
        raise errors.UsageError(f'{name}: its output is no feature map')

  def _make_network_to(self, names, domain, cut_layer):
    """The network from a cut, or from images, to {name: map}."""
    network = self.source_network if domain == 'source' else self.network
    layers = {layer.name: layer for layer in network.layers}
    for name in names:
      if name not in layers:
        raise errors.UsageError(
          f'{name}: no such layer in {network.name}; '
          f'{errors.near(name, layers)}'
        )

    def output(layer):
      # A layer of both networks was one of `network` first.
      shared = network is not self.network and layer in self.network.layers
      return layer.get_output_at(int(shared))

    inputs = network.input
    if cut_layer:
      inputs = output(layers[cut_layer])
      of_prefix = self._layers_until(cut_layer, network)
      for name in names:
        if layers[name] in of_prefix:
          raise errors.UsageError(
            f'{name}: {network.name} has it in the part up to '
            f'--freeze_until={cut_layer}, whose outputs alone '
            '--cache_features stores; name layers behind it'
          )
    return tf.keras.Model(inputs, {n: output(layers[n]) for n in names})

  def is_stored(self, images):
    """Whether these are outputs of the prefix, not images."""
    return (
      self.suffix is not None
      and tuple(images.shape[1:]) == self.suffix.input_shape[1:]
    )

  def pool(self, feature_map):
    """[B, H, W, D] -> [B, feature_width]: flattened, or the mean."""
    if self.pooling == 'flatten':
      return tf.reshape(feature_map, [-1, self.feature_width])
    return tf.reduce_mean(feature_map, axis=[1, 2])

  def call(self, images, training=False, domain='target'):
    """[B, S, S, 3] in 0..255 -> features [B, feature_width]."""
    return self.pool(self.feature_map(images, training, domain))

  def inference_weights(self, domain='target'):
    """The variables that images of one domain go through."""
    network = self.source_network if domain == 'source' else self.network
    return self.normalise.weights + network.weights

  def freeze_until(self, layer_name):
    """Freezes every layer up to and including the one named.

    Frozen batch normalisation uses its moving averages (Keras' rule).

    Raises:
      UsageError: there is no such layer.
    """
    for network in (self.network, self.source_network):
      for layer in self._layers_until(layer_name, network):
        layer.trainable = False

  def freeze_batch_norm(self):
    """Freezes batch normalisation: fixed averages, scales and offsets."""
    for network in (self.network, self.source_network):
      for layer in _batch_norms(network):
        layer.trainable = False

  def separate_batch_norm(self):
    """Gives each domain a mean and variance of its own, where it is trained.

    The scale and the offset stay shared. As in Li et al. 2016 (AdaBN) and Chang
    et al. 2019 (domain-specific batch normalisation); in no paper of `methods`.

    Raises:
      UsageError: no batch normalisation is trained.
    """
    if self.has_domain_statistics:
      return
    separate = [x for x in _batch_norms(self.network) if x.trainable]
    if not separate:
      raise errors.UsageError(
        f'--domain_batch_norm: no batch normalisation of {self.network.name} '
        'is trained'
      )

    def copy(layer):
      return statistics.OwnStatistics(layer) if layer in separate else layer

    self.source_network = tf.keras.models.clone_model(
      self.network, clone_function=copy
    )

  def _layers_until(self, layer_name, network):
    names = [layer.name for layer in network.layers]
    if layer_name not in names:
      raise errors.UsageError(
        f'--freeze_until={layer_name}: no such layer in {network.name}; '
        f'{errors.near(layer_name, names)}'
      )
    return network.layers[: names.index(layer_name) + 1]

  def copy(self):
    """Returns the same network with weights of its own, as yet of other values.

    Less what `separate_batch_norm` and `cut_at` added.
    """
    return Backbone(
      tf.keras.models.clone_model(self.network),
      self.normalise,
      self.pooling,
      self.label_units,
      self.discriminator_units,
      aligns_first=self.aligns_first,
    )

  def cut_at(self, layer_name):
    """Splits the network behind a layer up to which it is frozen.

    `prefix` then maps images in 0..255 to what `call` takes in their place.

    Raises:
      UsageError: the network has no two parts there: a connection passes by the
        layer, or the first would have statistics of each domain.
    """
    network, source_network = self.network, self.source_network
    refused = errors.UsageError(
      f'--freeze_until={layer_name}: {network.name} cannot be cut there for '
      '--cache_features'
    )
    layer, *before = reversed(self._layers_until(layer_name, network))
    if not {layer, *before[:-1]} <= set(source_network.layers):  # Less inputs.
      raise refused
    # A layer of both networks was one of `network` first.
    cuts = [(layer.get_output_at(0), network.output)]
    if self.has_domain_statistics:
      cuts.append((layer.get_output_at(1), source_network.output))
    try:
      suffixes = [tf.keras.Model(*cut, name='suffix') for cut in cuts]
    except ValueError as error:
      raise refused from error
    self.suffix, self.source_suffix = suffixes[0], suffixes[-1]
    cut = cuts[0][0]
    prefix = tf.keras.Model(network.input, cut, name='prefix')
    self.prefix = tf.function(
      lambda images: prefix(self.normalise(images), training=False),
      autograph=False,
    )
    self.cut_layer = layer_name

  def prefix_weights(self):
    """The variables of the prefix."""
    layers = self._layers_until(self.cut_layer, self.network)
    weights = [weight for layer in layers for weight in layer.weights]
    return self.normalise.weights + weights


def _batch_norms(network):
  kind = tf.keras.layers.BatchNormalization
  return [layer for layer in network.layers if isinstance(layer, kind)]


def _convolutions(name, image_size, blocks):
  """conv (SAME) - ReLU - max pooling, for every block.

  Args:
    name: of the network.
    image_size: side of the input in pixels.
    blocks: (kernel size, filters, pooling size, pooling stride) tuples.
  """
  layers = tf.keras.layers
  inputs = x = layers.Input([image_size, image_size, 3])
  for i, (kernel, filters, pool, stride) in enumerate(blocks, start=1):
    x = convolution.Conv2D(filters, kernel, padding='same', name=f'conv{i}')(x)
    x = layers.ReLU(name=f'relu{i}')(x)
    x = layers.MaxPool2D(pool, stride, padding='same', name=f'pool{i}')(x)
  return tf.keras.Model(inputs, x, name=name)


_DANN_MNIST_BLOCKS = [(5, 32, 2, 2), (5, 48, 2, 2)]


def dann_mnist(image_size=28):
  """Ganin & Lempitsky 2015, Figure 5a: 28x28, two convolutions, FC100-100."""
  return Backbone(
    _convolutions('dann_mnist', image_size, _DANN_MNIST_BLOCKS),
    preprocessing.Normalise(),
    pooling='flatten',
    label_units=(100, 100),
    discriminator_units=(100,),
    measures_mean=True,
  )


def dann_mnist_domain_norm(image_size=28):
  """`dann_mnist` with batch normalisation by the statistics of each domain.

  Not in the DANN paper. Every convolution is followed by a normalisation with
  the mean and variance of the image's own domain, as in Li et al. 2016
  (AdaBN) and Chang et al. 2019 (domain-specific batch normalisation), then by a
  scale and an offset that the domains share.
  """
  layers = tf.keras.layers
  inputs = x = layers.Input([image_size, image_size, 3])
  for i, (kernel, filters, pool, stride) in enumerate(_DANN_MNIST_BLOCKS, 1):
    x = convolution.Conv2D(
      filters, kernel, padding='same', use_bias=False, name=f'conv{i}'
    )(x)
    x = layers.BatchNormalization(
      momentum=0.9, synchronized=True, name=f'batch_norm{i}'
    )(x)
    x = layers.ReLU(name=f'relu{i}')(x)
    x = layers.MaxPool2D(pool, stride, padding='same', name=f'pool{i}')(x)
  backbone = Backbone(
    tf.keras.Model(inputs, x, name='dann_mnist_domain_norm'),
    preprocessing.Normalise(),
    pooling='flatten',
    label_units=(100, 100),
    discriminator_units=(100,),
    measures_mean=True,
  )
  backbone.separate_batch_norm()
  return backbone


def dann_svhn(image_size=32):
  """Ganin & Lempitsky 2015, Figure 5b: 32x32, three convolutions."""
  blocks = [(5, 64, 3, 2), (5, 64, 3, 2), (5, 128, 1, 1)]
  return Backbone(
    _convolutions('dann_svhn', image_size, blocks),
    preprocessing.Normalise(),
    pooling='flatten',
    label_units=(3072, 2048),
    measures_mean=True,
  )


def dann_gtsrb(image_size=40):
  """Ganin & Lempitsky 2015, Figure 5c: 40x40, three convolutions, FC512."""
  blocks = [(5, 96, 2, 2), (3, 144, 2, 2), (5, 256, 2, 2)]
  return Backbone(
    _convolutions('dann_gtsrb', image_size, blocks),
    preprocessing.Normalise(),
    pooling='flatten',
    label_units=(512,),
    measures_mean=True,
  )


def four_conv(image_size=32):
  """Kang et al. 2018, Section 4.2: four convolutions, the last classifies.

  Their widths are not given; here 64-128-256 filters of 4x4 with a stride of 2,
  for which 32x32 is padded alike on all sides. The fourth, 4x4 without padding,
  is a matrix on the flattened 4x4 map: the model's dense classifier.
  """
  inputs = x = tf.keras.layers.Input([image_size, image_size, 3])
  for i, filters in enumerate([64, 128, 256], start=1):
    x = convolution.Conv2D(
      filters, 4, 2, padding='same', activation='relu', name=f'conv{i}'
    )(x)
  return Backbone(
    tf.keras.Model(inputs, x, name='four_conv'),
    preprocessing.Normalise(),
    pooling='flatten',
    measures_mean=True,
    aligns_first=True,
  )


def mobilenet(image_size=224):
  """MobileNet v1 1.0 (tf.keras.applications), any size from 32."""
  return _mobilenet('conv_pw_13_relu', image_size)


def mobilenet_conv_pw_11(image_size=224):
  """`mobilenet` up to conv_pw_11: a map as fine and deep as VGG16's conv5_3."""
  return _mobilenet('conv_pw_11_relu', image_size)


def _mobilenet(last, image_size):
  whole = tf.keras.applications.MobileNet(
    input_shape=(image_size, image_size, 3), include_top=False, weights=None
  )
  features = whole.get_layer(last).output
  network = _for_adaptation(
    tf.keras.Model(whole.input, features, name='mobilenet')
  )
  # Its weights were trained on images in [-1, 1].
  normalise = preprocessing.Normalise((127.5,) * 3, 1.0 / 127.5)
  return Backbone(network, normalise, pooling='average')


def vgg16(image_size=224):
  """VGG16 (Simonyan & Zisserman 2014) up to conv5_3, before its ReLU."""
  return _vgg16(3, image_size)


def vgg16_conv5_2(image_size=224):
  """`vgg16` up to conv5_2, before its ReLU."""
  return _vgg16(2, image_size)


def vgg16_conv5_1(image_size=224):
  """`vgg16` up to conv5_1, before its ReLU."""
  return _vgg16(1, image_size)


def _vgg16(last, image_size):
  """Layers are named as in tf.keras.applications.

  There and in keras-cv the ReLU of a convolution cannot be left out.

  Args:
    last: number of the convolution in block 5 that makes the feature map.
    image_size: side of the input in pixels.
  """
  inputs = tf.keras.layers.Input([image_size, image_size, 3])
  x = inputs[..., ::-1]  # The published weights are for blue, green, red.
  blocks = [(2, 64), (2, 128), (3, 256), (3, 512), (last, 512)]
  for block, (convolutions, filters) in enumerate(blocks, start=1):
    if block > 1:
      x = tf.keras.layers.MaxPool2D(2, name=f'block{block - 1}_pool')(x)
    for i in range(1, convolutions + 1):
      activation = None if (block, i) == (5, last) else 'relu'
      name = f'block{block}_conv{i}'
      x = convolution.Conv2D(
        filters, 3, padding='same', activation=activation, name=name
      )(x)
  network = tf.keras.Model(inputs, x, name='vgg16')
  # They were trained on images less ImageNet's mean.
  normalise = preprocessing.Normalise((123.68, 116.779, 103.939), 1.0)
  return Backbone(network, normalise, pooling='average')


def resnet18(image_size=224):
  """ResNet-18 v1 (keras-cv)."""
  return _resnet('basic_block', [2, 2, 2, 2], image_size)


def resnet34(image_size=224):
  """ResNet-34 v1 (keras-cv)."""
  return _resnet('basic_block', [3, 4, 6, 3], image_size)


def resnet50(image_size=224):
  """ResNet-50 v1 (keras-cv)."""
  return _resnet('block', [3, 4, 6, 3], image_size)


def resnet101(image_size=224):
  """ResNet-101 v1 (keras-cv)."""
  return _resnet('block', [3, 4, 23, 3], image_size)


def _resnet(block_type, blocks, image_size):
  from keras_cv.models import ResNetBackbone

  # ResNet50Backbone() asks a hub for its configuration; this does not.
  network = ResNetBackbone(
    stackwise_filters=[64, 128, 256, 512],
    stackwise_blocks=blocks,
    stackwise_strides=[1, 2, 2, 2],
    include_rescaling=False,
    input_shape=(image_size, image_size, 3),
    block_type=block_type,
  )
  network = _for_adaptation(network)
  normalise = preprocessing.Normalise(
    [255.0 * mean for mean in _IMAGENET_MEAN],
    [1.0 / (255.0 * stddev) for stddev in _IMAGENET_STDDEV],
  )
  return Backbone(network, normalise, pooling='average')


def _for_adaptation(network):
  """A library's network with faster gradients and younger moving averages.

  At Keras' momentum of 0.99 the averages of batch normalisation are 100 steps
  old, of a network that has changed since. 0.9 is PyTorch's default.

  On several replicas the statistics are those of the whole batch.
  """
  network = convolution.with_fast_gradients(network)
  several = tf.distribute.get_strategy().num_replicas_in_sync > 1
  for layer in _batch_norms(network):
    layer.momentum = 0.9
    if several:  # The fused kernel knows one replica's part alone.
      layer.fused, layer.synchronized = False, True
    else:  # Its moving variance, alone, would be n / (n - 1) times as large.
      layer._bessels_correction_test_only = False
  return network


# They train from random weights; the others begin with those of ImageNet.
FROM_RANDOM_WEIGHTS = (
  'dann_mnist',
  'dann_mnist_domain_norm',
  'dann_svhn',
  'dann_gtsrb',
  'four_conv',
)
_BACKBONES = {
  function.__name__: function
  for function in [
    dann_mnist,
    dann_mnist_domain_norm,
    dann_svhn,
    dann_gtsrb,
    four_conv,
    mobilenet,
    mobilenet_conv_pw_11,
    vgg16,
    vgg16_conv5_1,
    vgg16_conv5_2,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
  ]
}


def names():
  """Returns the names that `load` knows."""
  return sorted(_BACKBONES)


def image_size(name, requested=None):
  """The side of a backbone's input: as requested, or the published one.

  Raises:
    UsageError: there is no such backbone.
  """
  if name not in _BACKBONES:
    raise errors.UsageError(
      f'--backbone={name}: no such backbone; {errors.near(name, names())}'
    )
  parameters = inspect.signature(_BACKBONES[name]).parameters
  return requested or parameters['image_size'].default


def load(name, weights='none', requested_size=None):
  """Makes a backbone.

  Args:
    name: one of `names()`.
    weights: 'none' (random) or the path of a Keras weights file (.h5), matched
      to the network's layers by name.
    requested_size: side of the square input in pixels; None for the published
      one.

  Returns:
    A Backbone, built.

  Raises:
    UsageError: unknown name; a size too small for the network; no such weights
      file; weights that fit no layer.
  """
  size = image_size(name, requested_size)
  try:
    backbone = _BACKBONES[name](size)
  except ValueError as error:
    raise errors.UsageError(
      f'--image_size={size}: does not fit {name}: {str(error).splitlines()[0]}'
    ) from error
  if weights != 'none':
    _load_weights(backbone.network, name, weights)
  if backbone.has_domain_statistics:
    theirs = {layer.name: layer for layer in backbone.source_network.layers}
    for layer in _batch_norms(backbone.network):
      theirs[layer.name].moving_mean.assign(layer.moving_mean)
      theirs[layer.name].moving_variance.assign(layer.moving_variance)
  return backbone


def _load_weights(network, name, path):
  if not os.path.isfile(path):
    raise errors.UsageError(
      f'--backbone_weights={path}: no such file; give the path of a Keras '
      f'weights file (.h5) for {name}, or none'
    )
  before = [tf.identity(v) for v in network.weights]
  try:
    network.load_weights(path, by_name=True)
  except (OSError, ValueError, NotImplementedError) as error:
    raise errors.UsageError(
      f'--backbone_weights={path}: does not fit {name}: '
      f'{str(error).splitlines()[0]}'
    ) from error
  changed = [
    bool(tf.reduce_any(old != new)) for old, new in zip(before, network.weights)
  ]
  kernels = [i for i, v in enumerate(network.weights) if 'kernel' in v.name]
  unchanged = [network.weights[i].name for i in kernels if not changed[i]]
  if unchanged:
    raise errors.UsageError(
      f'--backbone_weights={path}: holds no weights for {len(unchanged)} of '
      f'{len(kernels)} layers of {name}, the first {unchanged[0]}'
    )
