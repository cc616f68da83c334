"""JAN: joint adaptation networks, by joint MMD.

Long, Zhu, Wang & Jordan, "Deep Transfer Learning with Joint Adaptation
Networks", ICML 2017 (arXiv:1605.06636).

What the layers make of an image together, features and prediction, is to be
distributed alike in both domains:

  D_L(P, Q) = ||E_P (x)_l phi^l(z_s^l) - E_Q (x)_l phi^l(z_t^l)||^2     (Eq. 7)
    whose kernel is the product of the layers' kernels                  (Eq. 8)
  1/n_s sum_s J(f(x), y) + lambda D_L(P, Q)                             (Eq. 9)
  lambda = 2 / (1 + exp(-gamma p)) - 1                   (Section "Setup")

  paper       here
  -----       ----
  z^l         features (of the bottleneck, where there is one), softmax
  D_L         losses.joint_mmd, term 'joint_mmd'
  J           losses.label_loss, term 'label'
  lambda      joint_mmd_weight times schedules.adaptation_factor

ResNet, bottleneck and learning rates are settings of the run. JAN-A, whose
kernels are learned by an adversary, is another method.

Deviations:
* Each layer's kernel is the mean of five Gaussians around the mean squared
  distance in the batch; the paper has one, at the median. So does the released
  code for the features; for the softmax it has one of a fixed width.
* All pairs of the batch of all replicas, in place of the linear-time estimate.
* lambda rises to 1; `joint_mmd_weight` scales it. The released network for
  ResNet has a constant 0.3.
"""

import dataclasses

import tensorflow as tf

from tfda import adaptation, losses, schedules
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of JAN; the defaults are the paper's."""

  joint_mmd_weight: float = setting(
    1.0, 'what lambda in Eq. 9 rises to', minimum=0.0
  )
  gamma: float = setting(
    10.0, "steepness of lambda's ramp (DANN, Eq. 14)", minimum=0.0
  )

  def __post_init__(self):
    check(self, 'jan.')


# The settings under which it equals `source_only`.
WITHOUT_ADAPTATION = Config(joint_mmd_weight=0.0)


class Method(adaptation.AdaptationModel):
  """Classify the source; match features and predictions, jointly."""

  undivided = 'an MMD is of the images of a batch together'
  LOSS_TERMS = ('label', 'joint_mmd')

  def scheduled(self, progress):
    factor = schedules.adaptation_factor(progress, self.config.gamma)
    return {'adaptation_factor': factor}

  def objective(self, batch, progress):
    source, target = batch['source'], batch['target']
    factor = self.scheduled(progress)['adaptation_factor']

    features = self.both_features(source['image'], target['image'])
    noise = self.noise(batch)
    logits = self.classifier(features, noise=noise, training=True)
    label = losses.label_loss(source['label'], tf.split(logits, 2)[0])
    layers = features, tf.nn.softmax(logits)
    domains = [
      [adaptation.of_all_replicas(x) for x in tf.split(layer, 2)]
      for layer in layers
    ]
    joint_mmd = losses.joint_mmd(*zip(*domains))

    weight = self.config.joint_mmd_weight * factor
    total = label + weight * joint_mmd  # Eq. 9
    return total, {'label': label, 'joint_mmd': joint_mmd}
