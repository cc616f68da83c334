"""Tables of the report."""

from tfda.evaluation import calibration as calibrations
from tfda.evaluation import pages, seeds, validators

_NONE = '–'


def _mean(by_class):
  """The mean over classes that have one; None where there is none."""
  values = [x for x in (by_class or {}).values() if x is not None]
  return sum(values) / len(values) if values else None


def over_seeds(runs):
  """Means over seeds; None where no settings have two runs.

  Args:
    runs: finished.Run, each, as in all tables.
  """
  groups = seeds.groups(runs)
  if all(len(group) == 1 for group in groups.values()):
    return None
  figures = (
    ('source accuracy', True, lambda r: r['accuracy']['source']),
    ('target accuracy', True, lambda r: r['accuracy']['target']),
    (
      'oracle (best step on target labels)',
      True,
      lambda r: (r.get('oracle') or {}).get('target_accuracy'),
    ),
    (
      'target entropy (nats)',
      False,
      lambda r: r['validators'].get('target_entropy'),
    ),
    (
      'information maximisation (nats)',
      False,
      lambda r: r['validators'].get('information_maximisation'),
    ),
  )

  def cell(group, percents, figure):
    found = seeds.spread([figure(run.results) for run in group])
    shown = pages.percent if percents else pages.number
    if found is None:
      return _NONE
    if found.deviation is None:
      return shown(found.mean)
    low, high = map(shown, found.interval)
    deviation = shown(found.deviation)
    return f'{shown(found.mean)} ± {deviation}', f'{low} to {high}'

  return pages.Table(
    'Mean over seeds ± standard deviation; below it the 95 % interval of the '
    "mean (Student's distribution), which says nothing of other data sets",
    ('seeds', *(name for name, _, _ in figures)),
    tuple(
      (
        name,
        (
          ', '.join(str(run.results['seed']) for run in group),
          *(cell(group, percents, figure) for _, percents, figure in figures),
        ),
      )
      for name, group in groups.items()
    ),
  )


def of_validators(runs):
  """All validators that some run has."""
  found = [
    (name, validator)
    for name, validator in validators.VALIDATORS.items()
    if any(run.results['validators'].get(name) is not None for run in runs)
  ]
  return pages.Table(
    'Validators, which need no target labels: ↑ the greater the better, ↓ the '
    'lower',
    tuple(
      f'{name.replace("_", " ")} {"↑" if v.greater_is_better else "↓"}'
      for name, v in found
    ),
    tuple(
      (
        run.label,
        tuple(
          pages.number(run.results['validators'].get(name)) for name, _ in found
        ),
      )
      for run in runs
    ),
  )


def of_distances(runs):
  """How far apart the domains are; None where no run has measured it."""
  columns = (
    ('proxy A-distance', lambda d: d['proxy_a_distance']),
    ("the discriminator's A-distance", lambda d: d['discriminator_a_distance']),
    ('squared MMD', lambda d: d['squared_mmd']),
    ('distance of covariances', lambda d: d['correlation_distance']),
    ('class centres (predicted)', lambda d: _mean(d['centroid_distance'])),
    ('class centres (oracle)', lambda d: _mean(d['oracle_centroid_distance'])),
  )
  measured = [run for run in runs if run.results.get('distances')]
  if not measured:
    return None
  return pages.Table(
    'How far apart the features of the domains are; of class centres the mean '
    'over classes, in units of their width',
    tuple(name for name, _ in columns),
    tuple(
      (
        run.label,
        tuple(
          pages.number(figure(run.results['distances']))
          for _, figure in columns
        ),
      )
      for run in measured
    ),
  )


def of_calibration(runs):
  """Calibration errors; None where no run has kept what they are made of."""
  kept = [run for run in runs if run.arrays]
  if not kept:
    return None

  def cells(measured):
    yield pages.number(measured['temperature'])
    for side in ('source', 'oracle_target'):
      for name in ('error', 'error_scaled'):
        value = (measured[side] or {}).get(name)
        yield pages.percent(value, _NONE)

  return pages.Table(
    'Expected calibration error (15 bins): how far the confidence is from the '
    'accuracy, as it is and with logits divided by the temperature that fits '
    'the source',
    (
      'temperature',
      'source',
      'source, scaled',
      'target (oracle)',
      'target (oracle), scaled',
    ),
    tuple(
      (run.label, tuple(cells(calibrations.measure(run.outputs))))
      for run in kept
    ),
  )


def of_differences(change):
  """What a comparison found of each validator, and of the oracle.

  Args:
    change: changes.Change that was not refused.
  """
  compared = change.judged
  rows = list(compared.differences)
  if compared.oracle is not None:
    rows.append(compared.oracle)
  judged = {None: 'undecided', True: 'better', False: 'worse'}
  return pages.Table(
    f'{change.run.label} beside {change.baseline.label}; the interval (95 %) '
    'is that of the difference, over test images drawn anew',
    ('before', 'after', 'difference', 'verdict'),
    tuple(
      (
        row.name.replace('_', ' '),
        (
          pages.number(row.before),
          pages.number(row.after),
          f'{row.interval[0]:+.4f} to {row.interval[1]:+.4f}',
          judged[row.better],
        ),
      )
      for row in rows
    ),
  )
