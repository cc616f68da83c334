"""The SavedModel: its numbers, what is in it, and how it is published."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from tfda import errors
from tfda.data import images as image_files
from tfda.serving import export, restore
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


def test_tool_prints_the_version_and_how_to_use_it(
  run_dir, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  words = f'--run_dir={run_dir}', '--out=served'
  assert tiny_run.call(export_tool, monkeypatch, *words) == 0
  path, served, predicted = capsys.readouterr().out.splitlines()
  assert path == os.path.join('served', '1')
  assert served.startswith('serve: tensorflow_model_server ')
  assert served.endswith(f'--model_base_path={tmp_path}/served')
  assert '-m tools.predict --model=served/1 ' in predicted


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
