"""Attention alignment: Eq. 5-12 by loops, M_post, the schedule, the toy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import backbones, errors
from tfda.layers import convolution, preprocessing
from tfda.methods import attention_alignment

pytestmark = pytest.mark.usefixtures('graphs_as_traced', 'tiny')

DATA = 'source', 'source_to_target', 'target', 'target_to_source'
S, T_OF_S, T, S_OF_T = DATA
ORIGINALS = {T_OF_S: S, S_OF_T: T}


@pytest.fixture
def tiny(monkeypatch):
  """A backbone of few weights, with moving averages."""

  def make_tiny(image_size):
    layers = tf.keras.layers
    norm = layers.BatchNormalization(-1, 0.9, synchronized=True, name='norm')
    inputs = x = layers.Input([image_size, image_size, 3])
    x = convolution.Conv2D(4, 3, 2, padding='same', name='conv1')(x)
    x = layers.ReLU()(norm(x))
    x = convolution.Conv2D(6, 3, padding='same', name='conv2')(x)
    return backbones.Backbone(
      tf.keras.Model(inputs, x),
      preprocessing.Normalise(),
      pooling='flatten',
      measures_mean=True,
    )

  monkeypatch.setitem(backbones._BACKBONES, 'tiny', make_tiny)


def make(backbone='four_conv', settings=None, replicas=1, path=None, **config):
  made = harness.settings(
    'attention_alignment', backbone=backbone, **(settings or {})
  )
  config = attention_alignment.Config(**config)
  return harness.Run(made, config, replicas, path)


def make_apart(**changed):
  """As `make`; the networks differ where they train; M_post is sure of some."""
  run = make(**changed)
  model, random = run.model, np.random.default_rng(0)
  trained = {weight.ref() for weight in model.trainable_variables}
  for network in networks(run):
    pairs = zip(network.inference_weights(), model.inference_weights())
    for weight, ours in pairs:
      if ours.ref() in trained:
        weight.assign(weight + random.normal(0.0, 0.05, weight.shape))
  if not model.posterior_network:
    return run
  kernel, bias = model.posterior_network.classifier.weights
  kernel.assign(30.0 * kernel)
  images = run.data[T, 'train'].images
  logits = run.strategy.run(model.posterior_network, (images,))
  logits = run.strategy.experimental_local_results(logits)[0]
  bias.assign_sub(tf.reduce_mean(logits, axis=0))
  return run


def batch_of(run, step=0):
  return next(iter(run.batches(step, step + 1)))


def networks(run):
  model = run.model
  copies = filter(None, (model.source_network, model.posterior_network))
  return model, *copies


def begin_adaptation(run):
  """As the trainer, behind the first phase."""
  first = run.phases[0].steps
  run.model.step.assign(first)
  run.model.begin_phase(run.phases[1], first)


def values(run, network):
  """Of all weights that inference needs, replica by replica."""
  return [
    [part.numpy() for part in run.strategy.experimental_local_results(weight)]
    for weight in network.inference_weights()
  ]


# The loss.


def outputs(network, images):
  """{layer: maps}, logits in float64; layer by layer."""
  x, maps = network.backbone.normalise(images), {}
  for layer in network.backbone.network.layers[1:]:
    x = layer(x)
    maps[layer.name] = np.float64(x)
  return maps, np.float64(network.classifier(network.backbone.pool(x)))


def softmax(x):
  e = np.exp(x - np.max(x))
  return e / e.sum()


def attention(features, kind):
  """Eq. 4, Table A1, of an image's [H, W, C]; of norm 1."""
  sizes = np.abs(features)
  found = {
    'squares': (sizes**2).sum(axis=2),
    'absolute': sizes.sum(axis=2),
    'maximum': sizes.max(axis=2),
    'raw': features,
  }[kind].ravel()
  return found / math.sqrt((found**2).sum())


def mmd(layers):
  """Of several layers' two sets of maps [n, N], together."""
  kernels = 5.0
  for sets in layers:
    rows = np.concatenate(sets)
    squares = ((rows[:, np.newaxis] - rows) ** 2).sum(axis=2)
    b = squares.sum() / (len(rows) * (len(rows) - 1))
    scales = [2.0**i * b for i in range(-2, 3)]
    kernels = kernels * np.mean([np.exp(-squares / x) for x in scales], axis=0)
  n = len(kernels) // 2
  return (
    kernels[:n, :n].mean() + kernels[n:, n:].mean() - 2 * kernels[:n, n:].mean()
  )


