"""Predictions as text, a row an image, for the tools that print them."""

import csv
import io
import json
import os
import sys

from tfda import errors, run_directory

FORMATS = ('csv', 'json')


def check(out):
  """Raises UsageError unless `out` can be written; before the work is done."""
  if out:
    folder = os.path.dirname(os.path.abspath(out))
    if os.path.isdir(out) or not os.access(folder, os.W_OK):
      raise errors.UsageError(f'--out={out}: cannot be written')


def write(predictions, kind, out, class_names=None):
  """Writes Predictions to a file, or to standard output.

  Args:
    predictions: classifier.Predictions, of files.
    kind: of FORMATS. The columns are path, label, probability; json has the
      probabilities of all classes too.
    out: path of the file; None for standard output.
    class_names: C names, for json; None for a list of probabilities.
  """
  text = (_json if kind == 'json' else _csv)(predictions, class_names)
  if out:
    run_directory.write(out, text)
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
      'probabilities': dict(zip(class_names, values))
      if class_names
      else values,
    }
    for path, label, values in _rows(predictions)
  ]
  return json.dumps(objects, indent=1) + '\n'
