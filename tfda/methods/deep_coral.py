"""Deep CORAL: correlation alignment in a deep network.

Sun & Saenko, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation",
ECCV 2016 Workshops (arXiv:1607.01719).

The covariances of what a layer makes of the two domains are brought together:

  l_CORAL = 1/(4 d^2) ||C_S - C_T||_F^2                                 (Eq. 1)
  C_S = 1/(n_S - 1) (D_S^T D_S - 1/n_S (1^T D_S)^T (1^T D_S)), C_T    (Eq. 2-3)
  l = l_CLASS + sum_i lambda_i l_CORAL                                  (Eq. 6)

  paper         here
  -----         ----
  D_S, D_T      logits (the paper's fc8) or features of the two domains
  l_CORAL       losses.correlation_alignment, term 'correlation'
  l_CLASS       losses.label_loss, term 'label'
  lambda        correlation_weight

The paper's recipe for AlexNet is a setting of the run.

Deviations:
* The paper chooses lambda so that both losses are about as large at the end of
  the training. 0.8 is that of the released network for Office, A -> W.
* n_S and n_T are the images of all replicas.
* One layer is aligned, as in the paper's experiments: t = 1 in Eq. 6.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, errors, losses
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of Deep CORAL."""

  correlation_weight: float = setting(
    0.8, 'lambda in Eq. 6; 0.8 in the released network', minimum=0.0
  )
  layer: str = setting(
    'logits',
    'what is aligned: the logits, as in the paper, or the features that the '
    'classifier takes',
    choices=('logits', 'features'),
  )

  def __post_init__(self):
    check(self, 'deep_coral.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(correlation_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; bring the domains' covariances together."""

  undivided = 'covariances are of the images of a batch together'
  LOSS_TERMS = ('label', 'correlation')

  def objective(self, batch, progress):
    del progress
    source, target = batch['source'], batch['target']
    features = self.both_features(source['image'], target['image'])
    noise = self.noise(batch)
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    aligned = logits if self.config.layer == 'logits' else features
    domains = [adaptation.of_all_replicas(x) for x in tf.split(aligned, 2)]
    if domains[0].shape[0] == 1:
      raise errors.UsageError(
        '--batch_size=1: one image has no covariance; deep_coral takes 2 or '
        'more'
      )
    correlation = losses.correlation_alignment(*domains)

    total = label + self.config.correlation_weight * correlation  # Eq. 6
    return total, {'label': label, 'correlation': correlation}
