"""Local feature patterns: Eq. 1-9 by loops, the turns, the steps, the toy."""

import dataclasses
import functools
import glob
import io
import math
import os
import re

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from tests import harness
from tfda import backbones, errors, experiment, flag_config
from tfda.evaluation import embeddings, figures, patterns
from tfda.methods import local_feature_patterns

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = {'num_patterns': 4, 'local_units_1': 6, 'local_units_2': 5}


def config(**changed):
  return local_feature_patterns.Config(**{**SMALL, **changed})


def make(chosen=None, **changed):
  settings = harness.settings('local_feature_patterns', **changed)
  return harness.Run(settings, chosen or config())


def in_third_step(chosen):
  """A run of small discriminators that tell the domains apart, begun there."""
  run = make(chosen)
  random = np.random.default_rng(0)
  for player in run.model.discriminators.values():
    for weight in player.weights:
      weight.assign(weight + random.normal(0.0, 0.1, weight.shape))
  run.model.begin_phase(run.phases[2], 0)
  return run


def first_batch(run):
  return next(iter(run.batches(0, 1)))


def softmax(x):
  e = np.exp(x - np.max(x))
  return e / e.sum()


def perceptron(player, inputs):
  """The probability of the source, of a row."""
  weights = [np.float64(w) for w in player.weights]
  for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
    inputs = np.maximum(inputs @ kernel + bias, 0.0)
  (logit,) = inputs @ weights[-2] + weights[-1]
  return 1.0 / (1.0 + math.exp(-logit))


# The losses.


@pytest.mark.parametrize('compared', ['logits', 'encoding'])
def test_terms_are_those_of_equations_1_to_9(compared):
  """In float64, image by image and position by position."""
  # At this alpha_s the entropies of some positions are below m.
  settings = config(
    decay=3.0,
    sparsity_decay=20.0,
    sparsity_threshold=1.33,
    dropout=0.0,
    holistic_input=compared,
  )
  run = in_third_step(settings)
  model, batch = run.model, first_batch(run)
  centres = np.float64(model.netvlad.patterns)
  kernel, bias = (np.float64(w) for w in model.classifier.weights)
  d_h, d_l = (model.discriminators[name] for name in ('holistic', 'local'))
  label, entropies = [], []
  images = {'source': [], 'target': []}
  positions = {'source': [], 'target': []}
  for domain in ('source', 'target'):
    maps = model.local_features(batch[domain]['image'], training=True)
    for n, image in enumerate(np.float64(maps)):
      sums = np.zeros_like(centres)
      for feature in image.reshape(-1, image.shape[-1]):
        distances = np.array([sum((feature - c) ** 2) for c in centres])
        shares = softmax(-3.0 * distances)  # Eq. 1
        for k, c in enumerate(centres):
          sums[k] += shares[k] * (feature - c)  # Eq. 2
        small = softmax(-20.0 * distances)
        entropies.append(max(-sum(small * np.log(small)), 1.33))  # Eq. 3
        a = int(np.argmax(shares))
        residual = np.concatenate([feature - centres[a], np.eye(4)[a]])
        positions[domain].append(perceptron(d_l, residual))
      columns = [v / math.sqrt(sum(v**2)) for v in sums]
      encoding = np.concatenate(columns) / math.sqrt(4.0)
      logits = encoding @ kernel + bias
      compared_row = logits if compared == 'logits' else encoding
      images[domain].append(perceptron(d_h, compared_row))
      if domain == 'source':
        y = int(batch['source']['label'][n])
        label.append(-math.log(softmax(logits)[y]))  # Eq. 8

  def discriminator(p):
    return -np.mean(np.log(p['source'])) - np.mean(
      np.log(1.0 - np.array(p['target']))
    )

  expected = {
    'label': np.mean(label),
    'sparsity': np.mean(entropies),
    'holistic_discriminator': discriminator(images),  # Eq. 4
    'holistic': -np.mean(np.log(images['target'])),  # Eq. 5
    'local_discriminator': discriminator(positions),  # Eq. 6
    'local': -np.mean(np.log(positions['target'])),  # Eq. 7
  }
  assert 1.33 in entropies and max(entropies) > 1.34
  total, terms = model.objective(batch, tf.constant(0.5))
  assert set(terms) == set(model.LOSS_TERMS) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
  np.testing.assert_allclose(
    total,
    expected['label']
    + 0.2 * expected['holistic']
    + 0.1 * expected['local']
    + 0.1 * expected['sparsity'],  # Eq. 9
    rtol=1e-5,
  )


