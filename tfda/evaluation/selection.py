"""Choosing among runs without target labels."""

import dataclasses

from tfda import errors, run_directory


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A finished run, as a choice without target labels sees it."""

  run_dir: str
  source_accuracy: float
  score: float
  admitted: bool


def rank(run_dirs, validator='information_maximisation', tolerance=0.02):
  """Ranks finished runs by a validator, the best first.

  Only runs that still classify the source are admitted: a model may be certain
  of all its target predictions because it has given up on both domains.

  Args:
    run_dirs: paths of runs.
    validator: a key of results.json's `validators`; the greater the better,
      but for the entropy and the losses.
    tolerance: how far below the best source accuracy a run may be, in 0..1.

  Returns:
    Candidates, the admitted ones first, then by score.

  Raises:
    UsageError: a run is not finished, or has no such validator.
  """
  found = []
  for path in run_dirs:
    validators = run_directory.RunDirectory(path).read_results()['validators']
    if validator not in validators:
      raise errors.UsageError(
        f'--validator={validator}: {path} has no such figure; '
        f'{errors.near(validator, sorted(validators))}'
      )
    found.append((path, validators['source_accuracy'], validators[validator]))
  least = max(accuracy for _, accuracy, _ in found) - tolerance
  candidates = [
    Candidate(path, accuracy, score, accuracy >= least)
    for path, accuracy, score in found
  ]
  sign = 1.0 if validator.endswith(('entropy', 'loss')) else -1.0
  return sorted(candidates, key=lambda c: (not c.admitted, sign * c.score))
