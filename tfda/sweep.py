"""A sweep: runs of one flag file over a grid or at random, chosen by validator.

The values are drawn by scikit-learn (ParameterGrid, ParameterSampler); each
trial is a process of its own, as TensorFlow does not share one.
"""

import contextlib
import os
import re
import signal
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


def run(commands, jobs, watch=None):
  """Runs processes, at most `jobs` at a time, each with its share of the cores.

  Where this is interrupted, those that run are asked to stop (SIGTERM), and
  waited for.

  Args:
    commands: {name of a log file: words of a command}.
    jobs: at least 1.
    watch: is called several times a second with the log files of those that
      run.

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
      if watch:
        watch(list(running))
      for path, process in list(running.items()):
        if process.poll() is not None:
          yield path, running.pop(path).returncode
  finally:
    for process in running.values():
      process.terminate()
    for process in running.values():
      process.wait()


def fitting(count, jobs=None):
  """How many of `count` processes run at a time: one a core if not said."""
  return max(1, min(count, jobs or os.cpu_count() or 1))


@contextlib.contextmanager
def interruptible():
  """Ctrl-C and SIGTERM end the block, and what `run` started in it.

  Raises:
    Interrupted: one of them came; the runs have written their checkpoints.
  """
  # Ctrl-C too: a job in the background of a shell begins without.
  names = (signal.SIGINT, signal.SIGTERM)
  previous = [signal.signal(name, signal.default_int_handler) for name in names]
  try:
    yield
  except KeyboardInterrupt:
    raise errors.Interrupted(
      'stopped; the same command goes on from there', 130
    ) from None
  finally:
    for name, handler in zip(names, previous):
      signal.signal(name, handler)


def each(settings, jobs, tools='tools', tool='train', watch=None):
  """Runs a tool on all settings, or goes on with those that are not finished.

  Beside every run directory are then its flag file and its log, PATH.flags and
  PATH.log.

  Args:
    settings: {run directory: text of its flag file}.
    jobs: processes at a time.
    tools: the package of the tools.
    tool: which of them.
    watch: as of `run`, with run directories.

  Yields:
    (run directory, None or why it is not finished) of each that ends.
  """
  commands = {}
  for path, text in settings.items():
    if run_directory.RunDirectory(path).finished():
      continue
    os.makedirs(os.path.dirname(path), exist_ok=True)
    run_directory.write(f'{path}.flags', text)
    commands[f'{path}.log'] = [
      *(sys.executable, '-m', f'{tools}.{tool}', f'--flagfile={path}.flags')
    ]

  def watched(logs):
    watch([_of_log(log) for log in logs])

  ended = run(commands, jobs, watch and watched)
  with contextlib.closing(ended):  # An interruption here stops them too.
    for log, code in ended:
      yield _of_log(log), _failure(log, code)


def _of_log(log):
  return log[: -len('.log')]


def _failure(log, code):
  """Why the run of a log is not finished; None if it is."""
  if not code and run_directory.RunDirectory(_of_log(log)).finished():
    return None
  with open(log, encoding='utf-8', errors='replace') as file:
    (last,) = file.read().splitlines()[-1:] or ['no word']
  return f'{last}; all of it: {log}'


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

  def finished():
    return [p for p in settings if run_directory.RunDirectory(p).finished()]

  done = len(finished())
  for path, failure in each(settings, jobs, tools):
    done += 1
    state = f'failed ({failure})' if failure else 'finished'
    say(f'{done} of {len(settings)}: {os.path.basename(path)} {state}')
  if not finished():
    raise errors.RunError('no trial was finished')
  return finished()
