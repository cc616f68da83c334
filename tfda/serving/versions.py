"""The folder that a server watches: numbered versions, whole or not there."""

import contextlib
import os
import shutil
import tempfile

from tfda import errors


def numbers(folder):
  """Returns the version numbers among the names in a folder."""
  return [int(name) for name in os.listdir(folder) if name.isdecimal()]


def refuse_others(out, files, form):
  """Raises UsageError if versions in `out` are of another format.

  A server takes the highest number, whatever is in it.

  Args:
    out: the folder of versions, which need not be there.
    files: {format: the file that it is known by}.
    form: that the next version will have.
  """
  for number in numbers(out) if os.path.isdir(out) else ():
    for other, file in files.items():
      path = os.path.join(out, str(number), file)
      if other != form and os.path.exists(path):
        raise errors.UsageError(
          f'--out={out}: version {number} is a {other}, and a server takes the '
          f'highest; --format={form} needs a folder of its own'
        )


@contextlib.contextmanager
def writing(out):
  """A folder to write to, gone afterwards, on the file system of `out`.

  Args:
    out: the folder of versions; made if it is not there.

  Raises:
    UsageError: `out` cannot be written to.
  """
  made = not os.path.exists(out)
  try:
    if made:
      os.makedirs(out, exist_ok=True)
    temporary = _new_folder(out, 'writing')
  except OSError as error:
    raise errors.UsageError(
      f'--out={out}: cannot be written: {error.strerror}'
    ) from error
  try:
    yield temporary
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
    if made:  # What was refused leaves nothing.
      with contextlib.suppress(OSError):  # Not empty: it was published.
        os.rmdir(out)


def publish(written, out):
  """Gives what is written the next free number; a reader sees it whole.

  After a loss of power too: the content is on the disk before the name is.

  Args:
    written: a folder on the file system of `out`; it is moved.
    out: the folder of versions.

  Returns:
    The path of the new version, a number higher than all in the folder.
  """
  for folder, _, names in os.walk(written):
    for path in (*(os.path.join(folder, name) for name in names), folder):
      _sync(path)
  while True:
    path = os.path.join(out, str(1 + max(numbers(out), default=0)))
    try:
      os.rename(written, path)
      _sync(out)
      return path
    except OSError:
      if not os.path.exists(path):  # Else another export took the number.
        raise


def prune(out, keep):
  """Removes all versions but the `keep` highest; returns their numbers."""
  old = sorted(numbers(out))[:-keep]
  for number in old:
    # Renamed first: a server never sees half of one.
    gone = _new_folder(out, 'removing')
    os.rename(os.path.join(out, str(number)), os.path.join(gone, str(number)))
    shutil.rmtree(gone)
  return old


def _new_folder(out, what):
  """An empty folder that no other process has, nor one that was killed had.

  Numbers of processes are no names: in containers all are 1. TF Serving looks
  at numbers only, so not at this one.
  """
  return tempfile.mkdtemp(prefix=f'.{what}-', dir=out)


def _sync(path):
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
