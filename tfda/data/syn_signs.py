"""SYN SIGNS: painted traffic signs that stand in for the photographs of GTSRB.

Ganin & Lempitsky 2015, Section 4.1: "100,000 synthetic images (which we call
SYN SIGNS) simulating various photoshooting conditions", of 43 classes. How they
are made is not published there. Here a sign is painted from shapes, turned,
seen at an angle, set before a made-up street, lit, blurred and disturbed by
noise; how far each is varied is chosen by eye.
"""

import functools
import os

import numpy as np

SIZE = 40
COUNTS = {'train': 100_000, 'test': 10_000}  # Section 4.1; a tenth for test.

_ZOOM = 2  # Composed at twice the size, then made smaller.
_TEMPLATE = 128  # Side of a painted sign in pixels ...
_UNIT = 60  # ... of which so many are 1 in the coordinates below.

_RED = (190, 22, 34)
_BLUE = (0, 84, 166)
_YELLOW = (250, 190, 0)
_GREEN = (0, 140, 80)
_BLACK = (20, 20, 20)
_GREY = (110, 110, 110)
_WHITE = (245, 245, 245)

# A sign is a list of strokes, later ones over earlier ones; x to the right and
# y down are within -1..1:
#   ('area', colour, points)          a polygon
#   ('line', colour, width, points)   with round ends and bends
#   ('text', colour, box, text)       stretched to the box (x0, y0, x1, y1)


def _line(colour, width, *points):
  return ('line', colour, width, points)


def _black(width, *points):
  return _line(_BLACK, width, *points)


def _area(colour, *points):
  return ('area', colour, points)


def _arc(x, y, radius, first=0.0, last=360.0, points=37):
  """Points on a circle; degrees, clockwise from the right."""
  angles = np.radians(np.linspace(first, last, points))
  return list(zip(x + radius * np.cos(angles), y + radius * np.sin(angles)))


def _dot(colour, x, y, radius):
  return _area(colour, *_arc(x, y, radius))


