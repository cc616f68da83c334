"""CDAN: conditional adversarial domain adaptation.

Long, Cao, Wang & Jordan, "Conditional Adversarial Domain Adaptation", NeurIPS
2018 (arXiv:1705.10667).

The domain discriminator D sees features f = F(x) together with the classes that
the classifier predicts of them, g = G(x), so that what it makes alike are the
modes of the two domains, not their mixtures:

  E(G) = E_s L(G(x), y)                                                 (Eq. 1)
  E(D, G) = -E_s log D(T(f, g)) - E_t log(1 - D(T(f, g)))               (Eq. 2)
  min over F, G: E(G) - lambda E(D, G);  min over D: E(D, G)            (Eq. 3)
  T(f, g) = f (x) g, or (R_f f) * (R_g g) / sqrt d                (Section 3.2)
  CDAN+E: every term of E(D, G) weighed by w = 1 + exp(-H(g))     (Section 3.3)

  paper      here
  -----      ----
  F, G       self.features, self.classifier
  D, T       self.discriminator, a layers.conditioning.ConditionalDiscriminator
  E(G)       losses.label_loss, term 'label'
  E(D, G)    losses.domain_loss or, with w, the same weighted; term 'domain'
  lambda     domain_weight, with the ramp of DANN (reverse_gradient)
  d          random_width, taken where D C > 4096
  w          of conditioning=multilinear_entropy

Schedules, bottleneck and discriminator on Office-31 are those of DANN
(Section 4.1): settings of the run.

Deviations:
* E(D, G) is halved, the mean of the two domains' losses, as `dann`'s and as the
  released code's.
* No gradient flows through g within T, as in the released code: a condition.
* w is divided by its mean over the domain's images of the step, a constant, as
  in the released code. w itself is differentiated, through the reversal, which
  makes predictions certain, most where the domain is hard to tell.
* conditioning=none is DANN, for comparisons.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.layers import conditioning, discriminators, gradient_reversal
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of CDAN; the defaults are the paper's."""

  conditioning: str = setting(
    'multilinear',
    'multilinear is CDAN, multilinear_entropy CDAN+E, none DANN',
    choices=('multilinear', 'multilinear_entropy', 'none'),
  )
  domain_weight: float = setting(1.0, 'lambda in Eq. 3', minimum=0.0)
  gamma: float = setting(
    10.0, "steepness of lambda's ramp (DANN, Eq. 14)", minimum=0.0
  )
  random_width: int = setting(
    1024,
    'd, random mixtures that stand for more than 4096 products of features and '
    'probabilities; 0 for all products',
    minimum=0,
  )
  discriminator_dropout: float = setting(
    0.0,
    "rate in the discriminator's hidden layers; 0.5 for Office",
    minimum=0.0,
    maximum=0.99,
  )

  def __post_init__(self):
    check(self, 'cdan.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(domain_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse the domains, class by class."""

  LOSS_TERMS = ('label', 'domain')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config = self.config
    units = self.backbone.discriminator_units, config.discriminator_dropout
    if config.conditioning == 'none':
      self.discriminator = discriminators.DomainDiscriminator(*units)
    else:
      self.discriminator = conditioning.ConditionalDiscriminator(
        self.classifier.output_units, *units, config.random_width
      )
    self.discriminator.build([None, self.feature_width])
    if config.conditioning == 'multilinear_entropy':
      self.undivided = 'its weights are divided by their mean over a batch'

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def objective(self, batch, progress):
    _, label, domain = self._features_and_losses(batch, progress)
    total = label + self.config.domain_weight * domain  # Eq. 3
    return total, {'label': label, 'domain': domain}

  def domain_logits(self, features, class_logits):
    return self.discriminator(*self._seen(features, class_logits))

  def _seen(self, features, class_logits):
    """What D sees: the features, and what they are conditioned on."""
    if self.config.conditioning == 'none':
      return (features,)
    return features, class_logits

  def _features_and_losses(self, batch, progress):
    """(f [2b, D], those of the source first; E(G); E(D, G))."""
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    factor = self.scheduled(progress)['adaptation_factor']
    features = self.both_features(source['image'], target['image'])
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    reverse = gradient_reversal.reverse_gradient
    seen = self._seen(reverse(features, factor), logits)
    domain_logits = self.discriminator(*seen, noise=noise, training=True)
    if self.config.conditioning != 'multilinear_entropy':
      return features, label, losses.domain_loss(*tf.split(domain_logits, 2))
    weights = certainty_weights(reverse(logits, factor))
    return features, label, _weighted_domain_loss(domain_logits, weights)


def certainty_weights(class_logits):
  """w = 1 + exp(-H(g)) (Section 3.3), 2 where a prediction is certain.

  For example two equal logits: 1 + exp(-ln 2) = 1.5.

  Args:
    class_logits: [B, C].

  Returns:
    [B] in [1 + 1/C, 2].
  """
  return 1.0 + tf.exp(-losses.entropy(class_logits))


def _weighted_domain_loss(logits, weights):
  """`losses.domain_loss` with weights; of logits and weights [2b]."""
  signs = tf.constant([[1.0], [-1.0]])  # -log D, -log(1 - D).
  cross_entropies = tf.nn.softplus(-signs * tf.reshape(logits, [2, -1]))
  weights = tf.reshape(weights, [2, -1])
  means = tf.distribute.get_replica_context().all_reduce(
    tf.distribute.ReduceOp.MEAN,
    tf.stop_gradient(tf.reduce_mean(weights, axis=1, keepdims=True)),
  )
  return tf.reduce_mean(weights / means * cross_entropies)
