"""ADDA: Eq. 9 and its updates by hand, its two encoders, the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda import errors, experiment, flag_config
from tfda.methods import adda


def adapting(steps=4, replicas=1):
  """A run whose first of `steps` trained M_s, with a D that tells domains."""
  settings = harness.settings('adda', bottleneck=6, steps=steps)
  run = harness.Run(settings, adda.Config(source_share=1 / steps), replicas)
  random = np.random.default_rng(0)
  for weight in run.model.discriminator.weights:
    weight.assign(weight + random.normal(0.0, 0.3, weight.shape))
  run.train(1, traced=False)
  return run


def values(variables):
  return [variable.numpy() for variable in variables]


def test_step_is_that_of_equation_9():
  """The first of SGD, whose momentum is 0, is the rate times the gradient."""
  run = adapting()
  model, batch = run.model, next(iter(run.batches(1, 2)))
  with run.strategy.scope():
    model.begin_phase(run.phases[1], 1)
  of_source, of_target = (
    batch[domain]['image'] for domain in ('source', 'target')
  )
  encoder = [*model.backbone.trainable_variables]
  encoder += model.bottleneck.trainable_variables
  adversary = model.discriminator.trainable_variables
  fixed = [*model.classifier.weights, *model.source_network.weights]
  before = [values(x) for x in (encoder, adversary, fixed)]
  # They are as yet one network.
  source_features = model.features(of_source)
  with tf.GradientTape(persistent=True) as tape:
    d_source = tf.sigmoid(model.discriminator(source_features))
    d_target = tf.sigmoid(model.discriminator(model.features(of_target)))
    mapping = -tf.reduce_mean(tf.math.log(d_target))
    discriminator = -tf.reduce_mean(tf.math.log(d_source)) - tf.reduce_mean(
      tf.math.log(1 - d_target)
    )
  p = tf.nn.softmax(model.classifier(source_features)).numpy()
  label = -np.mean(np.log(p[np.arange(8), batch['source']['label']]))
  gradients = tape.gradient(mapping, encoder)
  adversary_gradients = tape.gradient(discriminator, adversary)
  model.averages.reset()
  terms = model.train_step(batch)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-4)
  np.testing.assert_allclose(terms['mapping'], mapping, rtol=1e-4)
  np.testing.assert_allclose(terms['discriminator'], discriminator, rtol=1e-4)
  np.testing.assert_allclose(terms['total'], label + mapping, rtol=1e-4)
  for variables, old, slopes in (
    (encoder, before[0], gradients),
    (adversary, before[1], adversary_gradients),
  ):
    for variable, start, slope in zip(variables, old, slopes):
      assert np.abs(slope).max() > 0.0
      np.testing.assert_allclose(
        variable.numpy() - start, -0.01 * slope, rtol=2e-2, atol=1e-7
      )
  for now, then in zip(values(fixed), before[2]):
    np.testing.assert_array_equal(now, then)


def test_source_encoder_is_that_of_the_first_phase_when_resumed_too():
  run = adapting()
  trained = values(run.model.inference_weights())
  run.train(2, traced=False)
  for _ in range(2):
    held = run.model.source_network.inference_weights()
    for now, then in zip(values(held), trained):
      np.testing.assert_array_equal(now, then)
    with run.strategy.scope():  # As after an interruption.
      run.model.begin_phase(run.phases[1], 1)
  pairs = run.model.weights_beside(run.model.source_network)
  assert any((a.numpy() != b.numpy()).any() for a, b in pairs)


def test_losses_of_a_discriminator_that_is_certain_are_finite():
  run = adapting()
  last = run.model.discriminator.weights[-1]
  with run.strategy.scope():
    run.model.begin_phase(run.phases[1], 1)
  batch = next(iter(run.batches(1, 2)))
  for logit in (1e4, -1e4):
    last.assign([logit])
    with tf.GradientTape() as tape:
      total, terms = run.model.objective(batch, tf.constant(0.0))
    variables = run.model.backbone.trainable_variables
    for gradient in tape.gradient(total, variables):
      assert np.isfinite(gradient).all()
    # -log D of the target; -log(1 - D) of the target or -log D of the source.
    expected = max(-logit, 0.0)
    np.testing.assert_allclose(terms['mapping'], expected, rtol=0.01, atol=0.01)
    np.testing.assert_allclose(terms['discriminator'], 1e4, rtol=0.01)


def test_two_replicas_play_as_one():
  one, two = adapting(), adapting(replicas=2)
  terms = [run.train(2, traced=False) for run in (one, two)]
  for name, value in terms[0].items():
    assert terms[1][name] == pytest.approx(value, abs=1e-5)
  for ours, theirs in zip(two.weights(), one.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_half_precision_scales_the_loss_of_both_players():
  settings = harness.settings('adda', mixed_precision='float16')
  with experiment.precision(settings):
    run = harness.Run(settings, adda.Config(source_share=0.0))
    run.model.begin_phase(run.phases[1], 0)
    batch = next(iter(run.batches(0, 1)))
    terms = tf.function(run.model.train_step, autograph=False)(batch)
  assert np.isfinite(list(terms.values())).all()
  scaled = tf.keras.mixed_precision.LossScaleOptimizer
  assert all(isinstance(optimizer, scaled) for optimizer in run.optimizers)
  assert [int(o.iterations) for o in run.optimizers] == [0, 1, 1]


def test_statistics_of_each_domain_are_refused():
  with pytest.raises(errors.UsageError, match='an encoder of each domain'):
    harness.Run(harness.settings('adda', backbone='dann_mnist_domain_norm'))


def test_frozen_features_are_refused():
  with pytest.raises(errors.UsageError, match='an earlier --freeze_until'):
    harness.Run(harness.settings('adda', freeze_until='pool2'))


def test_recipe_for_digits():
  for pair in ('mnist2mnist_m', 'optdigits2optdigits_m'):
    run, config, _, _ = flag_config.parse_experiment(
      [f'--flagfile=flags/{pair}/adda.flags']
    )
    assert (run.optimizer, run.momentum) == ('adam', 0.5)
    assert (run.learning_rate, run.learning_rate_alpha) == (0.001, 0.0)
    assert config == adda.Config(source_share=0.5, adaptation_rate=0.02)


@pytest.mark.parametrize('precision', ['none', 'float16'])
def test_players_have_one_rate_and_the_first_phase_its_multipliers(precision):
  settings = harness.settings(
    'adda', bottleneck=6, new_layer_multiplier=10.0, mixed_precision=precision
  )
  with experiment.precision(settings):
    run = harness.Run(settings, adda.Config(adaptation_rate=0.2))
  alone, *game = (getattr(o, 'inner_optimizer', o) for o in run.optimizers)
  kernel, last = run.model.bottleneck.kernel, run.model.discriminator.weights[0]
  assert alone._multipliers[alone._var_key(kernel)] == 10.0
  rates = [o._multipliers[o._var_key(v)] for o, v in zip(game, (kernel, last))]
  assert rates == [0.2, 0.2]


def test_solves_the_toy_problem():
  run = harness.toy('adda')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
