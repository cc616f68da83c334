"""Exports of fewer bits and of other formats: their numbers, what they cost."""

import os
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests import tiny_run
from tests.data_files import noise
from tfda import errors
from tfda.serving import compact, export, restore
from tools import export as export_tool


@pytest.fixture(scope='module')
def run_dir(tmp_path_factory):
  return tiny_run.path(tmp_path_factory)


@pytest.fixture(scope='module')
def model(run_dir):
  return restore.restore(run_dir)[2]


def const(value):
  with tf.Graph().as_default() as graph:
    tf.constant(value, name='weight')
  return graph.as_graph_def().node[0]


@pytest.mark.parametrize('shape', [[3, 3, 8, 16], [3, 3, 128, 1], [64, 16]])
def test_weights_are_rounded_by_channel(shape):
  value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  axis = len(shape) - (2 if shape[-1] == 1 else 1)
  value *= np.arange(shape[axis]).reshape(
    [-1 if i == axis else 1 for i in range(len(shape))]
  )
  others = tuple(i for i in range(len(shape)) if i != axis)
  step = abs(value).max(axis=others, keepdims=True) / 127.0
  with tf.Graph().as_default():
    whole = compact._stored(const(value), 'dynamic_range')
    half = compact._stored(const(value), 'float16')
    assert compact._stored(const(value.flat[:1023]), 'float16') is None
    with tf.compat.v1.Session() as session:
      whole, half = session.run([whole, half])
  # Half a step, and no more than the largest.
  assert (abs(whole - value) <= 0.5001 * step).all()
  assert (abs(whole - value) > 0.4 * step).any()
  np.testing.assert_array_equal(half, value.astype(np.float16))


@pytest.mark.parametrize(
  'kind, tolerance, bytes_of_weight',
  [('float16', 1e-3, 2), ('dynamic_range', 2e-2, 1)],
)
def test_infer_of_fewer_bits(kind, tolerance, bytes_of_weight, model):
  images = tf.constant(noise(9, 16, 16, 3), tf.float32)
  concrete = compact.infer(model, kind).get_concrete_function()
  ours = model.infer(images)
  for name, value in concrete(images).items():
    np.testing.assert_allclose(value, ours[name], atol=tolerance)
  assert not concrete.variables
  weights = sum(int(np.prod(w.shape)) for w in model.inference_weights())
  size = concrete.graph.as_graph_def().ByteSize()
  assert size < bytes_of_weight * weights + 30_000


def test_tflite_answers_as_the_run(model, tmp_path):
  images = noise(70, 16, 16, 3)  # More than a batch.
  ours = tf.nn.softmax(model.infer(tf.constant(images, tf.float32))['logits'])
  sizes = {}
  for kind, tolerance in [('none', 1e-5), ('dynamic_range', 5e-3)]:
    path = tmp_path / kind
    path.mkdir()
    compact.write(model, kind, 'tflite', path)
    found, seconds = compact.probabilities(path, 'tflite', images)
    np.testing.assert_allclose(found, ours, atol=tolerance)
    assert seconds > 0.0
    sizes[kind] = os.path.getsize(path / 'model.tflite')
  assert sizes['dynamic_range'] < 0.3 * sizes['none']


def test_tflite_divides_logits_for_probabilities(model, tmp_path):
  images = noise(5, 16, 16, 3)
  logits = model.infer(tf.constant(images, tf.float32))['logits']
  compact.write(model, 'none', 'tflite', tmp_path, divisor=0.1)
  found, _ = compact.probabilities(tmp_path, 'tflite', images)
  np.testing.assert_allclose(found, tf.nn.softmax(10.0 * logits), atol=1e-4)
  assert abs(found - tf.nn.softmax(logits)).numpy().max() > 0.01


def test_onnx_answers_as_the_run_where_its_packages_are(model, tmp_path):
  pytest.importorskip('onnxruntime')
  pytest.importorskip('tf2onnx')
  images = noise(70, 16, 16, 3)
  compact.write(model, 'none', 'onnx', tmp_path)
  found, _ = compact.probabilities(tmp_path, 'onnx', images)
  ours = tf.nn.softmax(model.infer(tf.constant(images, tf.float32))['logits'])
  np.testing.assert_allclose(found, ours, atol=1e-5)


def test_onnx_without_its_packages_says_what_is_needed(
  model, tmp_path, monkeypatch
):
  monkeypatch.setitem(sys.modules, 'onnxruntime', None)
  with pytest.raises(errors.UsageError, match=r"pip install 'tfda\[onnx\]'"):
    compact.write(model, 'none', 'onnx', tmp_path)


@pytest.mark.slow
def test_tool_prints_before_and_after(run_dir, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'parts'
  words = f'--run_dir={run_dir}', f'--out={out}', '--checked_images=64'
  more = '--optimize=dynamic_range', '--margin=0.5'
  assert tiny_run.call(export_tool, monkeypatch, *words, *more) == 0
  told = capsys.readouterr().err.splitlines()
  before, after = (line.split() for line in told if 'images/s' in line)
  assert before[0] == 'float32' and after[:2] == [
    'dynamic_range',
    'saved_model',
  ]
  assert float(after[2]) < 0.7 * float(before[1])
  # Another format beside it would be taken by the server.
  words = *words, '--format=tflite', '--margin=0.5'
  assert tiny_run.call(export_tool, monkeypatch, *words) == 2
  assert 'version 1 is a saved_model' in capsys.readouterr().err


@pytest.mark.slow
def test_tool_writes_tflite(run_dir, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'lite'
  words = f'--run_dir={run_dir}', f'--out={out}', '--checked_images=64'
  assert tiny_run.call(export_tool, monkeypatch, *words, '--format=tflite') == 0
  assert capsys.readouterr().out == f'{out}/1\n'
  names = ['calibration.json', 'labels.txt', 'model.tflite']
  assert sorted(os.listdir(out / '1')) == names
  assert (out / '1' / 'labels.txt').read_text().split() == list('0123456789')


def test_onnx_is_not_optimized():
  with pytest.raises(errors.UsageError, match='not with --format=onnx'):
    export.Settings(format='onnx', optimize='float16')
