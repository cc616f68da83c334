"""tfda.evaluation.changes: what adaptation changed, image by image."""

import numpy as np
import pytest

from tests import saved_outputs
from tfda.evaluation import changes, evaluate, finished

_LABELS = np.arange(100) % 2


def _write(path, right, certainty, **changed):
  """A run that is right for these images, with these logits for its class."""
  made = saved_outputs.outputs(count=100)
  predictions = np.where(right, _LABELS, 1 - _LABELS)
  made.arrays['target_labels'] = _LABELS
  made.arrays['target_logits'] = np.eye(2)[predictions] * certainty[:, None]
  for side in ('source', 'target'):
    made.arrays[f'{side}_images'] = np.zeros((40, 8, 8, 3), np.uint8)
  results = {'method': 'dann', 'backbone': 'x', 'steps': 1, 'seed': 0}
  written = saved_outputs.write_run(path, made, **{**results, **changed})
  return finished.read(written)


@pytest.fixture(scope='module')
def change(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  numbers = np.arange(100)
  baseline = _write(
    root / 'before',
    numbers >= 5,  # Wrong: 0 to 4.
    np.full(100, 3.0),
    method='source_only',
  )
  certainty = np.full(100, 3.0)
  certainty[[7, 8]] = 1.0, 0.5
  # Gained: 0 to 4; lost: 10 to 29, and 90, which is not kept.
  right = ~np.isin(numbers, [*range(10, 30), 90])
  return changes.of(_write(root / 'after', right, certainty), baseline)


def test_gained_and_lost_images_are_counted_and_some_shown(change):
  assert change.counts == (5, 21)
  assert len(change.gained) == 5 and len(change.lost) == 12
  for sample in change.gained:
    assert sample.correct and sample.remark.startswith('before: ')
    assert sample.remark != f'before: {sample.predicted}'
  for sample in change.lost:
    assert (
      sample.correct is False and sample.remark == f'before: {sample.label}'
    )


def test_highest_loss_of_certainty_comes_first(change):
  # H of the sigmoids of 3, 1 and 0.5: 0.1914, 0.5822 and 0.6628.
  assert [sample.remark for sample in change.uncertain] == [
    'entropy 0.19 → 0.66',
    'entropy 0.19 → 0.58',
  ]


def test_hurt_is_said(change):
  assert any('adaptation hurt' in line for line in change.judged.warnings)
  assert 'a ' in change.shares.caption and change.refused == ''


def test_baseline_is_of_the_same_domains_and_seed(tmp_path):
  all_right, certain = np.ones(100, bool), np.full(100, 3.0)
  runs = [
    _write(tmp_path / str(i), all_right, certain, **changed)
    for i, changed in enumerate(
      [
        {'method': 'source_only', 'seed': 0},
        {'method': 'source_only', 'seed': 1},
        {'seed': 1},
        {'seed': 2},
        {'target': 'elsewhere'},
      ]
    )
  ]
  found = changes.of_all(runs)
  assert [(c.run, c.baseline) for c in found] == [
    (runs[2], runs[1]),
    (runs[3], runs[0]),
  ]
  assert found[0].counts == (0, 0) and found[0].uncertain == ()


def test_runs_of_other_classes_are_refused_with_the_reason(tmp_path):
  all_right, certain = np.ones(100, bool), np.full(100, 3.0)
  baseline = _write(tmp_path / 'a', all_right, certain, method='source_only')
  run = _write(tmp_path / 'b', all_right, certain)
  (tmp_path / 'b' / 'classes.json').write_text('["a", "c"]')
  refused = changes.of(run, baseline).refused
  assert refused.startswith('its classes are not those of ')


def test_kept_images_are_small_and_no_more_than_fit(monkeypatch):
  images = np.zeros((5, 192, 96, 3), np.uint8)
  images[3, :, 48:] = 200
  kept = np.array([3, 1, 4])
  found = evaluate.small_images(images, kept)
  assert found.shape == (3, 96, 48, 3)
  # Each pixel is the mean of four.
  np.testing.assert_array_equal(found[0, :, :24], 0)
  np.testing.assert_array_equal(found[0, :, 24:], 200)
  np.testing.assert_array_equal(found[1:], 0)
  small = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
  np.testing.assert_array_equal(evaluate.small_images(small, kept), small[kept])
  monkeypatch.setattr(evaluate, '_IMAGE_BYTES', 2 * 48)
  np.testing.assert_array_equal(
    evaluate.small_images(small, kept), small[[3, 1]]
  )
