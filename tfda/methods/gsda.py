"""GSDA: domain adaptation with hierarchical gradient synchronization.

Hu, Kan, Shan & Chen, "Unsupervised Domain Adaptation with Hierarchical Gradient
Synchronization", CVPR 2020.

Domain discriminators of the whole domain, of every group of classes and of
every class play against the features, and all pull equally hard:

  L^c = sum_s H(C(E(x)), y) + a sum_t H(C(E(x)))                      (Eq. 3-5)
  L^g = sum_{s,t} H(D^dom(f), d)                                        (Eq. 6)
  L_k^cls = sum_{s,t} p^k H(D_k^cls(f), d)                              (Eq. 7)
  L_q^grp = sum_{s,t} p^q H(D_q^grp(f), d),  p^q = sum_{k in q} p^k     (Eq. 8)
  L^l = sum_q L_q^grp + sum_k L_k^cls                                   (Eq. 9)
  L^syn = 1/b sum_q |sum_i g_i(L_q^grp) - sum_{k in q} sum_i g_i(L_k^cls)|
        + |sum_i g_i(L^g) - sum_q sum_i g_i(L_q^grp)|               (Eq. 10-12)
  D: min L^g + L^l + beta L^syn                                     (Eq. 13-15)
  E, C: min L^c + beta L^syn - (L^g + L^l)                          (Eq. 16-17)

  paper             here
  -----             ----
  E, C              self.features, self.classifier
  D^dom, D^grp,     the heads of self.discriminators, in this order
    D^cls
  p^k, p^q          weights: of the label, or the prediction for the target
  L^s, L^t          terms 'label', 'entropy'
  L^g, L^l          terms 'domain', 'group' + 'class'
  g_i(L)            ||dL/df_i||_2; their sums are terms '..._gradient'
  L^syn             losses.gradient_synchronization; its parts: terms '..._gap'
  r, b              number of classes; of groups, a random partition of them
  a, beta           entropy_weight, synchronization_weight

ResNet-50 and the resampling of the source to equal classes (Section 3.1) are
settings of the run; so are, here, the rows of Table 1 by `levels`.

Deviations:
* Sums over one domain are divided by its B images in a batch, those over both
  by n = 2 B, so `dann`'s domain loss is L^g; the sums inside |.| run over the
  batches of all replicas.
* The paper updates D and {E, C} in turn; here both move at once, by gradient
  reversal with DANN's ramp. It reaches E by L^g + L^l alone: L^syn is minimised
  by both players and not reversed.
* "First-order derivatives optimization" (Section 2.3): L^syn is a function of
  gradients to features, so its gradient to D and E is the mixed second
  derivative, which is taken in full.
* p is a weight: no gradient flows through it.
* "Highly confident pseudo labels": a probability of at least 0.9 here. Other
  target images have no part in any loss, and the divisor n stays.
* ||.|| is L2 here, the absolute value is outside the sum over samples, and 1/b
  is on Eq. 10 alone; `norm`, `squared`, `mean_over_groups` have other readings.
* Bottleneck, schedules and discriminators (two hidden layers with dropout) are
  not in the paper: those of its predecessors, MADA and DANN.
* The number of groups, where not set, is that of the paper for Office: one for
  every five classes.
"""

import dataclasses
from typing import Optional

import numpy as np
import tensorflow as tf

from tfda import adaptation, errors, losses, schedules
from tfda.evaluation import gradients
from tfda.layers import discriminators
from tfda.settings import check, setting

