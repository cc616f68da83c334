"""Exports a run as a SavedModel for TF Serving, under the next version number.

python -m tools.export --run_dir=RUN [--out=DIR]
"""

import dataclasses
import os
from typing import Optional

from tfda import errors, flag_config
from tfda.settings import setting


@dataclasses.dataclass(frozen=True)
class Settings:
  run_dir: Optional[str] = setting(None, 'the run; its last checkpoint counts')
  out: Optional[str] = setting(
    None, "folder of versions to write to; the run's export/ if not set"
  )


def parser():
  return flag_config.Parser({'export': ('', Settings)})


def main(arguments):
  from tfda.serving import export

  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['export']
  if not settings.run_dir:
    raise errors.UsageError('--run_dir=RUN is needed')
  version = export.export(settings.run_dir, settings.out)
  folder = os.path.abspath(os.path.dirname(version))
  print(version)
  print(
    'serve: tensorflow_model_server --rest_api_port=8501 --model_name=tfda '
    f'--model_base_path={folder}'
  )
  print(f'predict: python -m tools.predict --model={version} FILE_OR_FOLDER...')


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
