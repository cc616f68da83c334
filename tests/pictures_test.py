"""What methods show of themselves: when it is drawn, and where it goes."""

import glob
import io
import os
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests import harness
from tfda import experiment, run_directory
from tfda.data import domains
from tfda.evaluation import pictures
from tfda.methods import dann, gsda, local_feature_patterns, tada


def png(color):
  buffer = io.BytesIO()
  PIL.Image.new('RGB', (4, 3), color).save(buffer, 'PNG')
  return buffer.getvalue()


def settings(run_dir, **changed):
  return experiment.Experiment(
    **{
      'method': 'dann',
      'source': 'optdigits',
      'target': 'optdigits_m',
      'image_size': 8,
      'batch_size': 8,
      'steps': 6,
      'log_every': 2,
      'evaluate_every': 2,
      'run_dir': str(run_dir),
      **changed,
    }
  )


def in_tensorboard(run):
  """{tag: [(step, first pixel)]} of the pictures in a run's logs."""
  found = {}
  for path in sorted(glob.glob(os.path.join(run.logs, 'events*'))):
    for event in tf.compat.v1.train.summary_iterator(path):
      for value in event.summary.value:
        if value.tag.startswith('pictures/'):
          pixels = tf.io.decode_png(value.tensor.string_val[2]).numpy()
          pixel = tuple(pixels[0, 0].tolist())
          found.setdefault(value.tag, []).append((event.step, pixel))
  return found


def test_watched_pictures_are_drawn_at_evaluations_others_at_the_end(
  tmp_path, monkeypatch
):
  drawn = []

  def shown(self, data):
    assert set(data) == {
      (side, split)
      for side in ('source', 'target')
      for split in ('train', 'test')
    }
    step = int(self.step.numpy())

    def draw(name):
      drawn.append((name, step))
      time.sleep(0.5)
      return png((step, 0, 9))

    return {
      'cheap': pictures.MethodPicture(
        lambda: 'Step.', lambda: draw('cheap'), True
      ),
      'dear': pictures.MethodPicture(
        lambda: f'After {step} steps.', lambda: draw('dear')
      ),
    }

  monkeypatch.setattr(dann.Method, 'pictures', shown)
  run = run_directory.RunDirectory(experiment.train(settings(tmp_path / 'run')))
  assert drawn == [('cheap', 2), ('cheap', 4), ('cheap', 6), ('dear', 6)]
  assert in_tensorboard(run) == {
    'pictures/cheap': [(step, (step, 0, 9)) for step in (2, 4, 6)],
    'pictures/dear': [(6, (6, 0, 9))],
  }
  results = run.read_results()
  assert results['pictures'] == {'cheap': 'Step.', 'dear': 'After 6 steps.'}
  assert sorted(os.listdir(run.pictures)) == ['cheap.png', 'dear.png']
  for name in results['pictures']:
    with open(run.picture(name), 'rb') as file:
      assert file.read() == png((6, 0, 9))
  # It is not in the seconds of training, of which two steps take little.
  first, second, last = (row['seconds'] for row in run.read_metrics())
  assert second - first < 0.4 and last - second < 0.4
  assert results['seconds'] == pytest.approx(last, abs=0.4)
  # A run that stopped behind its last step draws them still.
  os.remove(run.results)
  os.remove(run.picture('dear'))
  experiment.train(settings(tmp_path / 'run'))
  assert os.path.exists(run.picture('dear'))
  assert run.read_results()['pictures'] == results['pictures']


def test_method_that_shows_nothing_has_an_empty_entry(tmp_path):
  run = run_directory.RunDirectory(experiment.train(settings(tmp_path / 'run')))
  assert run.read_results()['pictures'] == {}
  assert not os.path.exists(run.pictures)
  assert in_tensorboard(run) == {}


@pytest.mark.parametrize(
  'method, config, names, watched',
  [
    (
      'local_feature_patterns',
      local_feature_patterns.Config(
        num_patterns=4, local_units_1=6, local_units_2=5
      ),
      {
        'patterns',
        'distances',
        'local_features_by_pattern',
        'local_features_by_domain',
      },
      set(),
    ),
    (
      'gsda',
      gsda.Config(groups=2, confidence_threshold=0.0),
      {'gradients', 'weights'},
      {'gradients', 'weights'},
    ),
    (
      'tada',
      tada.Config(region_units=5),
      {'attention_source', 'attention_target'},
      {'attention_source', 'attention_target'},
    ),
  ],
)
def test_pictures_are_those_of_one_replica(method, config, names, watched):
  captions = []
  for replicas in (1, 2):
    run = harness.Run(harness.settings(method), config, replicas)
    with run.strategy.scope():
      made = run.model.pictures(run.data)
      captions.append({name: made[name].caption() for name in made})
  assert captions[0] == captions[1]
  assert set(made) == names
  assert {name for name, picture in made.items() if picture.watched} == watched
  with run.strategy.scope():
    for name, picture in made.items():
      caption = captions[0][name]
      assert 'nan' not in caption and caption.endswith('.')
      assert min(PIL.Image.open(io.BytesIO(picture.draw())).size) > 200


def test_excerpt_has_the_same_images_as_pixels_inputs_and_labels():
  model = harness.Run(harness.settings('dann')).model
  random = np.random.default_rng(0)
  pixels = random.integers(256, size=[20, 10, 10, 3], dtype=np.uint8)
  labels = np.arange(20, dtype=np.int32)
  domain = domains.Domain('a', 'test', pixels, labels, ('x',) * 20)
  excerpt = pictures.excerpt(model, domain, 5)
  assert len(set(excerpt.labels)) == 5
  # The centre: of a side of 10 pixels one is left out on each.
  expected = pixels[excerpt.labels, 1:9, 1:9]
  np.testing.assert_array_equal(excerpt.images, expected)
  np.testing.assert_array_equal(excerpt.inputs, expected)
  again = pictures.excerpt(model, domain, 50)
  assert sorted(again.labels) == list(range(20))
  np.testing.assert_array_equal(again.labels[:5], excerpt.labels)


def test_excerpt_of_stored_features_keeps_the_pixels():
  run = harness.Run(harness.settings('dann', freeze_until='pool1'))
  model = run.model
  model.backbone.cut_at('pool1')
  domain = run.data['target', 'test']
  stored = model.backbone.prefix(tf.constant(domain.images)).numpy()
  # Two copies an image, of which the first is that of the centre.
  copies = np.repeat(stored, 2, axis=0)
  copies[1::2] = -1.0
  excerpt = pictures.excerpt(
    model,
    domains.Domain('a', 'test', domain.images, None, (), features=copies),
    6,
  )
  assert excerpt.labels is None and excerpt.images.shape == (6, 8, 8, 3)
  np.testing.assert_allclose(
    excerpt.inputs, model.backbone.prefix(tf.constant(excerpt.images))
  )
