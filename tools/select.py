r"""Ranks finished runs by a validator, without target labels.

python -m tools.select RUN RUN [RUN ...] [--validator=NAME]

No target accuracy is read or shown; the first run is the choice.
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


def parser():
  return flag_config.Parser({'select': ('', Settings)})


def main(arguments):
  from tfda.evaluation import selection

  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError('the runs to choose from are needed')
  settings = groups['select']
  ranked = selection.rank(runs, settings.validator, settings.tolerance)
  print(f'rank  {settings.validator}  source accuracy  run')
  width = len(settings.validator)
  for i, candidate in enumerate(ranked, start=1):
    rank = str(i) if candidate.admitted else '-'
    print(
      f'{rank:>4}  {candidate.score:>{width}.4f}  '
      f'{candidate.source_accuracy:>15.2%}  {candidate.run_dir}'
    )


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
