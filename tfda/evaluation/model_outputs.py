"""What a model makes of the test images, and what is trained on that.

Functions of numpy arrays, as evaluation.npz has them.
"""

import functools

import numpy as np
import threadpoolctl
from scipy import special

SAMPLE = 2000  # Images that are compared in pairs.
WIDTH = 256  # Of features that something is trained on.
_LEAST = 4  # Images of a domain of which both halves can be trained on.
# Where other programs have the cores too, the threads of so small a job wait
# for each other ten times as long as one takes.
one_thread = threadpoolctl.threadpool_limits.wrap(limits=1)


class Outputs:
  """What a model makes of the test images of both domains.

  Attributes:
    arrays: as in evaluation.npz; see evaluate.evaluate.
    rows: of the validators that comparisons have asked for, by name.
  """

  def __init__(self, arrays):
    self.arrays = arrays
    self.rows = {}

  def __getitem__(self, name):
    return self.arrays[name]

  def kept(self, name):
    """An array of all images, as 'source_labels', of those with features."""
    side = name.split('_')[0]
    return self.arrays[name][self.arrays[f'{side}_kept']]

  def accuracy(self, side):
    """In [0, 1]; None without labels. That on the target is an oracle's."""
    if f'{side}_labels' not in self.arrays:
      return None
    predictions = self[f'{side}_logits'].argmax(axis=1)
    return float(np.mean(predictions == self[f'{side}_labels']))

  def has_halves(self):
    """Whether there are images to train on and others to test with."""
    return all(
      len(self[f'{side}_features']) >= _LEAST for side in ('source', 'target')
    )

  @functools.cached_property
  def wrong(self):
    """[N] booleans: source images that are misclassified."""
    predictions = self['source_logits'].argmax(axis=1)
    return predictions != self['source_labels']

  @functools.cached_property
  def probabilities(self):
    """[N, C], of target images."""
    return special.softmax(self['target_logits'].astype(np.float64), axis=1)

  @functools.cached_property
  def reduced(self):
    """The features of both domains, of `reduce`."""
    return reduce(self['source_features'], self['target_features'])

  @functools.cached_property
  def ratios(self):
    return density_ratios(*self.reduced)


def sampled(count):
  """Numbers of up to SAMPLE of `count` images, at random (seed 0)."""
  if count <= SAMPLE:
    return np.arange(count)
  return np.random.default_rng(0).permutation(count)[:SAMPLE]


@one_thread
def reduce(source, target, width=WIDTH):
  """Features of both domains on one scale, no wider than `width`.

  Centred, by their principal components where they are wider, and divided by
  one number, the root mean square of what is left, so that what is trained on
  them is regularised alike in every run. For example [[0], [2]] and [[4]]: the
  mean is 2, the root mean square sqrt(8/3) = 1.633, [[-1.2247], [0]] and
  [[1.2247]].

  Args:
    source, target: [N, D], [M, D].
    width: in components.

  Returns:
    Two arrays, [N, min(D, width)] and [M, min(D, width)], float64.
  """
  both = np.concatenate([source, target]).astype(np.float32)
  both -= both.mean(axis=0)
  if both.shape[1] > width:
    from sklearn import decomposition

    both = decomposition.PCA(
      min(width, len(both)),
      svd_solver='randomized',
      iterated_power=2,  # The default of 4 costs twice that, for no use here.
      random_state=0,
    ).fit_transform(both)
  both = both.astype(np.float64)
  both /= max(np.sqrt(np.mean(both**2)), np.finfo(np.float64).tiny)
  return both[: len(source)], both[len(source) :]


def density_ratios(source, target):
  """How much likelier an image's features are in the target: w(x), held out.

  You et al. 2019 (DEV), from a domain classifier, here a logistic regression
  (scikit-learn, C = 1) trained on one half of both domains for the other:

    w(x) = n_s / n_t  P(target | x) / P(source | x)

  Where both domains are the same, about 1 everywhere.

  Args:
    source: features [N, D] of `reduce`.
    target: [M, D].

  Returns:
    w of the source images [N], of the target images [M].
  """
  from sklearn import linear_model

  logits = held_out(
    linear_model.LogisticRegression(max_iter=1000), source, target
  )
  # Beyond, one image would decide all, and its square would overflow.
  ratios = np.exp(np.clip(logits, -30.0, 30.0))
  ratios *= len(source) / len(target)
  return ratios[: len(source)], ratios[len(source) :]


@one_thread
def held_out(classifier, source, target):
  """What a classifier says of images of which it has not seen the domain.

  It is trained on a random half (seed 0) of both domains for the other half,
  and the other way round.

  Args:
    classifier: of scikit-learn, with a decision_function.
    source, target: [N, D], [M, D].

  Returns:
    [N + M], positive for the target.
  """
  features = np.concatenate([source, target])
  is_target = np.arange(len(features)) >= len(source)
  half = np.concatenate(
    [np.random.default_rng(0).permutation(len(x)) % 2 for x in (source, target)]
  )
  said = np.empty(len(features))
  for i in (0, 1):
    trained = half != i
    classifier.fit(features[trained], is_target[trained])
    said[~trained] = classifier.decision_function(features[~trained])
  return said