def origin(batch, name, i):
  """(stream, row) of what a translation is made of; of others, themselves."""
  side = ORIGINALS.get(name, name)
  indices = batch[side]['index'].numpy()
  (row,) = np.flatnonzero(indices == batch[name]['index'].numpy()[i])
  return side, row


def looked_up_to(batch, name, i):
  """Eq. 5: [(stream, row)] that the source network sees beside this image."""
  if name == T:
    translations = [(S_OF_T, j) for j in range(4)]
    return [x for x in translations if origin(batch, *x) == (T, i)]
  return [origin(batch, name, i) if name == T_OF_S else (name, i)]


def reference(model, batch):
  """The terms, image by image, and the numbers of pairs and of images."""
  config = model.config
  data = config.training_data.split(',')
  ours = {name: outputs(model, batch[name]['image']) for name in data}
  trained_on = [
    (name, i) for name, (_, logits) in ours.items() for i in range(len(logits))
  ]
  label, posterior, kept = 0.0, 0.0, []
  for name, i in trained_on:
    side, row = origin(batch, name, i)
    p = softmax(ours[name][1][i])
    if side == S:
      label -= math.log(p[batch[S]['label'][row]])  # Eq. 6
      continue
    image = batch[T]['image'][row : row + 1]
    p_post = softmax(outputs(model.posterior_network, image)[1][0])
    kept += [p_post.max() >= config.posterior_threshold] * (name == T)
    if p_post.max() >= config.posterior_threshold:
      posterior -= (p_post * np.log(p)).sum()  # Eq. 11

  pairs = [
    (one, other) for other in trained_on for one in looked_up_to(batch, *other)
  ]
  streams = {one[0] for one, _ in pairs}
  source_network = model.source_network
  theirs = {x: outputs(source_network, batch[x]['image']) for x in streams}
  sets = [
    [
      np.stack(
        [attention(of[x][0][layer][i], config.attention) for x, i in side]
      )
      for of, side in zip((theirs, ours), zip(*pairs))
    ]
    for layer in (config.layers or 'conv1,conv2,conv3').split(',')
  ]
  if config.distance == 'jmmd':
    distance = len(pairs) * mmd(sets)
  elif config.distance == 'mmd':
    distance = len(pairs) * sum(mmd([layer]) for layer in sets)
  else:
    norm = {'l2': 2, 'l1': 1}[config.distance]
    distance = sum(
      np.linalg.norm(a - b, norm) for layer in sets for a, b in zip(*layer)
    )
  terms = {'label': label, 'posterior': posterior, 'attention': distance}
  terms = {name: value / len(trained_on) for name, value in terms.items()}
  terms['kept'] = np.mean(kept or 0.0)
  return terms, len(pairs), len(trained_on)


@pytest.mark.parametrize(
  'changed, streams, pairs, count',
  [
    ({}, DATA, 8 + 4 + 4 + 4, 24),
    # x~S is no training data here, but its attention is looked up to.
    ({'training_data': f'{T_OF_S},{T}'}, DATA, 4 + 4, 12),
    ({'training_data': f'{S},{T_OF_S}'}, (S, T_OF_S), 8 + 4, 12),
    ({'training_data': T_OF_S}, (S, T_OF_S), 4, 4),
    ({'training_data': S}, (S,), 8, 8),
    # Of 8x8 images the third map has one position, and no distances.
    *(
      (
        {'attention': kind, 'distance': distance, 'layers': layers},
        DATA,
        20,
        24,
      )
      for kind, distance, layers in [
        ('absolute', 'l1', 'conv2'),
        ('maximum', 'mmd', 'conv1,conv2'),
        ('raw', 'jmmd', 'conv2,conv1'),
      ]
    ),
  ],
)
def test_terms_are_those_of_equations_5_to_12(changed, streams, pairs, count):
  run = make_apart(attention_weight=0.3, posterior_threshold=0.8, **changed)
  batch = batch_of(run)
  assert set(batch) == set(streams)
  expected, *numbers = reference(run.model, batch)
  assert numbers == [pairs, count]
  assert (0.0 < expected['kept'] < 1.0) == (T in batch)
  assert expected['attention'] > 0.01
  total, terms = run.model.objective(batch, tf.constant(0.5))
  assert set(terms) == set(run.model.LOSS_TERMS) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(
      terms[name], value, rtol=1e-4, atol=1e-6, err_msg=name
    )
  np.testing.assert_allclose(
    total,
    expected['label'] + expected['posterior'] + 0.3 * expected['attention'],
    rtol=1e-4,
  )


