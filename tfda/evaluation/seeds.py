"""Runs of the same settings, of several seeds."""

import dataclasses
import math
import os

import numpy as np

from tfda.evaluation import summary


@dataclasses.dataclass(frozen=True)
class Spread:
  """A figure over seeds.

  Attributes:
    mean: of the values.
    deviation: their standard deviation, of a sample; None of one value.
    interval: (low, high) of the mean, 95 %; None of one value.
  """

  mean: float
  deviation: float = None
  interval: tuple = None


def spread(values):
  """The Spread of values, by Student's distribution (Student 1908).

    mean +- t s / sqrt(n),  s^2 = sum (x - mean)^2 / (n - 1)

  with t the 97.5 % quantile for n - 1 degrees of freedom. For example 0.5, 0.6
  and 0.7: mean 0.6, s = 0.1, t = 4.3027, 0.3516 to 0.8484.

  Args:
    values: [n]; None where one of them is missing.

  Returns:
    None where a value is missing.
  """
  if any(value is None for value in values):
    return None
  from scipy import stats

  count, mean = len(values), float(np.mean(values))
  if count == 1:
    return Spread(mean)
  deviation = float(np.std(values, ddof=1))
  half = stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)
  return Spread(mean, deviation, (mean - half, mean + half))


def groups(runs):
  """{name: runs} that differ in nothing but their seed and their paths.

  Args:
    runs: finished.Run, each.

  Returns:
    Groups in the order of the runs, named by method; where several are of one
    method, by what is common to the paths of each, too.
  """
  found = {}
  for run in runs:
    fixed = [
      line
      for line in run.settings.splitlines()
      if not line.startswith((*summary.PATHS, '--seed='))
    ]
    task = [run.results[key] for key in ('method', 'source', 'target')]
    size = [run.results[key] for key in ('backbone', 'steps')]
    found.setdefault(tuple(map(str, task + size + fixed)), []).append(run)
  tasks = {key[1:3] for key in found}
  named = {}
  for key, group in found.items():
    name = key[0]
    if len(tasks) > 1:
      name += f', {key[1]} → {key[2]}'
    if sum(other[:3] == key[:3] for other in found) > 1:
      paths = [os.path.abspath(run.path) for run in group]
      common = paths[0] if len(paths) == 1 else os.path.commonpath(paths)
      name += f' ({os.path.relpath(common)})'
    named[name] = group
  return named
