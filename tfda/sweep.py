"""A sweep: runs of one flag file over a grid or at random, chosen by validator.

The values are drawn by scikit-learn (ParameterGrid, ParameterSampler); each
trial is a process of its own, as TensorFlow does not share one.
"""

import os
import re
import subprocess
import sys
import time

from tfda import errors, run_directory

_NUMBER = r'[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?'
_RANGE = re.compile(f'({_NUMBER}):({_NUMBER})(?::(log|int))?')
_POLL_SECONDS = 0.2
_NAME_LENGTH = 120  # Of a file, whose system may allow 255 bytes.


def axis(text):
  """What a setting is to be: (its name, a list or a distribution of scipy).

  For example 'backbone=a,b': ('backbone', ['a', 'b']); 'momentum=0.5:0.9' is
  uniform, 'learning_rate=1e-3:1e-1:log' log-uniform (as often between 0.001 and
  0.01 as between 0.01 and 0.1), 'steps=100:300:int' an integer, both ends
  included.

  Raises:
    UsageError: it is neither.
  """
  from scipy import stats

  name, _, values = text.partition('=')
  if not name or not values:
    raise errors.UsageError(
      f'--over={text}: NAME=a,b or NAME=LOW:HIGH, :log or :int behind it'
    )
  found = _RANGE.fullmatch(values)
  if not found:
    return name, values.split(',')
  low, high, kind = float(found[1]), float(found[2]), found[3]
  if low >= high or (kind == 'log' and low <= 0.0):
    raise errors.UsageError(
      f'--over={text}: from the lower to the higher, above 0 for log'
    )
  if kind == 'int':
    return name, stats.randint(int(low), int(high) + 1)
  if kind == 'log':
    return name, stats.loguniform(low, high)
  return name, stats.uniform(low, high - low)


def trials(overs, count=None, seed=0):
  """The settings of all trials, each once: [{name: text of the value}].

  Lists alone are a grid, unless there are to be fewer. More trials of the same
  seed begin with the same ones where there is a range.

  Args:
    overs: of `axis`.
    count: of trials, at random; None for the whole grid.
    seed: of the choice.

  Raises:
    UsageError: there is nothing to go over, or a range and no count.
  """
  from sklearn import model_selection

  axes = dict(axis(text) for text in overs)
  if not axes:
    raise errors.UsageError('--over=NAME=VALUES is needed')
  grid = all(isinstance(values, list) for values in axes.values())
  if count is None and not grid:
    raise errors.UsageError('--trials=N is needed to draw from a range')
  if grid:
    drawn = model_selection.ParameterGrid(axes)
  if not grid or (count is not None and count < len(drawn)):
    drawn = model_selection.ParameterSampler(axes, count, random_state=seed)
  made = [{name: _text(trial[name]) for name in axes} for trial in drawn]
  return list({tuple(trial.items()): trial for trial in made}.values())


def _text(value):
  """Of a number with four digits, which name the run and are its setting."""
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def name_of(trial):
  """The name of a trial's run directory, as 'learning_rate=0.01,seed=1'."""
  name = ','.join(f'{key}={value}' for key, value in trial.items())
  name = re.sub(r'[^\w.=,-]+', '_', name)
  if len(name) <= _NAME_LENGTH:
    return name
  import hashlib

  return f'{name[:_NAME_LENGTH]}-{hashlib.sha1(name.encode()).hexdigest()[:8]}'


def run(commands, jobs):
  """Runs processes, at most `jobs` at a time, each with its share of the cores.

  Where this is interrupted, those that run are asked to stop (SIGTERM), and
  waited for.

  Args:
    commands: {name of a log file: words of a command}.
    jobs: at least 1.

  Yields:
    (the log file, the exit code) of each as it ends.
  """
  threads = str(max(1, (os.cpu_count() or 1) // jobs))
  environment = {
    **os.environ,
    'OMP_NUM_THREADS': threads,
    'TF_NUM_INTRAOP_THREADS': threads,
    'TF_NUM_INTEROP_THREADS': threads,
    'TF_FORCE_GPU_ALLOW_GROWTH': 'true',  # They share its memory.
  }
  waiting, running = list(commands), {}
  try:
    while waiting or running:
      while waiting and len(running) < jobs:
        path = waiting.pop(0)
        with open(path, 'wb') as log:
          running[path] = subprocess.Popen(
            commands[path],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
          )
      time.sleep(_POLL_SECONDS)
      for path, process in list(running.items()):
        if process.poll() is not None:
          yield path, running.pop(path).returncode
  finally:
    for process in running.values():
      process.terminate()
    for process in running.values():
      process.wait()


def train(settings, jobs, tools='tools', say=print):
  """Trains all trials, or goes on with those that are not finished.

  Args:
    settings: {run directory: text of its flag file}.
    jobs: processes at a time.
    tools: the package of the tools.
    say: takes a line for every trial that ends.

  Returns:
    The directories of the finished runs, in the order of `settings`.

  Raises:
    RunError: none was finished.
  """
  commands = {}
  for path, text in settings.items():
    if run_directory.RunDirectory(path).finished():
      continue
    os.makedirs(os.path.dirname(path), exist_ok=True)
    run_directory.write(f'{path}.flags', text)
    commands[f'{path}.log'] = [
      *(sys.executable, '-m', f'{tools}.train', f'--flagfile={path}.flags')
    ]
  done = len(settings) - len(commands)
  for log, code in run(commands, jobs):
    done += 1
    state = 'finished'
    if code:
      with open(log, encoding='utf-8', errors='replace') as file:
        (last,) = file.read().splitlines()[-1:] or ['no word']
      state = f'failed ({last}; all of it: {log})'
    path = log[: -len('.log')]
    say(f'{done} of {len(settings)}: {os.path.basename(path)} {state}')
  finished = [
    path for path in settings if run_directory.RunDirectory(path).finished()
  ]
  if not finished:
    raise errors.RunError('no trial was finished')
  return finished
