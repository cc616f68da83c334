"""Methods and backbones: names, the published networks, weights, freezing."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfda
from tests import harness
from tfda import adaptation, backbones, errors, experiment, losses, methods
from tfda.layers import discriminators, perceptron, statistics


def _refused(function, *arguments):
  """The message of the UsageError, which is one line."""
  with pytest.raises(errors.UsageError) as error:
    function(*arguments)
  message = str(error.value)
  assert message and '\n' not in message
  return message


def _images(count, size, seed=0):
  random = np.random.default_rng(seed)
  return random.integers(0, 256, [count, size, size, 3]).astype(np.uint8)


def _parameters(layer):
  return sum(int(np.prod(w.shape)) for w in layer.trainable_weights)


# Methods.


def test_method_names():
  names = methods.names()
  assert {'dann', 'source_only', 'train_on_target'} <= set(names)
  assert names == sorted(set(names))


def test_every_method_has_a_config_and_a_model():
  for name in methods.names():
    module = methods.load(name)
    assert module.__name__ == f'tfda.methods.{name}'
    assert issubclass(module.Method, adaptation.AdaptationModel)
    assert module.Config() == module.Config()
    assert 'label' in module.Method.LOSS_TERMS


@pytest.mark.parametrize(
  'name, near',
  [
    ('dannn', 'dann'),
    ('sourceonly', 'source_only'),
    ('target', 'train_on_target'),
  ],
)
def test_misspelt_method_suggests_the_near_one(name, near):
  message = _refused(methods.load, name)
  assert f'--method={name}:' in message
  assert near in message.split('did you mean')[1]


def test_unknown_method_lists_all():
  message = _refused(methods.load, 'xyzzy')
  for name in methods.names():
    assert name in message


# Backbones.


def test_backbone_names():
  published = {'dann_mnist', 'dann_svhn', 'dann_gtsrb'}
  resnets = {f'resnet{depth}' for depth in (18, 34, 50, 101)}
  others = {'four_conv', 'mobilenet', 'vgg16'}
  assert published | resnets | others <= set(backbones.names())


def test_unknown_backbone_suggests_the_near_one():
  for function in (backbones.load, backbones.image_size):
    message = _refused(function, 'dann_mnits')
    assert '--backbone=dann_mnits:' in message
    assert 'dann_mnist' in message.split('did you mean')[1]


def test_image_size_is_the_published_one_or_the_requested_one():
  sizes = {'dann_mnist': 28, 'dann_svhn': 32, 'dann_gtsrb': 40}
  for name, size in sizes.items():
    assert backbones.image_size(name) == size
    assert backbones.image_size(name, 16) == 16
  assert backbones.image_size('resnet50') == 224
  assert backbones.load('dann_mnist', 'none', 12).image_size == 12


# The paper's Figure 5: sides of the maps; weights of the convolutions, k * k *
# in * out + out; label predictor and domain classifier, in * out + out a layer.
_PUBLISHED = {
  'dann_mnist': {
    'classes': 10,
    'sides': [28, 14, 7],
    'convolutions': [2432, 38448],  # 5 * 5 * 3 * 32 + 32, 5 * 5 * 32 * 48 + 48
    'feature_map': (7, 7, 48),
    'feature_width': 2352,
    'label': 235300 + 10100 + 1010,  # 2352-100-100-10
    'domain': 235300 + 101,  # 2352-100-1
  },
  'dann_svhn': {
    'classes': 10,
    'sides': [32, 16, 8],
    # 5 * 5 * 3 * 64 + 64, 5 * 5 * 64 * 64 + 64, 5 * 5 * 64 * 128 + 128
    'convolutions': [4864, 102464, 204928],
    'feature_map': (8, 8, 128),
    'feature_width': 8192,
    'label': 25168896 + 6293504 + 20490,  # 8192-3072-2048-10
    'domain': 8389632 + 1049600 + 1025,  # 8192-1024-1024-1
  },
  'dann_gtsrb': {
    'classes': 43,
    'sides': [40, 20, 10, 5],
    # 5 * 5 * 3 * 96 + 96, 3 * 3 * 96 * 144 + 144, 5 * 5 * 144 * 256 + 256
    'convolutions': [7296, 124560, 921856],
    'feature_map': (5, 5, 256),
    'feature_width': 6400,
    'label': 3277312 + 22059,  # 6400-512-43
    'domain': 6554624 + 1049600 + 1025,  # 6400-1024-1024-1
  },
}


@pytest.mark.parametrize('name', list(_PUBLISHED))
def test_published_network(name):
  expected = _PUBLISHED[name]
  backbone = backbones.load(name)
  convolutions = [
    layer
    for layer in backbone.network.layers
    if isinstance(layer, tf.keras.layers.Conv2D)
  ]
  assert [_parameters(c) for c in convolutions] == expected['convolutions']
  assert _parameters(backbone) == sum(expected['convolutions'])
  assert all(c.padding == 'same' for c in convolutions)
  sides = []
  for layer in backbone.network.layers:
    side = layer.output.shape[1]
    if side not in sides:
      sides.append(side)
  assert sides == expected['sides']
  assert backbone.feature_map_shape == expected['feature_map']
  assert backbone.feature_width == expected['feature_width']
  label = perceptron.Perceptron(backbone.label_units, expected['classes'])
  label.build([None, backbone.feature_width])
  assert _parameters(label) == expected['label']
  domain = discriminators.DomainDiscriminator(backbone.discriminator_units)
  domain.build([None, backbone.feature_width])
  assert _parameters(domain) == expected['domain']
  assert backbone.measures_mean


def _convolve(x, kernel, bias):
  """A SAME convolution in numpy, stride 1."""
  radius = kernel.shape[0] // 2
  height, width = x.shape[1:3]
  x = np.pad(x, [(0, 0), (radius, radius), (radius, radius), (0, 0)])
  y = np.zeros([*x.shape[:1], height, width, kernel.shape[-1]])
  for i in range(kernel.shape[0]):
    for j in range(kernel.shape[1]):
      y += x[:, i : i + height, j : j + width] @ kernel[i, j]
  return y + bias


def _pool(x):
  """2x2 max pooling of an even image in numpy."""
  b, h, w, d = x.shape
  return x.reshape(b, h // 2, 2, w // 2, 2, d).max(axis=(2, 4))


def test_dann_mnist_against_numpy():
  backbone = backbones.load('dann_mnist')
  backbone.normalise.mean.assign([10.0, 20.0, 30.0])
  random = np.random.default_rng(3)
  backbone.network.set_weights(
    [random.normal(0.0, 0.1, w.shape) for w in backbone.network.get_weights()]
  )
  images = _images(3, 28)
  kernel1, bias1, kernel2, bias2 = backbone.network.get_weights()
  x = (images - np.array([10.0, 20.0, 30.0])) / 255.0
  x = _pool(np.maximum(_convolve(x, kernel1, bias1), 0.0))
  x = _pool(np.maximum(_convolve(x, kernel2, bias2), 0.0))
  np.testing.assert_allclose(
    backbone.feature_map(images), x, rtol=1e-4, atol=1e-4
  )
  np.testing.assert_allclose(
    backbone(images), x.reshape(3, 2352), rtol=1e-4, atol=1e-4
  )


def _halve(x, kernel, bias):
  """A 4x4 convolution with stride 2, ReLU, in numpy; a row around is padded."""
  x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(x, (4, 4), axis=(1, 2))
  y = np.einsum('bhwcij,ijco->bhwo', windows[:, ::2, ::2], kernel)
  return np.maximum(y + bias, 0.0)


def test_four_conv_against_numpy():
  settings = experiment.Experiment(method='source_only', backbone='four_conv')
  model = experiment.build(settings, methods.load('source_only').Config(), 10)
  backbone = model.backbone
  assert backbone.image_size == 32 and backbone.measures_mean
  # 4 * 4 * 3 * 64 + 64, 4 * 4 * 64 * 128 + 128, 4 * 4 * 128 * 256 + 256
  assert _parameters(backbone) == 3136 + 131200 + 524544
  backbone.normalise.mean.assign([10.0, 20.0, 30.0])
  random = np.random.default_rng(3)
  weights = [random.normal(0, 0.1, w.shape) for w in backbone.network.weights]
  backbone.network.set_weights(weights)
  images = _images(2, 32)
  x = (images - np.array([10.0, 20.0, 30.0])) / 255.0
  expected = []
  for kernel, bias in zip(weights[::2], weights[1::2]):
    expected.append(x := _halve(x, kernel, bias))
  assert [x.shape[1:] for x in expected] == [
    (16, 16, 64), (8, 8, 128), (4, 4, 256)
  ]  # fmt: skip
  maps = backbone.feature_maps(images, ['conv1', 'conv2', 'conv3'])
  for ours, by_hand in zip(
    [*maps, backbone.feature_map(images)], [*expected, x]
  ):
    np.testing.assert_allclose(ours, by_hand, rtol=1e-4, atol=1e-4)
  # The fourth: 4x4 without padding, of the weights of the dense classifier.
  kernel, bias = model.classifier.weights
  assert _parameters(model.classifier) == 4 * 4 * 256 * 10 + 10
  bias.assign(random.normal(size=10))
  fourth = tf.nn.conv2d(
    maps[-1], tf.reshape(kernel, [4, 4, 256, 10]), 1, 'VALID'
  )
  np.testing.assert_allclose(
    model(images), fourth[:, 0, 0] + bias, rtol=1e-4, atol=1e-4
  )


def test_four_conv_takes_digits_of_any_size(tmp_path):
  run = experiment.train(
    experiment.Experiment(
      method='dann',
      source='optdigits',  # 8x8
      target='optdigits_m',
      backbone='four_conv',
      steps=2,
      batch_size=4,
      run_dir=str(tmp_path / 'run'),
    )
  )
  path = str(tmp_path / 'digit.png')
  Image.fromarray(_images(1, 28)[0]).save(path)
  classifier = tfda.load(run)
  assert classifier.image_size == 32
  (probabilities,) = classifier.predict([path]).probabilities
  np.testing.assert_allclose(probabilities.sum(), 1.0, rtol=1e-5)


def test_dann_mnist_model_parameters():
  settings = experiment.Experiment(method='dann')
  model = experiment.build(settings, methods.load('dann').Config(), 10)
  assert _parameters(model.backbone) == 2432 + 38448
  assert _parameters(model.classifier) == 246410
  assert _parameters(model.discriminator) == 235401
  assert _parameters(model) == 2432 + 38448 + 246410 + 235401
  # What an export needs: no discriminator; the mean, which is not trained.
  exported = sum(int(np.prod(w.shape)) for w in model.inference_weights())
  assert exported == 2432 + 38448 + 246410 + 3
  # In front of a bottleneck of 16: 2352-16, 16-100-100-10, 16-100-1.
  settings = experiment.Experiment(method='dann', bottleneck=16)
  model = experiment.build(settings, methods.load('dann').Config(), 10)
  assert _parameters(model.bottleneck) == 2352 * 16 + 16
  assert _parameters(model.classifier) == 1700 + 10100 + 1010
  assert _parameters(model.discriminator) == 1700 + 101
  assert model(_images(2, 28)).shape == [2, 10]


def test_all_methods_start_from_the_same_weights():
  weights = []
  for name in ('dann', 'source_only', 'train_on_target'):
    settings = experiment.Experiment(method=name, image_size=8, seed=5)
    model = experiment.build(settings, methods.load(name).Config(), 3)
    weights.append([w.numpy() for w in model.inference_weights()])
  for others in weights[1:]:
    for mine, theirs in zip(weights[0], others):
      np.testing.assert_array_equal(mine, theirs)
  settings = experiment.Experiment(method='dann', image_size=8, seed=6)
  other = experiment.build(settings, methods.load('dann').Config(), 3)
  kernel = next(w for w in other.inference_weights() if len(w.shape) == 4)
  mine = next(w for w in weights[0] if w.ndim == 4)
  assert (kernel.numpy() != mine).any()


def test_dann_mnist_domain_norm():
  backbone = backbones.load('dann_mnist_domain_norm', 'none', 8)
  # A scale and an offset for each of 32 and 48 channels in place of the biases.
  assert _parameters(backbone) == 2400 + 38400 + 2 * 32 + 2 * 48
  images = _images(4, 8)
  trained = backbone.feature_map(images, training=True).numpy()
  assert (trained != backbone.feature_map(images).numpy()).any()
  # Normalised, then ReLU and the maximum of four: positive nearly everywhere.
  assert (trained >= 0.0).all()
  assert (trained > 0.0).mean() > 0.7


@pytest.mark.slow
def test_library_network_normalises_over_all_replicas():
  images = np.random.default_rng(0).integers(256, size=[8, 32, 32, 3])
  images = images.astype(np.uint8)
  strategy = tf.distribute.MirroredStrategy(
    ['CPU:0', 'CPU:1'], tf.distribute.ReductionToOneDevice()
  )
  made = []
  for scope in tf.distribute.get_strategy().scope, strategy.scope:
    tf.keras.utils.set_random_seed(0)
    with scope():
      made.append(backbones.load('mobilenet', requested_size=32))
  one, two = made
  expected = one.feature_map(images, training=True)
  halves = strategy.experimental_distribute_values_from_function(
    lambda context: images[context.replica_id_in_sync_group * 4 :][:4]
  )
  maps = strategy.run(lambda x: two.feature_map(x, training=True), [halves])
  maps = tf.concat(strategy.experimental_local_results(maps), axis=0)
  np.testing.assert_allclose(maps, expected, atol=1e-3)
  mean = two.network.get_layer('conv1_bn').moving_mean
  np.testing.assert_allclose(
    mean, one.network.get_layer('conv1_bn').moving_mean, rtol=1e-4, atol=1e-6
  )


def test_mobilenet_takes_images_from_minus_1_to_1():
  backbone = backbones.load('mobilenet', 'none', 32)
  assert backbone.image_size == 32
  assert backbone.feature_width == 1024
  np.testing.assert_allclose(
    backbone.normalise(np.array([[[[0, 255, 51]]]], np.uint8)),
    [[[[-1.0, 1.0, -0.6]]]],
    rtol=1e-6,
  )
  images = _images(2, 32)
  feature_map = backbone.feature_map(images).numpy()
  assert feature_map.shape == (2, *backbone.feature_map_shape)
  np.testing.assert_allclose(
    backbone(images), feature_map.mean(axis=(1, 2)), rtol=1e-5, atol=1e-7
  )
  assert not backbone.measures_mean
  # MobileNet 1.0 has 3,228,864 parameters, of them 21,888 moving averages.
  assert _parameters(backbone) == 3228864 - 21888


def test_mobilenet_up_to_conv_pw_11():
  whole = backbones.load('mobilenet', 'none', 64).network
  backbone = backbones.load('mobilenet_conv_pw_11', 'none', 64)
  assert backbone.feature_map_shape == (4, 4, 512)
  images = _images(2, 64)
  for mine, theirs in zip(backbone.network.weights, whole.weights):
    mine.assign(theirs)
  middle = tf.keras.Model(
    whole.input, whole.get_layer('conv_pw_11_relu').output
  )
  np.testing.assert_allclose(
    backbone.feature_map(images), middle(backbone.normalise(images)), rtol=1e-5
  )


def test_resnet():
  backbone = backbones.load('resnet18', 'none', 64)
  assert backbone.feature_width == 512
  assert backbone.feature_map_shape == (2, 2, 512)
  # ImageNet's mean becomes 0; a standard deviation above it becomes 1.
  mean = 255.0 * np.array([0.485, 0.456, 0.406])
  above = mean + 255.0 * np.array([0.229, 0.224, 0.225])
  normalised = backbone.normalise(tf.constant([[[mean, above]]], tf.float32))
  np.testing.assert_allclose(
    normalised, [[[[0.0] * 3, [1.0] * 3]]], rtol=1e-5, atol=1e-5
  )
  images = _images(2, 64)
  feature_map = backbone.feature_map(images).numpy()
  np.testing.assert_allclose(
    backbone(images), feature_map.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6
  )
  # Torchvision's ResNet-18 has 11,689,512 parameters, 512 * 1000 + 1000 of them
  # in the last layer.
  assert _parameters(backbone) == 11689512 - 513000
  assert not backbone.measures_mean


# Maps of several layers.


@pytest.mark.parametrize(
  'name, count, first, last',
  [
    ('four_conv', 3, 'conv1', 'conv3'),
    ('dann_svhn', 2, 'conv2', 'conv3'),
    ('vgg16', 12, 'block1_conv2', 'block5_conv3'),
    ('mobilenet', 26, 'conv_dw_1', 'conv_pw_13'),
    # Two in each of 2 + 2 + 2 + 2 blocks, and 3 past a block.
    ('resnet18', 19, 'v2_stack_0_block1_1_conv', 'v2_stack_3_block2_2_conv'),
    # Three in each of 3 + 4 + 6 + 3 blocks, and 4 past a block.
    pytest.param(
      *('resnet50', 52),
      *('v2_stack_0_block1_1_conv', 'v2_stack_3_block3_3_conv'),
      marks=pytest.mark.slow,
    ),
  ],
)
def test_alignable_layers_are_the_convolutions(name, count, first, last):
  backbone = backbones.load(name, requested_size=32)
  layers = backbone.alignable_layers
  assert len(set(layers)) == len(layers) == count
  assert (layers[0], layers[-1]) == (first, last)
  for layer in layers:
    kernel = backbone.network.get_layer(layer).weights[0]
    assert kernel.shape.rank == 4


def test_frozen_layers_are_not_alignable():
  backbone = backbones.load('vgg16', requested_size=32)
  backbone.freeze_until('block4_pool')
  expected = [f'block5_conv{i}' for i in (1, 2, 3)]
  assert backbone.alignable_layers == expected


def _outputs(backbone, images):
  """{name: output} of every layer of the network, called one by one."""
  network = backbone.network
  values = {id(network.input): backbone.normalise(images)}
  for layer in network.layers[1:]:
    before = [values[id(x)] for x in tf.nest.flatten(layer.input)]
    before = before if len(before) > 1 else before[0]
    # VGG16's first is a slice, which it has of its caller.
    is_slice = 'getitem' in layer.name
    values[id(layer.output)] = before[..., ::-1] if is_slice else layer(before)
  return {x.name: values[id(x.output)] for x in network.layers}


@pytest.mark.parametrize(
  'name', ['four_conv', 'mobilenet', 'resnet18', 'vgg16']
)
def test_feature_maps_are_those_of_the_layers_one_by_one(name):
  backbone = harness.calibrated(name)
  images = tf.constant(_images(2, 32))
  expected = {k: v.numpy() for k, v in _outputs(backbone, images).items()}
  # In any order, and twice.
  last = backbone.network.layers[-1].name
  layers = [last, *backbone.alignable_layers, backbone.alignable_layers[0]]
  maps = backbone.feature_maps(images, layers)
  assert len(maps) == len(layers)
  for layer, ours in zip(layers, maps):
    assert ours.shape.rank == 4 and np.std(ours, axis=0).mean() > 1e-6
    np.testing.assert_allclose(
      ours, expected[layer], rtol=1e-4, atol=1e-5, err_msg=layer
    )
  np.testing.assert_allclose(
    maps[0], backbone.feature_map(images), rtol=1e-4, atol=1e-5
  )


def test_feature_maps_leave_the_model_as_it_was(tmp_path):
  """No weights of their own, nothing more in a checkpoint, one pass."""
  backbone = backbones.load('dann_mnist_domain_norm', 'none', 8)
  images, layers = _images(4, 8), ('conv2', 'batch_norm2', 'pool2')
  checkpoint = tf.train.Checkpoint(backbone=backbone)
  path = checkpoint.write(str(tmp_path / 'before'))
  weights = [w.name for w in backbone.weights]
  maps = {
    domain: backbone.feature_maps(images, layers, training=True, domain=domain)
    for domain in ('source', 'target')
  }
  norms = [
    network.get_layer('batch_norm2')
    for network in (backbone.source_network, backbone.network)
  ]
  mean = np.mean(maps['source'][0], axis=(0, 1, 2))
  for norm in norms:
    # Once: of 0.9 and 0.1.
    np.testing.assert_allclose(
      norm.moving_mean, 0.1 * mean, rtol=1e-3, atol=1e-6
    )
  np.testing.assert_allclose(
    np.mean(maps['source'][1], axis=(0, 1, 2)), np.zeros(48), atol=1e-4
  )
  assert [w.name for w in backbone.weights] == weights
  checkpoint.read(path).assert_consumed()
  np.testing.assert_array_equal(norms[0].moving_mean, np.zeros(48))


def test_feature_maps_are_of_the_domain_s_statistics():
  backbone = backbones.load('dann_mnist_domain_norm', 'none', 8)
  images = _images(4, 8)
  backbone(images, training=True, domain='source')
  both = []
  for domain in ('source', 'target'):
    normed, last = backbone.feature_maps(
      images, ['batch_norm1', 'pool2'], domain=domain
    )
    expected = backbone.feature_map(images, domain=domain)
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-6)
    both.append(normed)
  assert np.abs(both[0] - both[1]).max() > 1e-3


def test_feature_maps_of_replicas_and_their_gradient():
  """In a trace of two replicas, as in training."""
  strategy = tf.distribute.MirroredStrategy(
    ['CPU:0', 'CPU:1'], tf.distribute.ReductionToOneDevice()
  )
  with strategy.scope():
    backbone = backbones.load('four_conv', 'none', 8)
  images, layers = tf.constant(_images(2, 8)), backbone.alignable_layers

  def distance():
    with tf.GradientTape() as tape:
      maps = backbone.feature_maps(images, layers, training=True)
      total = tf.add_n([losses.attention_distance(x, x) for x in maps])
    return maps, tape.gradient(total, backbone.trainable_variables)

  maps, gradients = strategy.run(tf.function(distance, autograph=False))
  expected = backbone.feature_maps(images, layers)
  for ours, alone in zip(maps, expected):
    for replica in strategy.experimental_local_results(ours):
      np.testing.assert_allclose(replica, alone, rtol=1e-5, atol=1e-6)
  assert len(gradients) == 6
  for gradient in gradients:  # Of equal maps: none, and it is a number.
    for replica in strategy.experimental_local_results(gradient):
      np.testing.assert_array_equal(replica, np.zeros(replica.shape))


def test_feature_maps_name_the_near_layer():
  backbone = backbones.load('four_conv', 'none', 8)
  message = _refused(backbone.feature_maps, _images(1, 8), ['conv1', 'conv_2'])
  assert message.startswith('conv_2: no such layer in four_conv; did you mean')
  assert 'conv2' in message


@pytest.mark.parametrize('name', ['mobilenet', 'resnet18'])
def test_moving_averages_of_a_library_s_network_are_of_ten_steps(name):
  network = backbones.load(name, 'none', 32).network
  kind = tf.keras.layers.BatchNormalization
  norms = [layer for layer in network.layers if isinstance(layer, kind)]
  assert norms and {layer.momentum for layer in norms} == {0.9}


@pytest.mark.parametrize('name', ['mobilenet', 'dann_mnist_domain_norm'])
def test_frozen_batch_norm_is_the_same_for_every_batch(name):
  backbone = backbones.load(name, 'none', 32)
  before = len(backbone.network.trainable_weights)
  backbone.freeze_batch_norm()
  # A scale and an offset in each.
  norms = {'mobilenet': 27, 'dann_mnist_domain_norm': 2}[name]
  assert len(backbone.network.trainable_weights) == before - 2 * norms
  assert len(backbone.trainable_weights) == before - 2 * norms
  images = _images(3, 32)
  for domain in ('source', 'target'):
    together = backbone(images, training=True, domain=domain)
    alone = backbone(images[:1], training=True, domain=domain)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)


def test_own_statistics_by_hand():
  random = np.random.default_rng(0)
  x = random.normal(3.0, 2.0, [16, 4]).astype(np.float32)
  other = tf.keras.layers.BatchNormalization(momentum=0.5, epsilon=0.1)
  other.build([None, 4])
  parts = random.uniform(0.5, 2.0, [4, 4]).astype(np.float32)
  other.set_weights(parts)
  scale, offset, mean, variance = parts
  mine = statistics.OwnStatistics(other)

  def expected(mean, variance):
    return (x - mean) / np.sqrt(variance + 0.1) * scale + offset

  np.testing.assert_allclose(mine(x), expected(mean, variance), rtol=1e-5)
  batch = x.mean(axis=0), x.var(axis=0)
  trained = mine(x, training=True)
  np.testing.assert_allclose(trained, expected(*batch), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    mine.moving_mean, (mean + batch[0]) / 2.0, rtol=1e-5
  )
  np.testing.assert_array_equal(other.moving_mean, mean)
  assert mine.shared_scale is other.gamma and mine.shared_offset is other.beta


def test_separate_batch_norm_shares_all_but_statistics():
  images = _images(4, 32)
  backbone = harness.calibrated('mobilenet')
  trained = {w.ref() for w in backbone.trainable_weights}
  before = backbone(images).numpy()
  backbone.freeze_until('conv_pw_11_relu')
  backbone.separate_batch_norm()
  assert {w.ref() for w in backbone.trainable_weights} < trained
  for domain in ('source', 'target'):
    np.testing.assert_allclose(
      backbone(images, domain=domain), before, rtol=1e-5, atol=1e-7
    )
  backbone(images, training=True, domain='source')
  np.testing.assert_allclose(backbone(images), before, rtol=1e-5, atol=1e-7)
  assert np.abs(backbone(images, domain='source') - before).max() > 1e-3
  # The two networks differ in mean and variance behind the layer: 4 of 27.
  ours, theirs = (
    {w.ref() for w in network.weights}
    for network in (backbone.network, backbone.source_network)
  )
  assert len(ours - theirs) == len(theirs - ours) == 2 * 4


def test_network_with_statistics_of_each_domain_is_cut():
  images = _images(4, 32)
  backbone = harness.calibrated('mobilenet')
  backbone.freeze_until('conv_pw_11_relu')
  backbone.separate_batch_norm()
  backbone(images, training=True, domain='source')
  domains = ('source', 'target')
  # In graphs, as the prefix is: eager kernels round in another way.
  whole = [tf.function(backbone)(images, domain=d) for d in domains]
  backbone.cut_at('conv_pw_11_relu')
  stored = backbone.prefix(tf.constant(images))
  for features, domain in zip(whole, domains):
    joined = tf.function(backbone)(stored, domain=domain)
    np.testing.assert_allclose(joined, features, rtol=1e-5, atol=1e-6)
  assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_weights_are_of_both_domains(tmp_path):
  path = str(tmp_path / 'weights.h5')
  trained = backbones.load('dann_mnist_domain_norm', 'none', 8)
  images = _images(4, 8)
  trained(images, training=True)
  trained.network.save_weights(path)
  loaded = backbones.load('dann_mnist_domain_norm', path, 8)
  for domain in ('source', 'target'):
    np.testing.assert_allclose(
      loaded(images, domain=domain), trained(images), rtol=1e-5
    )


def test_separate_batch_norm_needs_one_that_is_trained():
  message = _refused(
    backbones.load('dann_mnist', 'none', 8).separate_batch_norm
  )
  assert '--domain_batch_norm' in message and 'dann_mnist' in message
  frozen = backbones.load('mobilenet', 'none', 32)
  frozen.freeze_batch_norm()
  assert '--domain_batch_norm' in _refused(frozen.separate_batch_norm)


# Weights.


def test_weights_are_loaded_by_name(tmp_path):
  path = str(tmp_path / 'trained.h5')
  trained = backbones.load('dann_mnist', 'none', 8)
  trained.network.save_weights(path)
  # The convolutions do not depend on the size of the image.
  loaded = backbones.load('dann_mnist', path, 12)
  for mine, theirs in zip(
    loaded.network.get_weights(), trained.network.get_weights()
  ):
    np.testing.assert_array_equal(mine, theirs)


def test_missing_weights_file(tmp_path):
  for path in (tmp_path / 'nowhere.h5', tmp_path):
    message = _refused(backbones.load, 'dann_mnist', str(path))
    assert str(path) in message and '--backbone_weights' in message


@pytest.mark.parametrize(
  'kind', ['text', 'empty', 'other network', 'no layer', 'some layers', 'tf']
)
def test_wrong_weights_file(tmp_path, kind):
  path = str(tmp_path / 'weights.h5')
  layers = tf.keras.layers
  if kind in ('text', 'empty'):
    (tmp_path / 'weights.h5').write_text('hello' if kind == 'text' else '')
  elif kind == 'other network':
    backbones.load('dann_gtsrb', 'none', 8).network.save_weights(path)
  elif kind == 'tf':
    backbones.load('dann_mnist', 'none', 8).network.save_weights(
      str(tmp_path / 'checkpoint')
    )
    path = str(tmp_path / 'checkpoint.index')
  else:
    names = {'no layer': ['a', 'b'], 'some layers': ['conv1', 'b']}[kind]
    inputs = layers.Input([8, 8, 3])
    x = layers.Conv2D(32, 5, name=names[0])(inputs)
    x = layers.Conv2D(48, 3, name=names[1])(x)
    tf.keras.Model(inputs, x).save_weights(path)
  message = _refused(backbones.load, 'dann_mnist', path)
  assert f'--backbone_weights={path}' in message
  if kind == 'no layer':
    assert '2 of 2 layers' in message
  if kind == 'some layers':
    assert '1 of 2 layers' in message and 'conv2' in message


# Freezing.


def _moved(model, images):
  """Names of the variables of the network that a step of SGD moves."""
  variables = model.trainable_variables
  with tf.GradientTape() as tape:
    loss = tf.reduce_sum(model(images, training=True) ** 2)
  gradients = tape.gradient(loss, variables)
  before = [w.numpy() for w in model.network.weights]
  tf.keras.optimizers.SGD(0.01).apply_gradients(zip(gradients, variables))
  return {
    w.name
    for w, old in zip(model.network.weights, before)
    if (w.numpy() != old).any()
  }


def test_freeze_until_freezes_up_to_and_including_the_layer():
  backbone = backbones.load('dann_svhn', 'none', 8)
  images = _images(4, 8)
  every = {f'conv{i}/{w}:0' for i in (1, 2, 3) for w in ('kernel', 'bias')}
  assert _moved(backbone, images) == every
  backbone.freeze_until('pool1')
  assert _moved(backbone, images) == {w for w in every if 'conv1' not in w}
  backbone.freeze_until('conv2')
  assert _moved(backbone, images) == {'conv3/kernel:0', 'conv3/bias:0'}


def test_frozen_batch_normalisation_uses_its_moving_averages():
  backbone = backbones.load('dann_mnist_domain_norm', 'none', 8)
  images = _images(4, 8)
  backbone.freeze_until('pool2')
  assert backbone.trainable_weights == []
  before = backbone.network.get_weights()
  np.testing.assert_array_equal(
    backbone.feature_map(images, training=True), backbone.feature_map(images)
  )
  for old, new in zip(before, backbone.network.get_weights()):
    np.testing.assert_array_equal(old, new)


def test_freeze_until_of_an_experiment():
  settings = experiment.Experiment(
    method='source_only', image_size=8, freeze_until='conv1'
  )
  model = experiment.build(settings, methods.load('source_only').Config(), 3)
  assert _parameters(model.backbone) == 38448


def test_freeze_until_names_the_near_layer():
  backbone = backbones.load('dann_mnist', 'none', 8)
  message = _refused(backbone.freeze_until, 'conv_1')
  assert '--freeze_until=conv_1' in message
  assert 'conv1' in message.split('did you mean')[1]
  assert 'dann_mnist' in message
  assert len(backbone.trainable_weights) == 4
