"""The methods, one a file, found by the file's name.

Each module has `Config`, a frozen dataclass of settings, and `Method`, a
subclass of `adaptation.AdaptationModel`.
"""

import importlib
import pkgutil

from tfda import errors


def names():
  """Returns the names of all methods, sorted."""
  return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name):
  """Returns the module of a method: `load('dann').Config`, `.Method`.

  Raises:
    UsageError: there is no such method.
  """
  if name not in names():
    raise errors.UsageError(
      f'--method={name}: no such method; {errors.near(name, names())}'
    )
  return importlib.import_module(f'{__name__}.{name}')
