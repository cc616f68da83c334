"""Distances of domains and calibration by hand: the docstrings' examples."""

import numpy as np
import pytest

from tests.saved_outputs import outputs
from tfda.evaluation import calibration, distances, model_outputs


def test_a_distance_example():
  assert distances.a_distance(0.25) == 1.0
  assert distances.a_distance(0.5) == 0.0


def test_linear_classifier_tells_domains_that_are_apart_alone():
  random = np.random.default_rng(0)
  source, target = random.normal(size=(2, 400, 3))
  error = distances.linear_domain_error(source, target)
  assert error == pytest.approx(0.5, abs=0.06)
  # Two unit Gaussians whose means are 2 apart: Phi(-1) = 0.159 are beyond the
  # middle, however many there are of each.
  error = distances.linear_domain_error(source, target[:200] + [2.0, 0.0, 0.0])
  assert error == pytest.approx(0.159, abs=0.04)


def test_centroid_distance_example_and_classes_without_images():
  source = np.array([[-1.0], [1.0], [7.0], [9.0]])
  found = distances.centroid_distances(
    source, np.array([0, 0, 2, 2]), np.array([[4.0]]), np.array([0]), 4
  )
  np.testing.assert_allclose(found, [4.0, np.nan, np.nan, np.nan])


def test_distances_grow_with_the_shift_and_not_with_the_scale():
  names = ['a', 'b', 'c']
  found = []
  for shift in (0.0, 2.0, 6.0):
    made = outputs(shift)
    found.append(distances.measure(made, names))
    for side in ('source', 'target'):
      made.arrays[f'{side}_features'] = 1e3 * made[f'{side}_features']
    del made.reduced
    scaled = distances.measure(made, names)
    for name in ('proxy_a_distance', 'squared_mmd', 'correlation_distance'):
      assert scaled[name] == pytest.approx(found[-1][name], rel=1e-3, abs=1e-6)
  for name in ('proxy_a_distance', 'squared_mmd'):
    near, far, farther = (x[name] for x in found)
    assert abs(near) < 0.25 and near < far < farther
  near, _, far = found
  assert near['discriminator_a_distance'] is None
  assert near['oracle_centroid_distance']['a'] < 0.3
  # Of four dimensions with unit variance, 6 away.
  assert far['oracle_centroid_distance']['a'] == pytest.approx(3.0, abs=0.2)
  assert far['centroid_distance']['c'] is None


def test_own_domain_classifier_gives_the_term_of_the_bound():
  made = outputs(count=4)
  made.arrays['source_domain_logits'] = np.array([1.0, 2.0, 3.0, -1.0])
  made.arrays['target_domain_logits'] = np.array([1.0, 2.0, -3.0, -1.0])
  found = distances.measure(made, ['a', 'b'])
  alpha = 3 / 4 + 2 / 4
  assert found['discriminator_a_distance'] == pytest.approx(2 * (alpha - 1))


def test_too_few_images_have_no_distances():
  assert distances.measure(outputs(count=3), ['a', 'b']) is None


def test_reliability_example():
  labels = np.array([0, 0, 1, 0])
  p = np.array([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.6, 0.4]])
  counts, confidences, accuracies = calibration.reliability(labels, np.log(p))
  filled = np.flatnonzero(counts)
  # (8/15, 9/15] and (11/15, 12/15].
  np.testing.assert_array_equal(filled, [8, 11])
  np.testing.assert_array_equal(counts[filled], [1, 3])
  np.testing.assert_allclose(confidences[filled], [0.6, 0.75])
  np.testing.assert_allclose(accuracies[filled], [1.0, 2.0 / 3.0])
  assert np.isnan(np.delete(accuracies, filled)).all()


def test_calibration_error_example():
  p = np.array([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75], [0.4, 0.6]])
  labels = np.array([0, 1, 1, 1])
  found = calibration.expected_calibration_error(labels, np.log(p))
  assert found == pytest.approx(0.1625)
  # Certain and right; certain and wrong; one bin evens out what several show.
  certain = np.array([[0.0, 99.0]])
  error = calibration.expected_calibration_error
  assert error(np.array([1]), certain) == pytest.approx(0.0)
  assert error(np.array([0]), certain) == pytest.approx(1.0)
  assert error(labels, np.log(p), bins=1) == pytest.approx(0.75 - 0.7125)


def test_temperature_example():
  logits = np.tile([np.log(9.0), 0.0], [4, 1])
  found = calibration.fit_temperature(np.array([0, 0, 0, 1]), logits)
  assert found == pytest.approx(2.0, rel=1e-4)


def test_model_that_is_never_wrong_has_no_temperature():
  logits = np.tile([np.log(9.0), 0.0], [4, 1])
  arrays = {'source_logits': logits, 'source_labels': np.zeros(4, int)}
  found = calibration.measure(model_outputs.Outputs(arrays))
  assert found['temperature'] is None
  assert found['source'] == pytest.approx({'error': 0.1, 'loss': -np.log(0.9)})


def test_scaling_mends_what_is_twice_too_certain():
  random = np.random.default_rng(0)
  logits = random.normal(0.0, 2.0, [4000, 3])
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  labels = (random.random((4000, 1)) > p.cumsum(axis=1)).sum(axis=1)
  arrays = {'source_logits': 2.0 * logits, 'source_labels': labels}
  found = calibration.measure(model_outputs.Outputs(arrays))
  assert found['temperature'] == pytest.approx(2.0, rel=0.05)
  assert found['source']['error'] > 0.08
  assert found['source']['error_scaled'] < 0.025
  assert found['source']['loss_scaled'] < found['source']['loss']
  assert found['oracle_target'] is None