# The turns of the players.


def test_discriminators_take_their_turn_then_the_extractor():
  """A step by hand: D by Eq. 4 and 6, then G by Eq. 9 against the new D."""
  chosen = config(dropout=0.0)
  ran, by_hand = in_third_step(chosen), in_third_step(chosen)
  for run in (ran, by_hand):
    run.model.step.assign(2)
  model, batch = by_hand.model, next(iter(by_hand.batches(2, 3)))

  def descend(name, total, tape, variables):
    gradients = tape.gradient(total, variables)
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in gradients)
    assert largest > 1e-4, name
    for variable, gradient in zip(variables, gradients):
      variable.assign_sub(0.01 * tf.convert_to_tensor(gradient))

  players = [
    weight
    for player in model.discriminators.values()
    for weight in player.trainable_variables
  ]
  others = [
    *model.backbone.trainable_variables,
    *model.netvlad.trainable_variables,
    *model.classifier.trainable_variables,
  ]
  with tf.GradientTape() as tape:
    _, terms = model.objective(batch, tf.constant(0.0))
    total = terms['holistic_discriminator'] + terms['local_discriminator']
  before = [value.numpy() for value in others]
  descend('discriminators', total, tape, players)
  for value, old in zip(others, before):
    np.testing.assert_array_equal(value, old)
  with tf.GradientTape() as tape:
    total, _ = model.objective(batch, tf.constant(0.0))
  descend('extractor', total, tape, others)

  ran.model.begin_phase(ran.phases[2], 2)
  ran.model.train_step(batch)
  assert int(ran.model.step) == 3
  for ours, expected in zip(
    ran.model.trainable_variables, model.trainable_variables
  ):
    np.testing.assert_allclose(
      ours, expected, rtol=1e-4, atol=1e-6, err_msg=ours.name
    )


def test_neither_player_s_update_reaches_the_other():
  run = in_third_step(config())
  model, batch = run.model, first_batch(run)
  with tf.GradientTape(persistent=True) as tape:
    outputs = model._outputs(batch)
    turn = model._discriminate(outputs)
    total = sum(turn.values())
  extractor = list(run.phases[2].trainable)
  assert tape.gradient(total, extractor) == [None] * len(extractor)
  trained = {v.ref() for v in extractor}
  players = {
    weight.ref()
    for player in model.discriminators.values()
    for weight in player.weights
  }
  assert not trained & players
  assert trained | players == {v.ref() for v in model.trainable_variables}


# The three steps.


def step_in(run, number):
  """{name of a part: by how much a step moves it}, of the parts it moves."""
  model = run.model
  parts = {
    'extractor': model.backbone.trainable_variables,
    'patterns': model.netvlad.trainable_variables,
    'classifier': model.classifier.trainable_variables,
    **{n: d.trainable_variables for n, d in model.discriminators.items()},
  }
  before = {name: [v.numpy() for v in part] for name, part in parts.items()}
  model.begin_phase(run.phases[number], int(model.step))
  terms = model.train_step(first_batch(run))
  for name in ('holistic', 'local', *model.TURN):
    assert (float(terms[name]) > 0) == (number == 2), name
  assert (float(terms['sparsity']) > 0) == (number > 0)
  moved = {
    name: max(abs(v.numpy() - old).max() for v, old in zip(part, before[name]))
    for name, part in parts.items()
  }
  return {name: most for name, most in moved.items() if most > 0}


