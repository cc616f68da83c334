"""Validators: how good a model may be on the target, without target labels.

Functions of saved logits and features, numpy arrays; natural logarithms. Every
validator is a statistic of rows, one an image, which a bootstrap draws anew.
VALIDATORS says which they are and whether the greater is the better.

What a validator compares in pairs, it compares for 2,000 random images (seed 0)
where there are more. What it trains, it trains on the fixed features, of which
it takes 256 principal components where they are wider (model_outputs.reduce).
"""

import dataclasses
import typing

import numpy as np
from scipy import special

from tfda.evaluation import model_outputs

_TEMPERATURE = 0.05  # Saito et al. 2021, for all data sets.


def entropies(logits):
  """Entropy of each prediction, in nats; low where it is certain.

  Morerio et al. 2018 choose by its mean:

    H(p) = -sum_c p_c ln p_c

  For example the probabilities (1/2, 1/4, 1/4): 1.5 ln 2 = 1.0397.

  Args:
    logits: [N, C].

  Returns:
    [N] in [0, ln C].
  """
  return special.entr(special.softmax(logits, axis=1)).sum(axis=1)


def cross_entropies(labels, logits):
  """[N] of -ln p of the label: for p = (1/2, 1/4, 1/4), label 1, ln 4."""
  log_probabilities = special.log_softmax(logits, axis=1)
  return -np.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def information_maximisation(rows):
  """How certain predictions are and how spread over the classes, in nats.

  Shi & Sha 2012; the mutual information of image and prediction:

    H(mean p) - mean H(p)

  ln C where every prediction is certain and no class is preferred, 0 where all
  are the same. For example p = (1, 0) and (1/2, 1/2), of entropies 0 and ln 2:
  H(3/4, 1/4) - ln 2 / 2 = 0.2158.

  Args:
    rows: [N, C + 1], the probabilities and their entropy.
  """
  mean = rows.mean(axis=0)
  return special.entr(mean[:-1]).sum() - mean[-1]


def batch_nuclear_norm(probabilities):
  """How many classes are predicted with certainty: a norm of all predictions.

  Cui et al. 2020 (BNM): the sum of the singular values of the matrix of
  predictions, as a fraction of its greatest value,

    ||P||_* / sqrt(N min(N, C))

  which is 1 where all are certain and the classes equally often predicted. For
  example P = [[1, 0], [1, 0]]: sqrt(2) / sqrt(4) = 0.7071.

  Args:
    probabilities: P [N, C].

  Returns:
    A number in (0, 1].
  """
  count, classes = probabilities.shape
  squares = np.linalg.eigvalsh(probabilities.T @ probabilities)
  norm = np.sqrt(np.maximum(squares, 0.0)).sum()
  return norm / np.sqrt(count * min(count, classes))


@model_outputs.one_thread
def neighbourhood_entropies(logits, temperature=_TEMPERATURE):
  """How many neighbours an image shares its prediction with, in nats.

  Saito et al. 2021 (soft neighbourhood density, SND), whose mean is the greater
  the denser the predictions lie, with f the probabilities, scaled to length 1:

    P_ij = exp(f_i . f_j / tau) / sum_{k != i} exp(f_i . f_k / tau),  j != i
    H_i = -sum_j P_ij ln P_ij

  For example three images, two of which are certain of one class and one of
  another. One of the two has neighbours at cosines 1 and 0: at tau = 1 P is
  (e, 1) / (e + 1) = (0.7311, 0.2689) and H = 0.5822; the third has two that
  are equally far, H = ln 2.

  Args:
    logits: [N, C], N at least 2.
    temperature: tau.

  Returns:
    [N] in [0, ln(N - 1)].
  """
  probabilities = special.softmax(logits, axis=1)
  lengths = np.linalg.norm(probabilities, axis=1, keepdims=True)
  rows = probabilities / lengths
  similarities = rows @ rows.T / temperature
  np.fill_diagonal(similarities, -np.inf)
  return special.entr(special.softmax(similarities, axis=1)).sum(axis=1)


