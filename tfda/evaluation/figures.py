"""Figures of the report as PNG bytes; matplotlib without a display."""

import io
import math
import warnings

import numpy as np

_DPI = 140
_LARGE = 8.0  # Inches; a larger figure is shown at half its size anyway.
SIZE = (5.2, 3.6)  # Inches: its text is legible on a phone's width too.
# Okabe & Ito 2008: told apart by colour-blind readers; black comes last.
COLORS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000',
)  # fmt: skip
_MARKERS = 'osD^vPX*'
_MARKED_POINTS = 25  # A curve with more has a marker at every n-th only.
_NUMBERED_CLASSES = 12  # A matrix of more classes has no numbers in its cells.
_LEGEND_CLASSES = 20  # A legend of more classes would hide the map.
_NAMED_CLASSES = 80  # Of more classes, every n-th is named on an axis.
_NAME_LENGTH = 20


def lines(curves, label, percent=False):
  """A line chart over steps.

  Args:
    curves: [(name, steps, values)].
    label: of the vertical axis.
    percent: whether values are fractions, to be shown as percentages.
  """

  def draw(figure):
    from matplotlib import ticker

    axes = figure.add_subplot()
    for i, (name, steps, values) in enumerate(curves):
      axes.plot(
        steps,
        values,
        color=COLORS[i % len(COLORS)],
        marker=_MARKERS[i % len(_MARKERS)],
        markersize=5,
        markevery=max(1, math.ceil(len(steps) / _MARKED_POINTS)),
        # Under an equal curve it shows at the rims.
        linewidth=1.6 + 1.3 * sum(values == c[2] for c in curves[i + 1 :]),
        label=_shortened(name, 3 * _NAME_LENGTH),
      )
    axes.set_xlabel('step')
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(
      ticker.MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])
    )
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter('{x:,.0f}'))
    if percent:
      axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    _legend_below(figure, axes, columns=2)

  return png(draw, (SIZE[0], SIZE[1] + 0.12 * len(curves)))


def confusion(counts, names):
  """A confusion matrix, each row divided by its sum.

  Args:
    counts: [C, C], rows are true classes; a row without images stays grey.
    names: of the C classes.
  """
  fractions = row_normalised(counts)
  classes = len(names)

  def draw(figure):
    from matplotlib import ticker

    axes = figure.add_subplot()
    axes.set_facecolor('#dddddd')
    shown = axes.imshow(fractions, cmap='Blues', vmin=0, vmax=1)
    _name_classes(axes.set_xticks, names, rotation=90 if classes > 4 else 0)
    _name_classes(axes.set_yticks, names)
    axes.set_xlabel('predicted class')
    axes.set_ylabel('true class')
    if classes <= _NUMBERED_CLASSES:
      for row, column in zip(*np.nonzero(fractions >= 0.005)):
        value = fractions[row, column]
        axes.text(
          column,
          row,
          f'{100 * value:.0f}',
          ha='center',
          va='center',
          fontsize=9,
          color='white' if value > 0.5 else 'black',
        )
    bar = figure.colorbar(
      shown, ax=axes, format=ticker.PercentFormatter(1.0), aspect=30
    )
    bar.set_label("share of the true class's images")

  side = min(14.0, max(SIZE[0], 0.17 * classes + 2.5))
  return png(
    draw,
    (side, side * 0.85),
    font=11 if classes <= 20 else 9,
    layout='compressed',  # Square cells, and a bar as high as they are.
  )


def row_normalised(counts):
  """Returns counts divided by their row's sum; NaN in a row of zeros."""
  counts = np.asarray(counts, np.float64)
  sums = counts.sum(axis=1, keepdims=True)
  return np.divide(
    counts, sums, out=np.full_like(counts, np.nan), where=sums > 0
  )


def histogram(counts, names, label, behind=None):
  """A horizontal bar for each class, the first on top.

  Args:
    counts: lengths of the bars [C].
    names: of the C classes.
    label: of the horizontal axis.
    behind: lengths of lighter, wider bars behind them [C]; None for none.
  """

  def draw(figure):
    axes = figure.add_subplot()
    if behind is not None:
      axes.barh(np.arange(len(counts)), behind, color=COLORS[5], alpha=0.6)
    height = 0.8 if behind is None else 0.4
    axes.barh(np.arange(len(counts)), counts, height, color=COLORS[0])
    _name_classes(axes.set_yticks, names)
    axes.set_ylim(len(counts) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis='x', alpha=0.3)
    axes.set_axisbelow(True)

  return png(draw, (SIZE[0], min(16.0, 1.2 + 0.24 * len(counts))))