def test_three_steps_train_what_the_paper_says():
  run = make(
    config(
      classifier_share=0.25,
      fine_tuning_share=0.5,
      classifier_rate=50.0,
    ),
    steps=8,
    optimizer='adam',
    learning_rate=1e-4,
    learning_rate_alpha=0.0,
    new_layer_multiplier=3.0,
  )
  assert [(phase.name, phase.steps) for phase in run.phases] == [
    ('classifier', 2),
    ('fine_tuning', 3),
    ('adaptation', 3),
  ]
  read = [phase.streams or run.model.STREAMS for phase in run.phases]
  assert read == [('source',), ('source',), ('source', 'target')]
  # Two slots of every variable that it moves, and a counter.
  theirs = sum((d.weights for d in run.model.discriminators.values()), [])
  players = [o for phase in run.phases for o in phase.optimizers]
  moved = [*(phase.trainable for phase in run.phases), theirs]
  assert [len(o.variables) for o in players] == [
    2 * len(variables) + 1 for variables in moved
  ]
  # Adam's first step is the learning rate, 1e-4 times that of the part.
  rates = {'classifier': 50e-4}
  assert step_in(run, 0) == pytest.approx(rates, rel=0.02)
  assert run.model.scheduled(0.0) == {'learning_rate_factor': 50.0}
  rates = {'extractor': 1e-4, 'patterns': 3e-4, 'classifier': 3e-4}
  assert step_in(run, 1) == pytest.approx(rates, rel=0.02)
  assert run.model.scheduled(0.0) == {'learning_rate_factor': 1.0}
  rates = dict.fromkeys([*rates, 'holistic', 'local'], 1e-4)
  assert step_in(run, 2) == pytest.approx(rates, rel=0.02)


