"""Settings dataclasses as absl flags, and back. absl.flags ends here.

`--steps` is a field of Experiment, `--dann.gamma` one of methods/dann.py's
Config. A flag file may name others with --flagfile; a later flag wins.
"""

import dataclasses
import os
import re
import sys

from absl import flags

from tfda import errors, methods, settings

# Of one process, not of the run.
_OF_A_PROCESS = ('stop_after', 'workers', 'worker_index')
_SEVERAL = tuple[str, ...]  # A flag that may stand several times.


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
    if field_type == _SEVERAL:
      made.append(
        flags.MultiFlag(
          flags.ArgumentParser(),
          flags.ArgumentSerializer(),
          name,
          list(field.default),
          text,
        )
      )
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
        kind = 'str, several times' if field_type == _SEVERAL else kind
        default = 'not set' if field.default in (None, ()) else field.default
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
  experiment = with_run_dir(groups['experiment'], arguments)
  methods.load(experiment.method)
  config = groups[experiment.method]
  return experiment, config, {title: groups[title] for title in more}, words


def parse_translation(arguments):
  """Parses a command line that describes a translation.

  Args:
    arguments: the words behind the tool's name.

  Returns:
    (Translation, other words).
  """
  groups, words = translation_parser().parse(arguments)
  return with_run_dir(groups['translation'], arguments), words


def translation_parser():
  """The Parser of Translation."""
  from tfda import translation

  return Parser({'translation': ('', translation.Translation)})


def with_run_dir(experiment, arguments):
  """The settings with their run directory, if it is not set.

  runs/<flag file>/seed<N>, from the first flag file of the command line.
  """
  if experiment.run_dir:
    return experiment
  run_dir = _default_run_dir(experiment, arguments)
  return dataclasses.replace(experiment, run_dir=run_dir)


def _default_run_dir(experiment, arguments):
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


def text(experiment, config=None):
  """A flag file that replays the run, to its end: every setting, one a line.

  Args:
    experiment: an Experiment, or a Translation.
    config: the Config of the Experiment's method.
  """
  run_dir = experiment.directory()
  experiment = dataclasses.replace(experiment, run_dir=run_dir)
  lines = [
    f'# python -m tools.{experiment.TOOL} --flagfile={run_dir}/flags.txt'
  ]
  for name, value in values(experiment, config).items():
    if name not in _OF_A_PROCESS:
      lines.append(f'--{name}={value}')
  return '\n'.join(lines) + '\n'


def values(experiment, config=None):
  """{flag: value as text} of all settings of a run that are set."""
  found = {}
  for prefix, settings_ in _groups(experiment, config):
    for field in dataclasses.fields(settings_):
      value = getattr(settings_, field.name)
      if value is not None:
        found[prefix + field.name] = str(value)
  return found


def _groups(experiment, config):
  """((prefix, settings), ...) of a run, the method's if it has one."""
  if config is None:
    return (('', experiment),)
  return ('', experiment), (f'{experiment.method}.', config)


def read(path, tool='train'):
  """Returns (Experiment, Config) of a run's flags.txt.

  Args:
    path: of the file.
    tool: whose run it should be; with 'translate' (Translation, None) returns.

  Raises:
    UsageError: it is another tool's.
  """
  with open(path, encoding='utf-8', errors='surrogateescape') as file:
    made = re.match(r'# python -m tools\.(\w+)', file.readline())
  if made and made.group(1) != tool:
    raise errors.UsageError(
      f'{path}: of a run of tools.{made.group(1)}, not of tools.{tool}'
    )
  if tool == 'translate':
    return parse_translation([f'--flagfile={path}'])[0], None
  experiment, config, _, _ = parse_experiment([f'--flagfile={path}'])
  return experiment, config


def differences(before, after):
  """Yields (flag, value before, value after) where two experiments differ.

  Args:
    before, after: (Experiment, Config), or (Translation, None).
  """
  for old, (prefix, new) in zip(before, _groups(*after)):
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
