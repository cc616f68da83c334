"""Every signature of an export: its answers, and what it says to bad input."""

import io
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from tests import tiny_run
from tests.data_files import noise
from tfda.data import images as image_files
from tfda.serving import restore

ANSWERS = {'logits', 'probabilities', 'label_index', 'label'}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return restore.restore(tiny_run.path(tmp_path_factory))[2]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  return os.path.join(tiny_run.exported(tmp_path_factory), '1')


@pytest.fixture(scope='module')
def call(path):
  module = tf.saved_model.load(path)

  def call(signature, value):
    outputs = module.signatures[signature](tf.constant(value))
    return {name: found.numpy() for name, found in outputs.items()}

  return call


def encoded(pixels, kind='png'):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, kind)
  return file.getvalue()


def example(file, key='image/encoded'):
  value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
  features = tf.train.Features(feature={key: value})
  return tf.train.Example(features=features).SerializeToString()


def files():
  """Three image files, each of its own size and kind."""
  shapes = [(20, 31, 'png'), (16, 16, 'png'), (9, 40, 'jpeg')]
  return [
    encoded(noise(height, width, 3, seed=height), kind)
    for height, width, kind in shapes
  ]


def expected(model):
  """{'logits', 'features'} of the model itself for these files."""
  pixels = [image_files.read(io.BytesIO(f), tiny_run.SIZE) for f in files()]
  inferred = model.infer(tf.constant(np.stack(pixels), tf.float32))
  return {name: value.numpy() for name, value in inferred.items()}


def softmax(logits):
  exponentials = np.exp(logits)
  return exponentials / exponentials.sum(axis=-1, keepdims=True)


def test_methods_and_names_are_those_that_servers_expect(path):
  with open(os.path.join(path, 'saved_model.pb'), 'rb') as file:
    saved = saved_model_pb2.SavedModel.FromString(file.read())
  (graph,) = saved.meta_graphs
  found = {
    name: (
      definition.method_name.rsplit('/', 1)[-1],
      set(definition.inputs),
      set(definition.outputs),
    )
    for name, definition in graph.signature_def.items()
    if not name.startswith('__')
  }
  assert found == {
    'serving_default': ('predict', {'images'}, ANSWERS),
    'serving_uint8': ('predict', {'images'}, ANSWERS),
    'serving_bytes': ('predict', {'image_bytes'}, ANSWERS),
    'classify': ('classify', {'inputs'}, {'classes', 'scores'}),
    'embed': ('predict', {'images'}, {'features'}),
  }
  shapes = {
    name: [d.size for d in tensor.tensor_shape.dim]
    for name, tensor in graph.signature_def['serving_uint8'].inputs.items()
  }
  assert shapes == {'images': [-1, -1, -1, 3]}


def test_files_are_answered_as_the_run_would(model, call):
  logits = expected(model)['logits']
  found = call('serving_bytes', files())
  np.testing.assert_allclose(found['logits'], logits, atol=1e-5)
  np.testing.assert_allclose(found['probabilities'], softmax(logits), atol=1e-6)
  best = logits.argmax(axis=-1)
  assert found['label_index'].tolist() == best.tolist()
  assert found['label'].tolist() == [str(i).encode() for i in best]


def test_classify_orders_the_classes(model, call):
  probabilities = softmax(expected(model)['logits'])
  found = call('classify', [example(file) for file in files()])
  order = np.argsort(-probabilities, axis=-1)
  assert found['classes'].astype(int).tolist() == order.tolist()
  np.testing.assert_allclose(
    found['scores'], -np.sort(-probabilities, axis=-1), atol=1e-6
  )


def test_bytes_of_pixels_are_answered_as_numbers_are(call):
  for shape in ([4, 16, 16, 3], [4, 20, 31, 3]):
    pixels = noise(*shape)
    numbers = call('serving_default', pixels.astype(np.float32))
    for name, value in call('serving_uint8', pixels).items():
      np.testing.assert_array_equal(value, numbers[name])


