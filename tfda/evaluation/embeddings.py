"""Maps of features: points in a plane, near where the features are."""

import sys

import numpy as np

from tfda import errors

KINDS = ('tsne', 'umap')
_PHASES = (250, 500)  # Iterations with early exaggeration and without.
# Up to so many points the t-SNE of scikit-learn is the faster (of 800 a third
# of the time), beyond that of openTSNE, which has something for a bar too.
_SMALL = 5000
_EVERY = 10  # Iterations between the steps of the bar.


def map_features(features, seed, kind='tsne', title=None, dimensions=50):
  """Returns coordinates [n, 2] of features [n, D].

  They are first reduced to 50 dimensions by principal components. t-SNE (van
  der Maaten & Hinton 2008) has perplexity 30, or less for few points; UMAP
  (McInnes et al. 2018) is that of umap-learn, with its own settings.

  Args:
    features: [n, D].
    seed: of what is random.
    kind: of KINDS.
    title: of the progress bar, which a terminal shows where it takes longer;
      None for no bar.
    dimensions: of the principal components.

  Returns:
    None where there is nothing to map: fewer than five points, all points
    equal, or numbers that are not finite.

  Raises:
    UsageError: the package of UMAP is not installed.
  """
  import threadpoolctl
  from sklearn import decomposition

  features = features.reshape(len(features), -1).astype(np.float32)
  count, width = features.shape
  if (
    count < 5
    or width < 2
    or not np.isfinite(features).all()
    or np.ptp(features, axis=0).max() == 0
  ):
    return None
  # The threads of so small a job wait for each other: where other programs
  # have the cores too, two take ten times as long as one.
  with threadpoolctl.threadpool_limits(1):
    if width > dimensions:
      features = decomposition.PCA(
        min(dimensions, count), svd_solver='randomized', random_state=seed
      ).fit_transform(features)
    made = {'tsne': _tsne, 'umap': _umap}[kind](features, seed, title)
  return np.asarray(made, np.float32)


def _tsne(features, seed, title):
  perplexity = min(30.0, (len(features) - 1) / 3)
  if len(features) <= _SMALL:
    from sklearn import manifold

    return manifold.TSNE(
      perplexity=perplexity,
      init='pca',
      max_iter=sum(_PHASES),
      random_state=seed,
    ).fit_transform(features)
  import openTSNE
  import tqdm

  with tqdm.tqdm(
    total=sum(_PHASES),
    desc=title,
    unit='iteration',
    disable=True if title is None else None,
    leave=False,
  ) as bar:

    def advance(iteration, divergence, points):
      del iteration, divergence, points
      bar.update(_EVERY)  # Its result would end the optimisation.

    return openTSNE.TSNE(
      perplexity=perplexity,
      early_exaggeration_iter=_PHASES[0],
      n_iter=_PHASES[1],
      n_jobs=1,
      random_state=seed,
      callbacks=advance,
      callbacks_every_iters=_EVERY,
    ).fit(features)


def _umap(features, seed, title):
  try:
    import umap
  except ImportError as error:
    raise errors.UsageError(
      '--map=umap: the package umap-learn is not installed; pip install '
      'umap-learn, or leave --map=tsne'
    ) from error
  return umap.UMAP(
    random_state=seed,
    n_jobs=1,
    tqdm_kwds={
      'desc': title,
      'disable': title is None or not sys.stderr.isatty(),
    },
    verbose=title is not None,
  ).fit_transform(features)
