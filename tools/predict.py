r"""Predicts the classes of images with a run or an export of one.

  python -m tools.predict --model=RUN_OR_EXPORT [--format=csv|json] \
    [--out=FILE] FILE_OR_FOLDER...

The columns are path, label, probability; json has those of all classes too.
"""

import csv
import dataclasses
import io
import json
import os
import sys
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
  from tfda import run_directory
  from tfda.serving import classifier

  groups, paths = parser().parse(arguments)
  settings = groups['predict']
  if not settings.model:
    raise errors.UsageError('--model=RUN_OR_EXPORT is needed')
  if not paths:
    raise errors.UsageError('no images; name files or folders')
  if settings.out:  # Known before the work is done.
    folder = os.path.dirname(os.path.abspath(settings.out))
    if os.path.isdir(settings.out) or not os.access(folder, os.W_OK):
      raise errors.UsageError(f'--out={settings.out}: cannot be written')
  loaded = classifier.load(settings.model)
  predictions = loaded.predict(paths, progress=True)
  as_text = _json if settings.format == 'json' else _csv
  text = as_text(predictions, loaded.class_names)
  if settings.out:
    run_directory.write(settings.out, text)
  else:
    sys.stdout.write(text)


def _rows(predictions):
  for path, label, values in zip(
    predictions.paths, predictions.labels, predictions.probabilities
  ):
    yield path, label, [round(float(value), 6) for value in values]


def _csv(predictions, class_names):
  del class_names
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(['path', 'label', 'probability'])
  for path, label, values in _rows(predictions):
    writer.writerow([path, label, max(values)])
  return text.getvalue()


def _json(predictions, class_names):
  objects = [
    {
      'path': path,
      'label': label,
      'probability': max(values),
      'probabilities': dict(zip(class_names, values)),
    }
    for path, label, values in _rows(predictions)
  ]
  return json.dumps(objects, indent=1) + '\n'


def run():
  flag_config.run(main, __doc__, parser)


if __name__ == '__main__':
  run()
