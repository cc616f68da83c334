"""Train on target: the upper bound, on the labels that others never see."""

import numpy as np
import tensorflow as tf

from tests import harness


def test_objective_is_the_mean_cross_entropy_of_the_target():
  run = harness.Run(harness.settings('train_on_target'))
  batch = next(iter(run.batches(0, 1)))
  total, _ = run.model.objective(batch, tf.constant(0.0))
  target = batch['labelled_target']
  truth = run.data['target', 'train'].labels[target['index'].numpy()]
  np.testing.assert_array_equal(target['label'], truth)
  logits = run.model(target['image']).numpy().astype(np.float64)
  log_sum = np.log(np.exp(logits).sum(axis=1))
  expected = np.mean(log_sum - logits[np.arange(8), truth])
  np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_solves_the_toy_problem():
  run = harness.toy('train_on_target')
  run.train(150)
  assert run.accuracy('target') > 0.95