@model_outputs.one_thread
def silhouettes(features, predictions):
  """How much nearer an image's own class is than the next: [N] in [-1, 1].

  Rousseeuw 1987, with predicted classes as the clusters (Musgrave et al. 2022,
  who choose by the mean): with a the mean distance to the others of its class,
  b that to the nearest other class,

    s = (b - a) / max(a, b), or 0 for the only one of its class

  The measure does not depend on the scale of the features nor on how many
  images and classes there are, as the ratio of Calinski & Harabasz does, so
  that other networks can be compared. For example features 0, 1, 5 of the
  classes 0, 0, 1: a = 1, b = 5, s = 0.8; a = 1, b = 4, s = 0.75; and 0.

  Args:
    features: [N, D].
    predictions: [N] integers.

  Returns:
    [N]; -1 where one class alone is predicted, which separates nothing.
  """
  from sklearn import metrics

  classes = len(np.unique(predictions))
  if classes == 1:
    return np.full(len(features), -1.0)
  if classes == len(features):
    return np.zeros(len(features))
  return metrics.silhouette_samples(features, predictions)


def deep_embedded_validation(rows):
  """The loss on the target as that on the source, weighted: lower is better.

  You et al. 2019 (DEV), Algorithm 1, with the control variate w, whose mean
  would be 1:

    R = mean(w l) + eta mean(w) - eta,  eta = -Cov(w l, w) / Var(w)

  l is the cross-entropy, as in the authors' code: where training has seen the
  test images, none may be misclassified. For example w = (1, 2), l = (0, 1):
  w l = (0, 2), Cov = 1, Var = 1/2, eta = -2, R = 1 - 2 * 1.5 + 2 = 0.

  Args:
    rows: [N, 2], w and l of source images.

  Returns:
    An estimate, in nats, which may be below 0.
  """
  weights, losses = rows.T
  weighted = weights * losses
  variance = weights.var(ddof=1)
  if variance == 0.0:
    return weighted.mean()  # Nothing varies with w.
  eta = -np.cov(weighted, weights)[0, 1] / variance
  return weighted.mean() + eta * weights.mean() - eta


def domain_errors(of_source, of_target):
  """Rows whose mean is the mean error of a domain classifier over the domains.

  One half where it cannot tell them, 0 where it always can. For example one of
  two source images taken for the target's, and none of one target image: rows
  0.75, 0 and 0, of mean 0.25.

  Args:
    of_source: [N] booleans, source images taken for target images.
    of_target: [M] booleans, the reverse.

  Returns:
    [N + M].
  """
  count = len(of_source) + len(of_target)
  return np.concatenate(
    [0.5 * count * x / len(x) for x in (of_source, of_target)]
  )


@model_outputs.one_thread
def reverse_errors(source, labels, target, predictions):
  """Source images that a classifier trained on predicted target labels misses.

  Zhong et al. 2010; Ganin et al. 2016 (Section 5.1), who train the method anew
  from target to source; here a logistic regression (scikit-learn, C = 1) on
  fixed features. Predictions that follow no structure of the features cannot be
  learned, nor carried back to the source.

  For example features -1 and 1 of both domains, of labels 0 and 1, predicted
  as 0 and 1: no errors; as 1 and 0: two.

  Args:
    source: features [N, D] of model_outputs.reduce.
    labels: [N].
    target: [M, D].
    predictions: [M] integers, the model's.

  Returns:
    [N] booleans.
  """
  from sklearn import linear_model

  if np.all(predictions == predictions[0]):
    return labels != predictions[0]
  reverse = linear_model.LogisticRegression(max_iter=1000)
  return reverse.fit(target, predictions).predict(source) != labels


def _of_neighbourhoods(outputs):
  logits = outputs['target_logits'].astype(np.float64)
  if len(logits) < 2:
    return None
  return neighbourhood_entropies(logits[model_outputs.sampled(len(logits))])


