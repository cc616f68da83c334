"""What a written model must pass before a server sees it.

It is loaded by a fresh process that cannot import tfda, answers its warm-up
requests and the evaluation images through every signature, and must give the
labels and probabilities of the run; it must be good enough, and better than
without adaptation as far as that can be told without labels.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from typing import Optional

import numpy as np

from tfda import errors, run_directory
from tfda.data import task
from tfda.evaluation import comparison, evaluate, selection
from tfda.serving import replay

# Differences beyond these are no rounding. In half precision (bfloat16: 8 bits)
# fused operations round elsewhere.
TOLERANCE = {'float32': 1e-5, 'float16': 1e-2, 'bfloat16': 5e-2}

_RESAMPLES = 200  # For intervals, as those of the report.


@dataclasses.dataclass(frozen=True)
class Reference:
  """What the run says of N evaluation images.

  Attributes:
    images: uint8 [N, S, S, 3], as the model takes them.
    logits: float32 [N, C].
    labels: integers [N], or None.
    origin: what images they are, for a report.
    divisor: by what logits are divided for probabilities.
  """

  images: np.ndarray
  logits: np.ndarray
  labels: Optional[np.ndarray]
  origin: str
  divisor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Measured:
  """What an export costs and is worth.

  Attributes:
    size: bytes of its files.
    speed: images/s, of batches of 64.
    accuracy: in [0, 1], or the share of the run's labels where there are none.
  """

  size: int
  speed: float
  accuracy: float

  def text(self, name):
    """A row of a table."""
    return (
      f'{name:13} {self.size / 1e6:8.2f} MB {self.speed:8.0f} images/s '
      f'{self.accuracy:7.2%}'
    )


def reference(run, experiment, model, count):
  """Returns the Reference of a run: random images of the target's test split.

  The logits are those that the run saved; of one that goes on, the model's. If
  the data cannot be read, the few images that a finished run saved take their
  place.

  Args:
    run: the RunDirectory.
    experiment: its Experiment.
    model: as the last checkpoint has it.
    count: of images, at most.

  Raises:
    UsageError: the data cannot be read, and the run is not finished or has
      images above 96 pixels.
  """
  saved = None
  if run.finished():
    with np.load(run.evaluation) as arrays:
      saved = {name: arrays[name] for name in arrays.files}
  tested = dataclasses.replace(experiment, translation=None)
  try:
    domain = task.load(tested, model.read_size)['target', 'test']
  except errors.UsageError as error:
    # The images of large networks are saved smaller than they were seen.
    if saved is None or saved['target_images'].shape[1] != model.read_size:
      raise
    rows = saved['target_kept'][: len(saved['target_images'])]
    images = saved['target_images'][:count]
    origin = f'target images that the run saved ({error})'
  else:
    rows = np.random.default_rng(0).permutation(len(domain.images))
    rows = np.sort(rows[:count])
    images, origin = domain.images[rows], 'target images for test'
    labels = domain.labels
    if saved is None:
      taken = domain.take(rows)
      logits, _ = evaluate.predict(model, taken, kept=np.arange(0))
      labels = None if labels is None else labels[rows]
      return Reference(images, logits, labels, origin)
  rows = rows[:count]
  labels = saved['target_labels'][rows] if 'target_labels' in saved else None
  return Reference(images, saved['target_logits'][rows], labels, origin)


def answers(path, images):
  """What a SavedModel answers in a process that cannot import tfda.

  Args:
    path: of the SavedModel, with warm-up requests.
    images: uint8 [N, S, S, 3].

  Returns:
    {'SIGNATURE/OUTPUT': array [N, ...], 'seconds/SIGNATURE': for all images}.

  Raises:
    RunError: it cannot be loaded or does not answer.
  """
  with tempfile.TemporaryDirectory() as folder:
    given = os.path.join(folder, 'images.npy')
    found = os.path.join(folder, 'answers.npz')
    np.save(given, images)
    done = subprocess.run(
      [sys.executable, replay.__file__, os.path.abspath(path), given, found],
      cwd=folder,
      stderr=subprocess.PIPE,
      text=True,
      errors='replace',
    )
    if done.returncode:
      last = (done.stderr.strip() or 'killed').splitlines()[-1]
      raise errors.RunError(
        f'the written model does not answer in a process of its own: {last}'
      )
    with np.load(found) as arrays:
      return {name: arrays[name] for name in arrays.files}


def compare(found, expected, class_names, tolerance):
  """Raises RunError unless all answers are those of the run.

  Args:
    found: see `answers`.
    expected: the Reference.
    class_names: C names.
    tolerance: largest difference of a probability that is rounding.

  Returns:
    The largest difference of a probability.
  """
  probabilities = softmax(expected.logits / expected.divisor)
  ordered = np.sort(probabilities, axis=-1)[:, ::-1]
  best = probabilities.argmax(axis=-1)
  # Where rounding may choose between two classes, both are right.
  is_clear = ordered[:, 0] - ordered[:, 1] > 2 * tolerance
  names = np.array([name.encode() for name in class_names])
  largest = 0.0
  for key, values in found.items():
    signature, output = key.split('/')
    wanted = {'probabilities': probabilities, 'scores': ordered}.get(output)
    if wanted is not None:
      difference = abs(values - wanted).max()
      largest = max(largest, difference)
      if not difference <= tolerance:  # NaN too.
        raise errors.RunError(
          f'the written model differs from the run: by {difference:.2g} in a '
          f'probability of its signature {signature}, where {tolerance:.2g} is '
          'rounding (--tolerance, for a run of other hardware); nothing was '
          'exported'
        )
    labels = {'label_index': best, 'label': names[best], 'classes': names[best]}
    if output in labels:
      chosen = values[:, 0] if output == 'classes' else values
      wrong = np.flatnonzero((chosen != labels[output]) & is_clear)
      if len(wrong):
        raise errors.RunError(
          f'the written model differs from the run: the {output} of its '
          f'signature {signature} is another for {len(wrong)} of '
          f'{len(best)} images; nothing was exported'
        )
    if values.dtype.kind == 'f' and not np.isfinite(values).all():
      raise errors.RunError(
        f'the written model gives {output} that are not finite in its '
        f'signature {signature}; nothing was exported'
      )
  return largest


def measure(path, expected, predictions, seconds):
  """Returns Measured of the files below `path`.

  Args:
    path: of the export.
    expected: the Reference.
    predictions: integers [N].
    seconds: in which all images were answered.
  """
  size = sum(
    os.path.getsize(os.path.join(folder, name))
    for folder, _, names in os.walk(path)
    for name in names
  )
  labels = expected.labels
  if labels is None:
    labels = expected.logits.argmax(axis=-1)
  share = float(np.mean(predictions == labels))
  return Measured(size, len(predictions) / seconds, share)


def check_margin(before, after, margin):
  """Raises RunError if a smaller model lost more than `margin`, in 0..1."""
  if before.accuracy - after.accuracy > margin:
    raise errors.RunError(
      f'the accuracy falls from {before.accuracy:.2%} to {after.accuracy:.2%}, '
      f'by more than --margin={margin}; nothing was exported'
    )


def check_accuracy(found, has_labels, least):
  """Raises unless an accuracy of labels is at least `least`, if that is set."""
  if least is None:
    return
  if not has_labels:
    raise errors.UsageError(
      f'--min_accuracy={least}: the target has no labels to measure it by'
    )
  if found < least:
    raise errors.RunError(
      f'an accuracy of {found:.2%} is below --min_accuracy={least}; nothing '
      'was exported'
    )


def check_transfer(run_dir, other):
  """Raises RunError if a run lost against one without adaptation.

  By information maximisation (evaluation.selection), so without target labels;
  a run that does not classify the source any more lost, too.

  Args:
    run_dir: path of the run.
    other: path of the run of source_only on the same domains.
  """
  results = [
    run_directory.RunDirectory(path).read_results() for path in (run_dir, other)
  ]
  for side in ('source', 'target'):
    names = [result[side] for result in results]
    if names[0] != names[1]:
      raise errors.UsageError(
        f'--compare={other}: its {side} is {names[1]}, not {names[0]}'
      )
  ranked = selection.rank([run_dir, other], resamples=0)
  if ranked[0].run_dir == run_dir:
    return
  ours, theirs = (
    next(c for c in ranked if c.run_dir == path) for path in (run_dir, other)
  )
  raise errors.RunError(
    f'negative transfer: information maximisation is {ours.score:.4f} with a '
    f'source accuracy of {ours.source_accuracy:.2%}, in {other} '
    f'{theirs.score:.4f} with {theirs.source_accuracy:.2%}; nothing was '
    'exported (--force does so all the same)'
  )


def warnings(run_dir, other):
  """What else speaks for negative transfer, a line each; nothing is refused.

  Most validators are right on some data and wrong on others, so that what is
  refused is for the one of `check_transfer`; these are of all of them.

  Args:
    run_dir, other: as in `check_transfer`.
  """
  try:
    found = comparison.compare(run_dir, other, _RESAMPLES).warnings
  except errors.UsageError as error:
    return [f'not compared image by image: {error}']
  return [f'warning: {line}' for line in found]


def softmax(logits):
  """Probabilities of logits [N, C], in float64."""
  exponentials = np.exp(
    logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
  )
  return exponentials / exponentials.sum(axis=-1, keepdims=True)