_LEVELS = ('global', 'group', 'class')
_GRADIENTS = ('domain_gradient', 'group_gradient', 'class_gradient')
_GAPS = ('group_class_gap', 'domain_group_gap')


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of GSDA; the defaults are the paper's for Office."""

  levels: str = setting(
    'global,group,class',
    'discriminators, as in Table 1: global, or global,class, or all three',
  )
  groups: Optional[int] = setting(
    None,
    'b, into so many groups the classes are divided; a fifth of the classes if '
    'not set, 6 for Office-31',
    minimum=1,
  )
  entropy_weight: float = setting(
    0.02, 'a in Eq. 5; 0.2 for VisDA-2017 and partial Office-31', minimum=0.0
  )
  alignment_weight: float = setting(
    1.0, 'weight of L^g + L^l; 1 is the paper', minimum=0.0
  )
  synchronization_weight: float = setting(
    1.0, 'beta in Eq. 13; 10 for VisDA-2017 and partial Office-31', minimum=0.0
  )
  confidence_threshold: float = setting(
    0.9,
    'probability of its likeliest class from which on a target image takes '
    'part; 0 for all',
    minimum=0.0,
    maximum=1.0,
  )
  norm: str = setting('l2', 'of a gradient (Eq. 10-11)', choices=('l1', 'l2'))
  squared: bool = setting(
    False, 'squared differences in Eq. 10-11, not absolute ones'
  )
  mean_over_groups: bool = setting(True, 'the factor 1/b in Eq. 12')
  gamma: float = setting(
    10.0, "steepness of the reversal's ramp (DANN, Eq. 14)", minimum=0.0
  )
  discriminator_units: Optional[int] = setting(
    None,
    "width in units of the discriminators' two hidden layers; as the "
    "backbone's domain discriminator if not set, 1024 for ResNet",
    minimum=1,
  )
  discriminator_dropout: float = setting(
    0.5,
    "rate in the discriminators' hidden layers",
    minimum=0.0,
    maximum=0.99,
  )

  def __post_init__(self):
    check(self, 'gsda.')
    chosen = self.levels.split(',')
    for level in chosen:
      if level not in _LEVELS:
        raise errors.UsageError(
          f'--gsda.levels={self.levels}: {errors.near(level, _LEVELS)}'
        )
    if self.synchronization_weight and set(chosen) < set(_LEVELS):
      raise errors.UsageError(
        f'--gsda.levels={self.levels} leaves nothing to synchronise; it takes '
        '--gsda.synchronization_weight=0'
      )


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(
  entropy_weight=0.0, alignment_weight=0.0, synchronization_weight=0.0
)


