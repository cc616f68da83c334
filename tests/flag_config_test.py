"""Settings and flags: there, back, and every way of getting them wrong."""

import dataclasses
import sys
from typing import Optional

import pytest

from tfda import errors, experiment, flag_config, methods
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class _Settings:
  count: int = setting(3, 'how many, in pieces', minimum=1, maximum=71)
  rate: float = setting(0.5, 'how fast, in Hz', minimum=0.25)
  name: str = setting('plain', 'what it is called')
  kind: str = setting('red', 'colour', choices=('red', 'green'))
  sure: bool = setting(False, 'whether it is certain')
  size: Optional[int] = setting(None, 'side in pixels')

  def __post_init__(self):
    check(self, 'my.')


def _parse(*arguments):
  groups, words = flag_config.Parser({'mine': ('my.', _Settings)}).parse(
    arguments
  )
  assert words == []
  return groups['mine']


def _parse_experiment(*arguments):
  settings, config, _, words = flag_config.parse_experiment(arguments)
  assert words == []
  return settings, config


def _refused(parse, *arguments):
  """The message of the UsageError, which is one line."""
  with pytest.raises(errors.UsageError) as error:
    parse(*arguments)
  message = str(error.value)
  assert message and '\n' not in message
  return message


# Parsing.


def test_no_flags_give_the_defaults():
  assert _parse() == _Settings()
  settings, config = _parse_experiment()
  run_dir = settings.run_dir
  assert dataclasses.replace(settings, run_dir=None) == experiment.Experiment()
  assert run_dir == experiment.Experiment().directory()
  assert config == methods.load('dann').Config()


def test_flags_of_every_type():
  parsed = _parse(
    '--my.count=7',
    '--my.rate',
    '1e3',
    '--my.name=a b=c',
    '--my.kind=green',
    '--my.sure',
    '--my.size=32',
  )
  assert parsed == _Settings(7, 1000.0, 'a b=c', 'green', True, 32)
  assert [type(v) for v in dataclasses.astuple(parsed)] == [
    int,
    float,
    str,
    str,
    bool,
    int,
  ]
  assert not _parse('--my.sure', '--nomy.sure').sure
  assert not _parse('--my.sure=false').sure
  assert _parse('--my.sure=True').sure


def test_the_method_chooses_the_config():
  _, config = _parse_experiment('--dann.gamma=3', '--dann.domain_weight=0.1')
  dann = methods.load('dann').Config
  assert config == dann(gamma=3.0, domain_weight=0.1)
  _, config = _parse_experiment('--method=source_only', '--dann.gamma=3')
  assert config == methods.load('source_only').Config()


def test_words_that_are_no_flags():
  _, _, _, words = flag_config.parse_experiment(['--steps=5', 'steps=6'])
  assert words == ['steps=6']
  assert 'steps=6' in _refused(flag_config.refuse, words)
  flag_config.refuse([])


def test_more_groups_of_a_tool():
  settings, _, more, _ = flag_config.parse_experiment(
    ['--my.count=7', '--steps=5'], mine=('my.', _Settings)
  )
  assert settings.steps == 5
  assert more == {'mine': _Settings(count=7)}


# Flag files.


def _write(path, *lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(lines) + '\n')
  return f'--flagfile={path}'


def test_nested_flag_files_and_the_later_flag_wins(tmp_path):
  base = _write(
    tmp_path / 'base.flags',
    '# Shared.',
    '--steps=100',
    '--batch_size=8',
    '--seed=1',
  )
  inner = _write(
    tmp_path / 'inner.flags',
    '# Table 1.',
    '--batch_size=4',
    base,
    '',
    '--seed=2',
  )
  settings, _ = _parse_experiment(inner)
  # base comes after batch_size=4 and before seed=2.
  assert (settings.steps, settings.batch_size, settings.seed) == (100, 8, 2)
  settings, _ = _parse_experiment(inner, '--steps=7', '--seed=3')
  assert (settings.steps, settings.batch_size, settings.seed) == (7, 8, 3)
  settings, _ = _parse_experiment('--steps=7', '--learning_rate=0.5', inner)
  assert (settings.steps, settings.learning_rate) == (100, 0.5)
  settings, _ = _parse_experiment('--seed=5', '--seed=6')
  assert settings.seed == 6


def test_missing_flag_file(tmp_path):
  message = _refused(_parse_experiment, f'--flagfile={tmp_path}/nowhere.flags')
  assert 'nowhere.flags' in message
  outer = _write(
    tmp_path / 'outer.flags', f'--flagfile={tmp_path}/nowhere.flags'
  )
  assert 'nowhere.flags' in _refused(_parse_experiment, outer)


