"""SymNets: domain-symmetric networks.

Zhang, Tang, Jia & Tan, "Domain-Symmetric Networks for Adversarial Domain
Adaptation", CVPR 2019 (arXiv:1904.04663).

Two classifiers of the same classes, of the source and of the target, are
together a third, C^st, that tells domains too: p^st is the softmax of both's
logits, [v^s; v^t]. The classifiers learn the labels and the domains; the
features confuse C^st, within every class and between the domains:

  E_task^s = -E_s log p^s_y,  E_task^t = -E_s log p^t_y               (Eq. 3-4)
  E_domain = -E_t log sum_k p^st_{k+K} - E_s log sum_k p^st_k           (Eq. 5)
  F_category = -1/2 E_s log p^st_{y+K} - 1/2 E_s log p^st_y             (Eq. 6)
  F_domain = -1/2 E_t log sum_k p^st_{k+K} - 1/2 E_t log sum_k p^st_k   (Eq. 7)
  M = E_t H(q),  q_k = p^st_k + p^st_{k+K}                              (Eq. 8)
  min over C^s, C^t: E_task^s + E_task^t + E_domain
  min over G: F_category + lambda (F_domain + M)                        (Eq. 9)

  paper                   here
  -----                   ----
  G                       self.features
  C^s, C^t                self.source_classifier, self.classifier
  E_task^t, E_task^s      terms 'label', 'source_label'
  E_domain                term 'domain'
  F_category, F_domain    terms 'category_confusion', 'domain_confusion'
  M                       term 'entropy'
  lambda                  confusion_weight times the ramp of DANN, Eq. 14

Deviations:
* Accuracies and exports are of C^t. The released code reports the better of
  both on the target's labels.
* Both players move at once, on the same features, as in the released code.
* C^s and C^t are classifiers of the run, on digits with hidden layers.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, errors, losses, schedules
from tfda.layers import perceptron
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of SymNets; the defaults are the paper's."""

  confusion_weight: float = setting(
    1.0,
    'lambda in Eq. 9 at the end; with 0 the target is left out, of Eq. 5 too',
    minimum=0.0,
  )
  gamma: float = setting(
    10.0, "steepness of lambda's ramp (DANN, Eq. 14)", minimum=0.0
  )

  def __post_init__(self):
    check(self, 'symnets.')


# Without the target; why it is another baseline than `source_only`.
WITHOUT_ADAPTATION = Config(confusion_weight=0.0)
OWN_BASELINE = 'its features learn from two classifiers, by Eq. 6'


class Method(adaptation.AdaptationModel):
  """Tell classes and domains in one; then confuse both classifiers."""

  undivided = 'its players take turns within a step'
  CLASSIFIERS = ('label', 'source_label', 'domain')
  LOSS_TERMS = (
    *CLASSIFIERS, 'category_confusion', 'domain_confusion', 'entropy'
  )  # fmt: skip

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.source_classifier = perceptron.Perceptron.from_config(
      {**self.classifier.get_config(), 'name': 'source_classifier'}
    )
    self.source_classifier.build([None, self.feature_width])
    if not self.config.confusion_weight:  # Then it does not see the target.
      self.STREAMS = tuple(s for s in self.STREAMS if s != 'target')

  def scheduled(self, progress):
    ramp = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': self.config.confusion_weight * ramp}

  def phases(self, steps, make_optimizer):
    classifiers = self._classifiers()
    theirs = {v.ref() for v in classifiers}
    features = tuple(
      v for v in self.trainable_variables if v.ref() not in theirs
    )
    if not features:
      raise errors.UsageError(
        'symnets has no features to train; take an earlier --freeze_until or a '
        '--bottleneck'
      )
    both = make_optimizer(features), make_optimizer(classifiers)
    return [adaptation.Phase('train', steps, features, both)]

  def _classifiers(self):
    pair = self.classifier, self.source_classifier
    return [v for c in pair for v in c.trainable_variables]

  @tf.autograph.experimental.do_not_convert
  def train_step(self, batch):
    with tf.GradientTape(persistent=True) as tape:
      players = self._players(batch, self.progress())
    of_classifiers, of_features, terms = players
    turns = (
      (of_features, self._phase.trainable),
      (of_classifiers, self._classifiers()),
    )
    for (total, variables), optimizer in zip(turns, self._phase.optimizers):
      self.descend(tape, {**terms, 'total': total}, variables, optimizer)
    return self.end_step({**terms, 'total': of_classifiers + of_features})

  def objective(self, batch, progress):
    of_classifiers, of_features, terms = self._players(batch, progress)
    return of_classifiers + of_features, terms

  def _players(self, batch, progress):
    """(What C^s and C^t minimise, what G does, all terms) (Eq. 9)."""
    labels, noise = batch['source']['label'], self.noise(batch)
    images = [batch[name]['image'] for name in self.STREAMS]
    if len(images) == 1:
      features = self.features(images[0], training=True)
    else:
      features = self.both_features(*images)
    of_source, of_target = (
      classifier(features, noise=noise, training=True)
      for classifier in (self.source_classifier, self.classifier)
    )
    count = tf.shape(labels)[0]
    terms = {
      'label': losses.label_loss(labels, of_target[:count]),
      'source_label': losses.label_loss(labels, of_source[:count]),
      'category_confusion': category_confusion(
        labels, of_source[:count], of_target[:count]
      ),
    }
    terms.update(
      self._of_target(of_source, of_target)
      if len(images) > 1
      else dict.fromkeys(('domain', 'domain_confusion', 'entropy'), 0.0)
    )
    factor = self.scheduled(progress)['adaptation_factor']

    of_classifiers = sum(terms[name] for name in self.CLASSIFIERS)
    of_features = terms['category_confusion'] + factor * (
      terms['domain_confusion'] + terms['entropy']
    )
    return of_classifiers, of_features, terms

  def _of_target(self, of_source, of_target):
    """The terms with the target in them; of v^s, v^t [2b, K]."""
    # The log-odds of sum_k p^st_k.
    odds = tf.reduce_logsumexp(of_source, 1) - tf.reduce_logsumexp(of_target, 1)
    source_odds, target_odds = tf.split(odds, 2)
    # q is the softmax of these.
    joint = tf.reduce_logsumexp(tf.stack([of_source, of_target]), axis=0)
    return {
      # The sum of both domains'.
      'domain': 2.0 * losses.domain_loss(source_odds, target_odds),
      'domain_confusion': losses.domain_loss(target_odds, target_odds),
      'entropy': tf.reduce_mean(losses.entropy(tf.split(joint, 2)[1])),
    }


def category_confusion(labels, source_logits, target_logits):
  """F_category (Eq. 6): the label's two neurons are to be as probable.

  For example labels = [0], v^s = [[ln 3, 0]], v^t = [[0, 0]]: p^st = (1/2, 1/6,
  1/6, 1/6), (ln 2 + ln 6) / 2 = 1.2425.

  Args:
    labels: [b] integers in [0, K).
    source_logits: [b, K], v^s.
    target_logits: [b, K], v^t.

  Returns:
    A scalar.
  """
  both = tf.concat([source_logits, target_logits], axis=1)
  of_target = labels + source_logits.shape[1]
  return 0.5 * (
    losses.label_loss(labels, both) + losses.label_loss(of_target, both)
  )
