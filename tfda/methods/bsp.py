"""BSP: batch spectral penalization.

Chen, Wang, Long & Wang, "Transferability vs. Discriminability: Batch Spectral
Penalization for Adversarial Domain Adaptation", ICML 2019.

Adversarial adaptation leaves a domain's features few directions with large
singular values, which carry over but tell few classes apart. The largest ones
are penalised, next to the losses of DANN or CDAN:

  L = E(G) - lambda E(D, G) + beta L_bsp(F)
  L_bsp(F) = sum_{i=1..k} (sigma_{s,i}^2 + sigma_{t,i}^2)           (Section 4)

with E(G) and E(D, G) of CDAN (Eq. 1-2 of cdan.py) or DANN, and sigma_{s,i},
sigma_{t,i} the i-th largest singular values of the batch's features, [b, D], of
the source and of the target. L_bsp trains the features alone.

  paper            here
  -----            ----
  F                self.features
  E(G), E(D, G)    terms 'label', 'domain', of `cdan`
  L_bsp, beta      spectral_penalty, term 'spectral'; spectral_weight
  k                singular_values

Deviations:
* BSP+CDAN has the entropy conditioning of CDAN+E, as in the released code.
* sigma^2 is |F v|^2 with v, the right singular vector, a constant: its gradient
  2 F v v^T is that of sigma^2, without the divisions by differences of singular
  values of a derivative of the decomposition, and it is a sum over images. The
  batch is that of all replicas.
* The features are those that the classifier sees; in the released code these
  pass a ReLU and dropout.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses
from tfda.methods import cdan
from tfda.settings import check, setting, setting_of


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of BSP; the defaults are the paper's."""

  spectral_weight: float = setting(1e-4, 'beta', minimum=0.0)
  singular_values: int = setting(
    1, 'k, how many of the largest are penalised', minimum=1
  )
  conditioning: str = setting_of(
    cdan.Config,
    'conditioning',
    default='multilinear_entropy',
    help='none is BSP+DANN, multilinear BSP+CDAN, multilinear_entropy '
    'BSP+CDAN+E',
  )
  domain_weight: float = setting_of(cdan.Config, 'domain_weight')
  gamma: float = setting_of(cdan.Config, 'gamma')
  random_width: int = setting_of(cdan.Config, 'random_width')
  discriminator_dropout: float = setting_of(
    cdan.Config, 'discriminator_dropout'
  )

  def __post_init__(self):
    check(self, 'bsp.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(spectral_weight=0.0, domain_weight=0.0)


class Method(cdan.Method):
  """Classify the source; confuse the domains; keep the spectrum flat."""

  undivided = 'singular values are of the images of a batch together'
  LOSS_TERMS = ('label', 'domain', 'spectral')

  def objective(self, batch, progress):
    config = self.config
    features, label, domain = self._features_and_losses(batch, progress)
    spectral = tf.add_n(
      [
        spectral_penalty(of_domain, config.singular_values)
        for of_domain in tf.split(features, 2)
      ]
    )

    total = (
      label + config.domain_weight * domain + config.spectral_weight * spectral
    )
    return total, {'label': label, 'domain': domain, 'spectral': spectral}


def spectral_penalty(features, count=1):
  """The sum of the squares of the largest singular values (Section 4).

  For example the rows [3, 0] and [0, 4]: 16; of both values 25. On replicas it
  is that of all their rows together, the mean of what the replicas return.

  Args:
    features: [b, D]; of half precision, they are summed in float32.
    count: k; where there are fewer singular values, all.

  Returns:
    A scalar.
  """
  features = losses.at_least_float32(features)
  features.shape.assert_has_rank(2)
  replica = tf.distribute.get_replica_context()
  rows = adaptation.of_all_replicas(tf.stop_gradient(features))
  # Of rows of length 1 at most: squares of large numbers overflow.
  rows = tf.math.divide_no_nan(rows, tf.reduce_max(tf.norm(rows, axis=1)))
  _, left = tf.linalg.eigh(tf.matmul(rows, rows, transpose_b=True))
  directions = tf.matmul(rows, left[:, -count:], transpose_a=True)
  directions = tf.math.l2_normalize(directions, axis=0, epsilon=1e-24)
  of_rows = tf.reduce_sum(tf.square(tf.matmul(features, directions)))
  return of_rows * replica.num_replicas_in_sync
