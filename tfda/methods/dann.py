"""DANN: unsupervised domain adaptation by backpropagation.

Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML
2015 (arXiv:1409.7495).

A feature extractor G_f is trained to classify the source (G_y) and, through a
gradient reversal layer R, to make the domain classifier G_d fail:

  E~ = sum_s L_y(G_y(G_f(x)), y) + sum_{s,t} L_d(G_d(R(G_f(x))), d)    (Eq. 9)
  R(x) = x,  dR/dx = -lambda I                                       (Eq. 7-8)
  lambda = 2 / (1 + exp(-gamma p)) - 1                                (Eq. 14)

  paper        here
  -----        ----
  G_f          self.features
  G_y          self.classifier
  G_d          self.discriminator
  L_y, L_d     losses.label_loss, losses.domain_loss
  R_lambda     reverse_gradient(., adaptation_factor)
  lambda_p, p  schedules.adaptation_factor, progress
  L_d+, L_d-   self._two_losses (Appendix A)

Learning rate, momentum, batch of 64 + 64 and mean subtraction (Section 4 and
Appendix C) are settings of the run; the networks of Figure 5 are backbones.

Deviations:
* Sums over the batch are means: the learning rates of the paper's Caffe code
  are for means too.
* One logit in place of the two outputs of the domain classifier: the same
  model. The source is labelled 1, not 0: the loss is symmetric in this.
* The mean that is subtracted is per channel, that of both domains' training
  images, and the images are divided by 255; the paper does not say.
* `domain_weight` scales L_d as a whole, as the loss weight in the released
  Office network does; 1 is the paper's equation.
* With swapped labels, L_d- is multiplied by lambda as in the other two forms;
  Appendix A has no lambda there.
* On Office, ResNet-50 is in AlexNet's place: flags/base/dann_office.flags.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.layers import discriminators, gradient_reversal
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of DANN; the defaults are the paper's."""

  domain_weight: float = setting(
    1.0,
    'weight of the domain loss; 0.1 in the released Office network',
    minimum=0.0,
  )
  gamma: float = setting(
    10.0, 'steepness of the adaptation factor (Eq. 14)', minimum=0.0
  )
  domain_losses: str = setting(
    'reversal',
    'gradient reversal; or the two-loss form of Appendix A with the pair '
    '(L_d, -lambda L_d), which gives the same updates; or with swapped labels, '
    'L_d-(q, d) = lambda L_d+(q, 1 - d)',
    choices=('reversal', 'two_losses', 'swapped_labels'),
  )
  discriminator_dropout: float = setting(
    0.0,
    "rate in the domain classifier's hidden layers; 0.5 for Office",
    minimum=0.0,
    maximum=0.99,
  )
  discriminator_batch_norm: bool = setting(
    False, 'batch normalisation in the domain classifier; not in the paper'
  )

  def __post_init__(self):
    check(self, 'dann.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(domain_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse the domains."""

  LOSS_TERMS = ('label', 'domain')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.discriminator = discriminators.DomainDiscriminator(
      self.backbone.discriminator_units,
      self.config.discriminator_dropout,
      self.config.discriminator_batch_norm,
    )
    self.discriminator.build([None, self.feature_width])

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    adaptation_factor = self.scheduled(progress)['adaptation_factor']

    features = self.both_features(source['image'], target['image'])
    source_features, _ = tf.split(features, 2)
    logits = self.classifier(source_features, noise=noise, training=True)
    label = losses.label_loss(source['label'], logits)
    if self.config.domain_losses == 'reversal':
      features = gradient_reversal.reverse_gradient(features, adaptation_factor)
      domain = self._domain_loss(features, noise)
      adversarial = 0.0
    else:
      domain, adversarial = self._two_losses(features, adaptation_factor, noise)

    total = label + self.config.domain_weight * (domain + adversarial)  # Eq. 9
    return total, {'label': label, 'domain': domain}

  def domain_logits(self, features, class_logits):
    return self.discriminator(features)

  def _domain_loss(self, features, noise):
    logits = self.discriminator(features, noise=noise, training=True)
    return losses.domain_loss(*tf.split(logits, 2))

  def _two_losses(self, features, adaptation_factor, noise):
    """Appendix A: L_d+ trains the domain classifier, L_d- the features.

    Returns:
      L_d+, which does not reach the features; and a scalar of value 0 whose
      gradient with respect to the features is that of L_d- and which does not
      reach the domain classifier.
    """
    detached = tf.stop_gradient(features)
    with tf.GradientTape() as tape:
      tape.watch(detached)
      logits = self.discriminator(detached, noise=noise, training=True)
      source_logits, target_logits = tf.split(logits, 2)
      domain = losses.domain_loss(source_logits, target_logits)  # L_d+
      if self.config.domain_losses == 'two_losses':
        adversarial = -adaptation_factor * domain  # L_d-
      else:
        swapped = losses.domain_loss(target_logits, source_logits)
        adversarial = adaptation_factor * swapped
    gradient = tf.stop_gradient(tape.gradient(adversarial, detached))
    change = tf.cast(gradient * (features - detached), tf.float32)
    return domain, tf.reduce_sum(change)