def test_first_two_steps_are_the_same_on_two_replicas():
  settings = harness.settings('local_feature_patterns')
  runs = [harness.Run(settings, replicas=replicas) for replicas in (1, 2)]
  one, two = (run.train(2, traced=False) for run in runs)
  for ours, theirs in zip(runs[1].weights(), runs[0].weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
  assert two == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize('number', range(3))
def test_batch_normalisation_is_by_batches_in_every_step(number):
  run = make(backbone='dann_mnist_domain_norm')
  run.model.begin_phase(run.phases[number], 0)
  batch = first_batch(run)
  images = batch['source']['image']
  others = tf.concat([images[:1], 255 - images[1:]], axis=0)
  among_others = {**batch, 'source': {**batch['source'], 'image': others}}
  before = [w.numpy() for w in run.model.backbone.weights]
  ours, theirs = (
    run.model._outputs(b)['maps'][0].numpy() for b in (batch, among_others)
  )
  assert np.abs(ours - theirs).max() > 0.1 * np.abs(ours).max()
  after = [w.numpy() for w in run.model.backbone.weights]
  assert any((old != new).any() for old, new in zip(before, after))


def test_frozen_layers_are_in_no_step():
  run = make(freeze_until='pool1')
  for phase, layers in zip(run.phases, (set(), {'conv2'}, {'conv2'})):
    names = {variable.name.split('/')[0] for variable in phase.trainable}
    assert names & {'conv1', 'conv2'} == layers


def test_patterns_begin_as_centres_of_the_source_s_features():
  run = make(config(num_patterns=6))
  model = run.model
  batches = [batch['source']['image'] for batch in run.batches(0, 8)]
  features = model.local_features(
    tf.concat(batches, 0), domain='source'
  ).numpy()
  features = features.reshape(-1, features.shape[-1])
  centres = model.netvlad.patterns.numpy()
  distances = ((features[:, np.newaxis] - centres) ** 2).sum(axis=-1)
  nearest = distances.argmin(axis=1)
  for k, centre in enumerate(centres):
    mean = features[nearest == k].mean(axis=0)
    spread = features.std(axis=0).max()
    np.testing.assert_allclose(centre, mean, atol=0.2 * spread)
  whole = ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean()
  assert distances.min(axis=1).mean() < 0.5 * whole


def test_a_run_makes_its_patterns_once(tmp_path, monkeypatch):
  calls = []
  adapt = local_feature_patterns.Method.adapt

  def counted(self, batches):
    batches = list(batches)
    calls.append(sum(len(batch['source']['index']) for batch in batches))
    adapt(self, batches)

  monkeypatch.setattr(local_feature_patterns.Method, 'adapt', counted)
  # They take their time, and are no part of this.
  monkeypatch.setattr(
    local_feature_patterns.Method, 'pictures', lambda self, data: {}
  )
  settings = experiment.Experiment(
    method='local_feature_patterns',
    source='optdigits',
    target='optdigits_m',
    image_size=8,
    batch_size=100,
    steps=1,
    run_dir=str(tmp_path / 'run'),
  )
  path = experiment.train(settings, config())
  assert calls == [4 * 1300]  # 1,297 images, four times.
  os.remove(os.path.join(path, 'results.json'))
  experiment.train(settings, config())
  assert len(calls) == 1


@pytest.mark.slow
def test_a_step_alone_and_then_the_rest_is_the_whole_run(tmp_path, monkeypatch):
  monkeypatch.setattr(
    local_feature_patterns.Method, 'pictures', lambda self, data: {}
  )
  whole = experiment.Experiment(
    method='local_feature_patterns',
    source='optdigits',
    target='optdigits_m',
    image_size=8,
    batch_size=8,
    steps=8,
    learning_rate=0.001,
    run_dir=str(tmp_path / 'whole'),
  )
  chosen = config(classifier_share=0.25, fine_tuning_share=0.5)
  experiment.train(whole, chosen)
  parts = dataclasses.replace(whole, run_dir=str(tmp_path / 'parts'))
  part = dataclasses.replace(parts, stop_after='fine_tuning')
  with pytest.raises(errors.Interrupted, match='at step 5 of 8'):
    experiment.train(part, chosen)
  experiment.train(parts, chosen)
  values = [
    tf.train.load_checkpoint(str(tmp_path / name / 'checkpoints'))
    for name in ('whole', 'parts')
  ]
  compared = 0
  for key in values[0].get_variable_to_shape_map():
    if key.startswith(('model/', 'optimizers/')):
      np.testing.assert_array_equal(*[v.get_tensor(key) for v in values])
      compared += 1
  assert compared > 20
  with pytest.raises(errors.UsageError, match='did you mean fine_tuning?'):
    experiment.train(
      dataclasses.replace(
        whole, run_dir=str(tmp_path / 'new'), stop_after='finetuning'
      ),
      chosen,
    )
  assert not (tmp_path / 'new').exists()


# The rows of the tables.


def test_holistic_row_has_no_local_discriminator():
  run = make(config(local_weight=0.0))
  assert set(run.model.discriminators) == {'holistic'}
  _, terms = run.model.objective(first_batch(run), tf.constant(0.0))
  assert terms['holistic'] > 0 and terms['local'] == 0


def test_unadapted_row_sees_the_source_alone():
  run = make(config(holistic_weight=0.0, local_weight=0.0))
  assert [phase.name for phase in run.phases] == ['classifier', 'fine_tuning']
  assert sum(phase.steps for phase in run.phases) == 4
  assert not run.model.discriminators and run.model.STREAMS == ('source',)
  assert len(run.optimizers) == 2
  terms = run.train(4, traced=False)
  assert np.isfinite(terms['total']) and terms['label'] > 0
  assert terms['holistic'] == terms['local_discriminator'] == 0


def test_without_patterns_the_pooled_feature_is_classified():
  chosen = config(num_patterns=0, local_weight=0.0, sparsity_weight=0.0)
  run = make(chosen)
  model = run.model
  images = run.data['target', 'test'].images[:5]
  outputs = model.infer(tf.constant(images))
  pooled = model.backbone(tf.constant(images)).numpy()
  np.testing.assert_allclose(outputs['features'], pooled, atol=1e-6)
  kernel, bias = (w.numpy() for w in model.classifier.weights)
  np.testing.assert_allclose(
    outputs['logits'], pooled @ kernel + bias, atol=1e-5
  )


@pytest.mark.parametrize(
  'backbone, size',
  [
    ('dann_svhn', 20),
    ('mobilenet_conv_pw_11', 64),
    pytest.param('resnet50', 64, marks=pytest.mark.slow),
    pytest.param('vgg16', 64, marks=pytest.mark.slow),
  ],
)
def test_any_backbone_s_map_takes_the_third_step(backbone, size):
  settings = harness.settings(
    'local_feature_patterns', backbone=backbone, image_size=size
  )
  model = experiment.build(settings, config(), num_classes=2)
  images = np.random.default_rng(0).integers(0, 256, [2, 4, size, size, 3])
  source, target = tf.constant(images, tf.uint8)
  model.backbone.normalise.measure(source.numpy(), target.numpy())
  index = tf.range(4, dtype=tf.int64)
  labels = tf.constant([0, 1, 0, 1])
  batch = {
    'source': {'image': source, 'label': labels, 'index': index},
    'target': {'image': target, 'index': index},
  }
  model.adapt([batch])
  make_optimizer = functools.partial(experiment.make_optimizer, settings, model)
  phases = model.phases(settings.steps, make_optimizer)
  model.begin_phase(phases[2], 0)
  averages = model.train_step(batch)
  assert all(np.isfinite(value) for value in averages.values())
  assert min(averages['local'], averages['local_discriminator']) > 0.0
  depth = model.backbone.feature_map_shape[-1]
  encoding = model.infer(source)['features']
  assert encoding.shape == [4, SMALL['num_patterns'] * depth]


def test_published_widths():
  config = local_feature_patterns.Config()
  run = harness.Run(harness.settings('local_feature_patterns'), config)
  shapes = {
    name: [w.shape.as_list() for w in player.weights[::2]]
    for name, player in run.model.discriminators.items()
  }
  assert shapes == {
    'holistic': [[2, 768], [768, 1536], [1536, 1]],
    'local': [[48 + 32, 2048], [2048, 4096], [4096, 1]],
  }
  assert [w.shape.as_list() for w in run.model.classifier.weights] == [
    [32 * 48, 2],
    [2],
  ]


def test_features_of_length_one():
  run = make(config(normalise_features=True))
  images = tf.constant(run.data['source', 'test'].images[:5])
  plain = run.model.backbone.feature_map(images).numpy()
  length = np.sqrt((plain**2).sum(axis=-1, keepdims=True))
  features = run.model.local_features(images)
  np.testing.assert_allclose(features, plain / length, atol=1e-5)


def test_statistics_of_each_domain():
  run = make(backbone='dann_mnist_domain_norm')
  run.model.objective(first_batch(run), tf.constant(0.0))
  norms = [
    network.get_layer('batch_norm1').moving_mean.numpy()
    for network in (
      run.model.backbone.source_network,
      run.model.backbone.network,
    )
  ]
  assert np.abs(norms[0] - norms[1]).max() > 1e-3


def test_half_precision_at_the_published_decay():
  settings = harness.settings(
    'local_feature_patterns', mixed_precision='float16'
  )
  with experiment.precision(settings):
    run = harness.Run(settings, config())
    run.model.begin_phase(run.phases[2], 0)
    terms = tf.function(run.model.train_step)(first_batch(run))
  assert np.isfinite(list(terms.values())).all()
  assert all(np.isfinite(v).all() for v in run.model.trainable_variables)
  scaled = tf.keras.mixed_precision.LossScaleOptimizer
  assert all(isinstance(optimizer, scaled) for optimizer in run.optimizers)
  first = run.optimizers[0].inner_optimizer
  kernel = run.model.classifier.weights[0]
  assert first._multipliers[first._var_key(kernel)] == 100.0


@pytest.mark.parametrize(
  'changed, message',
  [
    ({'num_patterns': 0}, 'num_patterns=0 leaves nothing to assign to'),
    ({'num_patterns': -1}, 'num_patterns=-1 is below 0'),
    ({'dropout': 1.0}, 'dropout=1.0 is above 0.99'),
    ({'holistic_input': 'logit'}, 'did you mean logits'),
  ],
)
def test_settings_that_do_not_fit_are_refused(changed, message):
  with pytest.raises(errors.UsageError, match=message):
    local_feature_patterns.Config(**changed)


@pytest.mark.parametrize(
  'changed', [{'bottleneck': 4}, {'classifier_dropout': 0.5}]
)
def test_another_classifier_is_refused(changed):
  with pytest.raises(errors.UsageError, match='takes no --bottleneck'):
    make(**changed)


def flag_files():
  files = glob.glob(f'{ROOT}/flags/*/local_feature_patterns*.flags')
  return sorted(os.path.relpath(path, ROOT) for path in files)


def test_flag_files_of_the_paper_have_its_settings(monkeypatch):
  monkeypatch.chdir(ROOT)
  tables = {}
  for path in flag_files():
    with open(path) as file:
      first = file.readline()
    if 'Table' not in first:
      continue
    settings, chosen, _, _ = flag_config.parse_experiment(
      [f'--flagfile={path}']
    )
    table = first.split('Table ')[1][0]
    tables.setdefault(table, []).append((settings, chosen))
    assert settings.backbone.startswith('vgg16') and settings.bottleneck == 0
    assert settings.optimizer == 'adam' and settings.learning_rate_alpha == 0
    assert settings.learning_rate == 1e-4
    assert settings.learning_rate * chosen.classifier_rate == 0.01
    assert (chosen.sparsity_decay, chosen.sparsity_threshold) == (0.005, 0.02)
    assert (chosen.decay, chosen.dropout) == (5000.0, 0.5)
    assert (settings.adam_epsilon, settings.clip_norm) == (1e-4, 5.0)
    assert (settings.image_size, settings.resize) == (224, 256)
    last = {'vgg16_conv5_1': 'block4_conv2', 'vgg16_conv5_2': 'block4_conv3'}
    assert settings.freeze_until == last.get(settings.backbone, 'block5_conv1')
    assert (chosen.holistic_units_1, chosen.holistic_units_2) == (768, 1536)
    assert chosen.local_units_2 == 4096
    weights = chosen.holistic_weight, chosen.local_weight
    rows = {'holistic': (0.2, 0.0), 'unadapted': (0.0, 0.0), 'k0': (0.2, 0.0)}
    row = path.removesuffix('.flags').split('_')[-1]
    assert weights == rows.get(row, (0.2, 0.1)), path
    assert chosen.sparsity_weight == (0.0 if row == 'k0' else 0.1)
    if table != '5':
      assert chosen.num_patterns == 32
  rows = {table: len(found) for table, found in tables.items()}
  assert rows == {'1': 8, '2': 24, '3': 12, '4': 8, '5': 16}
  assert {s.target_classes for s, _ in tables['3']} == {'first25'}
  assert {s.backbone for s, _ in tables['4']} == {
    'vgg16_conv5_1',
    'vgg16_conv5_2',
  }
  assert {(c.num_patterns, c.local_units_1) for _, c in tables['5']} == {
    (0, 2048),
    (8, 2048),
    (16, 2048),
    (64, 4096),
  }


# VGG16.


def test_vgg16_is_that_of_keras_before_the_last_relu(tmp_path):
  keras = tf.keras.applications.VGG16(
    include_top=False, weights=None, input_shape=(32, 32, 3)
  )
  path = str(tmp_path / 'vgg16.weights.h5')
  keras.save_weights(path)
  images = np.random.default_rng(0).integers(0, 256, [2, 32, 32, 3])
  inputs = tf.keras.applications.vgg16.preprocess_input(np.float32(images))
  for name, last in [
    ('vgg16', 'block5_conv3'),
    ('vgg16_conv5_1', 'block5_conv1'),
  ]:
    backbone = backbones.load(name, path, 32)
    feature_map = backbone.feature_map(images).numpy()
    expected = tf.keras.Model(keras.input, keras.get_layer(last).output)(inputs)
    assert feature_map.min() < 0 < expected.numpy().max()
    scale = expected.numpy().max()
    np.testing.assert_allclose(
      np.maximum(feature_map, 0.0) / scale, expected / scale, atol=1e-5
    )
  names = [
    layer.name
    for layer in backbones.load('vgg16_conv5_2', 'none', 32).network.layers
  ]
  assert names[-3:] == ['block4_pool', 'block5_conv1', 'block5_conv2']


# Pictures.


def test_picture_has_a_colour_a_pattern_over_both_domains():
  run = make(config())
  images = {
    side: run.data[side, 'test'].images[:3] for side in ('source', 'target')
  }
  chosen = {
    side: patterns.assign(run.model, batch, side)
    for side, batch in images.items()
  }
  for side, batch in images.items():
    features = run.model.local_features(batch, domain=side).numpy()
    centres = run.model.netvlad.patterns.numpy()
    distances = ((features[..., np.newaxis, :] - centres) ** 2).sum(axis=-1)
    nearest = distances.argmin(axis=-1)
    np.testing.assert_array_equal(chosen[side], nearest)
  png = patterns.draw(images, chosen, num_patterns=4)
  assert min(PIL.Image.open(io.BytesIO(png)).size) > 300

  def colours(assignment):
    """Those of a black image's left and right half."""
    png = patterns.draw(
      {'source': np.zeros([1, 8, 8, 3], np.uint8)},
      {'source': np.array([assignment])},
      num_patterns=8,
    )
    pixels = np.asarray(PIL.Image.open(io.BytesIO(png)).convert('RGB'))
    found = [
      tuple(colour)
      for column in pixels.transpose(1, 0, 2)
      for colour, count in zip(*np.unique(column, axis=0, return_counts=True))
      # Half-transparent over black, in blocks.
      if count > 40 and 100 < colour.max() < 140
    ]
    return list(dict.fromkeys(found))

  assert len(colours([[3, 3]])) == 1
  left, right = colours([[3, 5]])
  assert colours([[5, 3]]) == [right, left]


def test_captions_have_the_numbers_of_both_domains():
  chosen = config(sparsity_decay=20.0, sparsity_threshold=1.33)
  run = make(chosen)
  centres = np.float64(run.model.netvlad.patterns)
  counts, active, means, medians, spreads = [], [], [], [], []
  for side in ('source', 'target'):
    # 4 positions an image: 400 images have four times 400.
    rows = np.random.default_rng(0).permutation(512)[:400]
    images = run.data[side, 'test'].images[rows]
    maps = run.model.local_features(tf.constant(images), domain=side)
    features = np.float64(maps).reshape(1600, -1)
    distances = ((features[:, np.newaxis] - centres) ** 2).sum(axis=-1)
    counts.append(np.bincount(distances.argmin(axis=1), minlength=4))
    shares = np.exp(-20.0 * (distances - distances.min(axis=1, keepdims=True)))
    shares /= shares.sum(axis=1, keepdims=True)
    entropies = -np.sum(shares * np.log(shares), axis=1)
    active.append(np.mean(entropies > 1.33))
    means.append(entropies.mean())
    least = np.sort(distances.min(axis=1))
    medians.append((least[799] + least[800]) / 2)  # Of 1,600.
    spreads.append(np.percentile(least, [5, 95]))
  assert max(active) < 1.0 and min(active) > 0.05
  made = run.model.pictures(run.data)
  told = made['distances'].caption()
  found = re.findall(r'([\d.]+) by median \(([\d.]+) to ([\d.]+) for 90%', told)
  assert len(found) == 2
  for numbers, median, spread in zip(found, medians, spreads):
    expected = [median, *spread]
    np.testing.assert_allclose(np.float64(numbers), expected, rtol=0.005)
  assert f'at {active[0]:.1%} of the source positions' in told
  assert f'and {active[1]:.1%} of the target ones' in told
  assert f'its mean is {means[0]:.2f} and {means[1]:.2f} nats' in told
  assert 'ln K = 1.39' in told  # ln 4.
  told = made['patterns'].caption()
  assert 'Of 1,600 source and 1,600 target positions' in told
  used = [np.sum(c > 0) for c in counts]
  assert f'assigned to {used[0]} patterns' in told
  assert f'those of the target to {used[1]};' in told
  overlap = sum(min(a, b) for a, b in zip(*counts)) / 1600
  assert f'overlap by {overlap:.0%}.' in told


def test_pictures_of_distances_and_maps_are_of_the_features(monkeypatch):
  run = make(config())
  made = run.model.pictures(run.data)
  drawn = {}

  def kept(name):
    def keep(*arguments):
      drawn[name] = arguments
      return b''

    return keep

  monkeypatch.setattr(figures, 'distributions', kept('distributions'))
  monkeypatch.setattr(figures, 'scatter', kept('scatter'))
  monkeypatch.setattr(embeddings, 'map_features', lambda x, seed: x[:, :2])
  made['distances'].draw()
  samples, _ = drawn['distributions']
  assert [name for name, _ in samples] == [
    f'{side}, {name}'
    for side in ('source', 'target')
    for name in ('nearest', 'second nearest')
  ]
  features = patterns.local_features(
    run.model, run.data['source', 'test'].images, 'source'
  ).reshape(512 * 4, -1)
  centres = run.model.netvlad.patterns.numpy()
  squares = ((features[:, np.newaxis] - centres) ** 2).sum(axis=-1)
  squares.sort(axis=1)
  for (_, values), column in zip(samples[:2], squares.T):
    assert len(values) == 1600
    assert np.median(values) == pytest.approx(np.median(column), rel=0.05)
    assert np.isin(values.round(3), column.round(3)).mean() > 0.98
  made['local_features_by_pattern'].draw()
  points, nearest, names, is_target = drawn['scatter']
  assert is_target.tolist() == [False] * 400 + [True] * 400
  assert names == ['0', '1', '2', '3']
  # Every point is a feature of its pattern: its first two numbers here.
  squares = ((features[:, np.newaxis] - centres) ** 2).sum(axis=-1)
  for point, pattern in zip(points[:20], nearest):
    row = np.abs(features[:, :2] - point).sum(axis=1).argmin()
    assert squares[row].argmin() == pattern
  made['local_features_by_domain'].draw()
  again, groups, names, _ = drawn['scatter']
  np.testing.assert_array_equal(again, points)
  assert groups.tolist() == [0] * 400 + [1] * 400
  assert tuple(names) == ('source', 'target')


def test_most_similar_feature_is_the_nearest_of_another_image():
  features = np.random.default_rng(0).normal(size=[12, 3]) + 100.0
  features[1] = features[0] + 0.01  # Of the same image.
  images = np.repeat([0, 1, 2, -1], 3)
  expected = [
    min(
      (sum((a - b) ** 2), j)
      for j, b in enumerate(features)
      if images[j] != images[i]
    )[1]
    for i, a in enumerate(features)
  ]
  assert patterns.most_similar(features, images).tolist() == expected


def test_without_patterns_there_are_no_pictures():
  chosen = config(num_patterns=0, local_weight=0.0, sparsity_weight=0.0)
  run = make(chosen)
  assert run.model.pictures(run.data) == {}
  # And one pattern alone has no second nearest.
  run = make(config(num_patterns=1))
  made = run.model.pictures(run.data)
  assert 'ln K = 0.00' in made['distances'].caption()
  made['distances'].draw()


def test_picture_needs_an_assignment_for_every_image():
  images = {'source': np.zeros([2, 8, 8, 3], np.uint8)}
  for assignments in ({}, {'source': np.zeros([1, 2, 2])}):
    with pytest.raises(ValueError, match='not an assignment for each'):
      patterns.draw(images, assignments, 4)


# The toy problem.


def test_solves_the_toy_problem():
  """Which source_only does not: tests/source_only_test.py."""
  run = harness.toy('local_feature_patterns')
  run.train(75)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.95
