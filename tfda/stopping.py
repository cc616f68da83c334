"""Ctrl-C and SIGTERM: when training stops, on all workers at the same step."""

import contextlib
import signal
import threading
import time

_SECONDS = 1.0  # About as often do several workers ask each other.


class Stopped(Exception):
  """A signal came in `StopRequests.interruptible`."""


class StopRequests:
  """The signals that stop a training; a context manager while it runs.

  Attributes:
    signal: the number of the first one that is to stop it; None: none.
  """

  def __init__(self, workers, step):
    """workers: the distribution.Workers; step: where training begins."""
    self.signal = None
    self._workers = workers
    self._received = None
    self._is_interruptible = False
    self._asked = time.monotonic(), step
    self._next_step = step + 1
    self._previous_handlers = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGINT, signal.SIGTERM):
        self._previous_handlers[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exception):
    for number, handler in self._previous_handlers.items():
      signal.signal(number, handler)

  def _handle(self, number, frame):
    del frame
    self._received = self._received or number
    if self._is_interruptible:
      self._is_interruptible = False
      raise Stopped

  def after(self, step):
    """Whether training stops after this step; called after every one."""
    if self._workers.count == 1:
      self.signal = self._received
    elif self.signal is None and step >= self._next_step:
      self._ask(step)
    return self.signal is not None

  def _ask(self, step):
    """Finds out whether any worker is to stop, and when to ask again."""
    then, asked_step = self._asked
    milliseconds = int(1000 * (time.monotonic() - then))
    # Sums are the same everywhere, so the next question is at the same step.
    interrupts, terminations, milliseconds = self._workers.sum(
      [
        self._received == signal.SIGINT,
        self._received == signal.SIGTERM,
        milliseconds,
      ]
    )
    if interrupts or terminations:
      self.signal = signal.SIGINT if interrupts else signal.SIGTERM
    seconds = milliseconds / 1000 / self._workers.count / (step - asked_step)
    self._next_step = step + max(1, int(_SECONDS / max(seconds, 1e-3)))
    self._asked = time.monotonic(), step

  @contextlib.contextmanager
  def interruptible(self):
    """What a signal may break off at once, by Stopped.

    Not among several workers, who would wait for each other.
    """
    try:
      # In this order: a signal between the two is heard.
      self._is_interruptible = self._workers.count == 1
      if self._is_interruptible and self._received:
        raise Stopped
      yield
    finally:
      self._is_interruptible = False
