"""What a user can meet: two kinds of errors, one line of text each."""


class UsageError(ValueError):
  """The request is wrong: a name, a path, a setting. Exit code 2."""


class RunError(RuntimeError):
  """The request is right and the work failed. Exit code 1."""


class Interrupted(RunError):
  """Training stopped on request, after its checkpoint was written.

  Attributes:
    exit_code: 130 after Ctrl-C as shells have it; 0 after SIGTERM, which a
      scheduler sends to a job that it will start again, and after the phase
      that `stop_after` names.
  """

  def __init__(self, message, exit_code):
    super().__init__(message)
    self.exit_code = exit_code


def near(name, known):
  """Returns 'did you mean a or b?', or all that is known where none is near."""
  import difflib

  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  if close:
    return f'did you mean {" or ".join(close)}?'
  return f'there are: {", ".join(known)}'