def test_no_attention_is_looked_up_to_at_weight_zero():
  run = make_apart(
    attention_weight=0.0, training_data='source_to_target,target'
  )
  assert run.model.STREAMS == (S, T_OF_S, T)
  _, terms = run.model.objective(batch_of(run), tf.constant(0.5))
  assert float(terms['attention']) == 0.0


def test_equal_networks_begin_with_a_finite_gradient():
  run = make(source_share=0.0, posterior_threshold=0.0)
  begin_adaptation(run)
  batch = batch_of(run)
  for name, side in ORIGINALS.items():  # All pairs are of the same image.
    same = tf.gather(batch[side]['image'], batch[name]['row'])
    batch[name] = {**batch[name], 'image': same}
  with tf.GradientTape() as tape:
    total, terms = run.model.objective(batch, tf.constant(0.0))
  for gradient in tape.gradient(total, run.model.trainable_variables):
    assert np.isfinite(gradient).all()
  # 3 layers, 20 pairs, 24 images; sqrt(0 + 1e-12), but for rounding.
  np.testing.assert_allclose(terms['attention'], 3 * 20 / 24 * 1e-6, rtol=0.2)
  run.model.train_step(batch)
  assert all(np.isfinite(weight).all() for weight in run.weights())


def test_no_gradient_reaches_the_source_network_or_m_post():
  run = make_apart(posterior_threshold=0.0)
  model, batch = run.model, batch_of(run)
  fixed = [
    copied
    for network in networks(run)[1:]
    for copied, _ in model.weights_beside(network)
  ]
  assert len(fixed) == 2 * 8  # Kernels and biases of four layers.
  with tf.GradientTape(persistent=True) as tape:
    tape.watch(fixed)
    total, terms = model.objective(batch, tf.constant(0.5))
  assert tape.gradient(total, fixed) == [None] * len(fixed)
  # Attention is of the features alone, the likelihood of the classifier too.
  features = model.backbone.trainable_variables
  classifier = model.classifier.trainable_variables
  assert tape.gradient(terms['attention'], classifier) == [None, None]
  for term, weights in (
    ('attention', features[:4]),  # The third map is of one position: 1.
    ('posterior', [*features, *classifier]),
  ):
    for gradient in tape.gradient(terms[term], weights):
      assert np.abs(gradient).max() > 0.0
  trained = {weight.ref() for weight in model.trainable_variables}
  assert not trained & {weight.ref() for weight in fixed}


@pytest.mark.parametrize('threshold', [0.0, 0.8])
def test_dropped_images_are_dropped_with_their_translations(threshold):
  """The likelihood's gradient at an image is 0 where M_post is not sure."""
  run = make_apart(posterior_threshold=threshold)
  batch = batch_of(run)
  images = {name: tf.cast(batch[name]['image'], tf.float32) for name in DATA}
  with tf.GradientTape() as tape:
    tape.watch(images)
    floats = {name: {**batch[name], 'image': images[name]} for name in DATA}
    _, terms = run.model.objective(floats, tf.constant(0.0))
  gradients = tape.gradient(terms['posterior'], images)
  logits = run.model.posterior_network(batch[T]['image']).numpy()
  kept = np.array([softmax(row).max() >= threshold for row in logits])
  assert kept.all() if threshold == 0.0 else 0 < kept.sum() < 8
  np.testing.assert_allclose(terms['kept'], kept.mean())

  def moves(name):
    gradient = np.zeros(1) if gradients[name] is None else gradients[name]
    return np.abs(gradient).reshape(len(gradient), -1).max(axis=1) > 0.0

  np.testing.assert_array_equal(moves(T), kept)
  of_translations = kept[batch[S_OF_T]['row'].numpy()]
  assert 0 < of_translations.sum() < 4 or threshold == 0.0
  np.testing.assert_array_equal(moves(S_OF_T), of_translations)
  assert not moves(S).any() and not moves(T_OF_S).any()


