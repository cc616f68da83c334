"""Choosing among runs without target labels."""

import json

import numpy as np
import pytest

from tests import tiny_run
from tfda import errors
from tfda.evaluation import selection, validators
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
  with pytest.raises(errors.UsageError, match='has no such figure; it has inf'):
    selection.rank(runs, 'domain_error')


def keep(path, correct, seed=0):
  """evaluation.npz of a run that is right about `correct` of 100 images."""
  random = np.random.default_rng(seed)
  arrays = {}
  for side in ('source', 'target'):
    labels = np.arange(100) % 2
    predicted = np.where(np.arange(100) < correct, labels, 1 - labels)
    arrays[f'{side}_labels'] = labels
    arrays[f'{side}_logits'] = 9.0 * np.eye(2)[predicted]
    arrays[f'{side}_kept'] = np.arange(100)
    arrays[f'{side}_features'] = random.normal(size=(100, 3))
  np.savez(f'{path}/evaluation.npz', **arrays)


def test_interval_is_that_of_a_share_of_the_test_images(runs):
  keep(runs[0], 90)
  found = {c.run_dir: c for c in selection.rank(runs, 'source_accuracy')}
  assert found[runs[1]].interval is None
  # Of 100 images 90 % are right: 0.9 -+ 1.96 sqrt(0.9 * 0.1 / 100).
  assert found[runs[0]].score == 0.9
  assert found[runs[0]].interval == pytest.approx((0.8412, 0.9588), abs=0.012)
  (bare,) = selection.rank(runs[:1], 'source_accuracy', resamples=0)
  assert bare.interval is None


def test_validator_that_the_results_lack_is_measured_anew(runs):
  keep(runs[0], 90)
  ((found),) = selection.rank(runs[:1], 'batch_nuclear_norm')
  # As many of both classes, all certain.
  assert found.score == pytest.approx(1.0, abs=1e-3)


def test_every_validator_can_choose(runs):
  keep(runs[0], 90)
  for name in validators.VALIDATORS:
    if name != 'discriminator_error':
      assert selection.rank(runs[:1], name, resamples=3)[0].admitted


def test_broken_arrays_are_named(runs):
  keep(runs[0], 90)
  with open(f'{runs[0]}/evaluation.npz', 'r+b') as file:
    file.truncate(100)
  with pytest.raises(errors.UsageError, match='npz: cannot be read'):
    selection.rank(runs)
  np.savez(f'{runs[0]}/evaluation.npz', source_logits=np.eye(2))
  with pytest.raises(errors.UsageError, match='has no source_kept'):
    selection.rank(runs)


def test_every_evaluation_is_ranked(runs, monkeypatch, capsys):
  for path, scores in zip(runs, ([0.5, 0.9], [1.5, 1.2], [3.0, 2.0])):
    lines = ['step,accuracy/source,validator/information_maximisation']
    lines += ['50,,', f'100,0.95,{scores[0]}', f'200,0.96,{scores[1]}']
    with open(f'{path}/metrics.csv', 'w') as file:
      file.write('\n'.join(lines) + '\n')
  ranked = selection.rank(runs[:2], steps=True)
  assert [(c.run_dir, c.step, c.score) for c in ranked] == [
    (runs[1], 100, 1.5),
    (runs[1], 200, 1.2),
    (runs[0], 200, 0.9),
    (runs[0], 100, 0.5),
  ]
  assert tiny_run.call(select, monkeypatch, '--steps', *runs[:2]) == 0
  assert f'{runs[1]} at step 100' in capsys.readouterr().out.splitlines()[1]
  with pytest.raises(errors.UsageError, match='no column validator/domain_er'):
    selection.rank(runs, 'domain_error', steps=True)


def test_tool_shows_no_target_accuracy(runs, monkeypatch, capsys):
  assert tiny_run.call(select, monkeypatch, *runs) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[1].split() == ['1', '2.0000', '96.00%', runs[1]]
  assert lines[3].split() == ['-', '2.2000', '90.00%', runs[2]]
  assert tiny_run.call(select, monkeypatch) == 2


def test_tool_names_every_validator():
  assert all(name in select.__doc__ for name in validators.VALIDATORS)
