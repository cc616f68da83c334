"""What TensorBoard reads of a run: settings, themes, the projector's files."""

import glob
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.plugins import projector as plugin
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

from tests import tiny_run
from tfda import run_directory, summaries
from tfda.evaluation import projector


def test_themes_are_those_of_the_example():
  assert summaries.themes(
    [
      'accuracy/source',
      'accuracy/target',
      'loss/label',
      'validator/target_entropy',
      'learning_rate',
      'seconds',
    ]
  ) == {
    'accuracy': {'accuracies': ['accuracy/source', 'accuracy/target']},
    'loss': {'loss terms': ['loss/label']},
    'validator': {'target entropy': ['validator/target_entropy']},
    'schedules': {'learning rate': ['learning_rate']},
    'speed': {'seconds': ['seconds']},
  }


def test_settings_are_numbers_truths_and_texts_without_paths():
  assert summaries.settings_in(
    '# python -m tools.train\n--method=dann\n--seed=3\n--rate=1e-05\n'
    '--deterministic=False\n--run_dir=/here\n--run_name=a=b\n--data_dir=2\n'
  ) == {
    'method': 'dann',
    'seed': 3.0,
    'rate': 1e-5,
    'deterministic': False,
    'run_name': 'a=b',
  }


@pytest.fixture(scope='module')
def logs(tmp_path_factory):
  return run_directory.RunDirectory(tiny_run.path(tmp_path_factory)).logs


@pytest.fixture(scope='module')
def written(logs):
  """({tag: bytes of the plugin}, {tag: tensor}) of the event file."""
  plugins, tensors = {}, {}
  (file,) = glob.glob(os.path.join(logs, 'events*'))
  for record in tf.data.TFRecordDataset(file):
    event = tf.compat.v1.Event.FromString(record.numpy())
    for value in event.summary.value:
      plugins[value.tag] = value.metadata.plugin_data.content
      tensors.setdefault(value.tag, []).append(value.tensor)
  return plugins, tensors


def test_run_begins_with_its_settings_and_ends_with_success(written):
  plugins, _ = written
  read = plugin_data_pb2.HParamsPluginData.FromString
  begun = read(plugins['_hparams_/session_start_info']).session_start_info
  assert begun.hparams['method'].string_value == 'dann'
  assert begun.hparams['steps'].number_value == tiny_run.STEPS
  assert 'run_dir' not in begun.hparams
  ended = read(plugins['_hparams_/session_end_info']).session_end_info
  assert ended.status == api_pb2.STATUS_SUCCESS


def test_all_scalars_of_the_run_are_in_one_theme(written):
  _, tensors = written
  (layout,) = tensors['custom_scalars__config__']
  layout = layout_pb2.Layout.FromString(layout.string_val[0])
  titles = [theme.title for theme in layout.category]
  assert titles == ['accuracy', 'validator', 'loss', 'schedules', 'speed']
  shown = [
    tag.strip('^$').replace('\\', '')
    for theme in layout.category
    for chart in theme.chart
    for tag in chart.multiline.tag
  ]
  scalars = [
    tag
    for tag in tensors
    if not tag.startswith(('_hparams_', 'custom_', 'samples/', 'pictures/'))
  ]
  assert sorted(shown) == sorted(scalars)


def test_projector_has_every_kept_image(tmp_path):
  random = np.random.default_rng(0)
  arrays = {}
  for i, side in enumerate(('source', 'target')):
    arrays[f'{side}_features'] = random.normal(size=(6, 3)) + 9 * i
    arrays[f'{side}_logits'] = np.eye(2)[[0, 1, 0, 1, 1, 1, 0]]
    arrays[f'{side}_kept'] = np.array([6, 5, 4, 3, 2, 1])
    arrays[f'{side}_images'] = np.full((3, 8, 8, 3), 100 * i, np.uint8)
  arrays['source_labels'] = np.array([0, 1, 1, 0, 1, 1, 1])
  projector.write(arrays, ['a', 'b\tc'], str(tmp_path))
  config = text_format.Parse(
    (tmp_path / 'projector_config.pbtxt').read_text(), plugin.ProjectorConfig()
  )
  (shown,) = config.embeddings
  assert list(shown.tensor_shape) == [6, 3]
  features = np.fromfile(tmp_path / shown.tensor_path, '<f4').reshape(6, 3)
  # Of the first three of a domain, on one scale: the domains stay apart.
  assert features[:3].mean() < 0.0 < features[3:].mean()
  assert (tmp_path / shown.metadata_path).read_text().splitlines() == [
    'domain\tclass\tpredicted',
    'source\tb c\ta',
    'source\tb c\tb c',
    'source\tb c\tb c',
    'target\t\ta',
    'target\t\tb c',
    'target\t\tb c',
  ]
  sprite = np.asarray(PIL.Image.open(tmp_path / shown.sprite.image_path))
  assert list(shown.sprite.single_image_dim) == [8, 8]
  # Three across, two down and a row to spare: source above, target below.
  assert sprite.shape == (24, 24, 3)
  assert (sprite[:8] == 0).all() and (sprite[8:16] == 100).all()
