"""What surrounds a toy bird: sky, foliage or water, a perch, leaves, light and noise."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from jprotop.data import toybird_shapes as shapes

# Colours at the top and the bottom, and of the soft blobs in front of them.
SCENES = {
  "sky": ((132, 186, 228), (222, 236, 244), [(255, 255, 255), (236, 240, 248), (176, 208, 234)]),
  "dusk": ((170, 160, 204), (250, 214, 180), [(255, 236, 214), (224, 182, 196), (190, 170, 210)]),
  "foliage": ((150, 182, 112), (84, 128, 84), [(184, 206, 128), (70, 116, 76), (214, 222, 150)]),
  "autumn": ((226, 196, 128), (164, 122, 84), [(236, 170, 92), (244, 222, 150), (140, 112, 76)]),
  "water": ((176, 212, 214), (72, 134, 154), [(200, 228, 228), (58, 118, 146), (120, 176, 186)]),
}
LEAVES = ((112, 152, 74), (82, 128, 80), (214, 168, 66), (196, 92, 58), (160, 176, 92))
BARK = ((112, 84, 66), (134, 110, 88), (92, 78, 72))


def background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
  """A blurred scene, RGB [height, width]: a vertical gradient with blobs, flat ones on water."""
  name = tuple(SCENES)[rng.integers(len(SCENES))]
  top, bottom, blobs = SCENES[name]
  cells = 28
  y, x = np.mgrid[0 : 1 : cells * 1j, 0 : 1 : cells * 1j]
  picture = np.array(top) + y[..., None] * (np.array(bottom) - np.array(top, float))
  for _ in range(14):
    cx, cy, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.05, 0.15)
    wide, flat = (2.6, 0.35) if name == "water" else (1.0, 1.0)
    far = ((x - cx) / (wide * radius)) ** 2 + ((y - cy) / (flat * radius)) ** 2
    strength = rng.uniform(0.3, 0.7) * np.exp(-(far**2))[..., None]
    picture += strength * (np.array(blobs[rng.integers(len(blobs))]) - picture)
  picture += rng.normal(0, 8, 3)
  small = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
  return small.resize((width, height), Image.Resampling.BICUBIC)


def perch(painter: shapes.Painter, rng: np.random.Generator) -> None:
  """A branch under the bird's foot from edge to edge, with a twig's leaves, and loose leaves."""
  colour = np.array(BARK[rng.integers(len(BARK))]) * rng.uniform(0.85, 1.15)
  slope, bend, thick = rng.uniform(-0.25, 0.25), rng.uniform(-6, 6), rng.uniform(4, 6.5)
  x = np.linspace(-260, 260, 40)
  middle = 52 + thick + slope * (x - 6) + bend * np.sin((x - 6) / 60)
  half = thick * (1 + 0.12 * np.sin(x / 11))
  branch = np.concatenate([np.stack([x, middle - half], 1), np.stack([x, middle + half], 1)[::-1]])
  for _ in range(rng.integers(1, 4)):
    _leaf(painter, rng, rng.uniform(-150, 150), rng.uniform(-110, 90))
  for place in rng.uniform(-110, 110, rng.integers(2, 5)):
    y = np.interp(place, x, middle) + rng.choice([-1, 1]) * (thick + 7)
    _leaf(painter, rng, place, y)
  painter.shape(branch, colour)
  shine = np.concatenate([branch[:40], branch[39::-1]])
  shine[:, 1] += np.repeat([0.25 * thick, 0.7 * thick], 40)
  painter.shape(shine, 1.22 * colour, edge=0)


def front_leaf(painter: shapes.Painter, rng: np.random.Generator) -> Image.Image | None:
  """Now and then a leaf in front of the bird; its mask ("L") at the painter's scale, or None."""
  present = rng.random() < 0.35
  side = (rng.uniform(-95, 60), rng.uniform(-60, 50))
  outline = _leaf(painter, rng, *side) if present else None
  return None if outline is None else painter.mask(outline)


def _leaf(
  painter: shapes.Painter, rng: np.random.Generator, x: float, y: float
) -> Float[np.ndarray, "K 2"]:
  length, angle = rng.uniform(20, 32), rng.uniform(0, 2 * np.pi)
  colour = np.array(LEAVES[rng.integers(len(LEAVES))]) * rng.uniform(0.85, 1.15)
  outline = shapes.leaf(x, y, length, angle)
  painter.shape(outline, colour)
  rib = 0.4 * length * np.array([np.cos(angle), np.sin(angle)])
  ends = painter.corners([(x - rib[0], y - rib[1]), (x + rib[0], y + rib[1])])
  pen, width = ImageDraw.Draw(painter.image), max(1, round(painter.unit))
  pen.line(ends, fill=shapes.shaded(colour, 0.7), width=width)
  return outline


def expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
  """The same picture in another light: gain, a tint and the camera's noise."""
  gain = rng.uniform(0.84, 1.12) * rng.uniform(0.95, 1.05, 3)
  picture = np.asarray(image, np.float32) * gain.astype(np.float32)
  picture += 3 * rng.standard_normal(picture.shape, np.float32)
  return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
