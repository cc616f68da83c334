"""TADA: transferable attention for domain adaptation.

Wang, Li, Ye, Long & Wang, "Transferable Attention for Domain Adaptation", AAAI
2019.

Every region k = 1..K of the last feature map f has a domain discriminator whose
certainty weighs the region (local attention); one more, on the bottleneck's
features, weighs the entropy of each image's prediction (global attention).

  L_l = 1/(K n) sum_k sum_{s,t} L_d(G_d^k(f^k), d)                      (Eq. 2)
  w^k = 1 - H(G_d^k(f^k)),  h^k = (1 + w^k) f^k                       (Eq. 3-4)
  L_g = 1/n sum_{s,t} L_d(G_d(G_b(h)), d)                               (Eq. 5)
  m = 1 + H(G_d(G_b(h))),  L_h = 1/n sum_{s,t} m H(p)                 (Eq. 6-7)
  L_y = 1/n_s sum_s L_y(G_y(G_b(h)), y)                                 (Eq. 8)
  C = L_y + gamma L_h - lambda (L_g + L_l)                              (Eq. 9)

  minimised by G_f, G_b and G_y, maximised by G_d and G_d^k           (Eq. 10)

  paper             here
  -----             ----
  G_f               self.backbone.feature_map
  G_b               self.bottleneck on self.backbone.pool
  G_y               self.classifier
  G_d, G_d^k        self.discriminator, self.regions
  L_g, L_l, L_y     terms 'global', 'local', 'label' (0 where not used)
  L_h               losses.attentive_entropy, term 'entropy'
  w, h              region_attention.local_attention, .attend
  gamma, lambda     entropy_weight, domain_weight
  max C over G_d    reverse_gradient(., adaptation_factor), the ramp of DANN

ResNet-50, momentum 0.95 and the rest of the setup (Section "Setup") are
settings of the run. As each region has a discriminator of its own, inference
runs them too: an export holds them, and has a signature `attention`.

Deviations:
* w and m are weights: no gradient flows through them. Differentiated as Eq.
  9-10 are printed, the discriminators would also maximise the label loss;
  `attention_gradient` does that.
* Eq. 3 is as printed, though the text wants the larger attention where the
  domain cannot be told; `local_attention=uncertain` is w = H.
* The bracket of Eq. 5 is misprinted; L_d is of (G_d(G_b(h)), d).
* The paper does not say in which order: attention, then pooling, then the
  bottleneck. Pooling is the backbone's (of the digit networks, flattening).
* Nor the discriminators' layers: two hidden ones for a region, of the width of
  the backbone's domain discriminator, 1024 for ResNet.
* Natural logarithms; source is 1 and target 0, one logit.
* lambda = 1 rises as in DANN ("progressive training strategies"); it reaches
  the features alone, the discriminators descend L_g + L_l (DANN, Eq. 9).
"""

import dataclasses
from typing import Optional

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.evaluation import attention
from tfda.layers import discriminators, gradient_reversal, region_attention
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of TADA; the defaults are the paper's."""

  attention: str = setting(
    'both',
    'the rows of Tables 1-2: local attention with the plain entropy, global '
    'with the attentive entropy, or both; none has the plain entropy alone',
    choices=('both', 'local', 'global', 'none'),
  )
  local_attention: str = setting(
    'certain',
    'regions that weigh more: w = 1 - H as in Eq. 3, or w = H',
    choices=('certain', 'uncertain'),
  )
  attention_gradient: bool = setting(
    False, 'differentiate w and m too (Eq. 9-10 to the letter)'
  )
  entropy_weight: float = setting(
    0.1, 'gamma in Eq. 9, of the entropy of the predictions', minimum=0.0
  )
  domain_weight: float = setting(
    1.0, 'lambda in Eq. 9, of the domain losses', minimum=0.0
  )
  gamma: float = setting(
    10.0, "steepness of lambda's ramp (DANN, Eq. 14)", minimum=0.0
  )
  region_units: Optional[int] = setting(
    None,
    "width in units of the region discriminators' two hidden layers; as the "
    "backbone's domain discriminator if not set, 1024 for ResNet",
    minimum=1,
  )
  discriminator_dropout: float = setting(
    0.0,
    "rate in all discriminators' hidden layers; the paper has none",
    minimum=0.0,
    maximum=0.99,
  )

  def __post_init__(self):
    check(self, 'tada.')


