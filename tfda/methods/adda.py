"""ADDA: adversarial discriminative domain adaptation.

Tzeng, Hoffman, Saenko & Darrell, "Adversarial Discriminative Domain
Adaptation", CVPR 2017 (arXiv:1702.05464).

A source encoder M_s and a classifier C are trained and fixed. A target encoder
M_t starts from M_s and plays with a discriminator D, which is to tell the
features of M_t(x_t) from those of M_s(x_s), with inverted labels:

  min over M_s, C: L_cls = -E_s log C(M_s(x_s))_y
  min over D: L_advD = -E_s log D(M_s(x_s)) - E_t log(1 - D(M_t(x_t)))
  min over M_t: L_advM = -E_t log D(M_t(x_t))                       (all Eq. 9)

  paper     here
  -----     ----
  M_t, C    self.features, self.classifier
  M_s       the same in phase 'source', then self.source_network, a copy
  D         self.discriminator
  L_cls     term 'label'; in phase 'adaptation', of the fixed M_s and C
  L_advM    term 'mapping'
  L_advD    term 'discriminator'

Deviations:
* All accuracies are those of C on M_t, of source images too.
* M_s then works as in inference: batch normalisation by its averages.
* M_t and D move at once, on the same features, as in the released code.
* D has the layers of the backbone's discriminator; the paper's have two hidden
  ones too, of 500 units for digits.
* --adda.source_share of --steps are for M_s and C; each phase has the whole
  schedule of learning rates. In the second all have one rate, `adaptation_rate`
  times --learning_rate: --new_layer_multiplier is for the first.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.layers import discriminators
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of ADDA."""

  source_share: float = setting(
    0.5,
    'of --steps, for the source encoder and the classifier',
    minimum=0.0,
    maximum=1.0,
  )
  adaptation_rate: float = setting(
    1.0,
    'learning rate of both players / --learning_rate; 0.2 in the released '
    'script for SVHN -> MNIST',
    minimum=0.0,
  )
  discriminator_dropout: float = setting(
    0.0,
    "rate in the discriminator's hidden layers; the paper has none",
    minimum=0.0,
    maximum=0.99,
  )

  def __post_init__(self):
    check(self, 'adda.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(source_share=1.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; then make the target's features look like its."""

  undivided = 'its players take turns within a step'
  LOSS_TERMS = ('label', 'mapping', 'discriminator')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    if self.backbone.has_domain_statistics:
      raise errors.UsageError(
        'adda takes no --domain_batch_norm and no backbone that has it '
        '(dann_mnist_domain_norm): it has an encoder of each domain'
      )
    self.source_network = self.copy()
    self.discriminator = discriminators.DomainDiscriminator(
      self.backbone.discriminator_units, self.config.discriminator_dropout
    )
    self.discriminator.build([None, self.feature_width])

  def cut_at(self, layer_name):
    super().cut_at(layer_name)
    self.source_network.cut_at(layer_name)

  def phases(self, steps, make_optimizer):
    first = round(self.config.source_share * steps)
    encoder = list(self.backbone.trainable_variables)
    if self.bottleneck is not None:
      encoder += self.bottleneck.trainable_variables
    if not encoder:
      raise errors.UsageError(
        'adda has no encoder to train; take an earlier --freeze_until or a '
        '--bottleneck'
      )
    adversary = self.discriminator.trainable_variables
    alone = (*encoder, *self.classifier.trainable_variables)
    game = make_optimizer(encoder), make_optimizer(adversary)
    for optimizer, variables in zip(game, (encoder, adversary)):
      # In float16 it is within a LossScaleOptimizer.
      inner = getattr(optimizer, 'inner_optimizer', optimizer)
      inner.set_multipliers(
        [(v, self.config.adaptation_rate) for v in variables]
      )
    phase = adaptation.Phase
    return [
      phase('source', first, alone, (make_optimizer(alone),), ('source',)),
      phase('adaptation', steps - first, tuple(encoder), game),
    ]

  def begin_phase(self, phase, start):
    super().begin_phase(phase, start)
    if self._is_adapting() and int(self.step.numpy()) == start:
      for held, weight in self.weights_beside(self.source_network):
        held.assign(weight)

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    if not self._is_adapting():
      return super().train_step(batch)
    with tf.GradientTape(persistent=True) as tape:
      total, terms = self.objective(batch, self.progress())
    terms = {'total': total, **terms}
    turn = {**terms, 'total': terms['discriminator']}
    encoder = self._phase.trainable
    adversary = self.discriminator.trainable_variables
    self.descend(tape, terms, encoder, self.optimizer)
    self.descend(tape, turn, adversary, self._phase.optimizers[1])
    return self.end_step(terms)

  def objective(self, batch, progress):
    del progress
    source, noise = batch['source'], self.noise(batch)
    if not self._is_adapting():
      features = self.features(source['image'], training=True)
      mapping = discriminator = tf.constant(0.0)
    else:
      features = self.source_network.features(source['image'])
      target_features = self.features(batch['target']['image'], training=True)
      both = tf.concat([features, target_features], axis=0)
      domain_logits = self.discriminator(both, noise=noise, training=True)
      of_source, of_target = tf.split(domain_logits, 2)
      mapping = tf.reduce_mean(tf.nn.softplus(-of_target))
      # The sum of both domains'; not in the total, as D alone descends it.
      discriminator = 2.0 * losses.domain_loss(of_source, of_target)
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], logits)

    total = label + mapping  # Eq. 9, of the encoders and the classifier.
    return total, dict(zip(self.LOSS_TERMS, (label, mapping, discriminator)))

  def _is_adapting(self):
    return self._phase is None or self._phase.name == 'adaptation'
