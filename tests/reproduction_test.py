"""Reproducing tables: definitions, runs that are needed, figures by hand."""

import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import tiny_run
from tfda import errors, methods, published_tables, reproduction
from tfda.data import catalogue, domains
from tfda.evaluation import reproduced, summary
from tools import reproduce as tool

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOY = 'toy/one'
DEFINITION = {
  'title': 'A toy',
  'seeds': 2,
  'columns': [{'pair': 'optdigits2optdigits_m', 'title': 'toy'}],
  'rows': [
    {'label': 'none', 'flags': 'source_only', 'published': ['50.0 / 40']},
    {'label': 'SA', 'published': ['60.78']},
    {'label': 'DANN', 'flags': 'dann', 'published': ['very low']},
  ],
}
# A tool that only pretends to train: targets 0.5 + seed / 10, and no word of
# seed 13. The second evaluation has the better validator, the first one the
# better target accuracy, the third gives up the source.
TRAIN = """
import json, os, signal, sys, time
path = sys.argv[1].split('=', 1)[1]
flags = dict(
  line[2:].strip().split('=', 1) for line in open(path) if line[:2] == '--'
)
run, seed = flags['run_dir'], int(flags['seed'])
os.makedirs(run, exist_ok=True)
with open(os.path.join(run, 'flags.txt'), 'w') as file:
  file.write(open(path).read())
if os.environ.get('SLOW'):
  def stop(*_):
    open(os.path.join(run, 'saved'), 'w').close()
    sys.exit(0)
  signal.signal(signal.SIGTERM, stop)
  open(os.path.join(run, 'ready'), 'w').close()
  time.sleep(60)
if os.environ.get('UNLUCKY') == str(seed):
  print('error: unlucky')
  sys.exit(1)
target = 0.5 + seed / 10
with open(os.path.join(run, 'metrics.csv'), 'w') as file:
  file.write(
    'step,accuracy/source,accuracy/target,'
    'validator/information_maximisation\\n'
    f'1,0.9,{target + 0.2},1.0\\n2,0.9,{target + 0.1},2.0\\n'
    f'3,0.8,{target},3.0\\n'
  )
with open(os.path.join(run, 'results.json'), 'w') as file:
  json.dump({
    'seed': seed, 'steps': 3, 'seconds': 1800, 'commit': 'abc',
    'source': flags['source'], 'validators': {},
    'accuracy': {'source': 0.8, 'target': target},
    'oracle': {'step': 1, 'target_accuracy': target + 0.2},
  }, file)
"""


def _define(definition, name=TOY):
  path = os.path.join('flags', 'tables', f'{name}.json')
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with open(path, 'w') as file:
    json.dump(definition, file)


@pytest.fixture
def toy(tmp_path, monkeypatch):
  """A folder with flag files and one table; the working directory."""
  (tmp_path / 'flags').mkdir()
  for name in os.listdir(os.path.join(ROOT, 'flags')):
    if name != 'tables':
      source = os.path.join(ROOT, 'flags', name)
      (tmp_path / 'flags' / name).symlink_to(source)
  monkeypatch.chdir(tmp_path)
  _define(DEFINITION)
  return tmp_path


@pytest.fixture
def pretended(toy, monkeypatch):
  """The same with a tool that pretends to train."""
  (toy / 'pretended').mkdir()
  (toy / 'pretended' / '__init__.py').write_text('')
  (toy / 'pretended' / 'train.py').write_text(TRAIN)
  monkeypatch.setenv('PYTHONPATH', str(toy))
  monkeypatch.setattr(tool, '__package__', 'pretended')
  return toy


def _states(options=None):
  definition = published_tables.load(TOY)
  options = options or reproduction.Settings()
  runs = reproduction.plan(TOY, definition, options)
  return {place: run.state for place, run in runs.items()}


def test_table_is_its_flag_files_and_seeds(toy):
  pair = 'optdigits2optdigits_m'
  assert _states() == {
    f'{pair}/{name}/seed{seed}': 'new'
    for name in ('source_only', 'dann')
    for seed in (0, 1)
  }
  assert len(_states(reproduction.Settings(seeds=3))) == 6


