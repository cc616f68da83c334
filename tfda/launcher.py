"""Several workers of one run on this machine, started again if one is lost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

_GRACE = 30.0  # Seconds in which the others find out that one is lost.
_POLL = 0.2  # Seconds.
_TAIL = 2000  # Characters of the output of a worker that failed.
_USAGE = 2  # Exit code of a command that is wrong, and stays so.


def launch(command, workers, restarts=0):
  """Runs a command as so many workers until all are done.

  The output of worker 0, the chief, is this process's own; that of the others
  goes to files. SIGINT and SIGTERM are passed on: all stop after a checkpoint.

  Args:
    command: words, without the strategy.
    workers: how many.
    restarts: how often all are started again after one was lost.

  Returns:
    The exit code: 0, or that of the first that failed (1 if it was killed).
  """
  folder = tempfile.mkdtemp(prefix='tfda-workers-')
  logs = [os.path.join(folder, f'{i}.log') for i in range(workers)]
  if workers > 1:
    print(f'output of the workers but the first: {folder}', flush=True)
  while True:
    index, code, stopped = _run(command, logs)
    if not code:
      return 0
    if index:
      with open(logs[index], errors='replace') as file:
        sys.stderr.write(file.read()[-_TAIL:])
    if code < 0:
      print(f'worker {index}: killed by signal {-code}', file=sys.stderr)
    if stopped or code == _USAGE or not restarts:
      return max(code, 1)
    restarts -= 1
    print(f'all start again; times left: {restarts}', file=sys.stderr)


def _run(command, logs):
  """Runs all workers once.

  Args:
    command: words.
    logs: paths of files for the output; the first is not used.

  Returns:
    (number of the first worker that failed, its exit code or minus its signal,
    whether a signal came); the first two are 0 if none failed.
  """
  processes = []
  with contextlib.ExitStack() as stack:
    addresses = ','.join(f'localhost:{port}' for port in free_ports(len(logs)))
    received = stack.enter_context(_passed_on(processes))
    for index, path in enumerate(logs):
      output = stack.enter_context(open(path, 'ab')) if index else None
      processes.append(
        subprocess.Popen(
          [
            *command,
            '--strategy=multi_worker',
            f'--workers={addresses}',
            f'--worker_index={index}',
          ],
          stdout=output,
          stderr=subprocess.STDOUT if index else None,
          # Not of the terminal's group: Ctrl-C comes once, from here.
          start_new_session=True,
        )
      )
    stack.callback(_end, processes)
    failed = _wait(processes)
    return (*failed, bool(received))


def _wait(processes):
  """(number, exit code) of the first process that fails; (0, 0) if none."""
  failed, deadline = None, None
  while True:
    codes = [process.poll() for process in processes]
    if failed is None:
      failed = next(((i, code) for i, code in enumerate(codes) if code), None)
      deadline = failed and time.monotonic() + _GRACE
    if None not in codes or (deadline and time.monotonic() > deadline):
      return failed or (0, 0)
    time.sleep(_POLL)


def _end(processes):
  for process in processes:
    process.kill()
    process.wait()


@contextlib.contextmanager
def _passed_on(processes):
  """Passes signals on to processes; a list of those that came."""
  received = []

  def handle(number, frame):
    del frame
    received.append(number)
    for process in processes:
      process.send_signal(number)

  numbers = signal.SIGINT, signal.SIGTERM
  before = [signal.signal(number, handle) for number in numbers]
  try:
    yield received
  finally:
    for number, handler in zip(numbers, before):
      signal.signal(number, handler)


def free_ports(count):
  with contextlib.ExitStack() as stack:
    probes = [stack.enter_context(socket.socket()) for _ in range(count)]
    for probe in probes:
      probe.bind(('localhost', 0))
    return [probe.getsockname()[1] for probe in probes]
