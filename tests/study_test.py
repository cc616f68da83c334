"""How validators' rankings are compared with the truth."""

import json

import numpy as np
import pytest

from tests import tiny_run
from tests.saved_outputs import outputs, write_run
from tfda import errors
from tfda.evaluation import study, validators
from tools import validators_study


def test_judgement_example():
  scores, truth = np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.7, 0.6])
  found = study.judge(scores, truth, np.array([True] * 3), ['a', 'b', 'c'])
  assert found['spearman'] == pytest.approx(0.5)
  assert found['regret'] == pytest.approx(0.1) and found['chosen'] == 'c'
  # A run that has given up on the source is not chosen, whatever its score.
  admitted = np.array([True, True, False])
  found = study.judge(scores, truth, admitted, ['a', 'b', 'c'])
  assert (found['regret'], found['chosen']) == (0.0, 'b')
  same = study.judge(np.ones(3), truth, admitted, ['a', 'b', 'c'])
  assert same['spearman'] is None


@pytest.fixture
def runs(tmp_path):
  """Four runs, each wrong about more of the target than the one before."""
  paths = []
  for i, wrong in enumerate((0, 40, 80, 120)):
    made = outputs(shift=1.0)
    made.arrays['target_logits'][:wrong] *= -1.0
    paths.append(write_run(tmp_path / 'runs' / f'run{i}', made))
  return paths


def test_study_of_runs_that_get_worse(runs):
  (task,) = study.study(runs).values()
  assert task['best'] == 1.0
  # Of 400 target images 0, 40, 80 and 120 are misclassified: the mean is 15 %.
  assert task['chance'] == pytest.approx(0.15)
  assert list(task['runs']) == ['run0', 'run1', 'run2', 'run3']
  for name in ('cluster_separation', 'reverse_validation'):
    assert task['validators'][name]['spearman'] >= 0.8
    assert task['validators'][name]['chosen'] == 'run0'
  # What looks at the features alone sees no difference.
  assert task['validators']['domain_error']['spearman'] is None
  assert task['validators']['discriminator_error'] is None


def test_tool_writes_and_prints(runs, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'study.json'
  words = [*runs, f'--out={out}']
  assert tiny_run.call(validators_study, monkeypatch, *words) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    '| validator | Spearman, mean | regret, mean | left to right |'
  )
  rows = {line.split(' | ')[0].strip('| '): line for line in lines[2:]}
  assert set(rows) == {
    *(set(validators.VALIDATORS) - {'discriminator_error'}),
    '*at random*',
  }
  assert rows['cluster_separation'].endswith('| 1.00 / 0.00 |')
  assert rows['domain_error'].startswith('| domain_error | – |')
  assert rows['*at random*'] == '| *at random* | 0.00 | 15.00 | 0.00 / 15.00 |'
  with open(out) as file:
    written = json.load(file)
  assert str(tmp_path) not in json.dumps(written)
  assert study.table(written) == '\n'.join(lines)


def test_runs_that_tell_nothing_are_refused(runs, tmp_path, monkeypatch):
  with pytest.raises(errors.UsageError, match='left to right: 3 runs, run0, '):
    study.study(runs[:3])
  made = outputs()
  del made.arrays['target_labels']
  blind = write_run(tmp_path / 'runs' / 'blind', made)
  with pytest.raises(errors.UsageError, match='blind: its target has no label'):
    study.study([*runs, blind])
  assert tiny_run.call(validators_study, monkeypatch) == 2