def test_settings_of_a_table_have_places_of_their_own(toy):
  rows = [
    {'label': 'a', 'flags': 'dann'},
    {'label': 'b', 'flags': 'dann', 'settings': {'momentum': 0.5}},
  ]
  _define({**DEFINITION, 'seeds': 1, 'rows': rows, 'settings': {'steps': 7}})
  runs = reproduction.plan(
    TOY, published_tables.load(TOY), reproduction.Settings(runs_dir='r')
  )
  place = 'toy/one/optdigits2optdigits_m/dann'
  assert list(runs) == [f'{place}/seed0', f'{place},momentum=0.5/seed0']
  plain, other = (run.experiment for run in runs.values())
  assert (plain.steps, plain.momentum) == (7, 0.9)
  assert (other.steps, other.momentum) == (7, 0.5)
  assert plain.run_dir == f'r/{place}/seed0'
  # Another table of the same settings shares the runs.
  _define({**DEFINITION, 'settings': {'steps': 7}, 'runs': TOY}, 'toy/two')
  two = reproduction.plan(
    'toy/two', published_tables.load('toy/two'), reproduction.Settings()
  )
  assert f'{place}/seed0' in two


def test_runs_are_skipped_resumed_and_kept(pretended, monkeypatch, capsys):
  monkeypatch.setenv('UNLUCKY', '1')
  assert tiny_run.call(tool, monkeypatch, TOY, '--parallel=2') == 1
  told = capsys.readouterr()
  assert 'error: 2 runs have failed; the same command tries again' in told.err
  assert told.out.count('failed (error: unlucky; all of it: runs/') == 2
  pair = 'optdigits2optdigits_m'
  # They had begun, so they are gone on with.
  assert _states() == {
    f'{pair}/source_only/seed0': 'collected',
    f'{pair}/source_only/seed1': 'resumable',
    f'{pair}/dann/seed0': 'collected',
    f'{pair}/dann/seed1': 'resumable',
  }
  before = os.stat(f'runs/{pair}/dann/seed0/results.json').st_mtime_ns
  monkeypatch.delenv('UNLUCKY')
  # Figures are enough: without the run, nothing is done again.
  os.remove(f'runs/{pair}/source_only/seed0/results.json')
  assert tiny_run.call(tool, monkeypatch, TOY) == 0
  out = capsys.readouterr().out
  assert '2 to be gone on with' in out and '2 of 2: ' in out
  assert 'nothing left' in out
  assert os.stat(f'runs/{pair}/dann/seed0/results.json').st_mtime_ns == before
  assert not os.path.exists(f'runs/{pair}/source_only/seed0/results.json')
  assert set(_states().values()) == {'collected'}
  # A run that is finished and was not collected is.
  os.remove(f'results/{pair}/dann/seed1/results.json')
  assert _states()[f'{pair}/dann/seed1'] == 'finished'
  assert tiny_run.call(tool, monkeypatch, TOY) == 0
  assert set(_states().values()) == {'collected'}


def test_other_settings_are_neither_counted_nor_overwritten(
  pretended, monkeypatch, capsys
):
  assert tiny_run.call(tool, monkeypatch, TOY, '--seeds=1') == 0
  capsys.readouterr()
  figures = 'results/optdigits2optdigits_m/dann/seed0'
  with open(f'{figures}/flags.txt') as file:
    text = file.read()
  with open(f'{figures}/flags.txt', 'w') as file:
    file.write(re.sub('--steps=.*', '--steps=77', text))
  assert tiny_run.call(tool, monkeypatch, TOY, '--seeds=1') == 0
  out = capsys.readouterr().out
  assert f'1 of other settings: {figures}: --steps was 77, is 1000' in out
  with open(f'{figures}/flags.txt') as file:
    assert '--steps=77' in file.read()
  with open('results/toy/one.json') as file:
    none, _, dann = json.load(file)['rows']
  assert none['cells'][0]['ours'] and not dann['cells'][0]['ours']


