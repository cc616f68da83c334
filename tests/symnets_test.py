"""SymNets: Eq. 3-9 by hand, the updates of both players, the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import errors, experiment, flag_config
from tfda.methods import symnets

FACTOR = np.tanh(5 * 0.3)  # DANN's Eq. 14 at progress 0.3.
LN3 = float(np.log(3.0))


def softmax(x):
  e = np.exp(x - x.max(axis=-1, keepdims=True))
  return e / e.sum(axis=-1, keepdims=True)


def make(**changed):
  run = harness.Run(harness.settings('symnets', **changed), symnets.Config())
  with run.strategy.scope():
    run.model.begin_phase(run.phases[0], 0)
  return run, next(iter(run.batches(0, 1)))


def both(batch):
  return tf.concat([batch['source']['image'], batch['target']['image']], 0)


def test_category_confusion_example_and_gradient_by_hand():
  loss = symnets.category_confusion(
    tf.constant([0]), tf.constant([[LN3, 0.0]]), tf.constant([[0.0, 0.0]])
  )
  np.testing.assert_allclose(loss, (np.log(2) + np.log(6)) / 2, rtol=1e-6)
  np.testing.assert_allclose(loss, 1.2425, atol=5e-5)
  random = np.random.default_rng(0)
  logits, y = random.normal(size=[6, 8]), random.integers(4, size=6)
  p = softmax(logits)
  pairs = [tf.constant(logits[:, :4]), tf.constant(logits[:, 4:])]
  with tf.GradientTape() as tape:
    tape.watch(pairs)
    loss = symnets.category_confusion(tf.constant(y), *pairs)
  rows = np.arange(6)
  expected = -0.5 * np.mean(np.log(p[rows, y]) + np.log(p[rows, y + 4]))
  np.testing.assert_allclose(loss, expected, rtol=1e-9)
  # A softmax less half of each of the two ones.
  slope = (p - 0.5 * np.eye(8)[y] - 0.5 * np.eye(8)[y + 4]) / 6
  np.testing.assert_allclose(
    np.concatenate(tape.gradient(loss, pairs), axis=1), slope, rtol=1e-7
  )


def test_terms_are_those_of_equations_3_to_9():
  run, batch = make()
  model, y = run.model, batch['source']['label'].numpy()
  features = model.features(both(batch))
  v_s = model.source_classifier(features).numpy().astype(np.float64)
  v_t = model.classifier(features).numpy().astype(np.float64)
  p = softmax(np.concatenate([v_s, v_t], axis=1))
  expected = dict.fromkeys(symnets.Method.LOSS_TERMS, 0.0)
  for i in range(8):
    expected['source_label'] -= np.log(softmax(v_s[i])[y[i]]) / 8
    expected['label'] -= np.log(softmax(v_t[i])[y[i]]) / 8
    expected['domain'] -= np.log(p[i, :2].sum()) / 8
    expected['category_confusion'] -= 0.5 * np.log(p[i, y[i]]) / 8
    expected['category_confusion'] -= 0.5 * np.log(p[i, y[i] + 2]) / 8
  for j in range(8, 16):
    expected['domain'] -= np.log(p[j, 2:].sum()) / 8
    expected['domain_confusion'] -= 0.5 * np.log(p[j, 2:].sum()) / 8
    expected['domain_confusion'] -= 0.5 * np.log(p[j, :2].sum()) / 8
    for k in range(2):
      q = p[j, k] + p[j, k + 2]
      expected['entropy'] -= q * np.log(q) / 8
  total, terms = model.objective(batch, tf.constant(0.3))
  assert set(terms) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(terms[name], value, rtol=1e-4, err_msg=name)
  confusion = expected['domain_confusion'] + expected['entropy']
  np.testing.assert_allclose(
    total,
    sum(expected[name] for name in ('label', 'source_label', 'domain'))
    + expected['category_confusion']
    + FACTOR * confusion,
    rtol=1e-4,
  )


def test_step_is_that_of_equation_9():
  """The first of SGD, whose momentum is 0, is the rate times the gradient."""
  run, batch = make()
  model = run.model
  model.progress = lambda: tf.constant(0.3)
  classifiers = [
    *model.classifier.trainable_variables,
    *model.source_classifier.trainable_variables,
  ]
  extractor = model.backbone.trainable_variables
  rows = tf.one_hot(batch['source']['label'], 2)
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(both(batch))
    v_s, v_t = model.source_classifier(features), model.classifier(features)
    p = tf.nn.softmax(tf.concat([v_s, v_t], axis=1))
    of_s, of_t = p[:, :2], p[:, 2:]

    def mean_log(x):
      return tf.reduce_mean(tf.math.log(tf.reduce_sum(x, axis=1)))

    of_classifiers = (
      -mean_log(rows * tf.nn.softmax(v_s[:8]))
      - mean_log(rows * tf.nn.softmax(v_t[:8]))
      - mean_log(of_s[:8])
      - mean_log(of_t[8:])
    )
    category = -0.5 * (mean_log(rows * of_s[:8]) + mean_log(rows * of_t[:8]))
    domain = -0.5 * (mean_log(of_s[8:]) + mean_log(of_t[8:]))
    q = of_s[8:] + of_t[8:]
    entropy = -tf.reduce_mean(tf.reduce_sum(q * tf.math.log(q), axis=1))
    of_features = category + FACTOR * (domain + entropy)
  slopes = tape.gradient(of_classifiers, classifiers)
  slopes += tape.gradient(of_features, extractor)
  variables = [*classifiers, *extractor]
  before = [variable.numpy() for variable in variables]
  rate = float(run.optimizers[0].learning_rate)
  model.train_step(batch)
  for variable, start, slope in zip(variables, before, slopes):
    assert np.abs(slope).max() > 0.0
    np.testing.assert_allclose(
      variable.numpy() - start, -rate * slope, rtol=2e-2, atol=2e-8
    )


@pytest.mark.parametrize('scale', [1e4, 0.0])
def test_terms_at_extreme_logits_are_finite(scale):
  run, _ = make()
  v_s = scale * tf.constant([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
  pair = [v_s, tf.constant([[-scale, scale]] * 4)]
  with tf.GradientTape() as tape:
    tape.watch(pair)
    terms = run.model._of_target(*pair)
    terms['category'] = symnets.category_confusion(tf.constant([0] * 4), *pair)
    total = sum(terms.values())
  assert np.isfinite(list(terms.values())).all()
  assert all(np.isfinite(x).all() for x in tape.gradient(total, pair))
  if not scale:  # All alike: half and half, two classes.
    np.testing.assert_allclose(terms['domain'], 2 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(terms['entropy'], np.log(2), rtol=1e-6)


def test_without_confusion_of_the_target_it_learns_both_classifiers():
  run = harness.Run(harness.settings('symnets'), symnets.WITHOUT_ADAPTATION)
  terms = run.train(2, traced=False)
  assert set(next(iter(run.batches(0, 1)))) == {'source'}
  assert terms['domain'] == terms['domain_confusion'] == terms['entropy'] == 0.0
  assert terms['label'] > 0.0 and terms['category_confusion'] > 0.0


def test_half_precision_scales_the_loss_of_both_players():
  settings = harness.settings('symnets', mixed_precision='float16')
  with experiment.precision(settings):
    run = harness.Run(settings, symnets.Config())
    run.model.begin_phase(run.phases[0], 0)
    batch = next(iter(run.batches(0, 1)))
    terms = tf.function(run.model.train_step, autograph=False)(batch)
  assert np.isfinite(list(terms.values())).all()
  assert all(np.isfinite(v).all() for v in run.model.trainable_variables)
  scaled = tf.keras.mixed_precision.LossScaleOptimizer
  assert all(isinstance(optimizer, scaled) for optimizer in run.optimizers)


def test_frozen_features_are_refused():
  with pytest.raises(errors.UsageError, match='an earlier --freeze_until'):
    harness.Run(harness.settings('symnets', freeze_until='pool2'))


def test_recipe_for_office_is_the_paper_s():
  run, config, _, _ = flag_config.parse_experiment(
    ['--flagfile=flags/office31_amazon2webcam/symnets.flags']
  )
  assert config == symnets.Config()
  assert (run.backbone, run.bottleneck) == ('resnet50', 0)
  assert (run.learning_rate, run.new_layer_multiplier) == (0.001, 10)


def test_solves_the_toy_problem():
  run = harness.toy('symnets')
  run.train(run.settings.steps)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
