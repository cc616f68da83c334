r"""A run of two workers, one of whom is killed again and again.

  python -m benchmarks.soak FOLDER [KILLS] > benchmarks/soak.json

Each time a worker at random gets SIGKILL at a random moment: every fourth time
of its start, else of the seconds after both have trained again, however long
the start takes on this machine. When the other has noticed, both start again.
One that has not within _GRACE seconds, as it still waits for the other to begin
or for TensorFlow's heartbeat, is killed too, as by tools.launch. In the end
they finish, and their weights are compared with those of an undisturbed run. A
soak that was interrupted goes on in the same folder.
"""

import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf

from tests import processes
from tfda import checkpoints, run_directory

_KILLS = 100
_STEPS = 5_000
_START = 10.0  # Seconds from the start to a kill in it, at most.
_TRAINING = 2.0  # Seconds from the first new checkpoint to a kill, at most.
_GRACE = 8.0  # Seconds in which the other is to notice.


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
  is_training = number % 4 > 0
  if is_training:
    processes.wait_for(lambda: _last(run_dir)[1] > first, *workers)
  time.sleep(chosen.uniform(0.0, _TRAINING if is_training else _START))
  seconds = time.monotonic() - started
  workers[index].kill()
  began = time.monotonic()
  try:
    workers[1 - index].wait(_GRACE)
  except subprocess.TimeoutExpired:
    workers[1 - index].kill()
  ending = processes.finish(*workers)[1 - index]
  line = ending[1].splitlines()[-1] if ending[1] else ''
  return {
    'worker': index,
    'is_training': is_training,
    'after_seconds': round(seconds, 2),
    'noticed_seconds': round(time.monotonic() - began, 2),
    'exit_code': ending[0],
    'line': line,
    'is_traced': 'Traceback' in ending[1],
    'last_checkpoint': _last(run_dir)[1],
  }


def _killed_too(done, is_training):
  """How many kills of this kind the other had not noticed in time."""
  return sum(
    k['exit_code'] < 0 and k['is_training'] is is_training for k in done
  )


def _largest_difference(one, other):
  """Of all numbers in the last checkpoints of two runs, but for the clock."""
  readers = [tf.train.load_checkpoint(_last(path)[0]) for path in (one, other)]
  largest = 0.0
  for name in readers[0].get_variable_to_shape_map():
    if not name.startswith(('seconds', 'save_counter', '_CHECKPOINTABLE')):
      ours, theirs = (
        np.asarray(r.get_tensor(name), np.float64) for r in readers
      )
      largest = max(largest, np.abs(ours - theirs).max(initial=0.0))
  return largest


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
  while len(done) < kills and _last(soaked)[1] < _STEPS:
    done.append(_kill_one(soaked, len(done)))
    run_directory.write(path, json.dumps(done))
    print(f'kill {len(done)}: {done[-1]}', file=sys.stderr, flush=True)
  for run_dir in soaked, straight:
    for code, output in processes.finish(*_workers(run_dir)):
      if code:
        sys.exit(output)
  print(
    json.dumps(
      {
        'commit': run_directory.RunDirectory(soaked).read_results()['commit'],
        'steps': _STEPS,
        'kills': len(done),
        'kills_of_the_chief': sum(kill['worker'] == 0 for kill in done),
        'kills_in_training': sum(kill['is_training'] for kill in done),
        'steps_when_last_killed': done[-1]['last_checkpoint'],
        'other_killed_too_in_start': _killed_too(done, False),
        'other_killed_too_in_training': _killed_too(done, True),
        'largest_seconds_until_noticed': max(
          k['noticed_seconds'] for k in done if k['exit_code'] >= 0
        ),
        # As users see them.
        'exit_codes': sorted({k['exit_code'] for k in done}),
        'last_lines': sorted({k['line'] for k in done}),
        'stack_traces': sum(kill['is_traced'] for kill in done),
        'largest_difference_of_weights': _largest_difference(soaked, straight),
      },
      indent=1,
    )
  )


if __name__ == '__main__':
  main()
