"""Trainings in processes of their own, for the tests that kill them."""

import os
import signal
import subprocess
import sys
import time

from tfda import launcher

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SECONDS = 240.0  # Beyond these a process hangs.


def command(run_dir, *flags):
  """Words of a training on the small digits; the same bits in every run."""
  return [
    sys.executable,
    '-m',
    'tools.train',
    '--source=optdigits',
    '--target=optdigits_m',
    '--image_size=8',
    '--batch_size=8',
    '--steps=40',
    '--log_every=10',
    '--evaluate_every=40',
    '--checkpoint_every=10',
    '--deterministic',
    f'--run_dir={run_dir}',
    *flags,
  ]


def start(run_dir, *flags, more=(), cwd=ROOT, wrapper=()):
  """Starts it, with more flags, in a folder, behind the words of a wrapper."""
  return subprocess.Popen(
    [*wrapper, *command(run_dir, *flags, *more)],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': ROOT},
    # What a shell starts in the background ignores it, as do its children.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def start_workers(run_dir, *flags, each=({}, {})):
  """Starts the workers of one training; `each`: what else `start` has."""
  ports = launcher.free_ports(len(each))
  addresses = ','.join(f'localhost:{port}' for port in ports)
  return [
    start(
      run_dir,
      '--strategy=multi_worker',
      f'--workers={addresses}',
      f'--worker_index={index}',
      *flags,
      **more,
    )
    for index, more in enumerate(each)
  ]


def finish(*processes):
  """[(exit code, output)] of processes, in their order."""
  outputs = [p.communicate(timeout=_SECONDS)[0] for p in processes]
  return [(p.returncode, output) for p, output in zip(processes, outputs)]


def wait_for(condition, *processes):
  """Waits until it is true, or one of the processes has ended."""
  end = time.monotonic() + _SECONDS
  while not condition():
    assert time.monotonic() < end
    assert all(process.poll() is None for process in processes)
    time.sleep(0.005)
