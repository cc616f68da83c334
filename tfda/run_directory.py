"""The run directory: its files, and what may be done to one that exists."""

import contextlib
import csv
import io
import json
import os
import platform
import subprocess

import tensorflow as tf

from tfda import errors, flag_config


class RunDirectory:
  """Paths in a run directory, and its small files.

  Attributes:
    path: the directory.
    checkpoints, logs, metrics, evaluation, pictures, results, report,
      attention, export, skipped: paths of what is in it.
  """

  def __init__(self, path):
    self.path = path
    self.flags = os.path.join(path, 'flags.txt')
    self.classes = os.path.join(path, 'classes.json')
    self.skipped = os.path.join(path, 'skipped.csv')
    self.checkpoints = os.path.join(path, 'checkpoints')
    self.logs = os.path.join(path, 'logs')
    self.metrics = os.path.join(path, 'metrics.csv')
    self.evaluation = os.path.join(path, 'evaluation.npz')
    self.pictures = os.path.join(path, 'pictures')
    self.results = os.path.join(path, 'results.json')
    self.report = os.path.join(path, 'report.html')
    self.attention = os.path.join(path, 'attention.png')
    self.export = os.path.join(path, 'export')

  def finished(self):
    """Whether the run is complete."""
    return os.path.exists(self.results)

  def check(self, experiment, config, resumable):
    """Raises UsageError unless this run may be begun or gone on with.

    Args:
      experiment: what is asked for, an Experiment or a Translation.
      config: the method's Config; None for a Translation.
      resumable: names of the settings that may differ from the run's.
    """
    if os.path.exists(self.flags):
      theirs = flag_config.read(self.flags, experiment.TOOL)
      differing = [
        f'--{name} was {before}, is {after}'
        for name, before, after in flag_config.differences(
          theirs, (experiment, config)
        )
        if name not in resumable
      ]
      if differing:
        raise errors.UsageError(
          f'{self.path} is a run with other settings: {"; ".join(differing)}; '
          'choose another --run_dir'
        )
    elif os.path.isdir(self.path) and os.listdir(self.path):
      raise errors.UsageError(
        f'{self.path} is not empty and not a run directory (no flags.txt); '
        'choose another --run_dir'
      )

  def check_classes(self, class_names):
    """Raises UsageError if the run exists with other classes."""
    if os.path.exists(self.classes):
      theirs = self.class_names()
      if theirs != list(class_names):
        raise errors.UsageError(
          f'{self.path} is a run with other classes: they were '
          f'{", ".join(theirs)}, are {", ".join(class_names)}; choose another '
          '--run_dir'
        )

  def create(self, experiment, config, class_names):
    """Makes the directory with its settings; on an existing one, nothing new.

    Raises:
      UsageError: it cannot be written to.
    """
    try:
      os.makedirs(self.path, exist_ok=True)
      write(self.flags, flag_config.text(experiment, config))
      write(self.classes, json.dumps(list(class_names), indent=1) + '\n')
    except OSError as error:
      raise errors.UsageError(
        f'--run_dir={self.path}: cannot be written: {error.strerror}'
      ) from error

  def write_skipped(self, data):
    """Writes skipped.csv, the bad images that were left out, if there are any.

    Args:
      data: {(side, split): Domain}.
    """
    rows = [
      (side, split, path, reason)
      for (side, split), domain in data.items()
      for path, reason in domain.skipped
    ]
    if rows:
      lines = io.StringIO(newline='')
      csv.writer(lines).writerows([('side', 'split', 'path', 'reason'), *rows])
      write(self.skipped, lines.getvalue())
      print(f'{len(rows)} bad images were skipped; {self.skipped} lists them')

  def class_names(self):
    """The names of the classes, in the order of the logits."""
    with open(self.classes) as file:
      return json.load(file)

  def append_metrics(self, row):
    """Adds a row, a dict, to metrics.csv, whose columns are then its keys.

    They are the same every time, unless another version goes on with a run.
    """
    columns, earlier = list(row), []
    if os.path.exists(self.metrics):
      with open(self.metrics, newline='') as file:
        reader = csv.DictReader(file)
        if reader.fieldnames == columns:
          columns = None
        else:
          earlier = list(reader)
    with open(self.metrics, 'w' if columns else 'a', newline='') as file:
      writer = csv.DictWriter(file, list(row), extrasaction='ignore')
      if columns:
        writer.writeheader()
      writer.writerows([*earlier, row])

  def read_metrics(self):
    """Returns the rows of metrics.csv: numbers, None where empty."""
    if not os.path.exists(self.metrics):
      return []
    with open(self.metrics, newline='') as file:
      return [
        {k: float(v) if v else None for k, v in row.items()}
        for row in csv.DictReader(file)
      ]

  def drop_metrics_after(self, step):
    """Drops rows of steps that a resumed run will do again."""
    if not os.path.exists(self.metrics):
      return
    with open(self.metrics, newline='') as file:
      lines = file.read().splitlines(keepends=True)
    # A line cut short by a killed process is after the last checkpoint too.
    kept = [
      line
      for line in lines[1:]
      if line.endswith('\n') and int(line.split(',')[0]) <= step
    ]
    if kept:
      write(self.metrics, ''.join(lines[:1] + kept))
    else:  # The header may be cut short as well; the next row writes it anew.
      os.remove(self.metrics)

  def picture(self, name):
    """The path of a picture that the method shows of itself."""
    return os.path.join(self.pictures, f'{name}.png')

  def write_picture(self, name, png):
    """Writes such a picture, the bytes of a PNG file."""
    os.makedirs(self.pictures, exist_ok=True)
    write(self.picture(name), png)

  def write_results(self, experiment, evaluation, **measured):
    """Writes results.json, which makes the run a finished one."""
    results = {
      'method': experiment.method,
      'source': experiment.source,
      'target': experiment.target,
      'backbone': experiment.backbone,
      'steps': experiment.steps,
      'seed': experiment.seed,
      'versions': {
        'tensorflow': tf.__version__,
        'python': platform.python_version(),
      },
      'machine': f'{os.cpu_count()} cores, {platform.machine()}',
      **evaluation,
      'oracle': self._oracle(),
      **measured,
    }
    write(self.results, json.dumps(results, indent=1) + '\n')

  def _oracle(self):
    """The best evaluation on target labels: an upper bound, never a choice."""
    rows = [
      row
      for row in self.read_metrics()
      if row.get('accuracy/target') is not None
    ]
    if not rows:
      return None
    best = max(rows, key=lambda row: row['accuracy/target'])
    return {
      'step': int(best['step']),
      'target_accuracy': best['accuracy/target'],
    }

  def read_results(self):
    """Returns results.json as a dict.

    Raises:
      UsageError: there is none.
    """
    if not self.finished():
      raise errors.UsageError(
        f'{self.path}: no finished run (no results.json); train it first'
      )
    with open(self.results) as file:
      return json.load(file)


