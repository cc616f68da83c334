"""Settings dataclasses as absl flags, and back. absl.flags ends here.

`--steps` is a field of Experiment, `--dann.gamma` one of methods/dann.py's
Config. A flag file may name others with --flagfile; a later flag wins.
"""

import dataclasses
import os
import sys

from absl import flags

from tfda import errors, methods, settings


def define(config_class, prefix=''):
  """Returns absl Flag objects for the fields of a settings dataclass."""
  made = []
  types = settings.types(config_class)
  for field in dataclasses.fields(config_class):
    field_type, _ = types[field.name]
    name, text = prefix + field.name, field.metadata['help']
    if field_type is bool:
      made.append(flags.BooleanFlag(name, field.default, text))
      continue
    parser = {
      int: flags.IntegerParser,
      float: flags.FloatParser,
      str: flags.ArgumentParser,
    }[field_type]()
    if field.metadata['bare'] is not None:
      parser = _BareParser(field.metadata['bare'])
    flag = flags.Flag(
      parser, flags.ArgumentSerializer(), name, field.default, text
    )
    flag.boolean = field.metadata['bare'] is not None  # A value is optional.
    made.append(flag)
  return made


class _BareParser(flags.IntegerParser):
  """An integer; --name alone is `bare`, --noname is 0."""

  def __init__(self, bare):
    super().__init__()
    self._bare = bare

  def parse(self, argument):
    words = {'true': self._bare, 'false': 0}
    return super().parse(words.get(argument, argument))


class Parser:
  """The flags of one tool: groups of settings, parsed from a command line."""

  def __init__(self, groups):
    """groups: {title: (prefix, settings dataclass)}."""
    self._groups = groups
    self._values = flags.FlagValues()
    self._values.set_gnu_getopt()  # Flags may stand behind other words.
    for title, (prefix, config_class) in groups.items():
      for flag in define(config_class, prefix):
        flags.DEFINE_flag(flag, self._values, module_name=title)

  def parse(self, arguments):
    """Parses a command line.

    Args:
      arguments: the words behind the tool's name.

    Returns:
      ({title: instance of the group's dataclass}, other words).

    Raises:
      UsageError: an unknown flag, a value of the wrong type or out of range.
    """
    try:
      words = self._values(['tool', *arguments])[1:]
    except flags.Error as error:
      raise errors.UsageError(' '.join(str(error).split())) from error
    except (OSError, UnicodeDecodeError) as error:
      raise errors.UsageError(f'--flagfile: {error}') from error
    return {t: self._instance(*g) for t, g in self._groups.items()}, words

  def _instance(self, prefix, config_class):
    names = [field.name for field in dataclasses.fields(config_class)]
    return config_class(
      **{name: self._values[prefix + name].value for name in names}
    )

  def help(self):
    """The flags by group, with types, defaults, limits and units."""
    lines = []
    for title, (prefix, config_class) in self._groups.items():
      if not dataclasses.fields(config_class):
        continue
      lines += ['', f'{title}:']
      types = settings.types(config_class)
      for field in dataclasses.fields(config_class):
        field_type, _ = types[field.name]
        choices = field.metadata['choices']
        kind = '|'.join(choices) if choices else field_type.__name__
        default = 'not set' if field.default is None else field.default
        limits = ''.join(
          f', {limit} {field.metadata[limit]}'
          for limit in ('minimum', 'maximum')
          if field.metadata[limit] is not None
        )
        lines += [
          f'  --{prefix}{field.name}={kind}  (default: {default}{limits})',
          f'      {field.metadata["help"]}',
        ]
    return '\n'.join(lines)


def experiment_parser(**more):
  """The Parser of Experiment and all methods' settings, and `more` groups."""
  from tfda import experiment

  groups = {'experiment': ('', experiment.Experiment)}
  for name in methods.names():
    groups[name] = (f'{name}.', methods.load(name).Config)
  return Parser({**groups, **more})


def parse_experiment(arguments, **more):
  """Parses a command line that describes an experiment.

  Args:
    arguments: the words behind the tool's name.
    **more: further groups, title=(prefix, settings dataclass).

  Returns:
    (Experiment, its method's Config, {title: further settings}, other words).
  """
  groups, words = experiment_parser(**more).parse(arguments)
  experiment = groups['experiment']
  methods.load(experiment.method)
  if not experiment.run_dir:
    experiment = dataclasses.replace(
      experiment, run_dir=_default_run_dir(experiment, arguments)
    )
  config = groups[experiment.method]
  return experiment, config, {title: groups[title] for title in more}, words


def _default_run_dir(experiment, arguments):
  """runs/<flag file>/seed<N>, from the first flag file of the command line."""
  for i, word in enumerate(arguments):
    if word.startswith('--flagfile='):
      path = word.split('=', 1)[1]
    elif word == '--flagfile' and i + 1 < len(arguments):
      path = arguments[i + 1]
    else:
      continue
    name = os.path.splitext(os.path.normpath(path))[0]
    parts = [p for p in name.split(os.sep) if p not in ('', '..')]
    if 'flags' in parts:
      parts = parts[parts.index('flags') + 1 :]
    return os.path.join('runs', *parts, f'seed{experiment.seed}')
  return experiment.directory()


def text(experiment, config):
  """A flag file that replays the run, to its end: every setting, one a line."""
  run_dir = experiment.directory()
  experiment = dataclasses.replace(experiment, run_dir=run_dir, stop_after=None)
  lines = [f'# python -m tools.train --flagfile={run_dir}/flags.txt']
  for prefix, settings_ in (
    ('', experiment),
    (f'{experiment.method}.', config),
  ):
    for field in dataclasses.fields(settings_):
      value = getattr(settings_, field.name)
      if value is not None:
        lines.append(f'--{prefix}{field.name}={value}')
  return '\n'.join(lines) + '\n'


def read(path):
  """Returns (Experiment, Config) of a run's flags.txt."""
  experiment, config, _, _ = parse_experiment([f'--flagfile={path}'])
  return experiment, config


def differences(before, after):
  """Yields (flag, value before, value after) where two experiments differ.

  Args:
    before, after: (Experiment, Config).
  """
  prefixes = ('', f'{after[0].method}.')
  for prefix, old, new in zip(prefixes, before, after):
    if type(old) is not type(new):
      continue  # Another method: --method differs and says so.
    for field in dataclasses.fields(new):
      values = getattr(old, field.name), getattr(new, field.name)
      if values[0] != values[1]:
        yield prefix + field.name, *values


def refuse(words):
  """Raises UsageError if there are words that are no flags."""
  if words:
    raise errors.UsageError(f'{words[0]}: not a flag; flags begin with --')


def run(main, usage, parser):
  """Runs a tool: its help, its errors in one line, its exit code.

  Args:
    main: (words of the command line) -> None.
    usage: what the tool does and how it is called, for --help.
    parser: () -> the tool's Parser, for --help.
  """
  arguments = sys.argv[1:]
  try:
    if any(
      word in ('--help', '-h', '-help', '--helpfull') for word in arguments
    ):
      print(usage.strip())
      print(parser().help())
      return
    main(arguments)
  except errors.UsageError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
  except errors.Interrupted as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
  except KeyboardInterrupt:  # Not while training, which handles it itself.
    print('interrupted', file=sys.stderr)
    sys.exit(130)
  except (errors.RunError, OSError) as error:  # A full disk, for example.
    print(f'error: {error}', file=sys.stderr)
    sys.exit(1)
