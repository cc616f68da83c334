"""The documents tell the truth: their code runs, their figures are results'."""

import json
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image

from tfda import flag_config, methods
from tfda.evaluation import study, summary

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(name):
  with open(os.path.join(ROOT, name), encoding='utf-8') as file:
    return file.read()


def test_readme_code_runs(tmp_path, monkeypatch, capsys):
  (code,) = re.findall(r'```python\n(.*?)```', read('README.md'), re.DOTALL)
  assert 'steps=200' in code
  monkeypatch.chdir(tmp_path)
  Image.fromarray(np.zeros([8, 8, 3], np.uint8)).save('digit.png')
  scope = {}
  exec(code.replace('steps=200', 'steps=2'), scope)
  printed = capsys.readouterr().out.splitlines()[-1]
  label, probability = printed.split()
  assert label in [str(digit) for digit in range(10)]
  assert 0.1 <= float(probability) <= 1.0
  assert scope['run'] == 'runs/first'


def test_readme_tables_are_those_of_the_committed_figures(monkeypatch):
  monkeypatch.chdir(ROOT)
  assert summary.fill_in('README.md') == read('README.md')


def test_table_of_validators_is_that_of_the_committed_figures():
  found = json.loads(read('results/validators.json'))
  assert study.table(found) in read('results/README.md')
  runs = [run for task in found.values() for run in task['runs']]
  assert f'On {len(runs)} runs' in read('results/README.md')


def test_readme_names_every_method_and_tool():
  text = read('README.md')
  for method in methods.names():
    assert f'`{method}`' in text
  for tool in re.findall(r'-m tools\.(\w+)', text):
    assert os.path.exists(os.path.join(ROOT, 'tools', f'{tool}.py'))


def _figures(folder, seed, target):
  folder = folder / f'seed{seed}'
  folder.mkdir(parents=True)
  results = {
    'steps': 9,
    'accuracy': {'source': 0.9, 'target': target},
    'oracle': {'target_accuracy': 0.75},
  }
  (folder / 'results.json').write_text(json.dumps(results))


def test_table_is_made_of_results(tmp_path):
  for seed, target in enumerate([0.5, 0.7]):
    _figures(tmp_path / 'a2b' / 'dann', seed, target)
  # The standard deviation of 50 and 70 is sqrt(2 * 10^2 / 1) = 14.14.
  row = summary.table('a2b', str(tmp_path)).splitlines()[-1]
  assert row == (
    '| [dann](flags/a2b/dann.flags) | 9 | 2 | 90.00 ± 0.00 | 60.00 ± 14.14 | '
    '75.00 ± 0.00 |  |'
  )


def test_pairs_are_compared_where_all_have_figures(tmp_path):
  for seed, target in enumerate([0.5, 0.7]):
    _figures(tmp_path / 'a2b' / 'dann', seed, target)
  _figures(tmp_path / 'b2a' / 'dann', 0, 0.4)
  for pair, target in (('a2b', 0.2), ('b2a', 0.6)):
    _figures(tmp_path / pair / 'source_only', 0, target)
  _figures(tmp_path / 'a2b' / 'tada', 0, 0.9)
  document = tmp_path / 'text.md'
  document.write_text('<!-- results: a2b b2a -->\n<!-- end -->\n')
  made = summary.fill_in(str(document), str(tmp_path)).splitlines()
  assert made[1:-1] == [
    '| flag file | steps | seeds | a2b | b2a | mean |',
    '|---|---|---|---|---|---|',
    '| [source_only](flags/a2b/source_only.flags) | 9 | 1 | 20.00 | 60.00 | '
    '40.00 |',
    '| [dann](flags/a2b/dann.flags) | 9 | 1-2 | 60.00 ± 14.14 | 40.00 | '
    '50.00 |',
  ]


def test_partial_adaptation_is_compared_with_none(tmp_path):
  targets = {'source_only_partial': 0.5, 'gsda_partial': 0.45, 'dann': 0.9}
  for name, target in targets.items():
    for pair in ('a2b', 'b2a'):
      _figures(tmp_path / pair / name, 0, target)
  document = tmp_path / 'text.md'
  document.write_text(
    '<!-- partial results: a2b b2a -->\n<!-- end -->\n'
    '<!-- results: a2b b2a -->\n<!-- end -->\n'
  )
  made = summary.fill_in(str(document), str(tmp_path)).splitlines()
  assert made[0] == '<!-- partial results: a2b b2a -->'
  assert made[1].endswith('| mean | transfer |')
  assert [line.split(' | ')[-1] for line in made[3:5]] == ['-5.00 |', '+0.00 |']
  assert made[5:7] == ['<!-- end -->', '<!-- results: a2b b2a -->']
  assert made[-2].startswith('| [dann]') and 'partial' not in made[-2]
  document.write_text('<!-- partial results: a2b -->\n<!-- end -->\n')
  made = summary.fill_in(str(document), str(tmp_path)).splitlines()
  assert made[1].endswith('| a2b | mean | transfer |')
  assert [line.split(' | ')[-1] for line in made[3:5]] == ['-5.00 |', '+0.00 |']


def test_visda_is_measured_by_its_classes(tmp_path):
  _figures(tmp_path / 'v' / 'gsda', 0, 0.9)
  path = tmp_path / 'v' / 'gsda' / 'seed0' / 'results.json'
  results = json.loads(path.read_text())
  results['source'] = 'visda2017/train'
  # A class of which the target has no image does not count; one that is always
  # mistaken does.
  of_class = {'car': 1.0, 'bus': 0.0, 'plane': None}
  results['per_class_accuracy'] = {'target': of_class}
  path.write_text(json.dumps(results))
  assert ' | 50.00 | ' in summary.table('v', str(tmp_path))


def test_collected_figures_hold_no_path_of_the_machine(tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  (run / 'results.json').write_text('{"seed": 4}')
  (run / 'metrics.csv').write_text('step\n1\n')
  paths = f'--run_dir={run}\n--cache_dir={run}\n--backbone_weights={run}/a.h5\n'
  (run / 'flags.txt').write_text(f'# {run}\n{paths}--steps=9\n')
  out = summary.collect(str(run), 'a2b/dann', str(tmp_path / 'results'))
  assert out == str(tmp_path / 'results' / 'a2b' / 'dann' / 'seed4')
  with open(os.path.join(out, 'flags.txt')) as file:
    assert file.read() == '--backbone_weights=a.h5\n--steps=9\n'
  assert sorted(os.listdir(out)) == ['flags.txt', 'metrics.csv', 'results.json']


def test_published_recipe_is_the_paper_s(monkeypatch):
  monkeypatch.chdir(ROOT)
  experiment, config, _, _ = flag_config.parse_experiment(
    ['--flagfile=flags/mnist2mnist_m/dann.flags']
  )
  # Section 4, Appendix C.
  assert experiment.batch_size == 64
  assert (experiment.learning_rate, experiment.momentum) == (0.01, 0.9)
  assert experiment.learning_rate_alpha == 10
  assert experiment.learning_rate_beta == 0.75
  assert not experiment.nesterov and experiment.weight_decay == 0
  assert config == methods.load('dann').Config()
  assert (config.gamma, config.domain_weight) == (10.0, 1.0)


def test_import_leaves_the_heavy_packages_alone():
  code = (
    'import sys, tfda\n'
    'heavy = {"keras_cv", "tensorflow_addons", "sklearn", "skimage", '
    '"matplotlib"}\n'
    'sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
