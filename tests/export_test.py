"""The SavedModel: its numbers, what is in it, and how it is published."""

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from tfda import errors, run_directory
from tfda.data import images as image_files
from tfda.serving import export, loading, module, restore
from tools import export as export_tool


@pytest.fixture(scope='session')
def run_dir(tmp_path_factory):
  return tiny_run.path(tmp_path_factory)


@pytest.fixture(scope='module')
def model(run_dir):
  return restore.restore(run_dir)[2]


@pytest.fixture(scope='module')
def version(run_dir, tmp_path_factory):
  del run_dir  # It is of that.
  return os.path.join(tiny_run.exported(tmp_path_factory), '1')


def pixels(height, width, count=5):
  random = np.random.default_rng(1)
  images = random.uniform(0.0, 255.0, [count, height, width, 3])
  return tf.constant(images, tf.float32)


def serve(version, images, signature='serving_default', argument='images'):
  module = tf.saved_model.load(version)
  outputs = module.signatures[signature](**{argument: images})
  return {name: value.numpy() for name, value in outputs.items()}


def test_outputs_are_those_of_the_model(model, version):
  images = pixels(tiny_run.SIZE, tiny_run.SIZE)
  served = serve(version, images)
  expected = model.infer(images)['logits'].numpy()
  assert set(served) == {'logits', 'probabilities', 'label_index', 'label'}
  np.testing.assert_allclose(served['logits'], expected, atol=1e-5)
  exponentials = np.exp(expected)
  np.testing.assert_allclose(
    served['probabilities'],
    exponentials / exponentials.sum(axis=-1, keepdims=True),
    atol=1e-5,
  )
  index = expected.argmax(axis=-1)
  assert served['label_index'].dtype == np.int64
  np.testing.assert_array_equal(served['label_index'], index)
  assert served['label'].tolist() == [str(i).encode() for i in index]


@pytest.mark.parametrize('height, width', [(23, 40), (16, 9), (5, 5)])
def test_other_sizes_are_resized_as_in_training(model, version, height, width):
  images = pixels(height, width)
  resized = image_files.resize(images, tiny_run.SIZE)
  np.testing.assert_allclose(
    serve(version, images)['logits'],
    model.infer(resized)['logits'],
    atol=1e-5,
  )


def test_holds_the_inference_weights_and_nothing_else(model, version):
  reader = tf.train.load_checkpoint(f'{version}/variables/variables')
  saved = reader.get_variable_to_shape_map()
  saved.pop('_CHECKPOINTABLE_OBJECT_GRAPH')
  weights = model.inference_weights()
  # 2 convolutions, 3 dense layers, a kernel and a bias each; the input's mean.
  assert len(saved) == len(weights) == 11
  assert len(model.discriminator.weights) == 4
  for i, weight in enumerate(weights):
    name = f'weights/{i}/.ATTRIBUTES/VARIABLE_VALUE'
    np.testing.assert_array_equal(reader.get_tensor(name), weight)


def test_a_weight_that_is_not_tracked_is_an_error(run_dir, tmp_path):
  model = restore.restore(run_dir)[2]
  kept = model.inference_weights()[:-1]
  model.inference_weights = lambda: kept
  with pytest.raises(AssertionError, match='untracked'):
    export.save(model, list('0123456789'), str(tmp_path))
  assert os.listdir(tmp_path) == []


def test_loads_where_there_is_no_tfda(model, version, tmp_path):
  images = pixels(tiny_run.SIZE, tiny_run.SIZE)
  np.save(tmp_path / 'images.npy', images)
  code = f"""
import sys
sys.modules['tfda'] = None  # An import of it fails.
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load({version!r})
images = tf.constant(np.load('images.npy'))
np.save('logits.npy', serve.signatures['serving_default'](images)['logits'])
"""
  subprocess.run([sys.executable, '-c', code], cwd=tmp_path, check=True)
  np.testing.assert_allclose(
    np.load(tmp_path / 'logits.npy'), model.infer(images)['logits'], atol=1e-5
  )


def test_every_signature_has_requests_to_warm_up_with(version):
  from tensorflow_serving.apis import prediction_log_pb2

  path = os.path.join(version, 'assets.extra', 'tf_serving_warmup_requests')
  found = {}
  for record in tf.data.TFRecordDataset(path):
    log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
    if log.HasField('classify_log'):
      request = log.classify_log.request
      sizes = [len(request.input.example_list.examples)]
    else:
      request = log.predict_log.request
      ((_, value),) = request.inputs.items()
      sizes = list(tf.make_ndarray(value).shape)
    assert request.model_spec.name == 'parts'
    found.setdefault(request.model_spec.signature_name, []).append(sizes)
  # Pixels as the model takes them and of another size; 2 JPEG and 2 PNG files.
  pixels = [[1, side, side, 3] for side in (tiny_run.SIZE, tiny_run.SIZE + 1)]
  assert found == {
    'serving_default': pixels,
    'serving_uint8': pixels,
    'embed': pixels,
    'serving_bytes': [[4]],
    'classify': [[4]],
  }


