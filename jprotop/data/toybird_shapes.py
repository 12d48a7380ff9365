"""Outlines of a toy bird seen from its side, the scene around it, and the painter of both.

Bird coordinates: x towards the beak, y down, the body's middle at (0, 0), about 185 x 125 units
from the tip of a long tail to the tip of a long beak and from crest to foot. Picture coordinates
are pixels, x right, y down. Outlines are K points (x, y).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageChops, ImageDraw

Points = Sequence[tuple[float, float]] | Float[np.ndarray, "K 2"]
Colour = tuple[int, int, int] | Float[np.ndarray, "3"]

# Shapes are drawn this many times larger and averaged down, for smooth edges.
SUPERSAMPLE = 3

# Outermost points of any species; the pose fits these into the picture, whatever the species is.
EXTREMES = np.array(
  [(82, -27), (36, -54), (6, -70), (-24, -20), (-102, 16), (-96, 44), (4, 57), (20, 57), (44, 16)],
  float,
)
BODY = [
  *[(50, -31), (46, -43), (34, -51), (19, -46), (10, -34), (-6, -21), (-26, -11), (-46, 3)],
  *[(-42, 13), (-28, 29), (-4, 39), (20, 37), (38, 22), (46, 2), (47, -14), (49, -24)],
]
BELLY = [
  *[(60, -22), (42, -19), (31, -4), (16, 10), (-10, 15), (-36, 12), (-60, 16), (-40, 60)],
  *[(20, 70), (70, 40)],
]
CROWN = [(62, -38), (46, -37), (34, -39), (22, -36), (4, -34), (0, -60), (30, -80), (60, -60)]
CREST = [(41, -46), (30, -58), (6, -69), (14, -55), (15, -42), (28, -42)]
WING = [(23, -3), (13, -14), (-8, -14), (-34, -3), (-52, 11), (-36, 15), (-10, 16), (14, 11)]
LEG = [(-2, 34), (8, 34), (6.5, 45), (18, 50), (17, 53.5), (-4, 53.5), (-4, 50), (3, 47)]
BEAKS = {
  "cone": [(45, -38), (57, -34), (66, -27), (56, -24), (46, -22)],
  "long": [(45, -35), (62, -32), (82, -25), (62, -26), (46, -24)],
  "hooked": [(44, -40), (60, -40), (68, -32), (66, -18), (60, -25), (46, -22)],
}
# Where CUB's annotators would click; "eye", "leg" and "wing" become the bird's left or right one.
POINTS = {
  "back": (-10, -17),
  "beak": (54, -29),
  "belly": (-2, 29),
  "breast": (37, 11),
  "crown": (31, -45),
  "forehead": (44.5, -40),
  "eye": (37, -31),
  "leg": (4, 46),
  "wing": (-12, 1),
  "nape": (13, -32),
  "throat": (43, -16),
}


def smooth(points: Points, steps: int = 5) -> Float[np.ndarray, "_ 2"]:
  """Closed Catmull-Rom curve through `points` [K, 2], sampled at [K * steps, 2]."""
  p1 = np.asarray(points, float)
  p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
  t = (np.arange(steps) / steps)[None, :, None]
  p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
  curve = 2 * p1 + t * (p2 - p0) + t**2 * (2 * p0 - 5 * p1 + 4 * p2 - p3)
  return ((curve + t**3 * (3 * p1 - p0 - 3 * p2 + p3)) / 2).reshape(-1, 2)


def disc(x: float, y: float, radius: float, corners: int = 12) -> Float[np.ndarray, "{corners} 2"]:
  """A circle about (x, y), as a polygon."""
  angle = np.arange(corners) * (2 * np.pi / corners)
  return np.array([x, y]) + radius * np.stack([np.cos(angle), np.sin(angle)], 1)


def leaf(x: float, y: float, length: float, angle: float) -> Float[np.ndarray, "K 2"]:
  """A lens of `length`, a third as wide, turned by `angle` radians about (x, y)."""
  t = np.linspace(0, np.pi, 9)
  upper = np.stack([-np.cos(t) / 2, np.sin(t) / 5 - 0.03 * np.sin(2 * t)], 1)
  lens = length * np.concatenate([upper, upper[-2:0:-1] * (1, -1)])
  c, s = np.cos(angle), np.sin(angle)
  return lens @ np.array([[c, s], [-s, c]]) + (x, y)


def tail(length: float, forked: bool) -> tuple[Float[np.ndarray, "K 2"], tuple[float, float]]:
  """Outline of a tail of `length` units, and its middle, where the part is annotated."""
  along, across = np.array([-0.94, 0.34]), np.array([0.34, 0.94])
  spread, notch = (16, 0.68) if forked else (9, 1.04)
  steps = [(-8, -8), (length, -spread), (length * notch, 0), (length, spread), (-8, 8)]
  base = np.array([-38, 6])
  outline = np.array([base + a * along + b * across for a, b in steps])
  x, y = base + along * (0.6 if forked else 0.75) * length
  return outline, (x, y)


def spots() -> list[Float[np.ndarray, "K 2"]]:
  """Dots in offset rows, to be cut to the belly; none on the annotated points."""
  rows = [(x + 5.5 * (row % 2), 8.0 * row - 14) for row in range(8) for x in range(-42, 60, 11)]
  return [disc(x, y, 2.7, 8) for x, y in rows]


def stripes() -> list[Float[np.ndarray, "K 2"]]:
  """Bars across breast and belly, bent as on a round body; none on the annotated points."""
  x = np.linspace(-50, 56, 12)
  bent = np.stack([x, -0.004 * (x + 6) ** 2], 1)
  band = np.concatenate([bent, bent[::-1] + np.array([0, 4])])
  return [band + np.array([0, 9 * row - 5]) for row in range(7)]


def wing_bars(count: int) -> list[Float[np.ndarray, "K 2"]]:
  """`count` curved bars across the wing, from its bend towards its tip."""
  bar = np.array([(3, -22), (-1, -2), (-7, 22), (-14, 22), (-8, -2), (-4, -22)], float)
  return [bar - (16 * k - 2, 0) for k in range(count)]


def pose(rng: np.random.Generator, width: int, height: int) -> Float[np.ndarray, "2 3"]:
  """Affine map from bird to picture: mirror, stretch, tilt, scale and place.

  Its determinant is negative for a bird that faces left. The tips may leave the picture slightly.
  """
  facing = 1 if rng.random() < 0.5 else -1
  tilt = np.deg2rad(rng.uniform(-20, 20))
  stretch = rng.uniform(0.93, 1.07)
  turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
  linear = turn @ np.diag([facing * stretch, 1 / stretch])
  extremes = EXTREMES @ linear.T
  low, room = extremes.min(0), np.array([width, height])
  linear_scale = (room / np.ptp(extremes, axis=0)).min() * rng.uniform(0.76, 1.02)
  free = room - linear_scale * np.ptp(extremes, axis=0)
  corner = free * rng.uniform(0.0, 1.0, 2)
  return np.column_stack([linear_scale * linear, corner - linear_scale * low])


def transform(matrix: Float[np.ndarray, "2 3"], points: Points) -> Float[np.ndarray, "K 2"]:
  """`points` [K, 2] under an affine map."""
  return np.asarray(points, float) @ matrix[:, :2].T + matrix[:, 2]


def shaded(colour: Colour, gain: float) -> tuple[int, ...]:
  """Integer RGB of `colour` [3] times `gain`, within 0..255."""
  return tuple(min(255, max(0, round(gain * float(channel)))) for channel in colour)


@dataclasses.dataclass
class Painter:
  """Draws outlines given in bird coordinates; remembers the bird's silhouette.

  Attributes: image, RGB, SUPERSAMPLE times larger than the picture; matrix, bird to image;
  silhouette, the mask ("L", 0 or 255) of all that was drawn by `part`.
  """

  image: Image.Image
  matrix: Float[np.ndarray, "2 3"]

  def __post_init__(self):
    self.silhouette = Image.new("L", self.image.size)
    self.unit = float(np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))))

  def box(self) -> tuple[int, int, int, int]:
    """The silhouette's (left, top, right, bottom) in the image, half-open."""
    found = self.silhouette.getbbox()
    assert found is not None, "no part was painted yet"
    return found

  def corners(self, outline: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in transform(self.matrix, outline).tolist()]

  def shape(self, outline: Points, colour: Colour, edge: float = 1.0) -> None:
    """A plain shape with a rim of `edge` units in a darker shade of its colour."""
    corners = self.corners(outline)
    pen = ImageDraw.Draw(self.image)
    pen.polygon(corners, fill=shaded(colour, 1))
    if edge:
      rim = max(1, round(edge * self.unit))
      pen.line([*corners, corners[0]], fill=shaded(colour, 0.62), width=rim, joint="curve")

  def part(self, outline: Points, colour: Colour, edge: float = 1.0) -> None:
    """A shape that belongs to the bird, hence to its silhouette and box."""
    self.shape(outline, colour, edge)
    ImageDraw.Draw(self.silhouette).polygon(self.corners(outline), fill=255)

  def mask(self, *outlines: Points, within: Image.Image | None = None) -> Image.Image:
    """Mask ("L") of the union of `outlines`, cut to the mask `within`."""
    mask = Image.new("L", self.image.size)
    for outline in outlines:
      ImageDraw.Draw(mask).polygon(self.corners(outline), fill=255)
    return mask if within is None else ImageChops.darker(mask, within)

  def cover(self, mask: Image.Image, colour: Colour) -> None:
    box = mask.getbbox()
    if box:
      self.image.paste(shaded(colour, 1), box, mask.crop(box))

  def light(self, depth: float = 0.42) -> None:
    """Darkens the bird towards its underside, as light from above does."""
    box = self.box()
    fall = Image.linear_gradient("L").point([int(depth * max(0, v - 70)) for v in range(256)])
    fall = fall.resize((box[2] - box[0], box[3] - box[1]))
    self.image.paste((20, 18, 40), box, ImageChops.darker(fall, self.silhouette.crop(box)))


