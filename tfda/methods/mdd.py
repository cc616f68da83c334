"""MDD: margin disparity discrepancy.

Zhang, Liu, Long & Jordan, "Bridging Theory and Algorithm for Domain
Adaptation", ICML 2019 (arXiv:1904.05801).

A second classifier f' is to agree with f on the source and to disagree with it
on the target, by a margin; features psi that leave it no way to do both are
alike where that matters to f:

  min over psi, f: E_s L(f(psi(x)), y) + eta D_gamma;  max over f': D_gamma
  D_gamma = E_t L'(f'(psi(x)), f(psi(x))) - gamma E_s L(f'(psi(x)), f(psi(x)))
  L(f', f) = -log sigma_k(f'),  L'(f', f) = log(1 - sigma_k(f')),  k = argmax f

with the softmax sigma (all Section 4); the minimum and the maximum are found
together, by the reversed gradient of DANN (its Eq. 7-8) between psi and f'.

  paper     here
  -----     ----
  psi       self.features
  f, f'     self.classifier, self.adversary
  E_s L     losses.label_loss, term 'label'
  D_gamma   -margin_disparity, term 'disparity' (which f' minimises)
  gamma     margin: exp of the margin rho
  eta       adversarial_weight, scaling the reversed gradient, with its ramp

Deviations:
* f is in D_gamma by its predictions k, which have no gradient, as in the
  released code.
* eta rises as DANN's lambda, in the released code by 1 per 1,000 steps: that is
  steepness=10 in 10,000 steps.
* f and f' have the layers of the run's classifier, on ResNet one linear layer
  on a linear bottleneck; in the released code two, of 1024, with dropout and
  batch normalisation.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.layers import gradient_reversal, perceptron
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of MDD; the defaults are the paper's for Office."""

  margin: float = setting(
    4.0,
    'gamma, weight of the source in the disparity; in the released code 4 for '
    'Office-31, 2 for Office-Home',
    minimum=0.0,
  )
  adversarial_weight: float = setting(
    0.1, 'eta, of the disparity for the features', minimum=0.0
  )
  steepness: float = setting(
    10.0, "of eta's ramp (gamma in DANN, Eq. 14)", minimum=0.0
  )

  def __post_init__(self):
    check(self, 'mdd.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(adversarial_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; leave an adversary nothing to disagree about."""

  LOSS_TERMS = ('label', 'disparity')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.adversary = perceptron.Perceptron.from_config(
      {**self.classifier.get_config(), 'name': 'adversary'}
    )
    self.adversary.build([None, self.feature_width])

  def scheduled(self, progress):
    ramp = schedules.adaptation_factor(progress, self.config.steepness)
    return {'adaptation_factor': self.config.adversarial_weight * ramp}

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    factor = self.scheduled(progress)['adaptation_factor']

    features = self.both_features(source['image'], target['image'])
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    compared = gradient_reversal.reverse_gradient(features, factor)
    adversary_logits = self.adversary(compared, noise=noise, training=True)
    disparity = margin_disparity(
      tf.argmax(logits, axis=1), adversary_logits, self.config.margin
    )

    total = label + disparity  # E - D_gamma, eta in the reversal.
    return total, {'label': label, 'disparity': disparity}


def margin_disparity(predictions, logits, margin):
  """-D_gamma: what f' minimises (Section 4).

  gamma times the mean of -log sigma_k over the source, and the mean of
  -log(1 - sigma_k) over the target. For example logits = [[ln 3, 0]] of both,
  predictions = [0, 1] and margin = 4: -4 ln(3/4) - ln(3/4) = 1.4384.

  Args:
    predictions: [2b] integers, k, of the source first.
    logits: [2b, C] of f', C at least 2.
    margin: gamma.

  Returns:
    A scalar.
  """
  logits = tf.convert_to_tensor(logits)
  logits.shape.assert_has_rank(2)
  chosen = tf.one_hot(predictions, logits.shape[1], True, False, dtype=tf.bool)
  of_chosen = tf.reduce_sum(tf.where(chosen, logits, 0.0), axis=1)
  others = tf.where(chosen, logits.dtype.min, logits)
  # The log-odds of k: -log sigma_k = softplus(-x), -log(1 - sigma_k) =
  # softplus(x), without differences of numbers that are nearly 1.
  log_odds = of_chosen - tf.reduce_logsumexp(others, axis=1)
  of_source, of_target = tf.split(log_odds, 2)
  return margin * tf.reduce_mean(tf.nn.softplus(-of_source)) + tf.reduce_mean(
    tf.nn.softplus(of_target)
  )