@contextlib.contextmanager
def reading(checkpoint):
  """Turns what fails in restoring a checkpoint into one UsageError."""
  try:
    yield
  except (
    AssertionError,  # Weights that it lacks.
    ValueError,  # Weights of another shape.
    IndexError,  # A file cut short, depending on where.
    tf.errors.OpError,
  ) as error:
    reason = str(error).splitlines()[0].split('. ')[0]
    raise errors.UsageError(
      f'{checkpoint}: does not fit this model or cannot be read: {reason}'
    ) from error


def write(path, content):
  """Writes text or bytes at once: readers see the old file or the new one."""
  temporary = f'{path}.new'
  if isinstance(content, str):  # Names of files need not be Unicode.
    content = content.encode('utf-8', 'surrogateescape')
  with open(temporary, 'wb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def commit():
  """The git commit of this code, '+changes' behind it if it was changed."""
  root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

  def git(*arguments):
    return subprocess.run(
      ['git', '-C', root, *arguments],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()

  if not os.path.exists(os.path.join(root, '.git')):
    return None  # Installed from a wheel.
  try:
    changed = git('status', '--porcelain', '--untracked-files=no')
    return git('rev-parse', 'HEAD') + ('+changes' if changed else '')
  except (OSError, subprocess.CalledProcessError):
    return None  # No git, or no commit.
