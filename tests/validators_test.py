"""Validators by hand: the examples of their docstrings, and their use."""

import numpy as np
import pytest
from scipy import special

from tests import harness
from tests.saved_outputs import outputs
from tfda.evaluation import evaluate, model_outputs, validators


def logits(*probabilities):
  return special.xlogy(1.0, np.maximum(probabilities, 1e-300))


def test_entropy_example():
  found = validators.entropies(logits([0.5, 0.25, 0.25], [1.0, 0.0, 0.0]))
  np.testing.assert_allclose(found, [1.5 * np.log(2), 0.0], atol=1e-9)


def test_cross_entropy_example():
  found = validators.cross_entropies(
    np.array([1, 0]), logits([0.5, 0.25, 0.25], [0.5, 0.25, 0.25])
  )
  np.testing.assert_allclose(found, [np.log(4), np.log(2)])


def test_information_maximisation_example():
  p = np.array([[1.0, 0.0], [0.5, 0.5]])
  rows = np.column_stack([p, [0.0, np.log(2)]])
  expected = -0.75 * np.log(0.75) - 0.25 * np.log(0.25) - np.log(2) / 2
  assert expected == pytest.approx(0.2158, abs=5e-5)
  assert validators.information_maximisation(rows) == pytest.approx(expected)
  # Certain and spread: ln C.
  rows = np.column_stack([np.eye(3), np.zeros(3)])
  assert validators.information_maximisation(rows) == pytest.approx(np.log(3))


def test_nuclear_norm_example_and_bounds():
  norm = validators.batch_nuclear_norm
  assert norm(np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5**0.5)
  assert norm(np.tile(np.eye(4), [5, 1])) == pytest.approx(1.0)
  # Fewer images than classes.
  assert norm(np.eye(2, 5)) == pytest.approx(1.0)
  random = special.softmax(np.random.default_rng(0).normal(size=(9, 4)), axis=1)
  expected = np.linalg.svd(random, compute_uv=False).sum() / np.sqrt(9 * 4)
  assert norm(random) == pytest.approx(expected)


