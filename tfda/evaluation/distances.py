"""How far apart the features of two domains are.

All of features that model_outputs.reduce has brought to one scale, so that no
network is nearer for small numbers alone; of up to 2,000 random images of a
domain (seed 0). The names of what needs target labels begin with oracle_.
"""

import numpy as np

from tfda import losses
from tfda.evaluation import model_outputs, validators


def a_distance(error):
  """How well domains can be told apart, by a classifier's error: in [-2, 2].

  Ben-David et al. 2007; Ganin et al. 2016, Section 5.1:

    d_A = 2 (1 - 2 error)

  0 at an error of one half, 2 where there is none. It is the term of the bound
  in the DANN paper (Ganin & Lempitsky 2015, Eq. 13), 2 (alpha - 1) with alpha =
  P_s(says source) + P_t(says target) = 2 (1 - error). For example an error of
  1/4: 1.

  Args:
    error: mean of the errors on both domains.
  """
  return 2.0 * (1.0 - 2.0 * error)


def linear_domain_error(source, target):
  """Error of a linear SVM that tells the domains, on images held out.

  Trained on one half of both domains for the other (scikit-learn, C = 1, both
  domains of the same weight).

  Args:
    source, target: features [N, D], [M, D] of model_outputs.reduce.

  Returns:
    The mean of the errors on both domains.
  """
  from sklearn import svm

  said = model_outputs.held_out(
    svm.LinearSVC(class_weight='balanced', dual=False), source, target
  )
  of_source, of_target = said[: len(source)] > 0, said[len(source) :] <= 0
  return float(validators.domain_errors(of_source, of_target).mean())


def centroid_distances(source, source_labels, target, target_labels, classes):
  """How far each class has moved, in units of how wide classes are.

  The distance of a class's mean features in both domains, divided by the root
  mean square distance of source images from the mean of their class. For
  example source = [[-1], [1]], target = [[4]], all of one class: 4 / 1 = 4.

  Args:
    source, target: [N, D], [M, D].
    source_labels, target_labels: [N], [M] integers in [0, classes).
    classes: C.

  Returns:
    [C]; NaN for a class of which a domain has no image.
  """
  distances = np.full(classes, np.nan)
  squares = 0.0
  for i in np.unique(source_labels):
    rows = source[source_labels == i]
    centre = rows.mean(axis=0)
    squares += np.sum((rows - centre) ** 2)
    if np.any(target_labels == i):
      moved = target[target_labels == i].mean(axis=0) - centre
      distances[i] = np.linalg.norm(moved)
  width = np.sqrt(squares / len(source))
  return distances / max(width, np.finfo(np.float64).tiny)


def measure(outputs, class_names):
  """The part of results.json that is about distances.

  Args:
    outputs: model_outputs.Outputs.
    class_names: of the C classes.

  Returns:
    'proxy_a_distance', of the linear SVM, and 'discriminator_a_distance', of
    the method's own domain classifier on test images (None without one);
    'squared_mmd' (losses.multi_kernel_mmd); 'correlation_distance'
    (losses.correlation_alignment);
    'centroid_distance', {class: of predicted target classes, None where there
    is no image}, and 'oracle_centroid_distance', of the target's labels (None
    without). None for all where a domain has fewer than four images.
  """
  if not outputs.has_halves():
    return None
  source, target = outputs.reduced
  of_source, of_target = (
    model_outputs.sampled(len(features)) for features in (source, target)
  )
  source, target = source[of_source], target[of_target]
  (error,) = validators.measure(outputs, ('discriminator_error',)).values()
  labels = outputs.kept('source_labels')[of_source]

  def by_class(target_labels):
    found = centroid_distances(
      source, labels, target, target_labels[of_target], len(class_names)
    )
    return {
      name: None if np.isnan(value) else float(value)
      for name, value in zip(class_names, found)
    }

  oracle = None
  if 'target_labels' in outputs.arrays:
    oracle = by_class(outputs.kept('target_labels'))
  return {
    'proxy_a_distance': a_distance(linear_domain_error(source, target)),
    'discriminator_a_distance': None if error is None else a_distance(error),
    'squared_mmd': float(losses.multi_kernel_mmd(source, target)),
    'correlation_distance': float(losses.correlation_alignment(source, target)),
    'centroid_distance': by_class(outputs.kept('target_logits').argmax(axis=1)),
    'oracle_centroid_distance': oracle,
  }
