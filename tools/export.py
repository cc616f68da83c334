r"""Exports a run as a SavedModel for TF Serving, under the next version number.

  python -m tools.export --run_dir=RUN [--out=DIR] [--keep=N] \
    [--min_accuracy=A] [--compare=RUN_OF_SOURCE_ONLY [--force]] \
    [--optimize=float16|dynamic_range] [--format=saved_model|tflite|onnx]

What it writes is loaded by a fresh process and compared with the run before it
gets its number.
"""

import os

from tfda import errors, flag_config


def parser():
  from tfda.serving import export

  return flag_config.Parser({'export': ('', export.Settings)})


def main(arguments):
  from tfda.serving import export, server_files

  groups, words = parser().parse(arguments)
  flag_config.refuse(words)
  settings = groups['export']
  if not settings.run_dir:
    raise errors.UsageError('--run_dir=RUN is needed')
  version = export.export(settings.run_dir, settings.out, settings)
  folder = os.path.abspath(os.path.dirname(version))
  print(version)
  if settings.format != 'saved_model':
    return
  print(
    'serve: tensorflow_model_server --port=8500 --rest_api_port=8501 '
    f'--model_name={server_files.model_name(folder)} --model_base_path={folder}'
  )
  print(f'predict: python -m tools.predict --model={version} FILE_OR_FOLDER...')


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