def paint_bird(painter: Painter, kind, colour: dict) -> dict:
  """Paints from the far side to the near one; returns the parts' points in bird coordinates.

  `kind` is a toybirds.Species, `colour` its RGB by part: body, crown, beak, belly, bar, tail, and
  leg and mark (of spots and stripes).
  """
  tail_outline, tail_point = tail(kind.tail_length, kind.tail_fork)
  body = smooth(BODY)
  painter.part(tail_outline, colour["tail"])
  if kind.crest:
    painter.part(smooth(CREST), colour["crown"])
  painter.part(BEAKS[kind.beak_shape], colour["beak"])
  painter.part(body, colour["body"])
  painter.part(LEG, colour["leg"], edge=0)
  inside = painter.mask(body)
  belly = painter.mask(smooth(BELLY), within=inside)
  painter.cover(belly, colour["belly"])
  if kind.belly_pattern != "plain":
    marks = spots() if kind.belly_pattern == "spotted" else stripes()
    painter.cover(painter.mask(*marks, within=belly), colour["mark"])
  painter.cover(painter.mask(smooth(CROWN), within=inside), colour["crown"])
  wing = smooth(WING)
  painter.part(wing, 0.72 * colour["body"])
  if kind.bars:
    bars = painter.mask(*wing_bars(kind.bars), within=painter.mask(wing))
    painter.cover(bars, colour["bar"])
  painter.light()
  x, y = POINTS["eye"]
  painter.shape(disc(x, y, 5.2), (250, 240, 214), edge=0)
  painter.shape(disc(x, y, 4.2), (34, 32, 40), edge=0)
  painter.shape(disc(x + 1.3, y - 1.5, 1.4), (255, 255, 255), edge=0)
  return {**POINTS, "tail": tail_point}
