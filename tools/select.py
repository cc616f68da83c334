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
  """Settings of the tool."""

  validator: str = setting(
    'information_maximisation', 'a figure under validators in results.json'
  )
  tolerance: float = setting(
    0.02,
    'a run is admitted up to this far below the best source accuracy',
    minimum=0.0,
    maximum=1.0,
  )
  resamples: int = setting(
    1000, 'of the test images, for the intervals; 0 for none', minimum=0
  )
  steps: bool = setting(False, 'rank every evaluation of the runs')


def parser():
  return flag_config.Parser({'select': ('', Settings)})


def main(arguments):
  from tfda.evaluation import selection

  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError('the runs to choose from are needed')
  settings = groups['select']
  show(
    settings.validator,
    selection.rank(runs, **dataclasses.asdict(settings)),
  )


def show(validator, ranked):
  """Prints a ranking; the admitted are numbered.

  Args:
    validator: its name.
    ranked: of selection.rank.
  """
  rows = [['rank', validator, '95 % interval', 'source accuracy', 'run']]
  for i, candidate in enumerate(ranked, start=1):
    interval = candidate.interval
    of_step = '' if candidate.step is None else f' at step {candidate.step}'
    rows.append(
      [
        str(i) if candidate.admitted else '-',
        f'{candidate.score:.4f}',
        '' if interval is None else f'{interval[0]:.4f} to {interval[1]:.4f}',
        f'{candidate.source_accuracy:.2%}',
        f'{candidate.run_dir}{of_step}',
      ]
    )
  widths = [max(map(len, column)) for column in zip(*rows)]
  for row in rows:
    cells = [cell.rjust(w) for cell, w in zip(row[:-1], widths)]
    print('  '.join([*cells, row[-1]]))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