# The settings under which it equals `source_only`. With the local attention,
# the network is another even where it does not adapt: the attended one.
WITHOUT_ADAPTATION = Config(attention='none', entropy_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse regions and images; attend to both."""

  LOSS_TERMS = ('label', 'entropy', 'global', 'local')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    units = self.backbone.discriminator_units
    dropout = self.config.discriminator_dropout
    self.discriminator = self.regions = None
    if self.config.attention in ('both', 'global'):
      self.discriminator = discriminators.DomainDiscriminator(units, dropout)
      self.discriminator.build([None, self.feature_width])
    if self.config.attention in ('both', 'local'):
      width = self.config.region_units or units[0]
      self.regions = region_attention.RegionDiscriminators(
        (width, width), dropout
      )
      self.regions.build([None, *self.backbone.feature_map_shape])

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def pictures(self, data):
    return {} if self.regions is None else attention.show(self, data)

  def domain_logits(self, features, class_logits):
    return None if self.discriminator is None else self.discriminator(features)

  def features(self, images, training=False, domain='target'):
    return self._features_and_attention(images, training, domain)[0]

  def _classify(self, images, domain):
    """'logits' [B, C], 'features' [B, D], 'attention' [B, H, W] (w, if any)."""
    features, attention = self._features_and_attention(images, False, domain)
    outputs = {'logits': self.classifier(features), 'features': features}
    return outputs if attention is None else {**outputs, 'attention': attention}

  def inference_weights(self):
    weights = super().inference_weights()
    return weights if self.regions is None else weights + self.regions.weights

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    factor = self.scheduled(progress)['adaptation_factor']

    maps = self.both_features(
      source['image'], target['image'], self.backbone.feature_map
    )
    local, region_logits = self._confuse(self.regions, maps, factor, noise)
    features, _ = self._attend(maps, region_logits)
    whole, image_logits = self._confuse(
      self.discriminator, features, factor, noise
    )
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    if image_logits is None:
      entropy = tf.reduce_mean(losses.entropy(logits))
    else:
      entropy = losses.attentive_entropy(logits, image_logits)

    total = (
      label
      + self.config.entropy_weight * entropy
      + self.config.domain_weight * (whole + local)
    )  # Eq. 9
    return total, {
      'label': label, 'entropy': entropy, 'global': whole, 'local': local
    }  # fmt: skip

  def _features_and_attention(self, images, training, domain):
    domain = self.statistics_of(domain)
    feature_map = self.backbone.feature_map(images, training, domain)
    if self.regions is None:
      return self._attend(feature_map, None)
    logits = self.regions(feature_map)
    # For those who train on these features too.
    constant = not self.config.attention_gradient
    return self._attend(
      feature_map, tf.stop_gradient(logits) if constant else logits
    )

  def _attend(self, feature_map, region_logits):
    """(G_b(h) [B, D], w [B, H, W]); w is None without local attention."""
    attention = None
    if region_logits is not None:
      attention = region_attention.local_attention(
        region_logits, self.config.local_attention == 'uncertain'
      )
      feature_map = region_attention.attend(feature_map, attention)
    features = self.backbone.pool(feature_map)
    if self.bottleneck is not None:
      features = self.bottleneck(features)
    return features, attention

  def _confuse(self, discriminator, features, factor, noise):
    """A domain loss (Eq. 2 or 5), and the logits that make an attention.

    Args:
      discriminator: of regions or of images; None where there is none.
      features: of both domains, what the discriminator takes.
      factor: of the reversed gradient.
      noise: of the step.
    """
    if discriminator is None:
      return tf.constant(0.0), None
    reverse = gradient_reversal.reverse_gradient
    compared = reverse(features, factor)
    logits = discriminator(compared, noise=noise, training=True)
    by_domain = [tf.reshape(x, [-1]) for x in tf.split(logits, 2)]
    loss = losses.domain_loss(*by_domain)
    if not self.config.attention_gradient:
      return loss, tf.stop_gradient(logits)
    # By way of the attention the features descend C, the discriminator ascends
    # it, both unscaled: reversed behind the discriminator, and again before it.
    compared = reverse(features, 1.0)
    logits = discriminator(compared, noise=noise, training=True)
    return loss, reverse(logits, 1.0)
