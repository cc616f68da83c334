"""Deep CORAL: Eq. 6 by hand, its layers, and the toy problem."""

import numpy as np
import pytest
import tensorflow as tf

from tests import harness, numeric
from tfda import errors
from tfda.methods import deep_coral


def make(batch_size=8, **config):
  settings = harness.settings('deep_coral', batch_size=batch_size)
  return harness.Run(settings, deep_coral.Config(**config))


@pytest.mark.parametrize('layer', ['logits', 'features'])
def test_objective_is_equation_6(layer):
  run = make(layer=layer, correlation_weight=0.3)
  batch = next(iter(run.batches(0, 1)))
  total, terms = run.model.objective(batch, tf.constant(0.5))
  outputs = {
    side: run.model.infer(batch[side]['image']) for side in ('source', 'target')
  }
  label = numeric.cross_entropy(
    batch['source']['label'].numpy(), outputs['source']['logits']
  )
  rows = {side: np.float64(outputs[side][layer]) for side in outputs}
  difference = np.cov(rows['source'].T) - np.cov(rows['target'].T)
  correlation = (difference**2).sum() / (4 * len(difference) ** 2)
  np.testing.assert_allclose(terms['label'], label, rtol=1e-5)
  np.testing.assert_allclose(terms['correlation'], correlation, rtol=1e-4)
  np.testing.assert_allclose(total, label + 0.3 * correlation, rtol=1e-5)


def test_alignment_of_features_does_not_reach_the_classifier():
  """Its gradient is the label loss's alone; that of the logits' is another."""

  def gradients(**config):
    run = make(**config)
    batch = next(iter(run.batches(0, 1)))
    with tf.GradientTape() as tape:
      total, _ = run.model.objective(batch, tf.constant(0.5))
    return tape.gradient(total, run.model.classifier.weights)

  alone = gradients(correlation_weight=0.0)
  for layer, equal in (('features', True), ('logits', False)):
    ours = gradients(layer=layer, correlation_weight=1e4)
    same = [np.allclose(a, b, atol=1e-7) for a, b in zip(ours, alone)]
    assert all(same) == equal


def test_one_image_is_refused():
  run = make(batch_size=1)
  batch = next(iter(run.batches(0, 1)))
  with pytest.raises(errors.UsageError, match='--batch_size=1: one image'):
    run.model.objective(batch, tf.constant(0.5))


def test_solves_the_toy_problem():
  run = harness.toy('deep_coral')
  run.train(300)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') > 0.9
