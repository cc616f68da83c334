"""DANN: Eq. 1-9 and Appendix A by hand, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness
from tfda.methods import dann


def gradients(run, batch, progress=0.3):
  """{weight name and place: gradient of the objective}."""
  with tf.GradientTape() as tape:
    total, terms = run.model.objective(batch, tf.constant(progress))
  values = tape.gradient(total, run.model.trainable_variables)
  return [value.numpy() for value in values], terms


@pytest.fixture(scope='module')
def run():
  return harness.Run(harness.settings('dann'))


def test_terms_and_gradients_are_those_of_equations_4_to_6(run):
  """The updates, from separate tapes and without a reversal layer."""
  batch = next(iter(run.batches(0, 1)))
  model, progress = run.model, 0.3
  factor = 2 / (1 + np.exp(-10 * progress)) - 1  # Eq. 14
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(images)
    logits = model.classifier(features[:8])
    rows = tf.one_hot(batch['source']['label'], 2)
    label = -tf.reduce_mean(
      tf.reduce_sum(rows * tf.math.log(tf.nn.softmax(logits)), axis=1)
    )
    probability = tf.sigmoid(model.discriminator(features))
    domain = -0.5 * (
      tf.reduce_mean(tf.math.log(probability[:8]))
      + tf.reduce_mean(tf.math.log(1 - probability[8:]))
    )
  feature_part = model.backbone.trainable_variables
  classifier = model.classifier.trainable_variables
  discriminator = model.discriminator.trainable_variables
  expected = [
    label_gradient - factor * domain_gradient  # Eq. 4
    for label_gradient, domain_gradient in zip(
      tape.gradient(label, feature_part), tape.gradient(domain, feature_part)
    )
  ]
  expected += tape.gradient(label, classifier)  # Eq. 5
  expected += tape.gradient(domain, discriminator)  # Eq. 6
  ours, terms = gradients(run, batch, progress)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['domain'], domain, rtol=1e-5)
  assert len(ours) == len(expected)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_two_loss_form_gives_the_same_updates():
  """Appendix A: the pair (L_d, -lambda L_d) is gradient reversal."""
  runs = [
    harness.Run(
      harness.settings('dann', steps=5),
      dann.Config(
        domain_losses=form, discriminator_dropout=0.3, domain_weight=0.7
      ),
    )
    for form in ('reversal', 'two_losses')
  ]
  for run in runs:
    run.train(5)
  for ours, theirs in zip(*[run.weights() for run in runs]):
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_swapped_labels_push_the_features_to_the_other_domain():
  """L_d-(q, d) = L_d+(q, 1 - d): its gradient at the features, by hand."""
  run = harness.Run(
    harness.settings('dann'), dann.Config(domain_losses='swapped_labels')
  )
  batch = next(iter(run.batches(0, 1)))
  images = tf.concat([batch['source']['image'], batch['target']['image']], 0)
  model = run.model
  factor = np.tanh(5 * 0.3)
  with tf.GradientTape(persistent=True) as tape:
    features = model.features(images)
    logits = model.classifier(features[:8])
    label = tf.reduce_mean(
      tf.nn.sparse_softmax_cross_entropy_with_logits(
        batch['source']['label'], logits
      )
    )
    probability = tf.sigmoid(model.discriminator(features))
    plus = -0.5 * (
      tf.reduce_mean(tf.math.log(probability[:8]))
      + tf.reduce_mean(tf.math.log(1 - probability[8:]))
    )
    minus = -0.5 * (
      tf.reduce_mean(tf.math.log(1 - probability[:8]))
      + tf.reduce_mean(tf.math.log(probability[8:]))
    )
    for_features = label + factor * minus
  expected = tape.gradient(for_features, model.backbone.trainable_variables)
  expected += tape.gradient(label, model.classifier.trainable_variables)
  expected += tape.gradient(plus, model.discriminator.trainable_variables)
  ours, _ = gradients(run, batch)
  for a, b in zip(ours, expected):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_factor_zero_at_the_start_leaves_the_features_to_the_labels(run):
  batch = next(iter(run.batches(0, 1)))
  with_domain, _ = gradients(run, batch, progress=0.0)
  without = harness.Run(harness.settings('dann'), dann.WITHOUT_ADAPTATION)
  alone, _ = gradients(without, batch, progress=0.0)
  count = len(run.model.backbone.trainable_variables)
  for a, b in zip(with_domain[:count], alone[:count]):
    np.testing.assert_allclose(a, b, atol=1e-7)


def test_published_networks_have_the_paper_s_heads(run):
  """x-100-1 on MNIST's network, FC100-100-C for the labels."""
  shapes = [v.shape.as_list() for v in run.model.discriminator.weights]
  assert shapes == [[192, 100], [100], [100, 1], [1]]
  shapes = [v.shape.as_list() for v in run.model.classifier.weights]
  assert shapes == [[192, 100], [100], [100, 100], [100], [100, 2], [2]]


def test_solves_the_toy_problem():
  run = harness.toy('dann')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9


def test_statistics_of_each_domain_serve_its_images():
  settings = harness.settings('dann', backbone='dann_mnist_domain_norm')
  run = harness.Run(settings)
  batch = next(iter(run.batches(0, 1)))
  run.train(1)
  backbone = run.model.backbone
  for domain, network in [
    ('source', backbone.source_network),
    ('target', backbone.network),
  ]:
    # conv1 is linear and moves a little in the step: its initial kernel is
    # drawn anew from the seed.
    fresh = harness.Run(settings).model.backbone
    images = fresh.normalise(batch[domain]['image'])
    convolved = fresh.network.get_layer('conv1')(images).numpy()
    mean = convolved.mean(axis=(0, 1, 2))
    # Keras: moving = 0.9 * 0 + 0.1 * batch.
    np.testing.assert_allclose(
      network.get_layer('batch_norm1').moving_mean, 0.1 * mean, atol=1e-5
    )
  images = tf.constant(run.data['target', 'test'].images[:8])
  logits = {
    domain: run.model.infer(images, domain=domain)['logits'].numpy()
    for domain in ('source', 'target')
  }
  np.testing.assert_allclose(logits['target'], run.model(images), atol=1e-6)
  assert np.abs(logits['source'] - logits['target']).max() > 1e-3


def test_method_without_the_target_serves_it_by_the_source_s_statistics():
  run = harness.Run(
    harness.settings('source_only', backbone='dann_mnist_domain_norm')
  )
  run.train(2)
  images = tf.constant(run.data['target', 'test'].images[:8])
  np.testing.assert_array_equal(
    run.model.infer(images, domain='source')['logits'],
    run.model.infer(images, domain='target')['logits'],
  )
  source = {w.ref() for w in run.model.backbone.source_network.weights}
  network = run.model.backbone.network.weights
  needed = {w.ref() for w in run.model.inference_weights()}
  assert source <= needed
  assert not {w.ref() for w in network} - source & needed


def test_synchronised_statistics_make_two_replicas_one():
  settings = harness.settings('dann', backbone='dann_mnist_domain_norm')
  one, two = harness.Run(settings), harness.Run(settings, replicas=2)
  one.train(3)
  two.train(3)
  for ours, theirs in zip(two.weights(), one.weights()):
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
