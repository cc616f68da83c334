"""MCC: minimum class confusion.

Jin, Wang, Long & Wang, "Minimum Class Confusion for Versatile Domain
Adaptation", ECCV 2020 (arXiv:1912.03699).

A classifier confuses two classes where it gives both of them probability in the
same target images. How much it does is minimised; nothing is aligned:

  Y_ij = exp(Z_ij / T) / sum_j' exp(Z_ij' / T)                          (Eq. 1)
  C_jj' = sum_i Y_ij W_ii Y_ij'                                      (Eq. 2, 5)
  W_ii = B (1 + exp(-H(Y_i))) / sum_i' (1 + exp(-H(Y_i')))            (Eq. 3-4)
  C~_jj' = C_jj' / sum_j'' C_jj''                                       (Eq. 6)
  L_MCC = 1/|C| sum_j sum_{j' != j} C~_jj'                              (Eq. 7)
  L = L_CE + mu L_MCC                                                   (Eq. 8)

  paper     here
  -----     ----
  Z, B, |C| logits of the target's images, their number, number of classes
  T, mu     temperature, confusion_weight
  L_CE      losses.label_loss, term 'label'
  L_MCC     class_confusion, term 'confusion'

Optimizer, bottleneck and the rest of the setup are settings of the run.

Deviations:
* W is a weight: no gradient flows through it, as in the released code.
* The paper picks T by validation; 2.5 is that of the released code.
* B images are those of all replicas.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of MCC; the defaults are those of the released code."""

  confusion_weight: float = setting(1.0, 'mu in Eq. 8', minimum=0.0)
  temperature: float = setting(
    2.5, 'T in Eq. 1; above 1 it tempers certain predictions', minimum=0.01
  )

  def __post_init__(self):
    check(self, 'mcc.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(confusion_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; confuse no classes of the target."""

  undivided = 'class confusion is of the images of a batch together'
  LOSS_TERMS = ('label', 'confusion')

  def objective(self, batch, progress):
    del progress
    source, target = batch['source'], batch['target']
    features = self.both_features(source['image'], target['image'])
    noise = self.noise(batch)
    logits = self.classifier(features, noise=noise, training=True)
    source_logits, target_logits = tf.split(logits, 2)
    label = losses.label_loss(source['label'], source_logits)
    confusion = class_confusion(
      adaptation.of_all_replicas(target_logits), self.config.temperature
    )

    total = label + self.config.confusion_weight * confusion  # Eq. 8
    return total, {'label': label, 'confusion': confusion}


def class_confusion(logits, temperature=2.5):
  """How much a classifier confuses classes (Eq. 1-7).

  As the rows of Y sum to one, those of C sum to sum_i W_ii Y_ij, and what is
  left of them beside the diagonal is

    1 - C~_jj = 1 - sum_i q_ij Y_ij,   q_ij = W_ii Y_ij / sum_i' W_i'i' Y_i'j

  where q is a softmax over the images: no class is so rare that its row would
  be divided by 0. For example, at temperature 1, logits = [[ln 3, 0], [0, 0]]:
  Y = [3/4, 1/4], [1/2, 1/2], H = 0.5623, 0.6931, W in proportion 1.5699 :
  1.5. The rows of C~ are [0.6527, 0.3473] and [0.5859, 0.4141], the mean of
  0.3473 and 0.5859 is 0.4666.

  Args:
    logits: [B, C]; no gradient flows through the weights W.
    temperature: T.

  Returns:
    A scalar in [0, 1): 0 where all predictions are certain and each class has
    some, close to 1 where most classes have none.
  """
  logits = losses.at_least_float32(logits) / temperature
  logits.shape.assert_has_rank(2)
  log_probabilities = tf.nn.log_softmax(logits)
  weights = tf.stop_gradient(1.0 + tf.exp(-losses.entropy(logits)))
  shares = tf.nn.softmax(
    log_probabilities + tf.math.log(weights)[:, tf.newaxis], axis=0
  )
  within = tf.reduce_sum(shares * tf.exp(log_probabilities), axis=0)
  return tf.reduce_mean(1.0 - within)
