"""tfda.evaluation.seeds: runs that differ in their seed alone."""

import numpy as np
import pytest

from tfda.evaluation import finished, seeds


def test_interval_is_that_of_the_docstring():
  found = seeds.spread([0.5, 0.6, 0.7])
  assert found.mean == pytest.approx(0.6)
  assert found.deviation == pytest.approx(0.1)
  # t of 2 degrees of freedom, 97.5 %: 4.3027 (any table of it).
  half = 4.302653 * 0.1 / np.sqrt(3.0)
  np.testing.assert_allclose(found.interval, (0.6 - half, 0.6 + half), 1e-6)
  np.testing.assert_allclose(found.interval, (0.3516, 0.8484), atol=5e-5)


def test_one_value_has_no_deviation_and_a_missing_one_no_mean():
  assert seeds.spread([0.25]) == seeds.Spread(0.25, None, None)
  assert seeds.spread([0.25, None]) is None


def _run(path, settings, method='dann', target='right'):
  results = {
    'method': method,
    'source': 'left',
    'target': target,
    'backbone': 'small',
    'steps': 10,
  }
  return finished.Run(path, results, [], None, [], settings, None)


def test_seeds_and_paths_do_not_tell_groups_apart_but_settings_do():
  first = _run('runs/a/0', '--momentum=0.9\n--seed=0\n--run_dir=runs/a/0\n')
  second = _run('runs/a/1', '--momentum=0.9\n--seed=1\n--run_dir=runs/a/1\n')
  other = _run('runs/b/0', '--momentum=0.5\n--seed=0\n--run_dir=runs/b/0\n')
  plain = _run('runs/c/0', '--seed=0\n', method='source_only')
  assert seeds.groups([first, other, plain, second]) == {
    'dann (runs/a)': [first, second],
    'dann (runs/b/0)': [other],
    'source_only': [plain],
  }
  up = _run('runs/d', '', target='up')
  assert list(seeds.groups([plain, up])) == [
    'source_only, left → right',
    'dann, left → up',
  ]