def test_figures_are_those_of_the_runs(pretended, monkeypatch, capsys):
  assert tiny_run.call(tool, monkeypatch, TOY, '--seeds=2') == 0
  capsys.readouterr()
  with open('results/toy/one.json') as file:
    record = json.load(file)
  none, alone, dann = (row['cells'][0] for row in record['rows'])
  # 50 and 60: the deviation is sqrt(2 * 5^2 / 1) = 7.07.
  assert none['ours'] == {'mean': 55.0, 'deviation': 7.07}
  assert none['selected'] == {'mean': 65.0, 'deviation': 7.07}
  assert none['oracle'] == {'mean': 75.0, 'deviation': 7.07}
  assert none['difference'] == [5.0, 15.0] and none['seeds'] == [0, 1]
  assert dann['difference'] == [None]
  assert (alone['published'], alone['ours']) == ('60.78', None)
  assert (record['hours'], record['commits']) == (2.0, ['abc'])
  assert record['command'] == 'python -m tools.reproduce toy/one --seeds=2'
  with open('results/toy/one.md', encoding='utf-8') as file:
    lines = file.read().splitlines()
  assert lines[4:9] == [
    '|  | seeds | ours | selected | oracle | published | difference |',
    '|---|---|---|---|---|---|---|',
    '| none | 2 | 55.00 ± 7.07 | 65.00 ± 7.07 | 75.00 ± 7.07 | 50.0 / 40 | '
    '+5.00 / +15.00 |',
    '| SA |  |  |  |  | 60.78 |  |',
    '| DANN | 2 | 55.00 ± 7.07 | 65.00 ± 7.07 | 75.00 ± 7.07 | very low |  |',
  ]
  with open('results/toy/one.png', 'rb') as file:
    assert file.read(8) == b'\x89PNG\r\n\x1a\n'
  # Into a document, as it is in the page.
  with open('text.md', 'w') as file:
    file.write('a\n<!-- table: toy/one -->\nold\n<!-- end -->\nb\n')
  filled = summary.fill_in('text.md').splitlines()
  assert filled[2:-2] == lines[4:9] and filled[-2:] == ['<!-- end -->', 'b']


def test_curve_is_the_error_over_steps(pretended, monkeypatch, capsys):
  _define({**DEFINITION, 'curve': True})
  assert tiny_run.call(tool, monkeypatch, TOY) == 0
  capsys.readouterr()
  none, dann = reproduced._errors_over_steps(
    TOY, published_tables.load(TOY), reproduction.Settings()
  )
  assert (none[0], dann[0]) == ('none', 'DANN')
  # Targets of the seeds are 0.7 and 0.8, 0.6 and 0.7, 0.5 and 0.6.
  assert none[1] == [1, 2, 3]
  np.testing.assert_allclose(none[2], [0.25, 0.35, 0.45])


def test_mean_is_over_the_columns_of_a_seed(pretended, monkeypatch, capsys):
  columns = [*DEFINITION['columns'], {'pair': 'a2b', 'title': 'other'}]
  os.mkdir('flags/a2b')
  with open('flags/a2b/dann.flags', 'w') as file:
    file.write('--flagfile=flags/optdigits2optdigits_m/dann.flags\n')
  row = {'label': 'DANN', 'flags': 'dann', 'published': ['1', '', '50']}
  only = {'label': 'one', 'flags': {'a2b': 'dann'}}
  _define({**DEFINITION, 'columns': columns, 'mean': True, 'rows': [row, only]})
  assert tiny_run.call(tool, monkeypatch, TOY) == 0
  capsys.readouterr()
  # One seed of one column is lost: the mean has the other.
  os.remove('results/a2b/dann/seed1/results.json')
  record = reproduced.measure(
    TOY, published_tables.load(TOY), reproduction.Settings()
  )
  first, second, mean = record['rows'][0]['cells']
  assert (first['ours']['mean'], second['ours']['mean']) == (55.0, 50.0)
  assert mean['seeds'] == [0] and mean['difference'] == [0.0]
  assert mean['ours'] == {'mean': 50.0, 'deviation': None}
  assert [cell['ours'] for cell in record['rows'][1]['cells'][::2]] == [
    None
  ] * 2
  page = reproduced.as_markdown(record).splitlines()
  assert '| DANN | ours | 55.00 ± 7.07 | 50.00 | 50.00 | 1-2 |' in page
  assert '|  | difference | +54.00 |  | +0.00 |  |' in page


def test_class_is_a_column_and_visda_a_mean_over_classes(toy):
  results = {
    'source': 'visda2017/train',
    'accuracy': {'target': 0.9},
    'oracle': {'target_accuracy': 0.95},
    'per_class_accuracy': {'target': {'car': 1.0, 'bus': 0.5}},
  }
  values = reproduced._values(results, [], '.', 'bus')
  assert values == {'ours': 50.0}
  assert reproduced._values(results, [], '.', None) == {'ours': 75.0}


