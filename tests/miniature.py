"""Miniature data for tests, made by code: a CUB folder, a user's folder, small JPEGs."""

import io
import pathlib

import numpy as np
from PIL import Image

from jprotop.data.dataset import Split

CLASSES = ("001.Auk", "002.Bittern", "003.Crane")
# (class id, file name, is_train, box). Ids follow the line number. Neither classes nor names are
# sorted: upper case sorts before lower case, and Auk_10 before Auk_2.
CUB_IMAGES = (
  (2, "bittern_1.jpg", 1, (2.7, 3.2, 30.6, 20.9)),
  (1, "Auk_2.jpg", 1, (0.0, 0.0, 40.0, 30.0)),
  (1, "Auk_10.jpg", 0, (5.0, 4.0, 20.0, 20.0)),
  (1, "auk_1.jpg", 1, (1.0, 1.0, 30.0, 25.0)),
  (1, "Auk_1.jpg", 1, (8.0, 2.0, 32.5, 28.5)),
  (3, "crane_2.jpg", 1, (0.0, 0.0, 20.0, 20.0)),
  (3, "crane_1.jpg", 0, (10.0, 10.0, 20.0, 15.0)),
  (2, "bittern_3.jpg", 0, (1.0, 1.0, 30.0, 20.0)),
  (2, "bittern_2.jpg", 1, (3.0, 3.0, 30.0, 20.0)),
  (3, "crane_4.jpg", 1, (4.0, 0.0, 30.0, 30.0)),
  (3, "crane_3.jpg", 1, (5.0, 5.0, 25.0, 20.0)),
  (2, "Bittern_4.jpg", 1, (5.0, 5.0, 25.0, 20.0)),
)
SORTED_CUB = (
  "001.Auk/Auk_1.jpg",
  "001.Auk/Auk_10.jpg",
  "001.Auk/Auk_2.jpg",
  "001.Auk/auk_1.jpg",
  "002.Bittern/Bittern_4.jpg",
  "002.Bittern/bittern_1.jpg",
  "002.Bittern/bittern_2.jpg",
  "002.Bittern/bittern_3.jpg",
  "003.Crane/crane_1.jpg",
  "003.Crane/crane_2.jpg",
  "003.Crane/crane_3.jpg",
  "003.Crane/crane_4.jpg",
)
# In the order above: label, is_train.
SORTED_LABEL = (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2)
SORTED_TRAIN = (1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1)
SIZE = (40, 30)  # width, height of every picture


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
  """A smooth picture that no other seed has."""
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
  return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "JPEG") -> bytes:
  file = io.BytesIO()
  image.save(file, kind)
  return file.getvalue()


def write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  return path


def part_location(image: int, part: int) -> tuple[float, float, int]:
  """(x, y, visible) that part_locs.txt holds for the image and the part, both from 1."""
  return (image + part + 0.25, 2.0 * part, int((image + part) % 3 > 0))


def make_cub(root: pathlib.Path, images=CUB_IMAGES) -> pathlib.Path:
  """A folder in CUB-200-2011's official layout; returns it."""
  names = {i: f"{CLASSES[row[0] - 1]}/{row[1]}" for i, row in enumerate(images, 1)}
  lines = {
    "images.txt": [f"{i} {name}" for i, name in names.items()],
    "classes.txt": [f"{i} {name}" for i, name in enumerate(CLASSES, 1)],
    "image_class_labels.txt": [f"{i} {row[0]}" for i, row in enumerate(images, 1)],
    "train_test_split.txt": [f"{i} {row[2]}" for i, row in enumerate(images, 1)],
    "bounding_boxes.txt": [
      f"{i} {' '.join(str(v) for v in row[3])}" for i, row in enumerate(images, 1)
    ],
    "parts/parts.txt": [f"{part} part {part}" for part in range(1, 16)],
    "parts/part_locs.txt": [
      "{} {} {} {} {}".format(i, part, *part_location(i, part))
      for i in names
      for part in range(1, 16)
    ],
  }
  for name, text in lines.items():
    write(root / name, "\n".join(text) + "\n")
  for i, name in names.items():
    write(root / "images" / name, encode(picture(i)))
  return root


def make_folder(root: pathlib.Path, train=(4, 4), test=(2, 1)) -> pathlib.Path:
  """train/ and test/ with classes ape, bee, ... of so many pictures each; returns the folder."""
  for split, counts in (("train", train), ("test", test)):
    for label, count in enumerate(counts):
      name = ("ape", "bee", "cat")[label]
      for number in range(count):
        seed = 1000 * (split == "test") + 100 * label + number
        write(root / split / name / f"{name}_{number}.jpg", encode(picture(seed)))
  return root


def split_of(pixels: np.ndarray, label: np.ndarray, name: str = "train") -> Split:
  """A split of pictures that no data set holds."""
  count = len(pixels)
  split = Split(
    name=name,
    source=[],
    rows=np.arange(count),
    label=label,
    image_id=[str(i) for i in range(count)],
    box=np.zeros((count, 4), np.float32),
    parts=np.zeros((count, 15, 3), np.float32),
    image_size=pixels.shape[1],
    cache=pathlib.Path(),
    key="",
  )
  split.__dict__["pixels"] = pixels  # Where its cached property keeps them.
  return split


def drawn_split(count: int, size: int = 64) -> Split:
  """A split of pictures of noise, of three classes."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (count, size, size, 3), np.uint8)
  return split_of(pixels, rng.integers(0, 3, count))


def tree(root: pathlib.Path) -> dict[str, int]:
  """Every file below a folder, hidden ones too, and when it was last changed."""
  files = (path for path in root.rglob("*") if path.is_file())
  return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in files}
