"""Negative transfer: a run beside one without adaptation."""

import numpy as np
import pytest

from tests import tiny_run
from tests.saved_outputs import outputs, write_run
from tfda import errors
from tfda.evaluation import comparison
from tools import evaluate


def spoiled(made, wrong, side='target'):
  """The same with the predictions of the first images turned round."""
  logits = made[f'{side}_logits'].copy()
  logits[:wrong] *= -1.0
  return type(made)({**made.arrays, f'{side}_logits': logits})


@pytest.fixture
def pair(tmp_path):
  made = outputs(shift=1.0)
  return (
    write_run(tmp_path / 'before', made),
    write_run(tmp_path / 'after', spoiled(made, 100)),
  )


def test_difference_is_that_of_pairs():
  before = np.arange(100) < 80
  after = np.arange(100) < 90
  found = comparison.difference('share', before, after)
  assert (found.before, found.after, found.better) == (0.8, 0.9, True)
  # Of 100 images 10 differ: 0.1 -+ 1.96 sqrt(0.1 * 0.9 / 100), narrower than
  # of two samples that have nothing to do with each other.
  assert found.interval == pytest.approx((0.0412, 0.1588), abs=0.012)
  reverse = comparison.difference('share', before, after, greater=False)
  assert reverse.better is False
  same = comparison.difference('share', before, before)
  assert same.better is None and same.interval == (0.0, 0.0)


def test_implausible_classes_example():
  shares, expected = np.array([0.95, 0.05, 0.0]), np.array([0.5, 0.4, 0.1])
  assert comparison.implausible(shares, expected, 100) == ([1, 2], [])
  # Too few to tell; and a class that is flooded.
  assert comparison.implausible(shares, expected, 15) == ([], [])
  expected = np.array([0.2, 0.7, 0.1])
  assert comparison.implausible(shares, expected, 100) == ([1, 2], [0])


def test_run_that_hurts_is_told_with_and_without_labels(pair, tmp_path):
  found = comparison.compare(pair[1], pair[0], resamples=200)
  assert found.agreement == pytest.approx(0.75)
  assert found.oracle.better is False
  assert found.oracle.before - found.oracle.after == pytest.approx(
    0.25, abs=0.01
  )
  by_name = {x.name: x for x in found.differences}
  assert by_name['cluster_separation'].better is False
  assert (
    by_name['reverse_validation'].after >= by_name['reverse_validation'].before
  )
  assert by_name['source_accuracy'].interval == (0.0, 0.0)
  assert found.warnings[0].startswith('adaptation hurt: the target accuracy')
  np.testing.assert_allclose(found.shares.sum(axis=1), 1.0)

  made = outputs(shift=1.0)
  made.arrays.pop('target_labels')
  hurt = spoiled(spoiled(made, 100), 60, 'source')
  paths = [
    write_run(tmp_path / 'a', made),
    write_run(tmp_path / 'b', hurt),
  ]
  found = comparison.compare(paths[1], paths[0], resamples=200)
  assert found.oracle is None
  assert found.warnings[0].startswith('the source is no longer classified: 85.')
  # The other way round there is nothing to warn of.
  assert comparison.compare(*paths, resamples=200).warnings == ()


def test_collapse_is_told_by_the_classes_alone(tmp_path):
  made = outputs()
  before = write_run(tmp_path / 'before', made)
  made.arrays['target_logits'] = np.tile([0.0, 5.0], [400, 1])
  found = comparison.compare(
    write_run(tmp_path / 'after', made), before, resamples=50
  )
  (line,) = [x for x in found.warnings if 'hardly ever' in x]
  assert line.startswith('1 of 2 classes are predicted hardly ever')
  assert 'a 0.0% (source ' in line and line.endswith('by the baseline 0')


def test_runs_of_other_data_are_refused(pair, tmp_path):
  fewer = write_run(tmp_path / 'fewer', outputs(count=50))
  other = write_run(tmp_path / 'other', outputs(), target='up')
  with pytest.raises(errors.UsageError, match='400 source test images'):
    comparison.compare(fewer, pair[0])
  with pytest.raises(errors.UsageError, match='its target is up, that of'):
    comparison.compare(pair[0], other)
  (tmp_path / 'other' / 'classes.json').write_text('["a", "c"]')
  (tmp_path / 'other' / 'results.json').write_text(
    (tmp_path / 'fewer' / 'results.json').read_text()
  )
  with pytest.raises(errors.UsageError, match='its classes are not those of'):
    comparison.compare(pair[0], other)
  (tmp_path / 'fewer' / 'evaluation.npz').unlink()
  with pytest.raises(errors.UsageError, match='no evaluation.npz'):
    comparison.compare(fewer, pair[0])


def test_tool_prints_differences_shares_and_warnings(pair, monkeypatch, capsys):
  words = [f'--run_dir={pair[1]}', f'--compare={pair[0]}', '--resamples=50']
  assert tiny_run.call(evaluate, monkeypatch, *words) == 0
  out = capsys.readouterr().out
  rows = {line.split()[0]: line.split() for line in out.splitlines() if line}
  assert rows['oracle_target_accuracy'][-1] == 'worse'
  assert rows['source_accuracy'][-1] == '+0.0000'
  assert 'predicted for 75.00% of the target' in out
  assert rows['a'][1].endswith('%') and len(rows['a']) == 4
  assert 'warning: adaptation hurt' in out
