"""The `tfda` command: `tfda NAME` runs what `python -m tools.NAME` runs."""

import importlib
import pkgutil
import sys

from tfda import errors


def main():
  try:
    tools = importlib.import_module('tfda.tools')
  except ModuleNotFoundError:
    # A checkout has them beside the package; the wheel has them inside.
    tools = importlib.import_module('tools')
  names = sorted(m.name for m in pkgutil.iter_modules(tools.__path__))
  if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help', '-help'):
    print(f'tfda {"|".join(names)} [--flags]; tfda NAME --help shows them')
    return
  name = sys.argv.pop(1)
  if name not in names:
    print(
      f'error: {name}: no such command; {errors.near(name, names)}',
      file=sys.stderr,
    )
    sys.exit(2)
  importlib.import_module(f'{tools.__name__}.{name}').run()
