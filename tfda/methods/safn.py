"""SAFN and HAFN: adaptive feature norms.

Xu, Li, Yang & Lin, "Larger Norm More Transferable: An Adaptive Feature Norm
Approach for Unsupervised Domain Adaptation", ICCV 2019 (arXiv:1811.07456).

Features of the target are short, and long ones transfer. The norms h(x) of the
features of both domains are drawn to one large value R (HAFN), or made to grow
step by step, each from where it is (SAFN):

  HAFN: L_y + lambda ((mean_s h(x) - R)^2 + (mean_t h(x) - R)^2)        (Eq. 2)
  SAFN: L_y + lambda/(n_s + n_t) sum_{s,t} (h(x; theta_0) + Delta_r - h(x))^2
                                                                        (Eq. 3)
  L_y = 1/n_s sum_s cross-entropy; SAFN+ENT adds the entropy of p(x_t)

  paper       here
  -----       ----
  h           the L2 norm of self.features
  theta_0     the weights before the step: no gradient flows to h(x; theta_0)
  R, Delta_r  radius, step
  L_d         (a - b)^2; term 'norm'
  lambda      norm_weight
  ENT         entropy_weight, term 'entropy'

The terms 'source_norm' and 'target_norm', no losses, are the mean norms.

Deviations:
* The released code divides the sums of Eq. 3 by n_s and n_t, one by one: twice
  the paper's lambda.
* The features are those of the run's network. The paper's are of a layer of
  1,000 units with batch normalisation, ReLU and a dropout that keeps the L2
  norm. Where nothing normalises features, they outgrow the label loss under the
  paper's lambda.
* The mean norms of HAFN are over all replicas.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of SAFN; the defaults are the paper's."""

  growth: str = setting(
    'stepwise',
    'how norms grow: stepwise (SAFN), or hard, to the radius (HAFN)',
    choices=('stepwise', 'hard'),
  )
  norm_weight: float = setting(0.05, 'lambda in Eq. 2-3', minimum=0.0)
  step: float = setting(1.0, 'Delta_r in Eq. 3', minimum=0.0)
  radius: float = setting(25.0, 'R in Eq. 2', minimum=0.0)
  entropy_weight: float = setting(
    0.0,
    "weight of the target's entropy, 0.1 in the released code of SAFN+ENT",
    minimum=0.0,
  )

  def __post_init__(self):
    check(self, 'safn.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(norm_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; have the features of both domains grow."""

  LOSS_TERMS = ('label', 'norm', 'entropy', 'source_norm', 'target_norm')

  @property
  def undivided(self):
    stepwise = self.config.growth == 'stepwise'
    return None if stepwise else 'the mean norm is of a batch'

  def objective(self, batch, progress):
    del progress
    source, target = batch['source'], batch['target']
    config = self.config
    features = self.both_features(source['image'], target['image'])
    noise = self.noise(batch)
    logits = self.classifier(features, noise=noise, training=True)
    source_logits, target_logits = tf.split(logits, 2)
    label = losses.label_loss(source['label'], source_logits)
    entropy = tf.reduce_mean(losses.entropy(target_logits))
    norms = tf.split(feature_norms(features), 2)
    means = [tf.reduce_mean(adaptation.of_all_replicas(norm)) for norm in norms]
    if config.growth == 'stepwise':
      norm = stepwise_loss(tf.concat(norms, axis=0), config.step)
    else:
      norm = tf.add_n([(mean - config.radius) ** 2 for mean in means])

    total = (
      label + config.norm_weight * norm + config.entropy_weight * entropy
    )  # Eq. 2-3
    values = label, norm, entropy, *means
    return total, dict(zip(self.LOSS_TERMS, values))


def feature_norms(features):
  """h: the L2 norm of every row, in float32 at least.

  For example [[3, 4], [0, 0]]: 5 and 0, where the gradient is 0.

  Args:
    features: [B, D].

  Returns:
    [B].
  """
  features = losses.at_least_float32(features)
  features.shape.assert_has_rank(2)
  # The gradient of a root at 0 is none.
  squares = tf.reduce_sum(tf.square(features), axis=1)
  is_zero = squares == 0.0
  return tf.where(is_zero, 0.0, tf.sqrt(tf.where(is_zero, 1.0, squares)))


def stepwise_loss(norms, step=1.0):
  """Mean squared distance of norms from what they are, and a step more (Eq. 3).

  Its value is always step^2; its gradient to a norm is -2 step / B. For example
  norms = [5, 7], step = 0.5: 0.25, and -0.5 for both.

  Args:
    norms: [B].
    step: Delta_r.

  Returns:
    A scalar.
  """
  return tf.reduce_mean((tf.stop_gradient(norms) + step - norms) ** 2)