def test_published_texts_have_numbers():
  assert published_tables.numbers('57.49 / 52.25') == [57.49, 52.25]
  assert published_tables.numbers('94.3 ± 0.3') == [94.3]
  assert published_tables.numbers('very low') == [None]
  assert published_tables.numbers('') == []


def test_dry_run_lists_and_writes_nothing(toy, monkeypatch, capsys):
  columns = [
    *DEFINITION['columns'],
    {'pair': 'office31_amazon2webcam', 'title': 'A → W'},
    {'pair': 'icon_home_color2solid', 'title': 'icons'},
  ]
  row = {'label': 'DANN', 'flags': 'dann'}
  _define({**DEFINITION, 'columns': columns, 'rows': [row]})
  for part in ('color', 'solid'):
    os.makedirs(f'data/icon_home/{part}/cup')
    with open(f'data/icon_home/{part}/cup/a.png', 'wb') as file:
      file.write(b'no image, and not read')
  words = [TOY, '--dry_run', '--data_dir=data']
  assert tiny_run.call(tool, monkeypatch, *words) == 0
  lines = capsys.readouterr().out.splitlines()
  home = catalogue.DATA_SETS['office31'].home
  assert lines == [
    'toy/one: A toy',
    '2 to do',
    '  optdigits2optdigits_m/dann/seed0-1',
    '2 left out: office31/amazon: data/office31/amazon is missing; where it is '
    f'had: {home}',
    '  office31_amazon2webcam/dann/seed0-1',
    '2 left out: --backbone_weights=PATH is needed, of mobilenet on ImageNet',
    '  icon_home_color2solid/dann/seed0-1',
  ]
  assert sorted(os.listdir()) == ['data', 'flags']
  # With weights, which those of digits do not get.
  options = reproduction.Settings(data_dir='data', backbone_weights='w.h5')
  runs = reproduction.plan(TOY, published_tables.load(TOY), options)
  weights = {
    run.place.split('/')[0]: run.experiment.backbone_weights
    for run in runs.values()
    if run.state == 'new'
  }
  assert weights == {
    'optdigits2optdigits_m': 'none',
    'icon_home_color2solid': 'w.h5',
  }


def test_what_reads_a_translation_waits_for_it(toy):
  row = {
    'label': 'T~',
    'flags': 'attention_alignment',
    'translation': 'translation',
  }
  columns = [{'pair': 'mnist_sample2mnist_m_sample', 'title': 'sample'}]
  _define({**DEFINITION, 'columns': columns, 'rows': [row], 'seeds': 1})
  definition, options = published_tables.load(TOY), reproduction.Settings()
  made, reads = reproduction.plan(TOY, definition, options).values()
  assert (made.tool, reads.tool) == ('translate', 'train')
  assert reads.needs == made.place
  assert reads.experiment.translation == made.path
  assert reproduction._lacking(reads, {made.place: made})
  os.makedirs(made.path)
  with open(f'{made.path}/results.json', 'w') as file:
    file.write('{}')
  assert not reproduction._lacking(reads, {made.place: made})


@pytest.mark.parametrize(
  'words, told',
  [
    (['toy/ome'], 'toy/ome: no such table; did you mean toy/one?'),
    ([], 'one table is needed; there are: toy/one'),
    (['toy/one', '--seeds=0'], '--seeds=0 is below 1'),
  ],
)
def test_wrong_words_are_told_in_a_line(words, told, toy, monkeypatch, capsys):
  assert tiny_run.call(tool, monkeypatch, *words) == 2
  assert capsys.readouterr().err == f'error: {told}\n'


def test_interruption_stops_the_runs_with_checkpoints(pretended):
  """Of a process in the background of a shell too, which ignores Ctrl-C."""
  code = (
    'from tools import reproduce\n'
    'reproduce.__package__ = "pretended"\n'
    'reproduce.run()'
  )
  environment = {**os.environ, 'SLOW': '1'}
  environment['PYTHONPATH'] = f'{pretended}:{ROOT}'
  process = subprocess.Popen(
    [sys.executable, '-c', code, TOY, '--parallel=2'],
    env=environment,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
  )
  runs = 'runs/*/*/seed*/'
  while len(glob.glob(f'{runs}ready')) < 2 and process.poll() is None:
    time.sleep(0.02)
  process.send_signal(signal.SIGINT)
  _, error = process.communicate()
  assert process.returncode == 130
  assert error.endswith('stopped; the same command goes on from there\n')
  assert len(glob.glob(f'{runs}saved')) == 2
  assert sorted(_states().values()) == ['new', 'new', 'resumable', 'resumable']
  assert not os.path.exists('results')


