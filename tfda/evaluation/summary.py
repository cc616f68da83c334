"""Committed figures: finished runs under results/, and tables made of them.

A run's figures live in results/<pair>/<flag file>/seed<N>/: results.json,
flags.txt and metrics.csv. Every table in a document is filled in from there.
"""

import glob
import json
import os
import re
import shutil

import numpy as np

from tfda import errors, run_directory

_KEPT = ('results.json', 'metrics.csv')
# Of flags.txt, lines that hold paths of the machine it ran on are not kept; of
# the weights' path, the folder is not.
PATHS = ('#', '--data_dir=', '--run_dir=', '--cache_dir=', '--translation=')
_WEIGHTS = '--backbone_weights='
# Published accuracies on the target: Ganin & Lempitsky 2015, Table 1, the
# second figure that of a later version; Kang et al. 2018, Table 1.
_PUBLISHED = {
  ('mnist2mnist_m', 'source_only'): '57.49 / 52.25',
  ('mnist2mnist_m', 'dann'): '81.49 / 76.66',
  ('mnist2mnist_m', 'train_on_target'): '98.91',
  ('mnist2mnist_m', 'attention_alignment_source'): '45.6',
  ('mnist2mnist_m', 'attention_alignment_translated'): '75.0',
  ('mnist2mnist_m', 'attention_alignment_labelled_unaligned'): '78.5',
  ('mnist2mnist_m', 'attention_alignment_labelled'): '85.7',
  ('mnist2mnist_m', 'attention_alignment_unaligned'): '93.5',
  ('mnist2mnist_m', 'attention_alignment'): '95.6',
}
# Flag files of partial adaptation, and what they are compared with.
_PARTIAL = '_partial'
_PARTIAL_BASELINE = 'source_only_partial'


def collect(run_dir, name, results='results'):
  """Copies the figures of a finished run.

  Args:
    run_dir: the run.
    name: <pair>/<flag file>, as under flags/.
    results: the folder of figures.

  Returns:
    The folder they were copied to.

  Raises:
    UsageError: the run is not finished.
  """
  run = run_directory.RunDirectory(run_dir)
  seed = run.read_results()['seed']
  out = os.path.join(results, name, f'seed{seed}')
  os.makedirs(out, exist_ok=True)
  for file in _KEPT:
    shutil.copy(os.path.join(run_dir, file), out)
  with open(run.flags, encoding='utf-8') as file:
    kept = [
      re.sub(f'^{_WEIGHTS}.*/', _WEIGHTS, line)
      for line in file
      if not line.startswith(PATHS)
    ]
  run_directory.write(os.path.join(out, 'flags.txt'), ''.join(kept))
  return out


def table(pair, results='results'):
  """A Markdown table of a pair's runs: means over seeds, in percent.

  Args:
    pair: for example 'mnist2mnist_m'.
    results: the folder of figures.
  """
  lines = [
    '| flag file | steps | seeds | source | target | oracle | published |',
    '|---|---|---|---|---|---|---|',
  ]
  rows = []
  for name, runs in _runs(pair, results).items():
    target = targets(runs)
    cells = [
      f'[{name}](flags/{pair}/{name}.flags)',
      str(runs[0]['steps']),
      str(len(runs)),
      _percent([run['accuracy']['source'] for run in runs]),
      _percent(target),
      _percent([run['oracle']['target_accuracy'] for run in runs]),
      _PUBLISHED.get((pair, name), ''),
    ]
    rows.append((np.mean(target), f'| {" | ".join(cells)} |'))
  return '\n'.join(lines + [line for _, line in sorted(rows)])


