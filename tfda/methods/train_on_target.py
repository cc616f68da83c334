"""Train on target: the target's labels revealed, the upper bound in the tables.

Ganin & Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML
2015, Section 4 "Baselines". Not a method for use: it answers what adaptation
could reach at most.

  E = sum_t L_y                             (Eq. 1 on the target, lambda = 0)

Deviations: the mean that is subtracted, as in `source_only`.
"""

import dataclasses

from tfda.methods import source_only


@dataclasses.dataclass(frozen=True)
class Config:
  """No settings of its own."""


# It never equals `source_only`: it does not see the source.
WITHOUT_ADAPTATION = None


class Method(source_only.Method):
  """Cross-entropy on the labelled target: the one method that sees its labels.

  They come in a stream of their own name; the `target` stream of the other
  methods never carries a label.
  """

  STREAMS = ('labelled_target',)
