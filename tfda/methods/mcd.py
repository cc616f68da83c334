"""MCD: maximum classifier discrepancy.

Saito, Watanabe, Ushiku & Harada, "Maximum Classifier Discrepancy for
Unsupervised Domain Adaptation", CVPR 2018 (arXiv:1712.02560).

Two classifiers look for target images on which they differ, far from the
source; the generator of their features takes these images back. In turns:

  d(p_1, p_2) = 1/K sum_k |p_1k - p_2k|                                 (Eq. 1)
  A: min over G, F_1, F_2 of L(X_s, Y_s), the cross-entropy of both   (Eq. 2-3)
  B: min over F_1, F_2 of L(X_s, Y_s) - L_adv(X_t)                      (Eq. 4)
     L_adv(X_t) = E_t d(p_1(y|x), p_2(y|x))                             (Eq. 5)
  C: min over G of L_adv(X_t), n times                                  (Eq. 6)

  paper     here
  -----     ----
  G         self.features
  F_1, F_2  self.classifier, self.second_classifier
  L         losses.label_loss of both, summed; term 'label', of step A
  d, L_adv  discrepancy; terms 'discrepancy' of B, 'generator_discrepancy' of
            the last C
  n         generator_steps

Adam at 0.0002 is a setting of the run. It costs n + 2 passes a step.

Deviations:
* The prediction is that of F_1, of which an export has the weights.
* Progress, and with it the learning rate, is that of the step, A to C.
* `discrepancy_weight` scales L_adv in B and C; 1 is the paper's.
* In B both domains are one batch for batch normalisation.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.layers import perceptron
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of MCD; the defaults are the paper's."""

  generator_steps: int = setting(
    4, 'n, how often C is taken; 2 to 4 in the paper', minimum=1
  )
  discrepancy_weight: float = setting(
    1.0, 'of L_adv in Eq. 4 and 6', minimum=0.0
  )

  def __post_init__(self):
    check(self, 'mcd.')


# Step A alone; why it is another baseline than `source_only`.
WITHOUT_ADAPTATION = Config(discrepancy_weight=0.0)
OWN_BASELINE = 'the features are trained by two classifiers'


class Method(adaptation.AdaptationModel):
  """Two classifiers that differ on the target; features on which they agree."""

  undivided = 'its players take turns within a step'
  LOSS_TERMS = ('label', 'discrepancy', 'generator_discrepancy')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    first = self.classifier
    self.second_classifier = perceptron.Perceptron(
      first.hidden_units, first.output_units, first.dropout_rate
    )
    self.second_classifier.build([None, self.feature_width])
    if not self.config.discrepancy_weight:  # Then it does not see the target.
      self.STREAMS = ('source',)

  def phases(self, steps, make_optimizer):
    classifiers = self._classifiers()
    theirs = {v.ref() for v in classifiers}
    generator = tuple(
      v for v in self.trainable_variables if v.ref() not in theirs
    )
    if not generator:
      raise errors.UsageError(
        'mcd has no features to train; take an earlier --freeze_until or a '
        '--bottleneck'
      )
    game = make_optimizer(generator), make_optimizer(classifiers)
    return [adaptation.Phase('train', steps, generator, game)]

  def _classifiers(self):
    weights = self.classifier.weights + self.second_classifier.weights
    return tuple(weights)

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    noise = self.noise(batch)
    generator, classifiers = self._phase.optimizers
    with tf.GradientTape(persistent=True) as tape:
      label = self._label_loss(batch['source'], noise)  # A, Eq. 2
    terms = {'total': label, 'label': label}
    self.descend(tape, terms, self._phase.trainable, generator)
    self.descend(tape, terms, self._classifiers(), classifiers)
    if not self.config.discrepancy_weight:
      return self.end_step({**dict.fromkeys(self.averages.names, 0.0), **terms})

    with tf.GradientTape() as tape:
      total, found = self._objective(batch, noise)  # B
    self.descend(
      tape, {'total': total, **found}, self._classifiers(), classifiers
    )
    for _ in range(self.config.generator_steps):  # C
      with tf.GradientTape() as tape:
        features = self.features(batch['target']['image'], training=True)
        differs = self._discrepancy(features, noise)
        total = self.config.discrepancy_weight * differs  # Eq. 6
      terms = {'total': total, 'generator_discrepancy': differs}
      self.descend(tape, terms, self._phase.trainable, generator)
    terms = {**found, **terms, 'label': label, 'total': label}
    return self.end_step(terms)

  def objective(self, batch, progress):
    """That of B, of which A and C are parts."""
    del progress
    return self._objective(batch, self.noise(batch))

  def _objective(self, batch, noise):
    source, target = batch['source'], batch['target']
    features = self.both_features(source['image'], target['image'])
    source_features, target_features = tf.split(features, 2)
    label = self._label_loss_of(source_features, source['label'], noise)
    differs = self._discrepancy(target_features, noise)
    total = label - self.config.discrepancy_weight * differs  # Eq. 4
    terms = {'label': label, 'discrepancy': differs}
    return total, {**terms, 'generator_discrepancy': differs}

  def _label_loss(self, source, noise):
    features = self.features(source['image'], training=True, domain='source')
    return self._label_loss_of(features, source['label'], noise)

  def _label_loss_of(self, features, labels, noise):
    """L (Eq. 3), of both classifiers."""
    logits = self._logits(features, noise)
    return tf.add_n([losses.label_loss(labels, x) for x in logits])

  def _discrepancy(self, features, noise):
    return discrepancy(*self._logits(features, noise))  # Eq. 5

  def _logits(self, features, noise):
    both = self.classifier, self.second_classifier
    return [f(features, noise=noise, training=True) for f in both]


def discrepancy(first_logits, second_logits):
  """How far the predictions of two classifiers are from each other (Eq. 1, 5).

  The mean of |p_1 - p_2| over images and classes. For example the logits
  [[ln 3, 0]] and [[0, 0]]: |3/4 - 1/2| and |1/4 - 1/2|, 0.25.

  Args:
    first_logits: [B, C].
    second_logits: [B, C].

  Returns:
    A scalar in [0, 2/C].
  """
  first_logits = losses.at_least_float32(first_logits)
  second_logits = losses.at_least_float32(second_logits)
  first_logits.shape.assert_has_rank(2)
  first_logits.shape.assert_is_compatible_with(second_logits.shape)
  differences = tf.nn.softmax(first_logits) - tf.nn.softmax(second_logits)
  return tf.reduce_mean(tf.abs(differences))
