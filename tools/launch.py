r"""Trains with several workers on this machine, to try it out.

  python -m tools.launch [--count=2] [--restarts=3] train --flagfile=... ...

What stands behind them is another tool, train or translate, and its flags. The
first worker's output is shown; the line at the beginning says where the others'
is. On several machines, the tool itself runs on each: WORKSPACE.md.
"""

import dataclasses
import sys

from tfda import errors, flag_config
from tfda.settings import setting

_TOOLS = ('train', 'translate')


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the tool."""

  count: int = setting(2, 'of workers', minimum=1)
  restarts: int = setting(
    0, 'how often all start again after one was lost', minimum=0
  )


def parser():
  return flag_config.Parser({'launch': ('', Settings)})


def main(arguments):
  from tfda import launcher

  places = [i for i, word in enumerate(arguments) if word in _TOOLS]
  if not places:
    raise errors.UsageError(f'one of {", ".join(_TOOLS)} is to be launched')
  groups, words = parser().parse(arguments[: places[0]])
  flag_config.refuse(words)
  settings = groups['launch']
  # Where this tool is: beside tfda in a checkout, inside in a wheel.
  module = f'{__spec__.parent}.{arguments[places[0]]}'
  command = [sys.executable, '-m', module, *arguments[places[0] + 1 :]]
  sys.exit(launcher.launch(command, settings.count, settings.restarts))


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