def distributions(samples, label):
  """Histograms as outlines, the median of each as a line and in the legend.

  Args:
    samples: [(name, values)]; those of odd number are dashed.
    label: of the horizontal axis.
  """

  def short(value):
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'

  def draw(figure):
    axes = figure.add_subplot()
    everything = np.concatenate([values for _, values in samples])
    edges = np.linspace(everything.min(), np.quantile(everything, 0.995), 31)
    for i, (name, values) in enumerate(samples):
      low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
      counts, _ = np.histogram(values, edges)
      style = {
        'color': COLORS[i // 2],
        'linestyle': ('-', '--')[i % 2],
        'linewidth': 1.8,
      }
      axes.stairs(
        counts / len(values),
        edges,
        label=f'{name}: {short(median)} ({short(low)} to {short(high)})',
        **style,
      )
      axes.axvline(median, **{**style, 'linewidth': 0.9})
    axes.set_xlabel(label)
    axes.set_ylabel('share')
    axes.grid(alpha=0.3)
    _legend_below(figure, axes, columns=1).set_title(
      'median (10% to 90%)', {'size': 'small'}
    )

  return png(draw, (SIZE[0], SIZE[1] + 0.2 * len(samples)))


def reliability(curves):
  """Accuracy over confidence, beside the diagonal of who is well calibrated.

  Args:
    curves: [(name, counts, confidences, accuracies)] of bins, as of
      calibration.reliability; a dot is the larger, the more images it stands
      for.
  """

  def draw(figure):
    from matplotlib import ticker

    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color='#777777', linestyle=':', label='ideal')
    for i, (name, counts, confidences, accuracies) in enumerate(curves):
      filled = counts > 0
      axes.plot(
        confidences[filled],
        accuracies[filled],
        color=COLORS[i],
        linestyle=('-', '--')[i % 2],
        label=name,
      )
      axes.scatter(
        confidences[filled],
        accuracies[filled],
        s=10 + 150 * counts[filled] / counts.sum(),
        color=COLORS[i],
        marker=_MARKERS[i],
      )
    axes.set_xlabel('confidence')
    axes.set_ylabel('accuracy')
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.grid(alpha=0.3)
    _legend_below(figure, axes, columns=3)

  return png(draw, SIZE)


def scatter(points, groups, names, second):
  """A map of points without axes.

  Args:
    points: [n, 2].
    groups: [n] integers, what the colours stand for.
    names: of the groups.
    second: [n] booleans; crosses where true, dots elsewhere.
  """

  def draw(figure):
    import matplotlib

    axes = figure.add_subplot()
    if len(names) <= len(COLORS):
      colors = COLORS
    elif len(names) <= 20:
      colors = matplotlib.colormaps['tab10' if len(names) <= 10 else 'tab20']
      colors = colors.colors
    else:
      colors = matplotlib.colormaps['nipy_spectral'](
        np.linspace(0.04, 0.96, len(names))
      )
    for i, name in enumerate(names):
      for marker, chosen in (('o', ~second), ('x', second)):
        x, y = points[(groups == i) & chosen].T
        axes.scatter(
          x, y, s=14, marker=marker, color=[colors[i]], alpha=0.7, linewidths=1
        )
      # One entry a group, with the marker of its points if they share one.
      crosses = second[groups == i]
      axes.scatter(
        [],
        [],
        s=30,
        marker='x' if crosses.size and crosses.all() else 'o',
        color=[colors[i]],
        label=axis_name(name, i),
      )
    axes.set_xticks([])
    axes.set_yticks([])
    if len(names) <= _LEGEND_CLASSES:
      _legend_below(figure, axes, columns=5 if len(names) > 4 else 2)

  rows = math.ceil(len(names) / 5) if len(names) <= _LEGEND_CLASSES else 0
  return png(draw, (SIZE[0], 4.2 + 0.22 * rows))


def pillow(image):
  """The PIL.Image of a uint8 image [H, W, 1 or 3]."""
  import PIL.Image

  return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def thumbnail(image, side=96):
  """Returns (bytes, media type) of a uint8 image [H, W, 1 or 3], made smaller.

  Small ones are kept exactly (PNG), larger ones are photographs (JPEG).
  """
  import PIL.Image

  picture = pillow(image)
  form = 'PNG' if max(picture.size) <= 48 else 'JPEG'
  picture.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
  buffer = io.BytesIO()
  picture.save(buffer, form, optimize=True)
  return buffer.getvalue(), f'image/{form.lower()}'


def png(draw, size, font=11, layout='constrained'):
  import matplotlib
  from matplotlib import figure as matplotlib_figure

  settings = {
    **matplotlib.rcParamsDefault,
    'font.size': font,
    'text.parse_math': False,  # A class may be called '$5'.
  }
  del settings['backend']  # The caller's; Figure alone draws with Agg.
  with matplotlib.rc_context(settings), warnings.catch_warnings():
    warnings.simplefilter('ignore')  # A layout too narrow for a name, glyphs.
    figure = matplotlib_figure.Figure(
      size,
      dpi=_DPI if max(size) < _LARGE else 0.75 * _DPI,
      layout=layout,
      facecolor='white',
    )
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
  return buffer.getvalue()


def _legend_below(figure, axes, columns):
  handles, names = axes.get_legend_handles_labels()
  if any(len(name) > _NAME_LENGTH for name in names):
    columns = 1
  return figure.legend(
    handles,
    names,
    loc='outside lower center',
    ncols=min(columns, max(1, len(names))),
    frameon=False,
    fontsize='small',
    columnspacing=1.0,
    handletextpad=0.4,
  )


def _name_classes(set_ticks, names, **style):
  every = math.ceil(len(names) / _NAMED_CLASSES)
  chosen = range(0, len(names), every)
  set_ticks(list(chosen), [axis_name(names[i], i) for i in chosen], **style)


def axis_name(name, index):
  """The name, short enough; its number if the font cannot write it."""
  from matplotlib import font_manager

  font = font_manager.get_font(font_manager.findfont('DejaVu Sans'))
  if not all(ord(character) in font.get_charmap() for character in name):
    return f'class {index}'
  return _shortened(name, _NAME_LENGTH)


def _shortened(name, length):
  if len(name) <= length:
    return name
  half = length // 2  # What tells names apart is often at their end.
  return f'{name[: length - half - 1]}…{name[-half:]}'
