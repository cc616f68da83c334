"""tfda.evaluation.embeddings: maps of features, by whichever package."""

import sys
import types

import numpy as np
import pytest

from tfda import errors
from tfda.evaluation import embeddings


def _groups():
  """Features of two groups of 30, far from each other; and which is whose."""
  groups = np.repeat([0, 1], 30)
  random = np.random.default_rng(0)
  return random.normal(size=(60, 80)) + 20 * groups[:, None], groups


@pytest.mark.parametrize('small', [100, 10])
def test_map_keeps_groups_apart_and_repeats(small, monkeypatch):
  """That of few points, and that of many."""
  monkeypatch.setattr(embeddings, '_SMALL', small)
  features, groups = _groups()
  points = embeddings.map_features(features, seed=1)
  again = embeddings.map_features(features, seed=1)
  np.testing.assert_array_equal(points, again)
  centres = [points[groups == i].mean(axis=0) for i in (0, 1)]
  for i in (0, 1):
    near, far = (
      np.linalg.norm(points[groups == i] - centre, axis=1)
      for centre in (centres[i], centres[1 - i])
    )
    assert np.all(near < far)


@pytest.mark.parametrize(
  'features',
  [
    np.ones((20, 4)),
    np.full((20, 4), np.nan),
    np.random.default_rng(0).normal(size=(4, 4)),
  ],
)
def test_nothing_to_map(features):
  assert embeddings.map_features(features, seed=0) is None


def test_a_long_map_has_a_bar_that_gets_to_its_end(monkeypatch, capsys):
  monkeypatch.setattr(embeddings, '_SMALL', 10)
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
  ends = []

  class Bar:
    def __init__(self, total, desc, disable, **_):
      self.done, self.total = 0, total
      assert (desc, disable) == ('map of a run', None)

    def __enter__(self):
      return self

    def __exit__(self, *_):
      ends.append((self.done, self.total))

    def update(self, count):
      self.done += count

  monkeypatch.setattr('tqdm.tqdm', Bar)
  embeddings.map_features(_groups()[0], 0, title='map of a run')
  assert ends == [(750, 750)]


def test_umap_is_asked_for_fifty_components_or_missed_by_name(monkeypatch):
  features, _ = _groups()
  monkeypatch.setitem(sys.modules, 'umap', None)
  with pytest.raises(errors.UsageError, match='--map=umap: .*umap-learn'):
    embeddings.map_features(features, 0, 'umap')

  class UMAP:
    def __init__(self, random_state, **_):
      assert random_state == 7

    def fit_transform(self, features):
      assert features.shape == (60, 50)
      return features[:, :2]

  monkeypatch.setitem(sys.modules, 'umap', types.SimpleNamespace(UMAP=UMAP))
  assert embeddings.map_features(features, 7, 'umap').shape == (60, 2)
