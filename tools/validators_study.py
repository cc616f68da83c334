r"""Says how far each validator can be trusted, on runs with target labels.

  python -m tools.validators_study RUN RUN ... [--out=results/validators.json]

For every pair of domains and every validator: the rank correlation (Spearman)
of its scores with the target accuracies of the runs, and its regret, by how
many points the run that tools.select would choose is below the best one. Prints
a table of `Spearman / regret`.
"""

import dataclasses
import json
from typing import Optional

from tfda import errors, flag_config, run_directory
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool."""

  tolerance: float = setting(
    0.02,
    'a run may be chosen up to this far below the best source accuracy',
    minimum=0.0,
    maximum=1.0,
  )
  out: Optional[str] = setting(None, 'JSON file to write all figures to')

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'study': ('', Settings)})


def main(arguments):
  from tfda.evaluation import study

  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError('the runs to study are needed')
  settings = groups['study']
  found = study.study(runs, settings.tolerance)
  if settings.out:
    run_directory.write(settings.out, json.dumps(found, indent=1) + '\n')
  print(study.table(found))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