def test_time_left_is_that_of_the_steps(toy):
  runs = list(
    reproduction.plan(
      TOY, published_tables.load(TOY), reproduction.Settings(seeds=1)
    ).values()
  )
  now, said = [0.0], []
  progress = reproduction._Progress(runs, said.append, lambda: now[0])
  assert progress.left() == 'time left not known yet'
  os.makedirs(runs[0].path)
  with open(f'{runs[0].path}/metrics.csv', 'w') as file:
    file.write('step,loss\n100,1\n250,1\n3')  # The last is being written.
  # 250 of 2,000 steps in ten minutes: 1,750 are 70 minutes.
  now[0] = 600.0
  progress.watch([runs[0].path])
  progress.watch([runs[0].path])
  assert said == [
    'optdigits2optdigits_m/source_only/seed0 at step 250 of 1000; '
    'about 1:10 h left'
  ]
  progress.ended(runs[0], None)
  assert said[-1].endswith('source_only/seed0 finished; about 0:10 h left')


def test_data_are_looked_for_and_not_read(tmp_path):
  def told(name):
    with pytest.raises(errors.UsageError) as error:
      domains.check_present(name, str(tmp_path))
    return str(error.value)

  assert 'no such domain' in told('office31/amazone')
  assert 'mnist.npz; it is the file' in told('mnist')
  (tmp_path / 'mnist.npz').write_bytes(b'nothing')
  domains.check_present('mnist', str(tmp_path))
  assert 'needs the photographs of BSDS500' in told('mnist_m')
  (tmp_path / 'bsds500_photos.zip').write_bytes(b'nothing')
  domains.check_present('mnist_m', str(tmp_path))
  domains.check_present('optdigits_m')


# What rows are called whose method is not the paper's.
_METHODS = {
  'source only': 'source_only',
  'source and labelled target': 'source_only',
  'labelled target alone': 'train_on_target',
  'train on target': 'train_on_target',
  'RevGrad': 'dann',
  'CDAN+E': 'cdan',
  'BSP+DANN': 'bsp',
  'BSP+CDAN': 'bsp',
}


def _method_of(name, label):
  label = label.split(',')[0]
  squeezed = label.lower().replace(' ', '_')
  if label in _METHODS:
    return _METHODS[label]
  if squeezed in methods.names():
    return squeezed
  return name.split('/')[0]


def _comments(path):
  with open(path, encoding='utf-8') as file:
    return ' '.join(line[2:].strip() for line in file if line[:1] == '#')


def _figures_of(comments):
  """(figures of the pair, that of the average) that a flag file tells of."""
  average = re.search(r'([\d.]+) on average', comments)
  found = re.search(
    r'(?:: |Published: )(very low|[\d.]*\d(?: ± [\d.]*\d)?)'
    r'(?: \(later version: ([\d.]+\d)\))?(?=[.;,]*(?: |$))',
    comments,
  )
  texts = [text for text in (found.groups() if found else ()) if text]
  return [_in_percent(text) for text in texts], average and average.group(1)


def _in_percent(text):
  words = text.split(' ± ')
  if words[0].startswith('.'):  # As in Ganin & Lempitsky 2015.
    digits = max(0, len(words[0]) - 3)
    words = [f'{100.0 * float(word):.{digits}f}' for word in words]
  return ' ± '.join(words)


@pytest.fixture
def in_root(monkeypatch):
  monkeypatch.chdir(ROOT)


