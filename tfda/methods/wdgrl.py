"""WDGRL: Wasserstein distance guided representation learning.

Shen, Qu, Zhang & Yu, "Wasserstein Distance Guided Representation Learning for
Domain Adaptation", AAAI 2018 (arXiv:1707.01217).

A critic f_w estimates the Wasserstein distance of the two domains' features
h = f_g(x), which these minimise:

  min over theta_g, theta_c: L_c + lambda max over theta_w: L_wd - gamma L_grad
  L_wd = 1/n sum_s f_w(h) - 1/n sum_t f_w(h)
  L_grad = mean of (||df_w/dh||_2 - 1)^2 over both domains' features and points
    between them, as Eq. 3 of Gulrajani et al. 2017 has it of the latter alone

Every step is n steps of the critic by L_wd - gamma L_grad and one of features
and classifier by L_c + lambda L_wd (Algorithm 1).

  paper        here
  -----        ----
  f_g, f_c     self.features, self.classifier
  f_w          self.critic, one head of a MultiHeadDiscriminator
  L_c          losses.label_loss, term 'label'
  L_wd         wasserstein_distance, term 'distance'
  L_grad       gradient_penalty, term 'penalty'
  lambda       domain_weight
  gamma, n     penalty_weight, critic_steps

Deviations:
* In the released code lambda is 0.01 for digits and 0.1 for Office-Caltech, n 5
  and 10; here 0.1 and 5 if not set. A critic's rate that is ten times the
  others', as for the latter there, is --new_layer_multiplier.
* The features of a step are those of its beginning for all n + 1 updates; the
  points between are drawn anew for each, as in the released code.
* ||.|| is the root of the sum and 1e-12. The terms logged are those of the last
  step of the critic and, for L_wd, behind it.
* The critic ends without an offset, which L_wd would not train; it has the
  layers of the backbone's discriminator, without dropout.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.layers import discriminators
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of WDGRL."""

  domain_weight: float = setting(
    0.1, 'lambda, of the distance for the features', minimum=0.0
  )
  penalty_weight: float = setting(
    10.0, "gamma, of the critic's gradient penalty", minimum=0.0
  )
  critic_steps: int = setting(
    5, 'n, steps of the critic in each step', minimum=1, maximum=100
  )

  def __post_init__(self):
    check(self, 'wdgrl.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(domain_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; bring near what a critic finds far apart."""

  undivided = 'its players take turns within a step'
  LOSS_TERMS = ('label', 'distance', 'penalty')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.critic = discriminators.MultiHeadDiscriminator(
      1, self.backbone.discriminator_units, 0.0, output_bias=False
    )
    self.critic.build([None, self.feature_width])

  def phases(self, steps, make_optimizer):
    theirs = {v.ref() for v in self.critic.trainable_variables}
    ours = tuple(v for v in self.trainable_variables if v.ref() not in theirs)
    both = make_optimizer(ours), make_optimizer(self.critic.trainable_variables)
    return [adaptation.Phase('train', steps, ours, both)]

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    noise = self.noise(batch)
    with tf.GradientTape() as tape:
      features, label = self._features_and_label_loss(batch, noise)
      with tape.stop_recording():
        for _ in range(self.config.critic_steps):
          penalty = self._train_critic(features, noise)
      distance = wasserstein_distance(self.critic(features)[0])
      total = label + self.config.domain_weight * distance
    values = total, label, distance, penalty
    terms = dict(zip(('total', *self.LOSS_TERMS), values))
    self.descend(tape, terms, self._phase.trainable, self.optimizer)
    return self.end_step(terms)

  def objective(self, batch, progress):
    del progress
    noise = self.noise(batch)
    features, label = self._features_and_label_loss(batch, noise)
    logits, slopes = self._criticise(features, noise)
    distance = wasserstein_distance(logits)

    total = label + self.config.domain_weight * distance
    values = label, distance, gradient_penalty(slopes)
    return total, dict(zip(self.LOSS_TERMS, values))

  def _features_and_label_loss(self, batch, noise):
    source, target = batch['source'], batch['target']
    features = self.both_features(source['image'], target['image'])
    of_source, _ = tf.split(features, 2)
    logits = self.classifier(of_source, noise=noise, training=True)
    return features, losses.label_loss(source['label'], logits)

  def _criticise(self, features, noise):
    """f_w(h) [2b], and df_w/dh [3b, D] there and at points between."""
    of_source, of_target = tf.split(tf.stop_gradient(features), 2)
    shares = noise.uniform([tf.shape(of_source)[0], 1])
    shares = tf.cast(shares, features.dtype)
    between = of_target + shares * (of_source - of_target)
    points = tf.concat([features, between], axis=0)
    logits, slopes = self.critic(points, slopes=True)
    return logits[0, : tf.shape(features)[0]], slopes[0]

  def _train_critic(self, features, noise):
    """A step of the critic; returns L_grad before it."""
    with tf.GradientTape() as tape:
      logits, slopes = self._criticise(features, noise)
      distance, penalty = wasserstein_distance(logits), gradient_penalty(slopes)
      total = self.config.penalty_weight * penalty - distance
    terms = {'total': total, 'distance': distance, 'penalty': penalty}
    variables = self.critic.trainable_variables
    self.descend(tape, terms, variables, self._phase.optimizers[1])
    return penalty


def wasserstein_distance(values):
  """L_wd of the critic's values [2b], those of the source first."""
  of_source, of_target = tf.split(values, 2)
  return tf.reduce_mean(of_source) - tf.reduce_mean(of_target)


def gradient_penalty(slopes):
  """L_grad: the mean of (||slope||_2 - 1)^2.

  For example the slopes [3, 4] and [0, 0]: (4^2 + 1^2) / 2 = 8.5.

  Args:
    slopes: [n, D], df_w/dh at n points; of half precision, they are summed in
      float32.

  Returns:
    A scalar.
  """
  slopes = losses.at_least_float32(slopes)
  slopes.shape.assert_has_rank(2)
  # The root has no gradient at 0.
  lengths = tf.sqrt(tf.reduce_sum(tf.square(slopes), axis=1) + 1e-12)
  return tf.reduce_mean(tf.square(lengths - 1.0))
