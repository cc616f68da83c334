"""The schedules against numbers worked out by hand."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfda import schedules


@pytest.mark.parametrize(
  'progress, expected',
  [
    (0.0, 0.0),
    # 2 / (1 + e^-1) - 1 = 2 / 1.3678794 - 1
    (0.1, 0.46211716),
    # 2 / (1 + e^-2.5) - 1 = 2 / 1.0820850 - 1
    (0.25, 0.84828364),
    (0.5, 0.98661),  # The docstring's.
    (1.0, 0.99991),  # The docstring's.
  ],
)
def test_adaptation_factor(progress, expected):
  factor = schedules.adaptation_factor(progress)
  np.testing.assert_allclose(factor, expected, atol=5e-6)


@pytest.mark.parametrize('gamma', [1.0, 3.0, 10.0])
def test_adaptation_factor_is_equation_14(gamma):
  for progress in np.linspace(0.0, 1.0, 11):
    published = 2.0 / (1.0 + math.exp(-gamma * progress)) - 1.0
    factor = schedules.adaptation_factor(progress, gamma=gamma)
    np.testing.assert_allclose(factor, published, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  'progress, expected',
  [
    (0.0, 2e-4),  # The docstring's, here and below.
    (0.5, 2e-4),
    (0.75, 1e-4),
    (0.9, 4e-5),
    (1.0, 0.0),
  ],
)
def test_linearly_decayed_learning_rate(progress, expected):
  rate = schedules.linearly_decayed_learning_rate(progress)
  np.testing.assert_allclose(rate, expected, rtol=1e-5)


def test_learning_rate_that_decays_from_the_first_step_or_late():
  def rate(start):
    return schedules.linearly_decayed_learning_rate(0.8, 1.0, start)

  np.testing.assert_allclose(rate(0.0), 0.2, rtol=1e-5)
  np.testing.assert_allclose(rate(0.9), 1.0, rtol=1e-5)


def test_adaptation_factor_at_extremes():
  assert float(schedules.adaptation_factor(0.7, gamma=0.0)) == 0.0
  assert float(schedules.adaptation_factor(1.0, gamma=1e6)) == 1.0
  assert float(schedules.adaptation_factor(0.0, gamma=1e6)) == 0.0
  factors = [float(schedules.adaptation_factor(p / 20)) for p in range(21)]
  assert factors == sorted(factors)
  assert len(set(factors)) == len(factors)


@pytest.mark.parametrize(
  'progress, expected',
  [
    (0.0, 0.01),  # The docstring's.
    # 2^0.75 = sqrt(2) * sqrt(sqrt(2)) = 1.4142136 * 1.1892071 = 1.6817928
    (0.1, 0.01 / 1.6817928),
    # 1 + 10 * 0.3 = 4 and 4^0.75 = 2 sqrt(2)
    (0.3, 0.01 / 2.8284271),
    # 1 + 10 * 0.8 = 9 and 9^0.75 = 3 sqrt(3)
    (0.8, 0.01 / 5.1961524),
    (1.0, 0.0016556),  # The docstring's.
  ],
)
def test_annealed_learning_rate(progress, expected):
  rate = schedules.annealed_learning_rate(progress)
  np.testing.assert_allclose(rate, expected, rtol=2e-5)


def test_annealed_learning_rate_with_other_constants():
  # 0.5 / (1 + 15 * 0.2)^0.5 = 0.5 / 2
  rate = schedules.annealed_learning_rate(0.2, 0.5, alpha=15.0, beta=0.5)
  np.testing.assert_allclose(rate, 0.25, rtol=1e-6)


def test_annealed_learning_rate_is_constant_without_alpha_or_beta():
  for progress in (0.0, 0.4, 1.0):
    for constants in ({'alpha': 0.0}, {'beta': 0.0}):
      rate = schedules.annealed_learning_rate(progress, 0.02, **constants)
      np.testing.assert_allclose(rate, 0.02, rtol=1e-7)


@pytest.mark.parametrize(
  'schedule', [schedules.adaptation_factor, schedules.annealed_learning_rate]
)
def test_schedules_take_numbers_and_tensors_of_any_type(schedule):
  expected = schedule(0.5)
  assert expected.dtype == tf.float32
  assert expected.shape == []
  for progress in (
    np.float64(0.5),
    tf.constant(0.5, tf.float16),
    tf.constant(0.5, tf.float64),
  ):
    value = tf.function(schedule)(progress)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(schedule(1), schedule(1.0))