# Phases, refreshes, the schedule.


def test_m_post_is_the_target_network_of_every_nth_step():
  """In steps one by one, and in a trace of two replicas."""
  ran = []
  for replicas, traced in ((1, False), (2, True)):
    run = make_apart(
      backbone='tiny',
      settings={'learning_rate': 0.3},
      replicas=replicas,
      source_share=0.25,
      refresh_every=2,
      posterior_threshold=0.0,
    )
    run.model.step.assign(1)  # The end of the first phase.
    target, source, posterior = [], [], []
    for _ in range(3):
      target.append(values(run, run.model))
      terms = run.train(1, traced)
      for found, copied in zip((source, posterior), networks(run)[1:]):
        found.append(values(run, copied))
    # Steps 1 and 3 refresh it, before their updates; 2 leaves it alone.
    np.testing.assert_equal(posterior, [target[0], target[0], target[2]])
    np.testing.assert_equal(source, [target[0]] * 3)
    for before, after in zip(target, target[1:]):
      assert np.abs(after[-2][0] - before[-2][0]).max() > 1e-3
    ran.append((terms, values(run, run.model)))
  (terms, one), (terms_of_two, two) = ran
  assert terms_of_two == pytest.approx(terms, abs=1e-5)
  for (expected,), parts in zip(one, two):
    assert len(parts) == 2
    for part in parts:
      np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.mark.parametrize(
  'restarts, data, expected',
  [
    (True, DATA, [0, 1 / 3, 0]),
    (False, DATA, [0, 1 / 3, 2 / 3]),
    (True, (S, T_OF_S), [0, 1 / 3, 2 / 3]),  # There is no M_post.
  ],
)
def test_schedule_begins_anew_with_m_post(restarts, data, expected):
  """By the progress, and by what SGD moves: learning rate x gradient."""
  run = make(
    'tiny',
    {'learning_rate': 0.1, 'learning_rate_alpha': 10.0, 'momentum': 0.0},
    training_data=','.join(data),
    source_share=0.25,
    refresh_every=2,
    posterior_threshold=1.0,  # M_post, which a step may change, is not sure.
    restart_schedule=restarts,
  )
  begin_adaptation(run)
  model = run.model
  for step, p in enumerate(expected, 1):
    batch = batch_of(run, step)
    np.testing.assert_allclose(model.progress(), p)
    with tf.GradientTape() as tape:
      total, _ = model.objective(batch, tf.constant(0.0))
    gradients = tape.gradient(total, model.trainable_variables)
    rate = 0.1 / (1 + 10 * p) ** 0.75
    before = [weight.numpy() for weight in model.trainable_variables]
    model.train_step(batch)
    for weight, old, g in zip(model.trainable_variables, before, gradients):
      np.testing.assert_allclose(
        old - weight, rate * g, rtol=1e-3, atol=1e-6, err_msg=weight.name
      )


@pytest.mark.parametrize('waits', [True, False])
def test_likelihood_waits_for_the_first_refresh_if_asked(waits):
  run = make_apart(
    backbone='tiny',
    settings={'steps': 8},
    source_share=0.25,
    refresh_every=2,
    posterior_threshold=0.0,
    wait_for_refresh=waits,
  )
  begin_adaptation(run)
  # The phase begins with step 2; 4 is the first with another M_post.
  for step in (2, 3, 4, 7):
    run.model.step.assign(step)
    _, terms = run.model.objective(batch_of(run), tf.constant(0.0))
    believes = step >= 4 or not waits
    assert float(terms['kept']) == float(believes)
    assert (float(terms['posterior']) > 0.1) == believes
    assert float(terms['label']) > 0.1 and float(terms['attention']) > 0.0