def comparison(pairs, results='results', partial=False):
  """A Markdown table of target accuracies, a column a pair, and their mean.

  Args:
    pairs: at least one, as for `table`. A flag file that some of them lack is
      left out.
    results: the folder of figures.
    partial: whether it is of partial adaptation, of flag files named so. Then
      the last column is what adaptation transfers, the mean less that of
      `source_only_partial`: below 0 it harms (negative transfer).
  """
  of_pair = [_runs(pair, results) for pair in pairs]
  shared = {
    name
    for name in set.intersection(*map(set, of_pair))
    if name.endswith(_PARTIAL) == partial
  }
  rows, means = [], {}
  for name in shared:
    found = [targets(runs[name]) for runs in of_pair]
    means[name] = mean = np.mean([np.mean(target) for target in found])
    seeds = sorted({len(target) for target in found})
    cells = [
      f'[{name}](flags/{pairs[0]}/{name}.flags)',
      str(of_pair[0][name][0]['steps']),
      '-'.join(map(str, seeds)),
      *map(_percent, found),
      _percent([mean]),
    ]
    rows.append((mean, name, cells))
  heads = ['flag file', 'steps', 'seeds', *pairs, 'mean']
  if partial:
    if _PARTIAL_BASELINE not in means:
      raise errors.UsageError(
        f'{results}: {pairs} lack figures of {_PARTIAL_BASELINE}'
      )
    heads.append('transfer')
    for mean, _, cells in rows:
      cells.append(f'{100.0 * (mean - means[_PARTIAL_BASELINE]):+.2f}')
  lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
  lines += [f'| {" | ".join(cells)} |' for _, _, cells in sorted(rows)]
  return '\n'.join(lines)


def _runs(pair, results):
  """{flag file: results.json of its seeds}."""
  pattern = os.path.join(glob.escape(results), pair, '*', '*', 'results.json')
  runs = {}
  for path in sorted(glob.glob(pattern)):
    name = os.path.basename(os.path.dirname(os.path.dirname(path)))
    with open(path) as file:
      run = json.load(file)
    if 'accuracy' in run:  # A translation has none.
      runs.setdefault(name, []).append(run)
  return runs


def targets(runs):
  """Accuracies on the target, of dicts of results.json.

  Of VisDA-2017, as in its papers, their means over classes.
  """

  def measured(run):
    if not run.get('source', '').startswith('visda2017'):
      return run['accuracy']['target']
    of_class = run['per_class_accuracy']['target'].values()
    return np.mean([x for x in of_class if x is not None])

  return [measured(run) for run in runs]


def _percent(values):
  values = 100.0 * np.array(values)
  if len(values) == 1:
    return f'{values[0]:.2f}'
  return f'{values.mean():.2f} ± {values.std(ddof=1):.2f}'


def fill_in(document, results='results'):
  """Returns a document's text with its tables made anew.

  A table stands between `<!-- results: PAIR -->` and `<!-- end -->`; with
  several pairs it compares them; `partial results:` are those of partial
  adaptation, of one pair or several.

  Raises:
    UsageError: there are no figures for a pair that the document names.
  """

  def filled(match):
    partial, pairs = bool(match.group(1)), match.group(2).split()
    for pair in pairs:
      if not os.path.isdir(os.path.join(results, pair)):
        raise errors.UsageError(f'{results}/{pair}: no figures for {document}')
    if partial or pairs[1:]:
      made = comparison(pairs, results, partial)
    else:
      made = table(*pairs, results)
    marks = match.group(0).splitlines()
    return f'{marks[0]}\n{made}\n{marks[-1]}'

  def copied(match):
    path = os.path.join(results, f'{match.group(1)}.md')
    if not os.path.isfile(path):
      raise errors.UsageError(f'{path}: no such table, for {document}')
    with open(path, encoding='utf-8') as file:
      lines = [line for line in file if line.startswith('|')]
    marks = match.group(0).splitlines()
    return f'{marks[0]}\n{"".join(lines)}{marks[-1]}'

  with open(document, encoding='utf-8') as file:
    text = file.read()
  text = re.sub(
    r'<!-- table: (\S+) -->\n.*?<!-- end -->', copied, text, flags=re.DOTALL
  )
  return re.sub(
    r'<!-- (partial )?results: (.+?) -->\n.*?<!-- end -->',
    filled,
    text,
    flags=re.DOTALL,
  )
