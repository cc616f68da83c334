"""Writes one HTML page that compares finished runs.

  python -m tools.report RUN [RUN ...] [--out=FILE]

It opens without a network, and needs nothing but the run directories. Name the
source_only run too, to see the features before and after adaptation.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  out: Optional[str] = setting(
    None, 'file to write; report.html in the last run if not set'
  )
  seed: int = setting(
    0, 'seed of the maps of the features', minimum=0, maximum=2**32 - 1
  )

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'report': ('', Settings)})


def main(arguments):
  groups, runs = parser().parse(arguments)
  if not runs:
    raise errors.UsageError(
      'name a run directory: python -m tools.report RUN [RUN ...]'
    )
  from tfda.evaluation import report

  settings = groups['report']
  print(report.write(runs, settings.out, settings.seed))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
