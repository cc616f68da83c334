"""RTN: residual transfer networks.

Long, Zhu, Wang & Jordan, "Unsupervised Domain Adaptation with Residual Transfer
Networks", NIPS 2016 (arXiv:1602.04433).

The classifiers of the two domains differ, by a residual that a small block
learns; their features, fused over layers, are distributed alike:

  z = (x) x^l over l = bottleneck, classifier                           (Eq. 2)
  D(D_s, D_t) = MMD of z_s and z_t                                      (Eq. 3)
  f_S(x) = f_T(x) + Delta f(f_T(x))                                     (Eq. 4)
  1/n_s sum_s L(f_S(x), y) + gamma/n_t sum_t H(f_T(x)) + lambda D   (Eq. 1, 5-6)

  paper         here
  -----         ----
  f_T           self.classifier, which also predicts; logits
  Delta f       self.residual: two layers as wide as there are classes
  L, H          terms 'label', of f_S, and 'entropy', of f_T
  D             losses.multi_kernel_mmd of `fused`, term 'mmd'
  gamma, lambda entropy_weight, mmd_weight: 0.3, from A -> W (Section 4.1)
  RTN (mmd), (mmd+ent)  entropy_weight=0, residual=false; residual=false

Deviations:
* The MMD has five kernels around the mean squared distance, as in the released
  code; the paper has one at the median.
* z is the whole product; the released code takes the larger of pairs of its
  entries for memory's sake. Its gamma is 0.1, with a ramp, its lambda 1.
* The batch of the MMD is that of all replicas.
* Delta f begins small, with kernels of standard deviation 0.01, as in the
  released code.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.layers import perceptron
from tfda.settings import check, setting

_INITIAL = 0.01  # Standard deviation of the residual's kernels.


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of RTN; the defaults are the paper's."""

  residual: bool = setting(
    True, 'the source has a classifier of its own, f_S; false in the ablation'
  )
  entropy_weight: float = setting(0.3, 'gamma in Eq. 6', minimum=0.0)
  mmd_weight: float = setting(0.3, 'lambda in Eq. 6', minimum=0.0)

  def __post_init__(self):
    check(self, 'rtn.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(residual=False, entropy_weight=0.0, mmd_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source by a residual; match fused features; be certain."""

  undivided = 'an MMD is of the images of a batch together'
  LOSS_TERMS = ('label', 'entropy', 'mmd')

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.residual = None
    if self.config.residual:
      classes = self.classifier.output_units
      self.residual = perceptron.Perceptron((classes,), classes)
      self.residual.build([None, classes])
      for weight in self.residual.weights:
        if weight.shape.rank == 2:
          weight.assign(tf.random.normal(weight.shape, stddev=_INITIAL))

  def objective(self, batch, progress):
    del progress
    source, target = batch['source'], batch['target']
    config = self.config
    features = self.both_features(source['image'], target['image'])
    noise = self.noise(batch)
    logits = self.classifier(features, noise=noise, training=True)
    source_logits, target_logits = tf.split(logits, 2)
    domains = tf.split(fused(features, logits), 2)
    mmd = losses.multi_kernel_mmd(
      *[adaptation.of_all_replicas(rows) for rows in domains]
    )
    if self.residual is not None:
      source_logits += self.residual(source_logits)  # f_S, Eq. 4
    label = losses.label_loss(source['label'], source_logits)
    entropy = tf.reduce_mean(losses.entropy(target_logits))

    total = (
      label + config.entropy_weight * entropy + config.mmd_weight * mmd
    )  # Eq. 6
    return total, {'label': label, 'entropy': entropy, 'mmd': mmd}


def fused(features, logits):
  """The tensor product of two layers' outputs, image by image (Eq. 2).

  For example features = [[1, 2]], logits = [[3, 5]]: [[3, 5, 6, 10]].

  Args:
    features: [B, D].
    logits: [B, C].

  Returns:
    [B, D C], in float32 at least: products leave the range of float16.
  """
  features = losses.at_least_float32(features)
  logits = losses.at_least_float32(logits)
  features.shape.assert_has_rank(2)
  logits.shape.assert_has_rank(2)
  product = features[:, :, tf.newaxis] * logits[:, tf.newaxis]
  return tf.reshape(product, [-1, features.shape[1] * logits.shape[1]])
