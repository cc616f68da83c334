"""A setting: a dataclass field with the text and the limits that its flag has.

The dataclasses (`Experiment`, every method's `Config`) are plain Python: they
check themselves when made, from flags or from code.
"""

import dataclasses
import math
import typing

from tfda import errors


def setting(default, help, choices=None, minimum=None, maximum=None, bare=None):
  """Returns a dataclass field with help text (name the unit) and limits.

  bare: of an integer, its value where the flag stands without one.
  """
  return dataclasses.field(
    default=default,
    metadata={
      'help': help,
      'choices': choices,
      'minimum': minimum,
      'maximum': maximum,
      'bare': bare,
    },
  )


def setting_of(config_class, name, **changed):
  """Returns the setting of another dataclass, with what is said to change."""
  (field,) = (f for f in dataclasses.fields(config_class) if f.name == name)
  return setting(**{'default': field.default, **field.metadata, **changed})


def kind(field_type):
  """Returns (type, optional): (int, True) for Optional[int]."""
  arguments = [a for a in typing.get_args(field_type) if a is not type(None)]
  if typing.get_origin(field_type) is typing.Union and len(arguments) == 1:
    return arguments[0], True
  return field_type, False


def types(config_class):
  """Returns {field name: (type, optional)} with annotations resolved."""
  hints = typing.get_type_hints(config_class)
  return {f.name: kind(hints[f.name]) for f in dataclasses.fields(config_class)}


def check(config, prefix=''):
  """Raises UsageError where a value is outside its field's limits."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    name = f'--{prefix}{field.name}'
    choices = field.metadata.get('choices')
    minimum = field.metadata.get('minimum')
    maximum = field.metadata.get('maximum')
    if value is None:
      continue
    if isinstance(value, str) and len(value.splitlines()) > 1:
      # flags.txt has a line a setting.
      raise errors.UsageError(f'{name}={value!r} has more than one line')
    if isinstance(value, float) and not math.isfinite(value):
      raise errors.UsageError(f'{name}={value} is not a finite number')
    if choices is not None and value not in choices:
      raise errors.UsageError(
        f'{name}={value}: {errors.near(str(value), choices)}'
      )
    if minimum is not None and value < minimum:
      raise errors.UsageError(f'{name}={value} is below {minimum}')
    if maximum is not None and value > maximum:
      raise errors.UsageError(f'{name}={value} is above {maximum}')