def _rectangle(colour, x0, y0, x1, y1):
  return _area(colour, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _rounded(colour, corners, radius):
  """A polygon that is `radius` larger all around, with rounded corners."""
  return [
    _area(colour, *corners),
    _line(colour, 2 * radius, *corners, corners[0]),
  ]


def _arrow(colour, width, *points):
  """A line with a head beyond its last point."""
  begin, end = np.array(points[-2:])
  along = 1.5 * width * (end - begin) / np.linalg.norm(end - begin)
  across = 0.9 * np.array([-along[1], along[0]])
  return [
    _line(colour, width, *points),
    _area(colour, end + along, end + across, end - across),
  ]


def _moved(strokes, x=0.0, y=0.0, scale=1.0, mirror=1.0):
  """Areas and lines, scaled or mirrored (-1.0) about (0, 0), then moved."""
  return [
    (
      kind,
      colour,
      *(scale * width for width in widths),
      [(x + mirror * scale * u, y + scale * v) for u, v in points],
    )
    for kind, colour, *widths, points in strokes
  ]


def _car(colour):
  """From behind."""
  left = [(-0.25, 0.1), (-0.25, -0.05), (-0.17, -0.08), (-0.12, -0.22)]
  return [
    _area(colour, *left, *((-x, y) for x, y in reversed(left))),
    _area(_WHITE, (-0.11, -0.09), (-0.08, -0.18), (0.08, -0.18), (0.11, -0.09)),
    _line(colour, 0.09, (-0.19, 0.08), (-0.19, 0.14)),
    _line(colour, 0.09, (0.19, 0.08), (0.19, 0.14)),
  ]


def _truck(colour):
  """From behind."""
  return [
    _rectangle(colour, -0.28, -0.38, 0.28, 0.1),
    _line(colour, 0.1, (-0.2, 0.08), (-0.2, 0.14)),
    _line(colour, 0.1, (0.2, 0.08), (0.2, 0.14)),
  ]


_TRUCK_FROM_THE_SIDE = [
  _rectangle(_BLACK, -0.1, -0.27, 0.56, 0.14),
  _rectangle(_BLACK, -0.55, -0.04, -0.15, 0.14),
  _area(_BLACK, (-0.55, -0.04), (-0.45, -0.2), (-0.15, -0.2), (-0.15, 0.0)),
  _area(_WHITE, (-0.47, -0.04), (-0.41, -0.14), (-0.3, -0.14), (-0.3, -0.04)),
  _black(0.05, (-0.5, 0.13), (0.5, 0.13)),
  *(_dot(_BLACK, x, 0.19, 0.1) for x in (-0.36, 0.16, 0.42)),
]


def _person(left_foot, right_foot, left_hand, right_hand, hip=0.0):
  """Who is 0.7 high and stands on y = 0."""
  return [
    _dot(_BLACK, 0.02, -0.62, 0.085),
    _black(0.15, (0.0, -0.45), (hip, -0.28)),
    *(_black(0.09, (hip, -0.26), foot) for foot in (left_foot, right_foot)),
    *(_black(0.06, (0.0, -0.48), hand) for hand in (left_hand, right_hand)),
  ]


_WALKER = _person((-0.16, 0.0), (0.17, 0.0), (-0.17, -0.28), (0.18, -0.3))
_CHILDREN = [
  *_moved(
    _person((-0.2, -0.02), (0.1, 0.0), (-0.2, -0.36), (0.24, -0.42)),
    -0.19, 0.46, 0.78,
  ),
  *_moved(
    _person((-0.14, 0.0), (0.2, -0.04), (-0.16, -0.4), (0.2, -0.36)),
    0.2, 0.48, 0.9,
  ),
]  # fmt: skip
_DIGGER = [
  *_moved(
    _person((-0.22, 0.0), (0.1, 0.0), (0.16, -0.28), (0.2, -0.22), -0.1),
    -0.12, 0.48, 0.95,
  ),
  _black(0.04, (-0.08, 0.1), (0.26, 0.36)),
  _area(_BLACK, (0.12, 0.5), (0.3, 0.3), (0.5, 0.5)),
]  # fmt: skip
_BICYCLE = [
  _black(0.05, *_arc(-0.26, 0.32, 0.16)),
  _black(0.05, *_arc(0.26, 0.32, 0.16)),
  _black(0.05, (-0.26, 0.32), (-0.12, 0.08), (0.16, 0.08), (0.0, 0.34)),
  _black(0.05, (0.0, 0.34), (-0.12, 0.08), (-0.14, 0.0), (-0.22, 0.02)),
  _black(0.05, (0.0, 0.34), (0.26, 0.32), (0.14, 0.0), (0.08, 0.0)),
  _black(0.05, (0.14, 0.0), (0.22, 0.0)),
]
_DEER = [
  _black(0.15, (-0.12, 0.14), (0.04, 0.16), (0.18, 0.24)),
  _black(0.09, (-0.15, 0.12), (-0.25, -0.06), (-0.33, -0.02)),
  _black(0.035, (-0.22, -0.06), (-0.2, -0.2), (-0.12, -0.24)),
  _black(0.035, (-0.24, -0.06), (-0.27, -0.22)),
  _black(0.06, (-0.14, 0.2), (-0.3, 0.24), (-0.26, 0.34)),
  _black(0.06, (-0.1, 0.2), (-0.2, 0.32), (-0.14, 0.38)),
  _black(0.06, (0.2, 0.25), (0.3, 0.36), (0.42, 0.44)),
  _black(0.06, (0.16, 0.27), (0.2, 0.38), (0.32, 0.47)),
]
_HUMPS = [
  _area(_BLACK, *_arc(-0.21, 0.42, 0.2, 180, 360)),
  _area(_BLACK, *_arc(0.21, 0.42, 0.2, 180, 360)),
  _black(0.07, (-0.45, 0.43), (0.45, 0.43)),
]
_SKIDS = [
  _black(0.05, (x, 0.24), (x - 0.1, 0.31), (x + 0.02, 0.38), (x - 0.08, 0.46))
  for x in (-0.12, 0.18)
]
_SNOWFLAKE = [
  _black(width, *(_arc(0, 0.2, r, angle + a, 0, 1)[0] for r, a in points))
  for angle in range(0, 360, 60)
  for width, points in (
    (0.055, [(0.0, 0), (0.3, 0)]),
    (0.04, [(0.28, 17), (0.17, 0), (0.28, -17)]),
  )
]
_ROUNDABOUT = [
  stroke
  # Against the clock, as one drives.
  for first in (95, 215, 335)
  for stroke in _arrow(_WHITE, 0.17, *_arc(0, 0, 0.48, first, first - 62))
]
_CURVE_LEFT = _arrow(
  _BLACK,
  0.17,
  (0.2, 0.46),
  (0.2, 0.22),
  (0.15, 0.12),
  (0.04, 0.07),
  (-0.08, 0.05),
)
_DOUBLE_CURVE = _arrow(
  _BLACK, 0.15, (0.13, 0.48), (0.13, 0.28), (-0.11, 0.14), (-0.11, -0.06)
)
_TURN_LEFT = _arrow(
  _WHITE,
  0.2,
  (0.28, 0.55),
  (0.28, 0.05),
  (0.2, -0.12),
  (0.05, -0.2),
  (-0.2, -0.2),
)
_STRAIGHT_OR_LEFT = [
  *_arrow(_WHITE, 0.19, (0.2, 0.6), (0.2, -0.3)),
  *_arrow(_WHITE, 0.19, (0.2, 0.32), (0.12, 0.16), (0.0, 0.1), (-0.2, 0.1)),
]
_KEEP_LEFT = _arrow(_WHITE, 0.26, (0.42, -0.42), (-0.15, 0.15))


def _disc(rim, face, rim_width):
  return [
    _dot(_WHITE, 0, 0, 1.0),
    _dot(rim, 0, 0, 0.96),
    _dot(face, 0, 0, 0.96 - rim_width),
  ]


def _prohibition(*symbol):
  return [*_disc(_RED, _WHITE, 0.25), *symbol]


def _limit(number):
  half = 0.48 if len(number) == 2 else 0.6
  return _prohibition(('text', _BLACK, (-half, -0.37, half, 0.37), number))


def _end(*symbol):
  bars = [
    _black(0.055, (x - 0.62, x + 0.62), (x + 0.62, x - 0.62))
    for x in (-0.16, -0.08, 0.0, 0.08, 0.16)
  ]
  return [*_disc(_GREY, _WHITE, 0.04), *symbol, *bars]


def _obligation(*symbol):
  return [*_disc(_BLUE, _BLUE, 0.0), *symbol]


def _triangle(*symbol, up=1.0):
  outer = [(0.0, -0.86 * up), (0.88, 0.68 * up), (-0.88, 0.68 * up)]
  inner = [(0.0, -0.5 * up), (0.58, 0.5 * up), (-0.58, 0.5 * up)]
  sign = [
    *_rounded(_WHITE, outer, 0.12),
    *_rounded(_RED, outer, 0.09),
    *_rounded(_WHITE, inner, 0.05),
    *symbol,
  ]
  return _moved(sign, y=0.09 * up)  # Its middle to (0, 0).


_DIAMOND = [(0.0, -0.92), (0.92, 0.0), (0.0, 0.92), (-0.92, 0.0)]

# In the order of GTSRB; data/signs.py has their names.
_SIGNS = (
  *(_limit(number) for number in ('20', '30', '50', '60', '70', '80')),
  _end(('text', _GREY, (-0.5, -0.4, 0.5, 0.4), '80')),
  _limit('100'),
  _limit('120'),
  _prohibition(*_moved(_car(_RED), -0.32), *_moved(_car(_BLACK), 0.32)),
  _prohibition(
    *_moved(_truck(_RED), -0.28, 0.08), *_moved(_car(_BLACK), 0.32, 0.08)
  ),
  _triangle(
    *_arrow(_BLACK, 0.2, (0.0, 0.44), (0.0, -0.02)),
    _black(0.12, (-0.27, 0.2), (0.27, 0.2)),
  ),
  [
    *_rounded(_GREY, _DIAMOND, 0.08),
    *_rounded(_WHITE, _DIAMOND, 0.05),
    *_rounded(_YELLOW, [(0.65 * x, 0.65 * y) for x, y in _DIAMOND], 0.04),
  ],
  _triangle(up=-1.0),
  [
    _area(_WHITE, *_arc(0, 0, 1.03, 22.5, 382.5, 9)),
    _area(_RED, *_arc(0, 0, 0.97, 22.5, 382.5, 9)),
    ('text', _WHITE, (-0.7, -0.29, 0.7, 0.29), 'STOP'),
  ],
  _prohibition(),
  _prohibition(*_TRUCK_FROM_THE_SIDE),
  [*_disc(_RED, _RED, 0.0), _rectangle(_WHITE, -0.7, -0.17, 0.7, 0.17)],
  _triangle(
    _area(_BLACK, (-0.09, -0.3), (0.09, -0.3), (0.045, 0.2), (-0.045, 0.2)),
    _dot(_BLACK, 0.0, 0.36, 0.085),
  ),
  _triangle(*_CURVE_LEFT),
  _triangle(*_moved(_CURVE_LEFT, mirror=-1.0)),
  _triangle(*_DOUBLE_CURVE),
  _triangle(*_HUMPS),
  _triangle(*_moved(_car(_BLACK), 0.02, 0.08, 0.9), *_SKIDS),
  _triangle(
    _black(0.09, (-0.13, 0.48), (-0.13, -0.14)),
    _black(0.09, (0.24, 0.48), (0.24, 0.3), (0.1, 0.1), (0.1, -0.14)),
  ),
  _triangle(*_DIGGER),
  _triangle(
    _dot(_RED, 0.0, -0.14, 0.12),
    _dot(_YELLOW, 0.0, 0.13, 0.12),
    _dot(_GREEN, 0.0, 0.4, 0.12),
  ),
  _triangle(*_moved(_WALKER, 0.0, 0.48)),
  _triangle(*_CHILDREN),
  _triangle(*_BICYCLE),
  _triangle(*_SNOWFLAKE),
  _triangle(*_DEER),
  _end(),
  _obligation(*_moved(_TURN_LEFT, mirror=-1.0)),
  _obligation(*_TURN_LEFT),
  _obligation(*_arrow(_WHITE, 0.22, (0.0, 0.65), (0.0, -0.3))),
  _obligation(*_moved(_STRAIGHT_OR_LEFT, mirror=-1.0)),
  _obligation(*_STRAIGHT_OR_LEFT),
  _obligation(*_moved(_KEEP_LEFT, mirror=-1.0)),
  _obligation(*_KEEP_LEFT),
  _obligation(*_ROUNDABOUT),
  _end(*_moved(_car(_GREY), -0.32), *_moved(_car(_GREY), 0.32)),
  _end(*_moved(_truck(_GREY), -0.28, 0.08), *_moved(_car(_GREY), 0.32, 0.08)),
)
FOLDERS = tuple(f'{label:02}' for label in range(len(_SIGNS)))


def draw(label, random):
  """Draws an image.

  Args:
    label: the class of the sign, 0..42.
    random: a numpy Generator.

  Returns:
    uint8 [40, 40, 3].
  """
  side = SIZE * _ZOOM
  radius = side * random.uniform(0.31, 0.47)
  centre = side / 2 + random.uniform(-0.06, 0.06, 2) * side
  picture = _street(random, side, centre, radius)
  if random.random() < 0.15:  # Another sign above or below.
    other = centre + [0.0, radius * random.choice([-2.1, 2.1])]
    picture = _with_sign(
      picture, random.integers(len(_SIGNS)), other, radius, random
    )
  # What is behind a sign is often in another light.
  picture = picture * np.exp(random.normal(0.0, 0.4))
  picture = _with_sign(picture, label, centre, radius, random)
  return _photographed(picture, random)


@functools.cache
def template(label):
  """The painted sign, a PIL image of 128x128 with premultiplied alpha."""
  from PIL import Image, ImageDraw

  zoom = 4  # For smooth edges.
  side, unit = zoom * _TEMPLATE, zoom * _UNIT
  painted = Image.new('RGBA', (side, side))
  pen = ImageDraw.Draw(painted)
  for kind, colour, *widths, shape in _SIGNS[label]:
    if kind == 'text':
      x0, y0, x1, y1 = (round(side / 2 + unit * x) for x in widths[0])
      glyphs = _glyphs(shape).resize((x1 - x0, y1 - y0))
      painted.paste(colour, (x0, y0), glyphs)
      continue
    points = [(side / 2 + unit * x, side / 2 + unit * y) for x, y in shape]
    if kind == 'area':
      pen.polygon(points, fill=colour)
      continue
    width = unit * widths[0]
    pen.line(points, fill=colour, width=round(width))
    for x, y in points:
      pen.circle((x, y), width / 2, fill=colour)
  return painted.convert('RGBa').reduce(zoom)


def _glyphs(text):
  """A mask that is as large as the text."""
  import matplotlib
  from PIL import Image, ImageDraw, ImageFont

  folder = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf')
  font = ImageFont.truetype(os.path.join(folder, 'DejaVuSans.ttf'), 200)
  sheet = Image.new('L', (800, 300))
  # A stroke of 6 makes it something between regular and bold.
  ImageDraw.Draw(sheet).text((9, 9), text, 255, font, stroke_width=6)
  return sheet.crop(sheet.getbbox())


def _street(random, side, centre, radius):
  """What is behind a sign: float [side, side, 3] in 0..255."""
  from PIL import Image, ImageDraw

  def noise(cells, amplitude, colours):
    small = random.uniform(-1.0, 1.0, [cells, cells, 3])
    small = colours * small + (1.0 - colours) * small[..., :1]
    small = np.round(127.5 + 127.5 * small).astype(np.uint8)
    large = Image.fromarray(small).resize(
      (side, side), Image.Resampling.BICUBIC
    )
    return amplitude * (np.asarray(large, np.float32) / 127.5 - 1.0)

  def colour():
    grey = random.uniform(10.0, 245.0) + random.normal(0.0, 15.0, 3)
    return np.clip(grey, 0.0, 255.0)

  street = colour() + noise(random.integers(2, 6), random.uniform(0, 90), 0.1)
  # Leaves and bricks.
  street += noise(random.integers(8, 41), random.uniform(0, 90), 0.1)
  picture = _image(street)
  pen = ImageDraw.Draw(picture)
  for _ in range(random.integers(0, 6)):  # Houses, windows, branches.
    fill = tuple(colour().astype(int))
    points = random.uniform(-0.2, 1.2, [random.integers(2, 5), 2]) * side
    points = [tuple(point) for point in points]
    if len(points) == 2:
      pen.line(points, fill=fill, width=random.integers(1, 9))
    else:
      pen.polygon(points, fill=fill)
  if random.random() < 0.5:
    half = radius * random.uniform(0.04, 0.1)
    x, y = centre
    fill = tuple((colour() * 0.3 + 90).astype(int))
    pen.rectangle((x - half, y, x + half, side), fill=fill)
  return np.asarray(picture, np.float32)


def _with_sign(picture, label, centre, radius, random):
  """Puts a sign, turned at random in space, over the picture."""
  from PIL import Image

  yaw, pitch, roll = np.radians(
    np.clip(random.normal(0.0, [18.0, 8.0, 5.0]), -45.0, 45.0)
  )
  turned = _turn(0, 1, roll) @ _turn(1, 2, pitch) @ _turn(2, 0, yaw)
  # The sign is the plane z = 0; the camera is 5 radii away, so that (x, y, z)
  # is seen at (x, y) / (1 + z / 5).
  seen = np.array([turned[0, :2], turned[1, :2], turned[2, :2] / 5.0])
  seen = np.column_stack([seen, [0.0, 0.0, 1.0]])
  x, y = centre
  onto_picture = np.array([[radius, 0, x], [0, radius, y], [0, 0, 1]])
  middle = -_TEMPLATE / 2 / _UNIT
  of_template = np.array(
    [[1 / _UNIT, 0, middle], [0, 1 / _UNIT, middle], [0, 0, 1]]
  )
  # The inverse but for a factor (np.linalg.inv has threads get in their way).
  columns = (onto_picture @ seen @ of_template).T
  back = np.cross(columns[[1, 2, 0]], columns[[2, 0, 1]])
  sign = template(label).transform(
    picture.shape[1::-1],
    Image.Transform.PERSPECTIVE,
    (back / back[2, 2]).ravel()[:8],
    Image.Resampling.BILINEAR,
  )
  sign = np.asarray(sign, np.float32)
  paint, cover = sign[..., :3], sign[..., 3:] / 255.0
  # Old paint is pale.
  grey = paint.mean(axis=-1, keepdims=True)
  paint = paint + random.uniform(0.0, 0.4) * (grey - paint)
  return paint + (1.0 - cover) * picture


def _turn(first, second, angle):
  """The matrix that turns one axis of three towards another."""
  matrix = np.eye(3)
  matrix[first, first] = matrix[second, second] = np.cos(angle)
  matrix[second, first] = np.sin(angle)
  matrix[first, second] = -np.sin(angle)
  return matrix


def _photographed(picture, random):
  """Light, resolution, focus, motion and noise: uint8 [40, 40, 3]."""
  from PIL import Image, ImageFilter

  photo = _image(picture)
  # GTSRB's signs are from 15 pixels on (Stallkamp et al. 2011).
  pixels = SIZE if random.random() < 0.5 else random.integers(15, SIZE)
  photo = photo.resize((pixels, pixels), Image.Resampling.BILINEAR)
  photo = _image(_lit(np.asarray(photo, np.float32), random))
  photo = photo.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
  photo = photo.filter(ImageFilter.GaussianBlur(random.uniform(0.0, 1.0)))
  if random.random() < 0.3:
    photo = photo.filter(_motion(random))
  noise = random.normal(0.0, random.uniform(0.0, 6.0), [SIZE, SIZE, 3])
  return np.asarray(_image(np.asarray(photo) + noise))


def _image(pixels):
  from PIL import Image

  return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _lit(picture, random):
  """Exposure, colour of the light, a shadow, haze: may exceed 255."""
  light = np.exp(random.uniform(np.log(0.2), np.log(1.8)))
  light = light * np.exp(random.normal(0.0, 0.1, 3))
  # A straight edge between light and shadow, sharp or over the whole picture.
  angle = random.uniform(0.0, 2 * np.pi)
  places = np.linspace(-0.5, 0.5, len(picture))
  across = places[:, np.newaxis] * np.cos(angle) + places * np.sin(angle)
  edge = (across - random.uniform(-0.3, 0.3)) / random.uniform(0.02, 1.0)
  shade = 1.0 - random.uniform(0.0, 0.6) * np.clip(edge + 0.5, 0.0, 1.0)
  picture = picture * light * shade[..., np.newaxis]
  haze = random.uniform(0.0, 0.4) * (random.random() < 0.3)
  return picture + haze * (random.uniform(20.0, 200.0) - picture)


def _motion(random):
  """A filter that smears along a line of 3 to 5 pixels."""
  from PIL import ImageFilter

  angle, length = random.uniform(0.0, np.pi), random.uniform(3.0, 5.0)
  kernel = np.zeros([5, 5])
  for along in np.linspace(-0.5, 0.5, 21) * (length - 1.0):
    row = round(2 + along * np.sin(angle))
    kernel[row, round(2 + along * np.cos(angle))] += 1.0
  return ImageFilter.Kernel((5, 5), kernel.ravel())
