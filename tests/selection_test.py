"""Choosing among runs without target labels."""

import json

import pytest

from tests import tiny_run
from tfda import errors
from tfda.evaluation import selection
from tools import select


def run(path, source, score, entropy=0.0, target=0.0):
  path.mkdir(parents=True)
  validators = {
    'source_accuracy': source,
    'information_maximisation': score,
    'target_entropy': entropy,
  }
  results = {'validators': validators, 'accuracy': {'target': target}}
  (path / 'results.json').write_text(json.dumps(results))
  return str(path)


@pytest.fixture
def runs(tmp_path):
  return [
    run(tmp_path / 'spread', 0.95, 1.0, 0.9, target=0.9),
    run(tmp_path / 'best', 0.96, 2.0, 0.5, target=0.1),
    run(tmp_path / 'collapsed', 0.90, 2.2, 0.1, target=0.2),
  ]


def test_best_score_wins_among_those_that_classify_the_source(runs):
  ranked = selection.rank(runs)
  assert [c.run_dir.split('/')[-1] for c in ranked] == [
    'best',
    'spread',
    'collapsed',
  ]
  assert [c.admitted for c in ranked] == [True, True, False]


def test_entropy_is_better_when_lower(runs):
  ranked = selection.rank(runs, 'target_entropy', tolerance=1.0)
  assert [c.score for c in ranked] == [0.1, 0.5, 0.9]


def test_unknown_validator_names_near_ones(runs):
  with pytest.raises(errors.UsageError, match='did you mean target_entropy'):
    selection.rank(runs, 'target_entrop')


def test_tool_shows_no_target_accuracy(runs, monkeypatch, capsys):
  assert tiny_run.call(select, monkeypatch, *runs) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].split() == ['1', '2.0000', '96.00%', runs[1]]
  assert lines[3].split() == ['-', '2.2000', '90.00%', runs[2]]
  assert tiny_run.call(select, monkeypatch) == 2