def partition(num_classes, groups=None, seed=0):
  """Divides classes into groups at random, as evenly as can be.

  Args:
    num_classes: r.
    groups: b; a fifth of r, and at least 1, if None.
    seed: the same seed gives the same groups.

  Returns:
    The group of each class, an integer array [r].

  Raises:
    UsageError: more groups than classes.
  """
  groups = groups or max(1, num_classes // 5)
  if groups > num_classes:
    raise errors.UsageError(
      f'--gsda.groups={groups}: there are {num_classes} classes'
    )
  order = np.random.default_rng(seed).permutation(num_classes)
  class_to_group = np.empty(num_classes, np.int32)
  class_to_group[order] = np.arange(num_classes) % groups
  return class_to_group


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse domains, groups and classes, in step."""

  LOSS_TERMS = (
    'label', 'entropy', 'domain', 'group', 'class', 'synchronization',
    *_GAPS, *_GRADIENTS, 'confident_targets',
  )  # fmt: skip

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    config, num_classes = self.config, self.classifier.output_units
    if config.synchronization_weight:
      self.undivided = 'L^syn is of sums over a batch'
    self.class_to_group = partition(num_classes, config.groups, self.seed)
    sizes = (1, int(self.class_to_group.max()) + 1, num_classes)
    used = config.levels.split(',')
    self._heads = [n * (level in used) for level, n in zip(_LEVELS, sizes)]
    units = self.backbone.discriminator_units
    if config.discriminator_units:
      units = (config.discriminator_units,) * 2
    self.discriminators = discriminators.MultiHeadDiscriminator(
      sum(self._heads), units, config.discriminator_dropout
    )
    self.discriminators.build([None, self.feature_width])

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def domain_logits(self, features, class_logits):
    return self.discriminators(features)[0] if self._heads[0] else None

  def pictures(self, data):
    return gradients.show(self, data, self._measure)

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    noise = self.noise(batch)
    factor = self.scheduled(progress)['adaptation_factor']
    config = self.config

    features = self.both_features(source['image'], target['image'])
    logits = self.classifier(features, noise=noise, training=True)
    source_logits, target_logits = tf.split(logits, 2)
    label = losses.label_loss(source['label'], source_logits)
    probabilities = tf.stop_gradient(tf.nn.softmax(target_logits))
    confident, weights = self._weights(source['label'], probabilities)
    entropy = tf.reduce_mean(confident * losses.entropy(target_logits))
    alignments, norms, to_features = self.discriminators.compare_domains(
      features, weights, noise, config.norm
    )
    domain, group, class_ = self._by_level(alignments)
    norms, synchronization, *gaps = self._synchronize(norms)
    # Of value 0; its gradient makes E ascend L^g + L^l, and nothing else.
    change = tf.cast(features - tf.stop_gradient(features), tf.float32)
    reversal = -(1.0 + factor) * tf.reduce_sum(to_features * change)

    total = (
      label
      + config.entropy_weight * entropy  # Eq. 5
      + config.alignment_weight * (domain + group + class_ + reversal)
      + config.synchronization_weight * synchronization  # Eq. 13, 16
    )
    values = (
      label, entropy, domain, group, class_, synchronization,
      *gaps, *norms, tf.reduce_mean(confident),
    )  # fmt: skip
    return total, dict(zip(self.LOSS_TERMS, values))

  def _measure(self, source_inputs, labels, target_inputs):
    """See gradients.show; without dropout."""
    source = self.infer(tf.constant(source_inputs), domain='source')
    target = self.infer(tf.constant(target_inputs))
    features = tf.concat([source['features'], target['features']], axis=0)
    probabilities = tf.nn.softmax(tf.cast(target['logits'], tf.float32))
    confident, weights = self._weights(labels, probabilities)
    _, norms, _ = self.discriminators.compare_domains(
      features, weights, norm=self.config.norm, training=False
    )
    return tf.split(norms, self._heads), probabilities, confident

  def _weights(self, labels, probabilities):
    """Confident [b], 1 or 0; p^k, p^q of all heads (Eq. 7-8): [heads, 2b]."""
    likeliest = tf.reduce_max(probabilities, axis=1)
    threshold = self.config.confidence_threshold
    confident = tf.cast(likeliest >= threshold, tf.float32)
    of_source = tf.one_hot(labels, self.classifier.output_units)
    of_target = probabilities * confident[:, tf.newaxis]
    of_class = tf.transpose(tf.concat([of_source, of_target], axis=0))
    of_group = tf.math.unsorted_segment_sum(
      of_class, self.class_to_group, self.class_to_group.max() + 1
    )
    of_all = tf.reduce_sum(of_class, axis=0, keepdims=True)
    levels = zip((of_all, of_group, of_class), self._heads)
    weights = tf.concat([weights for weights, n in levels if n], axis=0)
    return confident, weights

  def _by_level(self, values):
    """Sums of values [heads] over each level's heads, 0 where it is off."""
    return [tf.reduce_sum(x) for x in tf.split(values, self._heads)]

  def _synchronize(self, norms):
    """(norms by level, L^syn, its two parts), over all replicas' batches."""
    replica = tf.distribute.get_replica_context()
    norms = replica.all_reduce(tf.distribute.ReduceOp.MEAN, norms)
    by_level = self._by_level(norms)
    if not all(self._heads):
      return by_level, *[tf.constant(0.0)] * 3
    domain, group, class_ = tf.split(norms, self._heads)
    synchronization = losses.gradient_synchronization(
      domain,
      group[:, tf.newaxis],
      class_[:, tf.newaxis],
      self.class_to_group,
      self.config.squared,
      self.config.mean_over_groups,
    )
    distance = tf.square if self.config.squared else tf.abs
    domain_gap = distance(by_level[0] - by_level[1])  # Eq. 11
    return by_level, synchronization, synchronization - domain_gap, domain_gap
