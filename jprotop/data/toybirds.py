"""ToyBirds: a small data set of drawn birds with CUB-200-2011's boxes and fifteen parts.

Nothing is downloaded and nothing is random but by seed. A species is a combination of five parts,
crown, beak, wing bars, belly and tail, of seven variants each; pose, light and scene vary from
image to image, and body colours are shared, so that to tell species apart is to look at parts.
"""

import dataclasses
import functools
import inspect
import io
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from jprotop.data import parts
from jprotop.data import toybird_scenes as scenes
from jprotop.data import toybird_shapes as shapes
from jprotop.data.sources import Source, register_source
from jprotop.errors import InputError

COLOURS = {
  "red": (206, 44, 48),
  "orange": (238, 132, 42),
  "gold": (246, 198, 52),
  "cream": (244, 228, 190),
  "white": (246, 245, 240),
  "sky": (72, 150, 214),
  "violet": (124, 78, 160),
  "black": (42, 40, 48),
  "umber": (92, 62, 48),
  "brown": (156, 116, 84),
  "grey": (142, 146, 154),
  "olive": (138, 142, 92),
  "slate": (98, 116, 142),
}
BODIES = ("brown", "grey", "olive", "slate")

# The variants of each part: a word for the species' name where it takes part in it, then the
# attributes of Species that the part decides.
CROWNS = (
  ("redcrest", {"crown": "red", "crest": True}),
  ("blackcap", {"crown": "black", "crest": False}),
  ("goldcrest", {"crown": "gold", "crest": True}),
  ("bluecap", {"crown": "sky", "crest": False}),
  ("blackcrest", {"crown": "black", "crest": True}),
  ("whitecap", {"crown": "white", "crest": False}),
  ("redcap", {"crown": "red", "crest": False}),
)
BEAKS = (
  ("finch", {"beak": "orange", "beak_shape": "cone"}),
  ("creeper", {"beak": "black", "beak_shape": "long"}),
  ("parrot", {"beak": "gold", "beak_shape": "hooked"}),
  ("sparrow", {"beak": "black", "beak_shape": "cone"}),
  ("kingfisher", {"beak": "red", "beak_shape": "long"}),
  ("shrike", {"beak": "black", "beak_shape": "hooked"}),
  ("starling", {"beak": "gold", "beak_shape": "long"}),
)
BELLIES = (
  ("pale", {"belly": "cream", "belly_pattern": "plain"}),
  ("spotted", {"belly": "white", "belly_pattern": "spotted"}),
  ("sunny", {"belly": "gold", "belly_pattern": "plain"}),
  ("barred", {"belly": "cream", "belly_pattern": "striped"}),
  ("rusty", {"belly": "orange", "belly_pattern": "plain"}),
  ("freckled", {"belly": "gold", "belly_pattern": "spotted"}),
  ("banded", {"belly": "orange", "belly_pattern": "striped"}),
)
BARS = (
  ("", {"bar": "white", "bars": 2}),
  ("", {"bar": "gold", "bars": 1}),
  ("", {"bar": "white", "bars": 0}),
  ("", {"bar": "white", "bars": 1}),
  ("", {"bar": "sky", "bars": 2}),
  ("", {"bar": "red", "bars": 1}),
  ("", {"bar": "gold", "bars": 2}),
)
TAILS = (
  ("", {"tail": "umber", "tail_length": 42, "tail_fork": False}),
  ("", {"tail": "black", "tail_length": 58, "tail_fork": True}),
  ("", {"tail": "sky", "tail_length": 58, "tail_fork": False}),
  ("", {"tail": "red", "tail_length": 42, "tail_fork": True}),
  ("", {"tail": "white", "tail_length": 58, "tail_fork": False}),
  ("", {"tail": "violet", "tail_length": 58, "tail_fork": True}),
  ("", {"tail": "orange", "tail_length": 42, "tail_fork": False}),
)
PART_VARIANTS = (CROWNS, BELLIES, BEAKS, BARS, TAILS)
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Species:
  """What all birds of a class share. Colours are keys of COLOURS; tail_length in bird units."""

  name: str
  body: str
  crown: str
  crest: bool
  beak: str
  beak_shape: str
  belly: str
  belly_pattern: str
  bar: str
  bars: int
  tail: str
  tail_length: int
  tail_fork: bool


