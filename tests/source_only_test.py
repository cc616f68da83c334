"""Source only: its objective by hand, and what it does not look at."""

import numpy as np
import tensorflow as tf

from tests import harness


def test_objective_is_the_mean_cross_entropy_of_the_source():
  run = harness.Run(harness.settings('source_only'))
  batch = next(iter(run.batches(0, 1)))
  total, terms = run.model.objective(batch, tf.constant(0.0))
  logits = run.model(batch['source']['image']).numpy().astype(np.float64)
  labels = batch['source']['label'].numpy()
  log_sum = np.log(np.exp(logits).sum(axis=1))
  expected = np.mean(log_sum - logits[np.arange(8), labels])
  np.testing.assert_allclose(total, expected, rtol=1e-5)
  assert terms['label'] is total


def test_fails_on_the_toy_problem():
  run = harness.toy('source_only')
  run.train(150)
  assert run.accuracy('source') > 0.95
  assert run.accuracy('target') < 0.7
