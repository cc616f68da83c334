"""HTML pages that hold all they show, and ask nothing of a network."""

import base64
import os

from tfda import errors, run_directory


def uri(data, media_type='image/png'):
  """Returns bytes as a data URI."""
  return f'data:{media_type};base64,{base64.b64encode(data).decode()}'


def render(template, filters=None, **values):
  """Renders a template of this folder as text that is ASCII alone.

  Args:
    template: name of the file.
    filters: {name: function} besides jinja2's.
    **values: what the template names.
  """
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters.update(filters or {})
  page = environment.get_template(template).render(**values)
  # Readable in whatever encoding a server or a locale claims.
  return page.encode('ascii', 'xmlcharrefreplace').decode('ascii')


def write(out, page):
  """Writes text or bytes to the file --out, its folder too if need be."""
  try:
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    run_directory.write(out, page)
  except OSError as error:
    raise errors.UsageError(
      f'--out={out}: cannot be written: {error.strerror}'
    ) from error