def test_versions_increase_and_old_ones_stay(model, tmp_path):
  out = tmp_path / 'new' / 'folder'
  names = ['Müller, A.', 'b'] + list('cdefghij')
  first = export.save(model, names, str(out))
  assert first == str(out / '1')
  before = (out / '1' / 'saved_model.pb').read_bytes()
  (out / '7').mkdir()  # Empty: a rename would replace it silently.
  assert export.save(model, names, str(out)) == str(out / '8')
  assert (out / '1' / 'saved_model.pb').read_bytes() == before
  assert sorted(os.listdir(out)) == ['1', '7', '8']
  assert os.listdir(out / '7') == []
  labels = (out / '8' / 'assets' / 'labels.txt').read_text(encoding='utf-8')
  assert labels.split('\n') == [*names, '']


def test_a_model_that_differs_is_not_published(model, tmp_path, monkeypatch):
  load = tf.saved_model.load

  def load_damaged(path):
    module = load(path)
    module.weights[-1].assign_add([0.01] + 9 * [0.0])
    return module

  monkeypatch.setattr(tf.saved_model, 'load', load_damaged)
  with pytest.raises(errors.RunError, match=r'differs from the run: by 0\.01'):
    export.save(model, list('0123456789'), str(tmp_path))
  assert os.listdir(tmp_path) == []
  with pytest.raises(errors.RunError, match='differs from the run'):
    export.save(model, list('0123456789'), str(tmp_path / 'new'))
  assert os.listdir(tmp_path) == []


def softmax(logits):
  return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def calibration(version):
  with open(os.path.join(version, 'assets', 'calibration.json')) as file:
    return json.load(file)


def test_temperature_is_stored_and_divides_nothing_unasked(run_dir, version):
  with open(os.path.join(run_dir, 'results.json')) as file:
    temperature = json.load(file)['calibration']['temperature']
  assert temperature > 0.0
  assert calibration(version) == {'temperature': temperature, 'applied': False}
  served = serve(version, pixels(16, 16))
  np.testing.assert_allclose(
    served['probabilities'], softmax(served['logits']), atol=1e-6
  )


def test_temperature_divides_the_logits_of_probabilities_alone(
  model, version, tmp_path
):
  names, images = list('0123456789'), pixels(16, 16)
  cool = module.Calibration(0.25, applied=True)
  path = export.save(model, names, str(tmp_path), calibration=cool)
  assert calibration(path) == {'temperature': 0.25, 'applied': True}
  raw = serve(version, images)
  loaded = tf.saved_model.load(path)

  def call(signature, value):
    outputs = loaded.signatures[signature](tf.constant(value))
    return {name: found.numpy() for name, found in outputs.items()}

  served = call('serving_default', images)
  expected = softmax(4.0 * raw['logits'])
  np.testing.assert_allclose(served['probabilities'], expected, atol=1e-5)
  assert abs(served['probabilities'] - raw['probabilities']).max() > 0.01
  for name in ('logits', 'label_index', 'label'):
    np.testing.assert_array_equal(served[name], raw[name])
  # Of files and of examples, too.
  file = tf.io.encode_png(tf.cast(images[0], tf.uint8)).numpy()
  found = call('serving_bytes', [file])
  expected = softmax(4.0 * found['logits'])
  np.testing.assert_allclose(found['probabilities'], expected, atol=1e-6)
  value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[file]))
  features = tf.train.Features(feature={module.ENCODED: value})
  example = tf.train.Example(features=features).SerializeToString()
  scores = call('classify', [example])['scores']
  np.testing.assert_allclose(scores, -np.sort(-expected), atol=1e-6)


@pytest.mark.parametrize(
  'results, reason',
  [
    (None, 'it is not finished'),
    ({}, 'its results.json has none'),
    (
      {'calibration': {'temperature': None}},
      'it misclassifies no image of the source',
    ),
  ],
)
def test_without_a_temperature_one_line_says_why(results, reason, tmp_path):
  run = run_directory.RunDirectory(str(tmp_path))
  if results is not None:
    run_directory.write(run.results, json.dumps(results))
  assert export._calibration(run, applied=False) == (
    module.Calibration(),
    f'no temperature for calibration: {reason}',
  )
  with pytest.raises(
    errors.UsageError, match=f'^--calibrate: {tmp_path} has no temp.*: {reason}'
  ):
    export._calibration(run, applied=True)


