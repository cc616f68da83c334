"""DAN: deep adaptation networks, by multi-kernel MMD.

Long, Cao, Wang & Jordan, "Learning Transferable Features with Deep Adaptation
Networks", ICML 2015 (arXiv:1502.02791).

The fully connected layers are those that fit the source the most; what each of
them makes of the two domains is to have the same mean in the space of a kernel:

  d_k^2(p, q) = ||E_p phi(x_s) - E_q phi(x_t)||^2 in H_k                (Eq. 1)
  k = sum_u beta_u k_u,  k_u(x, y) = exp(-||x - y||^2 / gamma_u)        (Eq. 2)
  sum_s J(theta(x), y) / n_a + lambda sum_l d_k^2(D_s^l, D_t^l)       (Eq. 3-4)

  paper             here
  -----             ----
  theta             self.features, self.classifier
  D^l, l1 <= l <= l2  outputs of the bottleneck, of the classifier's layers
  d_k^2             losses.multi_kernel_mmd; term 'mmd' is the sum over l
  J                 losses.label_loss, term 'label'
  lambda            mmd_weight

The paper freezes AlexNet's first layers and has ten times the learning rate in
the last; both are settings of the run.

Deviations:
* Five kernels of equal weight, whose gamma_u are 1/4 to 4 times the mean
  squared distance in the batch, as in the released code; the paper learns
  beta_u by a quadratic program, of more kernels around the median distance.
* All pairs of the batch, those of an image with itself too, in place of the
  linear-time estimate of Section 3.2: more exact, and batches are small.
* The bottleneck, where there is one, is aligned: it is fully connected.
* lambda is chosen by validation there; 1 for each layer in the released code.
  A network of random weights makes all images alike under so large a one: the
  MMD pulls at small features as hard as at large ones.
* The batch is that of all replicas.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of DAN; the default is that of the released code."""

  mmd_weight: float = setting(
    1.0, "lambda in Eq. 4, of every layer's MMD", minimum=0.0
  )

  def __post_init__(self):
    check(self, 'dan.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(mmd_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; match means of the domains, layer by layer."""

  undivided = 'an MMD is of the images of a batch together'
  LOSS_TERMS = ('label', 'mmd')

  def objective(self, batch, progress):
    del progress
    source, target = batch['source'], batch['target']
    features = self.both_features(source['image'], target['image'])
    layers = self.classifier.activations(
      features, noise=self.noise(batch), training=True
    )
    label = losses.label_loss(source['label'], tf.split(layers[-1], 2)[0])
    if self.bottleneck is not None:
      layers = [features, *layers]
    mmd = tf.add_n([self._mmd(layer) for layer in layers])

    total = label + self.config.mmd_weight * mmd  # Eq. 4
    return total, {'label': label, 'mmd': mmd}

  def _mmd(self, rows):
    """d_k^2 of [2b, D], those of the source first."""
    domains = [adaptation.of_all_replicas(x) for x in tf.split(rows, 2)]
    return losses.multi_kernel_mmd(*domains)