@dataclasses.dataclass(frozen=True)
class Bird:
  """One drawn bird.

  Attributes:
    image: RGB.
    box: (x, y, width, height) in pixels, as in CUB's bounding_boxes.txt; inside the picture.
    parts: (x, y, visible) in pixels in the order of parts.PARTS, zeros where not visible. The pixel
      under a point is (int(x), int(y)).
  """

  image: Image.Image
  box: tuple[float, float, float, float]
  parts: Float32[np.ndarray, "15 3"]


def species(num_classes: int) -> list[Species]:
  """The first `num_classes` species; species k is the same whatever their number.

  The digits (a, b, c) of k in base 7 are a Reed-Solomon message: part x = 0..4 has the variant
  a + b x + c x^2 mod 7. Hence any two species differ in at least three parts (in four among the
  first 49, in all five among the first 7), and any three parts, so also the name, tell them all
  apart.

  Raises:
    InputError: num_classes is not in 2..200.
  """
  if not 2 <= num_classes <= 200:
    raise InputError(f"num_classes={num_classes}: ToyBirds has 2 to 200 species; choose in 2..200")
  return [_species(index) for index in range(num_classes)]


def _species(index: int) -> Species:
  a, b, c = index % 7, index // 7 % 7, index // 49
  chosen = [table[(a + b * x + c * x * x) % 7] for x, table in enumerate(PART_VARIANTS)]
  (crown, _), (belly, _), (beak, _) = chosen[:3]
  attributes: dict[str, Any] = {key: value for _, part in chosen for key, value in part.items()}
  # Neighbours share a body, so that even two classes cannot be told apart by it.
  body = BODIES[index // 2 % len(BODIES)]
  return Species(name=f"toy_{belly}_{crown}_{beak}", body=body, **attributes)


def draw(species: Species, rng: np.random.Generator, size: int = 160) -> Bird:
  """Draws a bird of `species` in side view, `size` pixels on the picture's longer side.

  Pose, colours, scene and noise come from streams of their own that do not depend on the species:
  two species drawn from equal generators differ only where their parts do.

  Args:
    species: what to draw.
    rng: consumed by `spawn`, so a second call with the same object draws another picture.
    size: at least 32.

  Raises:
    InputError: size is less than 32.
  """
  if size < 32:
    raise InputError(f"size={size} is too small to show the parts of a bird; use at least 32")
  pose_rng, colour_rng, scene_rng, noise_rng = rng.spawn(4)
  ratio = pose_rng.uniform(0.74, 0.97)
  landscape = pose_rng.random() < 0.75
  width, height = (size, round(size * ratio)) if landscape else (round(size * ratio), size)
  matrix = shapes.pose(pose_rng, width, height)
  zoom = shapes.SUPERSAMPLE
  background = scenes.background(scene_rng, width * zoom, height * zoom)
  painter = shapes.Painter(background, zoom * matrix)
  scenes.perch(painter, scene_rng)
  points = shapes.paint_bird(painter, species, _colours(species, colour_rng))
  leaf = scenes.front_leaf(painter, scene_rng)
  image = scenes.expose(painter.image.reduce(zoom), noise_rng)
  return Bird(image, _box(painter, zoom), _parts(points, matrix, leaf, image.size))


def examples(
  split: str, *, num_classes: int, images_per_class: int, size: int, seed: int
) -> Iterator[dict]:
  """Yields the birds of `split`, in order of class, then number.

  Each has its own generator, seeded by (seed, label, split, number): a picture does not depend on
  how many others there are.

  Yields:
    {"image": PNG bytes, "image_id": "001.toy_name/toy_name_train_0003.png", "label": int from 0,
    "box": (x, y, width, height), "parts": float32 [15, 3]}, the last two as in Bird.

  Raises:
    InputError: an unknown split, or a number that is out of range; at the call, not later.
  """
  if split not in SPLITS:
    raise InputError(f"split={split!r} is unknown to ToyBirds; use one of {SPLITS}")
  if images_per_class < 1:
    raise InputError(f"images_per_class={images_per_class} must be at least 1")
  if seed < 0:
    raise InputError(f"seed={seed} must not be negative")
  if size < 32:
    raise InputError(f"size={size} is too small to show the parts of a bird; use at least 32")
  return _examples(split, species(num_classes), images_per_class, size, seed)


def _examples(split, all_species, images_per_class, size, seed):
  for label, kind in enumerate(all_species):
    for number in range(images_per_class):
      rng = np.random.default_rng([seed, label, SPLITS.index(split), number])
      bird = draw(kind, rng, size)
      encoded = io.BytesIO()
      bird.image.save(encoded, "PNG", compress_level=3)
      yield {
        "image": encoded.getvalue(),
        "image_id": f"{label + 1:03d}.{kind.name}/{kind.name}_{split}_{number:04d}.png",
        "label": label,
        "box": bird.box,
        "parts": bird.parts,
      }


def _colours(kind: Species, rng: np.random.Generator) -> dict:
  """RGB float [3] of each coloured part of one bird, a little off the species' own."""
  names = {"body": kind.body, "crown": kind.crown, "beak": kind.beak, "belly": kind.belly}
  names |= {"bar": kind.bar, "tail": kind.tail, "mark": "umber", "leg": "umber"}
  return {part: np.array(COLOURS[name]) + rng.normal(0, 7, 3) for part, name in names.items()}


def _box(painter: shapes.Painter, zoom: int) -> tuple[float, float, float, float]:
  """The bird's box in whole pixels of the picture, rounded outwards."""
  left, top, right, bottom = painter.box()
  x, y = left // zoom, top // zoom
  return float(x), float(y), float(-(-right // zoom) - x), float(-(-bottom // zoom) - y)


def _parts(
  points: dict,
  matrix: Float[np.ndarray, "2 3"],
  leaf: Image.Image | None,
  size: tuple[int, int],
) -> Float32[np.ndarray, "15 3"]:
  """CUB's table: near side only, inside the picture and not under the leaf."""
  # Who faces right in the picture shows its right side.
  near = "right" if np.linalg.det(matrix[:, :2]) > 0 else "left"
  table = np.zeros((len(parts.PARTS), 3), np.float32)
  for name, point in points.items():
    x, y = shapes.transform(matrix, [point])[0]
    covered = leaf is not None and _at(leaf, shapes.SUPERSAMPLE * x, shapes.SUPERSAMPLE * y)
    if 0 <= x < size[0] and 0 <= y < size[1] and not covered:
      row = parts.PARTS.index(f"{near} {name}" if name in ("eye", "leg", "wing") else name)
      table[row] = x, y, 1
  return table


def _at(mask: Image.Image, x: float, y: float) -> bool:
  inside = 0 <= x < mask.width and 0 <= y < mask.height
  return inside and bool(mask.getpixel((int(x), int(y))))


def open_source(_: str, settings: Mapping[str, Any], __: pathlib.Path) -> Source:
  """Birds drawn by code, as many as config.train.data.toy says."""
  toy = settings["toy"]
  return Source(
    class_names=[kind.name for kind in species(toy["num_classes"])],
    counts=dict.fromkeys(SPLITS, toy["num_classes"] * toy["images_per_class"]),
    fingerprint=f"{code()}{sorted(toy.items())}",
    examples=functools.partial(examples, **toy),
  )


def code() -> str:
  """The source that draws ToyBirds: a change of it is another data set."""
  return "".join(inspect.getsource(m) for m in (sys.modules[__name__], scenes, shapes))


register_source("toybirds", open_source)