def _of_clusters(outputs):
  features = outputs['target_features']
  chosen = model_outputs.sampled(len(features))
  predictions = outputs.kept('target_logits').argmax(axis=1)[chosen]
  return silhouettes(features[chosen], predictions)


def _of_information(outputs):
  entropy = entropies(outputs['target_logits'].astype(np.float64))
  return np.column_stack([outputs.probabilities, entropy])


def _of_embedding(outputs):
  if not outputs.has_halves():
    return None
  logits = outputs.kept('source_logits').astype(np.float64)
  return np.column_stack(
    [outputs.ratios[0], cross_entropies(outputs.kept('source_labels'), logits)]
  )


def _of_domains(outputs):
  if not outputs.has_halves():
    return None
  of_source, of_target = outputs.ratios
  return domain_errors(of_source > 1.0, of_target <= 1.0)


def _of_discriminator(outputs):
  sides = [f'{side}_domain_logits' for side in ('source', 'target')]
  if sides[0] not in outputs.arrays:
    return None
  of_source, of_target = (outputs[name] for name in sides)  # Positive: source.
  return domain_errors(of_source <= 0.0, of_target > 0.0)


def _of_reversal(outputs):
  if not outputs.has_halves():
    return None
  source, target = outputs.reduced
  return reverse_errors(
    source,
    outputs.kept('source_labels'),
    target,
    outputs.kept('target_logits').argmax(axis=1),
  )


@dataclasses.dataclass(frozen=True)
class Validator:
  """How a validator is measured, and read.

  Attributes:
    rows: Outputs -> an array, a row an image; None where it cannot be measured.
    greater_is_better: else the lower is.
    statistic: of these rows, the score.
    cheap: nothing is trained: it is measured at every evaluation.
  """

  rows: typing.Callable
  greater_is_better: bool
  statistic: typing.Callable = np.mean
  cheap: bool = True


# Source and domain error are the pair that the DANN paper chooses by (Ganin &
# Lempitsky 2015, Section 4): the first low, the second high. `domain_error` is
# of a classifier trained anew, as can be had of all methods;
# `discriminator_error` of the method's own, which its features are to deceive.
VALIDATORS = {
  'source_accuracy': Validator(lambda o: ~o.wrong, True),
  'target_entropy': Validator(
    lambda o: entropies(o['target_logits'].astype(np.float64)), False
  ),
  'information_maximisation': Validator(
    _of_information, True, information_maximisation
  ),
  'batch_nuclear_norm': Validator(
    lambda o: o.probabilities, True, batch_nuclear_norm
  ),
  'soft_neighbourhood_density': Validator(_of_neighbourhoods, True),
  'cluster_separation': Validator(_of_clusters, True),
  'discriminator_error': Validator(_of_discriminator, True),
  'domain_error': Validator(_of_domains, True, cheap=False),
  'deep_embedded_validation': Validator(
    _of_embedding, False, deep_embedded_validation, cheap=False
  ),
  'reverse_validation': Validator(_of_reversal, False, cheap=False),
}


def measure(outputs, names=tuple(VALIDATORS)):
  """{name: score}, None where it cannot be measured.

  Args:
    outputs: Outputs.
    names: of VALIDATORS.
  """
  found = {}
  for name in names:
    rows = VALIDATORS[name].rows(outputs)
    score = None if rows is None else VALIDATORS[name].statistic(rows)
    found[name] = None if score is None else float(score)
  return found


@model_outputs.one_thread
def bootstrap(rows, statistic=np.mean, resamples=1000, seed=0):
  """The statistic of rows that are drawn anew, with replacement: [resamples].

  Efron 1979. What was trained is not trained anew. The same seed draws the same
  images wherever there are as many, so that differences of two runs on the same
  images are those of pairs.

  For example of equal rows, their statistic, always.
  """
  random = np.random.default_rng(seed)
  count = len(rows)
  return np.array(
    [
      statistic(rows[random.integers(count, size=count)])
      for _ in range(resamples)
    ]
  )
