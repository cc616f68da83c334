"""One HTML page that shows two domains side by side, class by class."""

import numpy as np

from tfda.evaluation import figures, pages

_SAMPLES = 8  # Of each class and domain.


def write(source, target, rows, checks, out):
  """Writes the page.

  Args:
    source, target: Domains of training images.
    rows: prepare.class_counts of them.
    checks: lines about them, those that begin with 'warning' in red.
    out: the file to write.

  Raises:
    UsageError: it cannot be written.
  """
  sides = {f'source: {source.name}': source, f'target: {target.name}': target}
  random = np.random.default_rng(0)
  classes = [
    (
      row.name,
      {
        side: _thumbnails(domain, _positions(domain, row.name), random)
        for side, domain in sides.items()
        if domain.labels is not None
      },
    )
    for row in rows
  ]
  unlabelled = {
    side: _thumbnails(domain, np.arange(len(domain.images)), random)
    for side, domain in sides.items()
    if domain.labels is None
  }
  if unlabelled:
    classes.insert(0, ('without labels', unlabelled))
  page = pages.render(
    'data_page.html.j2',
    title=f'{source.name} → {target.name}: the data',
    checks=checks,
    rows=rows,
    classes=classes,
  )
  pages.write(out, page)


def _positions(domain, name):
  if name not in domain.class_names:
    return np.array([], np.int64)
  return np.flatnonzero(domain.labels == domain.class_names.index(name))


def _thumbnails(domain, positions, random):
  """Data URIs of some of the images at these positions."""
  count = min(_SAMPLES, len(positions))
  chosen = np.sort(random.choice(positions, count, replace=False))
  return [
    pages.uri(*figures.thumbnail(image)) for image in domain.images[chosen]
  ]
