r"""Sends images to a running TF Serving and writes the classes it answers.

  python -m tools.client --model=NAME [--server=HOST:PORT] \
    [--protocol=grpc|rest] [--format=csv|json] [--out=FILE] FILE_OR_FOLDER...

The columns are path, label, probability; json has those of all classes too, in
the order of assets/labels.txt.
"""

import dataclasses
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import check, setting


@dataclasses.dataclass(frozen=True)
class Settings:
  format: str = setting('csv', 'of the output', choices=('csv', 'json'))
  out: Optional[str] = setting(
    None, 'file to write; standard output if not set'
  )

  def __post_init__(self):
    check(self)


def parser():
  from tfda.serving import client

  return flag_config.Parser(
    {'server': ('', client.Settings), 'output': ('', Settings)}
  )


def main(arguments):
  from tfda.serving import client, rows

  groups, paths = parser().parse(arguments)
  if not paths:
    raise errors.UsageError('no images; name files or folders')
  output = groups['output']
  rows.check(output.out)
  predictions = client.predict(paths, groups['server'], progress=True)
  rows.write(predictions, output.format, output.out)


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