def test_misspelt_flag_in_a_flag_file(tmp_path):
  path = _write(tmp_path / 'a.flags', '--bach_size=3')
  message = _refused(_parse_experiment, path)
  assert 'bach_size' in message and 'batch_size' in message


@pytest.mark.parametrize(
  'path, expected',
  [
    ('flags/mnist2mnist_m/dann.flags', 'runs/mnist2mnist_m/dann/seed4'),
    ('work/flags/a2b/x.y.flags', 'runs/a2b/x.y/seed4'),
    ('plain.flags', 'runs/plain/seed4'),
    ('own/plain.flags', 'runs/own/plain/seed4'),
    ('../own/plain.flags', 'runs/own/plain/seed4'),
    ('./flags/a2b/../c2d/x.flags', 'runs/c2d/x/seed4'),
  ],
)
def test_default_run_dir_is_named_after_the_flag_file(
  tmp_path, monkeypatch, path, expected
):
  (tmp_path / 'here').mkdir()
  monkeypatch.chdir(tmp_path / 'here')
  (tmp_path / 'here' / 'flags' / 'a2b').mkdir(parents=True)
  _write(tmp_path / 'here' / path, '--seed=4', '--steps=9')
  for arguments in ([f'--flagfile={path}'], ['--flagfile', path]):
    settings, _ = _parse_experiment(*arguments)
    assert settings.steps == 9
    assert settings.run_dir == expected


