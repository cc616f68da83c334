"""Source only: no adaptation, the lower bound in every paper's tables.

Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML
2015, Section 4 "Baselines": the network trained without target data and
without the domain classifier.

  E = sum_s L_y                                          (Eq. 1 with lambda = 0)

Deviations:
* The mean that the digit networks subtract is that of both domains' training
  images, as in `dann`, so that methods differ in their losses alone.
"""

import dataclasses

from tfda import adaptation, losses


@dataclasses.dataclass(frozen=True)
class Config:
  """No settings of its own."""


# The settings under which a method equals `source_only`: here, all.
WITHOUT_ADAPTATION = Config()


class Method(adaptation.AdaptationModel):
  """Cross-entropy on the one labelled stream."""

  LOSS_TERMS = ('label',)
  STREAMS = ('source',)

  def objective(self, batch, progress):
    del progress
    stream = self.STREAMS[0]
    labelled = batch[stream]
    features = self.features(labelled['image'], training=True)
    logits = self.classifier(features, noise=self.noise(batch), training=True)
    label = losses.label_loss(labelled['label'], logits)
    return label, {'label': label}
