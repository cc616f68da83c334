"""HTML pages that hold all they show, and ask nothing of a network."""

import base64
import dataclasses
import os
import struct

from tfda import errors, run_directory


@dataclasses.dataclass(frozen=True)
class Picture:
  """A picture of the page, with the text for those who do not see it."""

  uri: str
  alt: str
  caption: str = ''
  width: int = 0
  height: int = 0
  wide: bool = False


@dataclasses.dataclass(frozen=True)
class Sample:
  """An image with a prediction; `correct` is None where it has no label."""

  uri: str
  alt: str
  predicted: str
  label: str
  correct: bool
  remark: str = ''


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of the page.

  Attributes:
    caption: what it is of.
    columns: heads of the columns.
    rows: (head of the row, cells), a cell being a text or (text, remark).
  """

  caption: str
  columns: tuple
  rows: tuple


def uri(data, media_type='image/png'):
  """Returns bytes as a data URI."""
  return f'data:{media_type};base64,{base64.b64encode(data).decode()}'


def picture(png, alt, caption='', wide=False):
  """The Picture of the bytes of a PNG file."""
  return Picture(uri(png), alt, caption, *size(png), wide)


def size(png):
  """(width, height) in pixels of a PNG file."""
  return struct.unpack('>II', png[16:24])


def render(template, **values):
  """Renders a template of this folder as text that is ASCII alone.

  Args:
    template: name of the file.
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
  environment.filters.update(
    breakable=breakable,
    percent=percent,
    number=number,
    duration=duration,
    speed=speed,
  )
  page = environment.get_template(template).render(**values)
  # Readable in whatever encoding a server or a locale claims.
  return page.encode('ascii', 'xmlcharrefreplace').decode('ascii')


def breakable(name):
  """The name as HTML in which a line may end behind each underscore."""
  import markupsafe

  return markupsafe.Markup('_<wbr>').join(name.split('_'))


def percent(value, missing='no labels'):
  """0.1234 -> '12.34%'."""
  return missing if value is None else f'{100 * value:.2f}%'


def number(value):
  """2.29471 -> '2.2947'."""
  return '–' if value is None else f'{value:.4f}'


def duration(seconds):
  """12.29 -> '12.3 s'; 3725 -> '1 h 02 min'."""
  if seconds is None:
    return '–'
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  if seconds < 3599.5:
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest:02d} s'
  hours, rest = divmod(round(seconds / 60), 60)
  return f'{hours} h {rest:02d} min'


def speed(value):
  """1234.5 -> '1,234'."""
  if value is None:
    return '–'
  return f'{value:,.0f}' if value >= 10 else f'{value:.1f}'


def write(out, page):
  """Writes text or bytes to the file --out, its folder too if need be."""
  try:
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    run_directory.write(out, page)
  except OSError as error:
    raise errors.UsageError(
      f'--out={out}: cannot be written: {error.strerror}'
    ) from error
