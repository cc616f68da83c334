"""When training stops after a signal."""

import os
import signal
import types

import pytest

from tfda import stopping


class Workers:
  """Two, of whom this one adds what the other would."""

  count = 2

  def __init__(self, others):
    self._others = iter(others)
    self.asked = 0

  def sum(self, values):
    self.asked += 1
    other = next(self._others)
    return [int(a) + b for a, b in zip(values, other)]


ALONE = types.SimpleNamespace(count=1)


def raise_signal(number):
  os.kill(os.getpid(), number)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_one_process_stops_after_the_step_in_which_a_signal_came(number):
  with stopping.StopRequests(ALONE, 0) as requests:
    assert not requests.after(1)
    raise_signal(number)
    assert requests.after(2)
    assert requests.signal == number


def test_the_other_worker_s_signal_stops_this_one_too():
  workers = Workers([[0, 0, 0], [0, 1, 0]])
  requests = stopping.StopRequests(workers, 0)
  stops = [requests.after(step) for step in range(1, 3000)]
  assert workers.asked == 2
  first = stops.index(True)
  assert not any(stops[:first]) and all(stops[first:])
  assert requests.signal == signal.SIGTERM


def test_workers_ask_about_once_a_second():
  # Another second passes over there at every question: half a second a step
  # at the first, so two steps to the next; then a quarter, so four.
  workers = Workers([[0, 0, 1000], [0, 0, 1000], [0, 0, 1000]])
  requests = stopping.StopRequests(workers, 0)
  asked_after = []
  for step in range(1, 8):
    before = workers.asked
    requests.after(step)
    if workers.asked > before:
      asked_after.append(step)
  assert asked_after == [1, 3, 7]


def test_evaluation_is_broken_off_by_a_signal():
  with stopping.StopRequests(ALONE, 0) as requests:
    with pytest.raises(stopping.Stopped), requests.interruptible():
      raise_signal(signal.SIGTERM)
      raise AssertionError('it went on')
    assert requests.after(1)
    # What came before is not forgotten, and later work not begun.
    with pytest.raises(stopping.Stopped), requests.interruptible():
      raise AssertionError('it began')


def test_several_workers_finish_an_evaluation():
  requests = stopping.StopRequests(Workers([]), 0)
  with requests, requests.interruptible():
    raise_signal(signal.SIGTERM)