def test_a_line_says_what_the_temperature_is_of(tmp_path):
  run = run_directory.RunDirectory(str(tmp_path))
  results = {
    'calibration': {'temperature': 1.5},
    'transductive': {'source': True},
  }
  run_directory.write(run.results, json.dumps(results))
  assert export._calibration(run, applied=True) == (
    module.Calibration(1.5, applied=True),
    'temperature 1.5, fitted on the source, on images that it was trained on: '
    'divides the logits',
  )
  _, line = export._calibration(run, applied=False)
  assert line.endswith(': divides no logits (--calibrate)')
  # Where there are labels of the target: whether it helps there.
  target = {'error': 0.25, 'error_scaled': 0.375}
  results['calibration']['oracle_target'] = target
  run_directory.write(run.results, json.dumps(results))
  _, line = export._calibration(run, applied=True)
  assert line.endswith(
    ': divides the logits; the calibration error on the target (oracle) is '
    '25.00% without, 37.50% with it'
  )


@pytest.mark.slow
def test_calibrated_export_passes_the_gate(
  run_dir, tmp_path, monkeypatch, capsys
):
  """Smaller weights too; a run that is not finished is refused."""
  out = tmp_path / 'parts'
  words = f'--run_dir={run_dir}', f'--out={out}', '--checked_images=64'
  more = '--optimize=float16', '--margin=0.5', '--calibrate'
  more = *more, f'--compare={run_dir}'  # As good as itself.
  assert tiny_run.call(export_tool, monkeypatch, *words, *more) == 0
  told = capsys.readouterr().err
  assert ': divides the logits; ' in told and 'checked on 64' in told
  assert 'classes are predicted hardly ever' in told  # Of three steps.
  assert 'negative transfer was not looked for' not in told
  assert calibration(out / '1')['applied'] is True
  copy = tmp_path / 'unfinished'
  shutil.copytree(run_dir, copy)
  (copy / 'results.json').unlink()
  words = f'--run_dir={copy}', f'--out={tmp_path}/other', '--calibrate'
  assert tiny_run.call(export_tool, monkeypatch, *words) == 2
  assert capsys.readouterr().err == (
    f'error: --calibrate: {copy} has no temperature: it is not finished\n'
  )
  assert not (tmp_path / 'other').exists()


def test_tool_prints_the_version_and_how_to_use_it(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  asked = []
  monkeypatch.setattr(
    export, 'export', lambda *given: asked.append(given) or 'served/1'
  )
  words = '--run_dir=run', '--out=served', '--keep=3', '--calibrate'
  assert tiny_run.call(export_tool, monkeypatch, *words) == 0
  path, served, predicted = capsys.readouterr().out.splitlines()
  assert path == os.path.join('served', '1')
  assert served.startswith('serve: tensorflow_model_server ')
  assert served.endswith(f'--model_base_path={tmp_path}/served')
  assert '-m tools.predict --model=served/1 ' in predicted
  settings = export.Settings('run', 'served', keep=3, calibrate=True)
  assert asked == [('run', 'served', settings)]


@pytest.mark.parametrize(
  'words, message',
  [
    ([], '--run_dir=RUN is needed'),
    (['--run_dir={tmp}'], '{tmp}: no run directory (no flags.txt)'),
    (
      ['--run_dir={run}', '--out={tmp}/file'],
      '--out={tmp}/file: cannot be written: Not a directory',
    ),
    (['--run_dir={run}', 'x'], 'x: not a flag; flags begin with --'),
  ],
)
def test_tool_refuses_in_one_line(
  words, message, run_dir, tmp_path, monkeypatch, capsys
):
  (tmp_path / 'file').write_text('')
  names = {'run': run_dir, 'tmp': tmp_path}
  words = [word.format(**names) for word in words]
  assert tiny_run.call(export_tool, monkeypatch, *words) == 2
  assert capsys.readouterr().err == f'error: {message.format(**names)}\n'


def test_a_load_says_nothing_of_gradients(model, tmp_path, caplog):
  path = export.save(model, list('0123456789'), str(tmp_path))
  logger = logging.getLogger('absl')
  logger.addHandler(caplog.handler)
  try:
    caplog.clear()
    tf.saved_model.load(path)
    assert 'unsaved custom gradients' in caplog.text  # Without ours.
    caplog.clear()
    loading.load(path)
    assert 'gradients' not in caplog.text
    logger.warning('of unsaved custom gradients')
    assert 'of unsaved' in caplog.text  # Only while it loads.
  finally:
    logger.removeHandler(caplog.handler)