def test_embed_gives_the_features(model, call):
  pixels = noise(4, 16, 16, 3).astype(np.float32)
  features = call('embed', pixels)['features']
  ours = model.infer(tf.constant(pixels))['features']
  assert features.shape[1] == model.feature_width
  np.testing.assert_allclose(features, ours, atol=1e-5)


def test_one_image_is_enough_and_none_give_no_answers(call):
  assert call('serving_bytes', files()[:1])['logits'].shape == (1, 10)
  for signature, nothing in [
    ('serving_default', np.zeros([0, 16, 16, 3], np.float32)),
    ('serving_uint8', np.zeros([0, 20, 30, 3], np.uint8)),
    ('embed', np.zeros([0, 16, 16, 3], np.float32)),
    ('serving_bytes', np.array([], np.bytes_)),
    ('classify', np.array([], np.bytes_)),
  ]:
    found = call(signature, nothing)
    assert {len(value) for value in found.values()} == {0}


@pytest.mark.parametrize(
  'shape', [[2, 0, 5, 3], [1, 0, 0, 3], [2, 16, 16, 1], [2, 16, 16, 4], [16, 3]]
)
def test_images_of_no_pixels_and_of_other_shapes_are_refused(shape, call):
  for signature, kind in (
    ('serving_default', np.float32),
    ('serving_uint8', np.uint8),
    ('embed', np.float32),
  ):
    with pytest.raises(tf.errors.InvalidArgumentError):
      call(signature, np.zeros(shape, kind))


def test_of_one_pixel(model, call):
  pixels = np.full([1, 1, 1, 3], 77, np.uint8)
  grey = tf.fill([1, tiny_run.SIZE, tiny_run.SIZE, 3], 77.0)
  ours = model.infer(grey)['logits']
  for found in (
    call('serving_uint8', pixels),
    call('serving_bytes', [encoded(pixels[0])]),
  ):
    np.testing.assert_allclose(found['logits'], ours, atol=1e-5)


@pytest.mark.parametrize('value', [np.nan, np.inf, -1.0, 255.5])
def test_pixels_that_are_none_are_refused_by_number(value, call):
  for shape in ([4, 16, 16, 3], [4, 20, 31, 3]):
    pixels = np.zeros(shape, np.float32)
    pixels[1, 3, 2, 1] = pixels[3, 0, 0, 0] = value
    for signature in ('serving_default', 'embed'):
      with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r'image \[1 3\] of the request has pixels that are no numbers in',
      ):
        call(signature, pixels)


def test_a_bad_file_among_good_ones_is_refused_by_number(call):
  broken = [*files(), files()[0][:60], b'text']
  message = r'image \[3 4\] of the request cannot be read'
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    call('serving_bytes', broken)
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    call('classify', [example(file) for file in broken])


def test_examples_without_an_image_are_refused(call):
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'image \[1\] of the request cannot'
  ):
    call('classify', [example(files()[0]), example(files()[0], 'image')])
  with pytest.raises(tf.errors.InvalidArgumentError, match='parse'):
    call('classify', [b'no example'])


@pytest.mark.slow
def test_an_image_of_100_million_pixels_and_a_larger_one(call):
  side = 10_000
  row = Image.new('RGB', (side, side), (10, 20, 30))
  file = io.BytesIO()
  row.save(file, 'png', compress_level=1)
  large = file.getvalue()
  alone = Image.new('RGB', (1, 1), (10, 20, 30))
  small = encoded(np.asarray(alone))
  found = call('serving_bytes', [large, small])
  np.testing.assert_allclose(*found['logits'], atol=1e-5)
  # Of more pixels its start says so; nothing is decoded.
  larger = large[:16] + (side + 1).to_bytes(4, 'big') + large[20:]
  with pytest.raises(tf.errors.InvalidArgumentError, match=r'image \[1\]'):
    call('serving_bytes', [small, larger])