def test_first_phase_is_source_only_and_the_source_network_its_end(tmp_path):
  """Also where the run is resumed: at the end of the phase, and within."""
  alone = harness.Run(harness.settings('source_only', backbone='tiny', steps=2))
  alone.train(2, traced=False)
  changed = {'source_share': 0.5, 'refresh_every': 2}
  run = make('tiny', **changed)
  run.train(2, traced=False)
  terms = run.model.averages.result()
  assert float(terms['total']) == float(terms['label']) > 0.1
  assert {float(terms[x]) for x in ('posterior', 'attention', 'kept')} == {0.0}
  for ours, theirs in zip(run.weights(), alone.weights()):
    np.testing.assert_array_equal(ours, theirs)
  fixed = values(run, run.model)
  at_end = run.checkpoint.save(str(tmp_path / 'at_end'))
  for path in (None, at_end):  # It goes on, or is resumed.
    run = make('tiny', path=path, **changed) if path else run
    run.train(1, traced=False)
    np.testing.assert_equal(values(run, run.model.source_network), fixed)
  within = run.checkpoint.save(str(tmp_path / 'within'))
  run = make('tiny', path=within, **changed)
  run.train(1, traced=False)
  for copied in networks(run)[1:]:
    np.testing.assert_equal(values(run, copied), fixed)
  moved = zip(run.model.inference_weights(), fixed)
  assert all((ours.numpy() != old[0]).any() for ours, old in list(moved)[2:])


def test_batch_normalisation_sees_the_mixture_of_all_images():
  run = make('tiny', source_share=0.0)
  begin_adaptation(run)
  batch = batch_of(run)
  images = np.concatenate([batch[name]['image'] for name in DATA])
  assert len(images) == 24
  first = run.model.backbone.network.get_layer('conv1')
  convolved = first(run.model.backbone.normalise(images)).numpy()
  run.model.train_step(batch)
  means = [
    network.backbone.network.get_layer('norm').moving_mean
    for network in networks(run)
  ]
  # Keras: 0.9 * 0 + 0.1 * batch; the copies work as in inference.
  expected = 0.1 * convolved.mean(axis=(0, 1, 2))
  np.testing.assert_allclose(means[0], expected, rtol=1e-4, atol=1e-6)
  np.testing.assert_array_equal(means[1:], np.zeros([2, 4]))


# Settings, stored features, what is served, the toy problem.


@pytest.mark.parametrize(
  'backbone, settings, config, message',
  [
    ('dann_mnist_domain_norm', {}, {}, 'takes no --domain_batch_norm'),
    ('four_conv', {'classifier_dropout': 0.5}, {}, 'no --classifier_dropout'),
    (
      *('four_conv', {}, {'layers': 'conv1,conv_2'}),
      'conv_2: no such layer in four_conv; did you mean conv2',
    ),
    ('four_conv', {'freeze_until': 'conv3'}, {}, 'no convolution is trained'),
    ('four_conv', {}, {'wait_for_refresh': True}, 'refresh_every=1000: too ma'),
  ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
  backbone, settings, config, message
):
  with pytest.raises(errors.UsageError, match=message) as refused:
    make(backbone, settings, **config)
  assert '\n' not in str(refused.value)


def test_loss_behind_stored_features_is_the_loss():
  run = make_apart(settings={'freeze_until': 'conv1'}, posterior_threshold=0.6)
  model, batch = run.model, batch_of(run)
  assert model.aligned == ['conv2', 'conv3']  # None that is frozen.
  total, terms = model.objective(batch, tf.constant(0.0))
  assert 0.0 < float(terms['kept']) < 1.0 and float(terms['attention']) > 0.05
  model.cut_at('conv1')
  for name in DATA:
    stored = model.backbone.prefix(batch[name]['image'])
    batch[name] = {**batch[name], 'image': stored}
  behind, terms_behind = model.objective(batch, tf.constant(0.0))
  np.testing.assert_allclose(behind, total, rtol=1e-5)
  for name, value in terms.items():
    np.testing.assert_allclose(terms_behind[name], value, atol=1e-5)
  stored_alone = make(settings={'freeze_until': 'conv1'}, layers='conv1').model
  with pytest.raises(errors.UsageError, match='name layers behind it'):
    stored_alone.cut_at('conv1')


def test_neither_copy_is_served():
  target, *copies = [
    {weight.ref() for weight in network.inference_weights()}
    for network in networks(make())
  ]
  # But for the mean of the images.
  assert [len(target & copied) for copied in copies] == [1, 1]
  assert len(target) == 2 * 4 + 1


def test_solves_the_toy_problem():
  run = harness.toy('attention_alignment')
  run.train(30)
  # The source network alone relies on the tint.
  assert run.accuracy('source') > 0.9
  assert 0.4 < run.accuracy('target') < 0.7
  run.train(120)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.95
  assert run.model.averages.result()['kept'] > 0.2