def test_neighbourhood_example():
  certain = logits([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
  found = validators.neighbourhood_entropies(certain, temperature=1.0)
  p = np.e / (np.e + 1)
  expected = -p * np.log(p) - (1 - p) * np.log(1 - p)
  assert expected == pytest.approx(0.5822, abs=5e-5)
  np.testing.assert_allclose(found, [expected, expected, np.log(2)], rtol=1e-9)
  # Ten images of each of two classes: each has nine neighbours.
  dense = logits(*10 * [[1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(
    validators.neighbourhood_entropies(dense), np.log(9), atol=1e-6
  )


def test_silhouette_example_and_one_class_alone():
  features = np.array([[0.0], [1.0], [5.0]])
  found = validators.silhouettes(features, np.array([0, 0, 1]))
  np.testing.assert_allclose(found, [0.8, 0.75, 0.0])
  np.testing.assert_array_equal(
    validators.silhouettes(features, np.array([2, 2, 2])), [-1.0] * 3
  )
  np.testing.assert_array_equal(
    validators.silhouettes(features, np.array([2, 0, 1])), [0.0] * 3
  )


def test_reduce_example_and_components():
  source, target = model_outputs.reduce(
    np.array([[0.0], [2.0]]), np.array([[4]])
  )
  np.testing.assert_allclose(source, [[-(1.5**0.5)], [0.0]], atol=1e-6)
  np.testing.assert_allclose(target, [[1.5**0.5]], atol=1e-6)
  random = np.random.default_rng(0)
  wide = random.normal(size=(30, 3)) @ random.normal(size=(3, 40))
  source, target = model_outputs.reduce(wide[:20], wide[20:], width=3)
  assert source.shape == (20, 3) and target.shape == (10, 3)
  # Three dimensions hold all of it: distances are kept, up to the one scale.
  ratio = np.linalg.norm(source[0] - target[0]) / np.linalg.norm(
    wide[0] - wide[20]
  )
  np.testing.assert_allclose(
    np.linalg.norm(source - source[:1], axis=1),
    ratio * np.linalg.norm(wide[:20] - wide[:1], axis=1),
    atol=1e-5,
  )


def test_deep_embedded_validation_example():
  rows = np.array([[1.0, 0.0], [2.0, 1.0]])
  assert validators.deep_embedded_validation(rows) == pytest.approx(0.0)
  # Where the density is the same, it is the loss on the source.
  rows = np.array([[1.0, 0.0], [1.0, 1.0]])
  assert validators.deep_embedded_validation(rows) == 0.5


def test_domain_error_example():
  rows = validators.domain_errors(np.array([True, False]), np.array([False]))
  np.testing.assert_allclose(rows, [0.75, 0.0, 0.0])
  assert rows.mean() == pytest.approx(0.25)


def test_reverse_example():
  features, labels = np.array([[-1.0], [1.0]]), np.array([0, 1])
  for predictions, expected in ((labels, 0), (1 - labels, 2), ([1, 1], 1)):
    wrong = validators.reverse_errors(
      features, labels, features, np.array(predictions)
    )
    assert wrong.sum() == expected


def test_density_ratio_estimates_that_of_two_gaussians():
  # The one that is twice as frequent is not for that the likelier: w is e^(x -
  # 1/2) of unit Gaussians with means 0 and 1.
  random = np.random.default_rng(0)
  source = random.normal(0.0, 1.0, [4000, 1])
  target = random.normal(1.0, 1.0, [2000, 1])
  found, _ = model_outputs.density_ratios(source, target)
  expected = np.exp(source[:, 0] - 0.5)
  near = np.abs(source[:, 0]) < 2.0
  np.testing.assert_allclose(found[near], expected[near], rtol=0.3)
  assert found.mean() == pytest.approx(1.0, abs=0.1)


def test_measures_of_domains_that_are_the_same_and_that_are_not():
  same, apart = (validators.measure(outputs(shift)) for shift in (0.0, 9.0))
  assert same['domain_error'] == pytest.approx(0.5, abs=0.06)
  assert apart['domain_error'] < 0.01
  made = outputs()
  loss = validators.cross_entropies(
    made['source_labels'], made['source_logits']
  ).mean()
  assert same['deep_embedded_validation'] == pytest.approx(loss, rel=0.1)
  assert same['reverse_validation'] < 0.02
  assert same['cluster_separation'] > 0.3
  assert same['discriminator_error'] is None


def test_error_of_the_method_s_own_domain_classifier():
  found = outputs(count=4)
  found.arrays['source_domain_logits'] = np.array([1.0, 2.0, 3.0, -1.0])
  found.arrays['target_domain_logits'] = np.array([1.0, 2.0, -3.0, -1.0])
  measured = validators.measure(found, ('discriminator_error',))
  assert measured == {'discriminator_error': (1 / 4 + 2 / 4) / 2}


def test_what_too_few_images_cannot_tell_is_none():
  few = outputs(count=3)
  measured = validators.measure(few)
  missing = {name for name, score in measured.items() if score is None}
  assert missing == {
    'discriminator_error',
    'domain_error',
    'deep_embedded_validation',
    'reverse_validation',
  }
  assert all(np.isfinite(v) for v in measured.values() if v is not None)


def test_pairs_are_of_a_sample_that_is_the_same_every_time(monkeypatch):
  monkeypatch.setattr(model_outputs, 'SAMPLE', 50)
  names = ('soft_neighbourhood_density', 'cluster_separation')
  one, again = (validators.measure(outputs(), names) for _ in range(2))
  assert one == again
  chosen = np.random.default_rng(0).permutation(400)[:50]
  made = outputs()
  assert one['soft_neighbourhood_density'] == pytest.approx(
    validators.neighbourhood_entropies(made['target_logits'][chosen]).mean()
  )


def test_bootstrap_has_the_standard_error_of_a_mean():
  rows = np.random.default_rng(1).normal(size=500)
  means = validators.bootstrap(rows, resamples=2000)
  assert means.std() == pytest.approx(rows.std() / np.sqrt(500), rel=0.1)
  assert means.mean() == pytest.approx(rows.mean(), abs=0.005)
  np.testing.assert_array_equal(
    means[:9], validators.bootstrap(rows, resamples=9)
  )
  assert np.all(validators.bootstrap(np.full(5, 2.0), resamples=3) == 2.0)


@pytest.mark.parametrize(
  'method', ['dann', 'gsda', 'tada', 'cdan', 'source_only']
)
def test_outputs_hold_the_method_s_domain_classifier(method, monkeypatch):
  run = harness.Run(harness.settings(method))
  monkeypatch.setattr(evaluate, '_KEPT', 40)
  found = evaluate.outputs(run.model, run.data)
  assert found['target_logits'].shape == (512, 2)
  assert found['target_features'].shape[0] == 40
  if method == 'source_only':
    assert 'source_domain_logits' not in found.arrays
    return
  # Those of the loss: 1 is the source.
  heads = {
    'dann': lambda x, _: run.model.discriminator(x),
    'gsda': lambda x, _: run.model.discriminators(x)[0],
    'tada': lambda x, _: run.model.discriminator(x),
    'cdan': lambda x, y: run.model.discriminator(x, y),
  }
  for side in ('source', 'target'):
    np.testing.assert_allclose(
      found[f'{side}_domain_logits'],
      heads[method](found[f'{side}_features'], found.kept(f'{side}_logits')),
      rtol=1e-5,
    )
  scores = run.model.scores(run.data)
  assert tuple(scores) == run.model.SCORES
  assert scores['validator/discriminator_error'] == pytest.approx(
    np.mean(
      [
        np.mean(found['source_domain_logits'] <= 0),
        np.mean(found['target_domain_logits'] > 0),
      ]
    )
  )
