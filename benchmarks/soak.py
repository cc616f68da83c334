r"""A run of two workers, one of whom is killed again and again.

  python -m benchmarks.soak FOLDER [KILLS] > benchmarks/soak.json

Each time a worker at random gets SIGKILL at a random moment: every third time
of its start, else of the seconds after both have trained again, however long
the start takes on this machine. When the other has noticed, both start again.
One that still waits for the other to begin notices nothing: after a while it is
killed too, as tools.launch does. In the end they finish, and all that is saved
is compared, bit for bit, with what an undisturbed run saves. A soak that was
interrupted goes on in the same folder.
"""

import json
import os
import random
import re
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tests import processes
from tfda import checkpoints, run_directory

_KILLS = 100
_STEPS = 5_000
# Seconds to a kill, at most: from the start, from the first new checkpoint.
_LONGEST = {'start': 10.0, 'training': 2.0}
# Seconds in which the other is to notice; TensorFlow's own heartbeat takes ten.
_GRACE = {'start': 5.0, 'training': 30.0}


def _workers(run_dir):
  return processes.start_workers(
    run_dir, f'--steps={_STEPS}', '--checkpoint_every=20', '--log_every=100'
  )


def _last(run_dir):
  """The path of the last checkpoint, and its step; (None, 0) without one."""
  saved = checkpoints.paths(os.path.join(run_dir, 'checkpoints'))
  return (saved[-1], int(saved[-1].rpartition('-')[2])) if saved else (None, 0)


def _kill_one(run_dir, number):
  """Starts both and kills one; what happened, as a dict."""
  chosen = random.Random(number)
  first, started = _last(run_dir)[1], time.monotonic()
  workers = _workers(run_dir)
  index = chosen.randrange(2)
  moment = 'training' if number % 3 else 'start'
  if moment == 'training':
    processes.wait_for(lambda: _last(run_dir)[1] > first, *workers)
  time.sleep(chosen.uniform(0.0, _LONGEST[moment]))
  seconds = time.monotonic() - started
  workers[index].kill()
  began = time.monotonic()
  try:
    workers[1 - index].wait(_GRACE[moment])
  except subprocess.TimeoutExpired:
    workers[1 - index].kill()
  endings = processes.finish(*workers)
  code, output = endings[1 - index]
  return {
    'worker': index,
    'moment': moment,
    'after_seconds': round(seconds, 2),
    'noticed_seconds': round(time.monotonic() - began, 2),
    'exit_code': code,
    'line': output.splitlines()[-1] if output else '',
    'is_traced': 'Traceback' in output,
    'skipped_checkpoints': sum(o.count('; going back to') for _, o in endings),
    'first_step': first,
    'last_step': _last(run_dir)[1],
  }


def _differing(one, other):
  """(how many tensors two runs have saved, names of those that differ)."""
  readers = [tf.train.load_checkpoint(_last(path)[0]) for path in (one, other)]
  names = [
    {
      name
      for name in reader.get_variable_to_shape_map()
      # Not the clock, nor how often it was saved.
      if not name.startswith(('seconds', 'save_counter', '_CHECKPOINTABLE'))
    }
    for reader in readers
  ]
  differing = names[0] ^ names[1]
  for name in names[0] & names[1]:
    ours, theirs = (np.asarray(r.get_tensor(name)) for r in readers)
    if ours.tobytes() != theirs.tobytes():
      differing.add(name)
  return len(names[0] | names[1]), sorted(differing)


def _endings(kills):
  """{how the worker that was not killed ended: how often}."""
  counts = {}
  for kill in kills:
    if kill['exit_code'] < 0:
      ending = 'did not notice in time, killed too'
    else:
      line = re.sub(r'\d+', 'N', kill['line'])
      ending = f'exit code {kill["exit_code"]}: {line}'
    counts[ending] = counts.get(ending, 0) + 1
  return counts


def main():
  folder = sys.argv[1]
  kills = int(sys.argv[2]) if len(sys.argv) > 2 else _KILLS
  soaked, straight = (os.path.join(folder, n) for n in ('soaked', 'straight'))
  path = os.path.join(folder, 'kills.json')
  done = []
  if os.path.exists(path):
    with open(path) as file:
      done = json.load(file)
  else:
    os.makedirs(folder)
  began = time.monotonic()
  while len(done) < kills and _last(soaked)[1] < _STEPS:
    done.append(_kill_one(soaked, len(done)))
    run_directory.write(path, json.dumps(done))
    print(f'kill {len(done)}: {done[-1]}', file=sys.stderr, flush=True)
  lost = 0
  for run_dir in soaked, straight:
    endings = processes.finish(*_workers(run_dir))
    lost += any(code for code, _ in endings)
    print(*(output for _, output in endings if lost), file=sys.stderr)
  print(json.dumps(_summary(done, lost, soaked, straight, began), indent=1))


def _summary(done, lost, soaked, straight, began):
  """What is committed."""
  compared, differing = (0, []) if lost else _differing(soaked, straight)
  by_moment = {
    moment: [kill for kill in done if kill['moment'] == moment]
    for moment in _LONGEST
  }
  return {
    'commit': run_directory.commit(),
    'seconds': round(time.monotonic() - began),
    'steps': _STEPS,
    'kills': len(done),
    'kills_of_the_chief': sum(kill['worker'] == 0 for kill in done),
    **{f'kills_in_{m}': len(kills) for m, kills in by_moment.items()},
    'starts_after_which_a_new_checkpoint_was_there': sum(
      kill['last_step'] > kill['first_step'] for kill in done
    ),
    'steps_when_last_killed': done[-1]['last_step'],
    'damaged_checkpoints_skipped': sum(k['skipped_checkpoints'] for k in done),
    # Of the worker that was not killed, as users see them.
    **{
      f'endings_after_kills_in_{moment}': _endings(kills)
      for moment, kills in by_moment.items()
    },
    'largest_seconds_until_noticed': max(
      (k['noticed_seconds'] for k in done if k['exit_code'] >= 0), default=None
    ),
    'stack_traces': sum(kill['is_traced'] for kill in done),
    'runs_lost': lost,
    'tensors_compared': compared,
    'tensors_that_differ': differing,
  }


if __name__ == '__main__':
  main()