def test_default_run_dir_follows_the_first_flag_file_and_the_seed(
  tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  _write(tmp_path / 'flags' / 'base' / 'b.flags', '--steps=9')
  _write(tmp_path / 'flags' / 'a2b' / 'x.flags', '--seed=4')
  settings, _ = _parse_experiment(
    '--flagfile=flags/a2b/x.flags', '--flagfile=flags/base/b.flags', '--seed=5'
  )
  assert settings.run_dir == 'runs/a2b/x/seed5'


def test_run_dir_that_is_given_is_kept(tmp_path):
  path = _write(tmp_path / 'x.flags', '--run_dir=here/it/is')
  assert _parse_experiment(path)[0].run_dir == 'here/it/is'


def test_default_run_dir_without_a_flag_file():
  settings, _ = _parse_experiment(
    '--source=folder:/photos/a b', '--target=office31/amazon', '--seed=2'
  )
  assert settings.run_dir.startswith('runs/')
  assert settings.run_dir.endswith('/dann/seed2')
  assert settings.run_dir.count('/') == 3
  assert ' ' not in settings.run_dir and ':' not in settings.run_dir


# Errors.


@pytest.mark.parametrize(
  'flag, near',
  [
    ('--my.cuont=3', 'my.count'),
    ('--my.rat=3', 'my.rate'),
  ],
)
def test_misspelt_flag_suggests_the_near_one(flag, near):
  message = _refused(_parse, flag)
  assert flag.strip('-').split('=')[0] in message
  assert near in message.lower().split('did you mean')[1]


def test_misspelt_flags_of_an_experiment():
  for flag, near in (
    ('--learning_rat=3', 'learning_rate'),
    ('--dann.gama=3', 'dann.gamma'),
    ('--evaluate_evry=3', 'evaluate_every'),
  ):
    assert near in _refused(_parse_experiment, flag)


@pytest.mark.parametrize(
  'flag, named',
  [
    ('--my.count=three', 'three'),
    ('--my.count=3.5', '3.5'),
    ('--my.count=', 'my.count'),
    ('--my.rate=fast', 'fast'),
    ('--my.sure=maybe', 'maybe'),
    ('--my.size=wide', 'wide'),
  ],
)
def test_value_of_the_wrong_type(flag, named):
  message = _refused(_parse, flag)
  assert named in message and flag.split('=')[0].strip('-') in message


def test_value_out_of_range():
  assert _refused(_parse, '--my.count=0') == '--my.count=0 is below 1'
  assert _refused(_parse, '--my.count=72') == '--my.count=72 is above 71'
  assert '--my.rate=0.2' in _refused(_parse, '--my.rate=0.2')
  # The limits themselves are inside.
  assert _parse('--my.count=1').count == 1
  assert _parse('--my.count=71').count == 71
  assert _parse('--my.rate=0.25').rate == 0.25


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf'])
def test_value_that_is_no_finite_number(value):
  message = _refused(_parse, f'--my.rate={value}')
  assert '--my.rate' in message
  assert '--learning_rate' in _refused(
    _parse_experiment, f'--learning_rate={value}'
  )


def test_value_that_is_not_among_the_choices():
  message = _refused(_parse, '--my.kind=gren')
  assert '--my.kind=gren' in message and 'green' in message
  message = _refused(_parse, '--my.kind=x')
  assert 'red' in message and 'green' in message


def test_settings_made_in_code_are_checked_alike():
  with pytest.raises(errors.UsageError, match='--my.count=0 is below 1'):
    _Settings(count=0)
  with pytest.raises(errors.UsageError, match='--steps=0 is below 1'):
    experiment.Experiment(steps=0)
  with pytest.raises(errors.UsageError, match='--optimizer=sgdd.*sgd'):
    experiment.Experiment(optimizer='sgdd')
  with pytest.raises(errors.UsageError, match='--source=.* more than one line'):
    experiment.Experiment(source='folder:a\nb')
  with pytest.raises(errors.UsageError, match='--dann.gamma=-1.0 is below 0'):
    methods.load('dann').Config(gamma=-1.0)


def test_misspelt_method():
  message = _refused(_parse_experiment, '--method=dannn')
  assert '--method=dannn' in message and 'did you mean dann' in message


# There and back.


def test_experiment_there_and_back(tmp_path):
  settings = experiment.Experiment(
    method='dann',
    source='folder:/my photos/of #things = 100%',
    target="folder:it's",
    data_dir='//data',
    translation='a translation',
    run_dir=str(tmp_path / 'run 1'),
    backbone='dann_svhn',
    image_size=20,
    resize=24,
    freeze_until='conv1',
    cache_dir='a cache',
    target_classes='first1',
    bottleneck=256,
    classifier_dropout=0.1,
    steps=123456789,
    batch_size=7,
    optimizer='adam',
    learning_rate=1.0 / 3.0,
    learning_rate_alpha=1e-17,
    nesterov=True,
    weight_decay=5e-4,
    seed=20240131,
    deterministic=True,
    strategy='mirrored',
    mixed_precision='bfloat16',
    stop_after='train',
  )
  config = methods.load('dann').Config(
    domain_weight=0.1,
    gamma=1e3,
    domain_losses='swapped_labels',
    discriminator_batch_norm=True,
  )
  path = tmp_path / 'flags.txt'
  path.write_text(flag_config.text(settings, config))
  # Whoever replays a run goes on to its end.
  settings = dataclasses.replace(settings, stop_after=None)
  assert flag_config.read(str(path)) == (settings, config)
  # Every other setting, so that a changed default changes no run.
  lines = path.read_text().splitlines()
  flags = [line.split('=')[0] for line in lines if not line.startswith('#')]
  assert flags == [
    *(
      f'--{field.name}'
      for field in dataclasses.fields(settings)
      if field.name not in ('stop_after', 'workers', 'worker_index')
    ),
    *(f'--dann.{field.name}' for field in dataclasses.fields(config)),
  ]


@pytest.mark.parametrize('method', ['source_only', 'train_on_target', 'dann'])
def test_defaults_there_and_back(tmp_path, method):
  settings = experiment.Experiment(method=method, run_dir='somewhere')
  config = methods.load(method).Config()
  path = tmp_path / 'flags.txt'
  path.write_text(flag_config.text(settings, config))
  assert flag_config.read(str(path)) == (settings, config)


def test_flags_of_a_run_with_a_default_directory_replay_it(tmp_path):
  settings = experiment.Experiment(source='a', target='b', seed=3)
  config = methods.load('dann').Config()
  content = flag_config.text(settings, config)
  # The first line is the command that goes on with the run.
  directory = settings.directory()
  assert f'--flagfile={directory}/flags.txt' in content.splitlines()[0]
  path = tmp_path / 'flags.txt'
  path.write_text(content)
  again, _ = flag_config.read(str(path))
  assert again.directory() == directory


# Differences.


def test_differences():
  config = methods.load('dann').Config
  before = experiment.Experiment(steps=5), config(gamma=3.0)
  after = experiment.Experiment(steps=6, image_size=9), config(gamma=4.0)
  assert list(flag_config.differences(before, before)) == []
  assert set(flag_config.differences(before, after)) == {
    ('steps', 5, 6),
    ('image_size', None, 9),
    ('dann.gamma', 3.0, 4.0),
  }


def test_differences_of_another_method():
  before = experiment.Experiment(), methods.load('dann').Config(gamma=3.0)
  after = (
    experiment.Experiment(method='source_only'),
    methods.load('source_only').Config(),
  )
  assert list(flag_config.differences(before, after)) == [
    ('method', 'dann', 'source_only')
  ]


# Help.


def test_help_lists_every_flag_with_default_and_text():
  text = flag_config.experiment_parser().help()
  lines = text.splitlines()
  groups = {'': experiment.Experiment}
  groups.update({f'{m}.': methods.load(m).Config for m in methods.names()})
  for prefix, config_class in groups.items():
    for field in dataclasses.fields(config_class):
      found = [
        i
        for i, line in enumerate(lines)
        if line.strip().startswith(f'--{prefix}{field.name}=')
      ]
      assert len(found) == 1, field.name
      default = 'not set' if field.default is None else str(field.default)
      shown = lines[found[0]].split('default: ')[1]
      assert shown.startswith((f'{default})', f'{default},'))
      assert field.metadata['help'] in ' '.join(
        lines[found[0] : found[0] + 3]
      ), field.name


def test_help_shows_types_choices_and_limits():
  text = flag_config.Parser({'mine': ('my.', _Settings)}).help()
  blocks = {block.split('=')[0]: block for block in text.split('  --')[1:]}
  assert 'mine:' in text
  assert blocks['my.count'].startswith('my.count=int')
  assert 'how many, in pieces' in blocks['my.count']
  assert blocks['my.rate'].startswith('my.rate=float')
  assert blocks['my.kind'].startswith('my.kind=red|green')
  assert blocks['my.size'].startswith('my.size=int')
  assert 'not set' in blocks['my.size']
  # The limits, 1 to 71 and from 0.25.
  assert '71' in blocks['my.count']
  assert '0.25' in blocks['my.rate']


# Running a tool.


def _run(monkeypatch, main, *arguments):
  """The exit code of a tool with this `main`; None if it returns."""
  monkeypatch.setattr(sys, 'argv', ['tool', *arguments])
  try:
    flag_config.run(
      main, 'Does it.\n', lambda: flag_config.Parser({'m': ('my.', _Settings)})
    )
  except SystemExit as stop:
    return stop.code
  return None


def _raising(error):
  def main(arguments):
    raise error

  return main


@pytest.mark.parametrize(
  'error, code',
  [
    (errors.UsageError('--steps=0 is below 1'), 2),
    (errors.RunError('the disk is full'), 1),
    (errors.Interrupted('stopped at step 3', 130), 130),
    (errors.Interrupted('stopped at step 3', 0), 0),
  ],
)
def test_errors_are_one_line_and_an_exit_code(monkeypatch, capsys, error, code):
  assert _run(monkeypatch, _raising(error)) == code
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.count('\n') == 1
  assert str(error) in captured.err
  assert 'Traceback' not in captured.err


def test_errors_of_the_command_line_reach_the_user(monkeypatch, capsys):
  parsed = []

  def main(arguments):
    parsed.append(_parse(*arguments))

  assert _run(monkeypatch, main, '--my.count=7') is None
  assert parsed == [_Settings(count=7)]
  assert _run(monkeypatch, main, '--my.count=seven') == 2
  assert _run(monkeypatch, main, '--my.cuont=7') == 2
  captured = capsys.readouterr()
  assert captured.err.count('\n') == 2
  assert 'seven' in captured.err and 'my.count' in captured.err


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
  with pytest.raises(KeyError):
    _run(monkeypatch, _raising(KeyError('x')))


@pytest.mark.parametrize('word', ['--help', '-h', '-help', '--helpfull'])
def test_help_of_a_tool(monkeypatch, capsys, word):
  main = _raising(AssertionError('help does not run it'))
  assert _run(monkeypatch, main, '--my.count=7', word) in (None, 0)
  captured = capsys.readouterr()
  assert captured.out.startswith('Does it.')
  assert '--my.rate=float' in captured.out
  assert captured.err == ''


@pytest.mark.parametrize(
  'flag, crops',
  [
    ('--cache_features', 1),
    ('--cache_features=1', 1),
    ('--cache_features=8', 8),
    ('--nocache_features', 0),
  ],
)
def test_flag_that_may_stand_without_a_value(flag, crops):
  settings, _, _, words = flag_config.parse_experiment(
    ['--augmentation=crop_flip', '--freeze_until=conv1', flag]
  )
  assert settings.cache_features == crops and not words


def test_cached_features_need_a_frozen_part_and_crops_an_augmentation():
  message = _refused(_parse_experiment, '--cache_features')
  assert '--freeze_until' in message
  message = _refused(
    _parse_experiment, '--cache_features=8', '--freeze_until=conv1'
  )
  assert '--augmentation' in message
