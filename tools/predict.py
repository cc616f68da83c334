r"""Predicts the classes of images with a run or an export of one.

  python -m tools.predict --model=RUN_OR_EXPORT [--format=csv|json] \
    [--out=FILE] FILE_OR_FOLDER...

The columns are path, label, probability; json has those of all classes too.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  model: Optional[str] = setting(None, 'run directory, or an export of a run')
  format: str = setting('csv', 'of the output', choices=('csv', 'json'))
  out: Optional[str] = setting(
    None, 'file to write; standard output if not set'
  )

  def __post_init__(self):
    check(self)


def parser():
  return flag_config.Parser({'predict': ('', Settings)})


def main(arguments):
  from tfda.serving import classifier, rows

  groups, paths = parser().parse(arguments)
  settings = groups['predict']
  if not settings.model:
    raise errors.UsageError('--model=RUN_OR_EXPORT is needed')
  if not paths:
    raise errors.UsageError('no images; name files or folders')
  rows.check(settings.out)
  loaded = classifier.load(settings.model)
  predictions = loaded.predict(paths, progress=True)
  rows.write(predictions, settings.format, settings.out, loaded.class_names)


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
