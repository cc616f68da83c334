r"""Keeps the figures of finished runs under results/ and fills in the README.

python -m tools.collect --name=mnist2mnist_m/dann RUN [RUN ...]
python -m tools.collect                 # only makes the README's tables anew
"""

import dataclasses

from tfda import errors, flag_config, run_directory
from tfda.settings import setting


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool."""

  name: str = setting(None, '<pair>/<flag file> of the runs, as under flags/')
  results: str = setting('results', 'folder of figures')
  document: str = setting('README.md', 'document whose tables are filled in')


def parser():
  return flag_config.Parser({'collect': ('', Settings)})


def main(arguments):
  from tfda.evaluation import summary

  groups, runs = parser().parse(arguments)
  settings = groups['collect']
  if runs and not settings.name:
    raise errors.UsageError('--name=<pair>/<flag file> is needed with runs')
  for run in runs:
    print(summary.collect(run, settings.name, settings.results))
  text = summary.fill_in(settings.document, settings.results)
  run_directory.write(settings.document, text)


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
