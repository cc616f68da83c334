"""MADA: multi-adversarial domain adaptation.

Pei, Cao, Long & Wang, "Multi-Adversarial Domain Adaptation", AAAI 2018
(arXiv:1809.02176).

Every class has a domain discriminator of its own, which sees features scaled by
the probability of that class, so that classes are matched with themselves:

  L_d = 1/n sum_k sum_{s,t} L_d^k(G_d^k(y^k G_f(x)), d)                 (Eq. 3)
  C = 1/n_s sum_s L_y(G_y(G_f(x)), y) - lambda L_d                      (Eq. 4)

with y^k the predicted probability of class k; minimised by G_f and G_y,
maximised by all G_d^k (Eq. 5), through DANN's reversed gradient.

  paper        here
  -----        ----
  G_f, G_y     self.features, self.classifier
  G_d^k        head k of self.discriminators
  y^k          scales, of the source's images too
  L_y, L_d     terms 'label', 'domain'
  lambda       domain_weight, with the ramp of DANN

Deviations:
* n is the number of images of both domains, the mean of the two domains' means
  as in `dann`.
* y^k is a scale: no gradient flows through it.
* `domain_weight` is 1 as in Eq. 4; the released network for AlexNet has 0.1.
* The discriminators' layers are those of the backbone's discriminator, or of
  `discriminator_units`: two of 1024 with dropout in the released network.
"""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.layers import discriminators, gradient_reversal
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of MADA; the defaults are the paper's."""

  domain_weight: float = setting(1.0, 'lambda in Eq. 4', minimum=0.0)
  gamma: float = setting(
    10.0, "steepness of lambda's ramp (DANN, Eq. 14)", minimum=0.0
  )
  discriminator_units: Optional[int] = setting(
    None,
    "width in units of the discriminators' two hidden layers; as the "
    "backbone's domain discriminator if not set, 1024 for ResNet",
    minimum=1,
  )
  discriminator_dropout: float = setting(
    0.0,
    "rate in the discriminators' hidden layers; 0.5 for Office",
    minimum=0.0,
    maximum=0.99,
  )

  def __post_init__(self):
    check(self, 'mada.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(domain_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse the domains of every class."""

  LOSS_TERMS = ('label', 'domain')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    units = self.backbone.discriminator_units
    if self.config.discriminator_units:
      units = (self.config.discriminator_units,) * 2
    self.discriminators = discriminators.MultiHeadDiscriminator(
      self.classifier.output_units, units, self.config.discriminator_dropout
    )
    self.discriminators.build([None, self.feature_width])

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    factor = self.scheduled(progress)['adaptation_factor']

    features = self.both_features(source['image'], target['image'])
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    compared = gradient_reversal.reverse_gradient(features, factor)
    domain = self._domain_loss(compared, logits, noise)

    total = label + self.config.domain_weight * domain  # Eq. 4
    return total, {'label': label, 'domain': domain}

  def _domain_loss(self, features, class_logits, noise):
    """L_d (Eq. 3): the sum over classes of the means over images."""
    probabilities = tf.stop_gradient(tf.nn.softmax(class_logits))
    scales = tf.transpose(tf.cast(probabilities, features.dtype))
    scaled = scales[..., tf.newaxis] * features  # [C, 2b, D]
    logits = self.discriminators(scaled, noise=noise, training=True)
    by_domain = [tf.reshape(x, [-1]) for x in tf.split(logits, 2, axis=1)]
    return self.discriminators.num_heads * losses.domain_loss(*by_domain)
