r"""Ranks finished runs by a validator, without target labels.

  python -m tools.select RUN RUN [RUN ...] [--validator=NAME] [--steps]

The first run is the choice; the interval of its score is of 95 %, over test
images drawn anew. With --steps every evaluation in training is ranked, which
tells how long to train. No target accuracy is read or shown.

The validators: source_accuracy, target_entropy, information_maximisation,
batch_nuclear_norm, soft_neighbourhood_density, cluster_separation,
discriminator_error, domain_error, deep_embedded_validation and
reverse_validation; tfda/evaluation/validators.py says what they are.
"""

import dataclasses

from tfda import errors, flag_config
from tfda.settings import setting


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool, beside those of the choice."""

  steps: bool = setting(False, 'rank every evaluation of the runs')


def parser():
  from tfda.evaluation import selection

  return flag_config.Parser(
    {'choice': ('', selection.Choice), 'select': ('', Settings)}
  )


def main(arguments):
  from tfda.evaluation import selection

  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError('the runs to choose from are needed')
  choice, steps = groups['choice'], groups['select'].steps
  ranked = selection.rank(runs, **dataclasses.asdict(choice), steps=steps)
  print(selection.table(choice.validator, ranked))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