def test_definitions_are_those_of_the_flag_files(in_root):
  parsed, compared, used = {}, 0, set()
  for name in published_tables.names():
    definition = published_tables.load(name)
    columns = len(definition['columns']) + bool(definition.get('mean'))
    paper = re.match(r'.*? \d{4}', definition['title'])
    for row, cells in zip(
      definition['rows'], published_tables.cells(name, definition)
    ):
      assert set(row) <= {
        'label', 'flags', 'settings', 'translation', 'published',
      }  # fmt: skip
      assert len(row.get('published', [''] * columns)) == columns, (name, row)
      flags = row.get('flags')
      if isinstance(flags, dict):
        assert set(flags) <= {
          column['pair'] for column in definition['columns']
        }
      for cell in cells:
        if cell.flags is None:
          continue
        where = f'{name}, {cell.label}: {cell.flags}'
        used.add(cell.flags)
        assert os.path.exists(cell.flags), where
        assert cell.translation is None or os.path.exists(cell.translation)
        key = cell.flags, cell.words
        if key not in parsed:
          parsed[key] = published_tables.parse(cell, reproduction.Settings())[0]
        experiment = parsed[key]
        assert experiment.method == _method_of(name, cell.label), where
        source, target = experiment.source, experiment.target
        pair = f'{source}2{target.split("/")[-1]}'
        pair = re.sub('[/ ]', '_', pair.lower())
        assert pair == cell.column['pair'], where
        comments = _comments(cell.flags)
        if paper and comments.startswith(f'{paper.group()},'):
          figures, average = _figures_of(comments)
          if figures and cell.published and 'class' not in cell.column:
            known = ' / '.join(figures)
            # A table may be without the deviation that another one has.
            assert cell.published in (known, known.split(' ± ')[0]), where
            compared += 1
          if average and definition.get('mean'):
            assert average == row['published'][-1], where
            compared += 1
  assert compared > 250
  # No row of the papers is forgotten.
  for path in glob.glob('flags/*/*.flags'):
    written = re.match(r'# (Ganin|Wen|Hu|Wang|Kang) [^,]*, Table', _read(path))
    if written and path not in used:
      assert 'sample' in path, f'{path} is in no table'


def _read(path):
  with open(path, encoding='utf-8') as file:
    return file.read()


def test_every_method_is_a_baseline(in_root):
  definition = published_tables.load('baselines/digits')
  found = {
    published_tables.parse(cell, reproduction.Settings())[0].method
    for (cell,) in published_tables.cells('baselines/digits', definition)
  }
  assert found == set(methods.names())
  assert definition['settings']['steps'] == 3000


def test_committed_tables_are_those_of_the_committed_figures(in_root):
  """Whose definition, too, has not changed since."""
  found = []
  for name in published_tables.names():
    path = os.path.join('results', f'{name}.json')
    if not os.path.exists(path):
      continue
    record = json.loads(_read(path))
    options = reproduction.Settings(seeds=record['seeds'])
    made = reproduced.measure(name, published_tables.load(name), options)
    made['command'] = record['command']
    assert made == record, name
    page = os.path.join('results', f'{name}.md')
    assert reproduced.as_markdown(made) == _read(page), name
    found.append(name)
  assert {'dann/table1', 'tada/ablation_icons'} <= set(found)


@pytest.mark.slow
def test_real_table_is_stopped_and_goes_on(toy):
  small = {
    'steps': 60,
    'image_size': 8,
    'batch_size': 8,
    'log_every': 10,
    'evaluate_every': 30,
    'checkpoint_every': 10,
  }
  _define({**DEFINITION, 'settings': small})
  code = 'from tools import reproduce; reproduce.run()'
  command = [sys.executable, '-c', code, TOY, '--seeds=1', '--parallel=1']
  environment = {**os.environ, 'PYTHONPATH': ROOT}
  stopped = subprocess.Popen(
    command, env=environment, stdout=subprocess.DEVNULL
  )
  runs = f'runs/{TOY}/optdigits2optdigits_m'
  metrics = f'{runs}/source_only/seed0/metrics.csv'
  while not os.path.exists(metrics) and stopped.poll() is None:
    time.sleep(0.01)
  stopped.send_signal(signal.SIGTERM)
  assert stopped.wait() == 130
  assert os.path.exists(f'{runs}/source_only/seed0/checkpoints/checkpoint')
  done = subprocess.run(
    command, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  assert '1 to do' in done.stdout and '1 to be gone on with' in done.stdout
  with open(f'{runs}/source_only/seed0.log') as file:
    assert 'going on at step' in file.read()
  with open(f'results/{TOY}.json') as file:
    record = json.load(file)
  for row in (record['rows'][0], record['rows'][2]):
    cell = row['cells'][0]
    with open(f'{runs}/{row["flags"]}/seed0/results.json') as file:
      results = json.load(file)
    assert cell['ours']['mean'] == round(100 * results['accuracy']['target'], 2)
    assert cell['oracle']['mean'] == round(
      100 * results['oracle']['target_accuracy'], 2
    )
    assert cell['oracle']['mean'] >= cell['selected']['mean']
