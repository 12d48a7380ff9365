"""Damaged pictures, as they are prepared and as --images names them: a picture, or one message."""

import io
import pathlib

import miniature
import numpy as np
from PIL import Image

from jprotop.data import decode, own_images

SIZE = 32
_FORMS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX")
_MODES = {"PNG": ("RGB", "L", "P", "RGBA", "I;16", "1"), "TIFF": ("RGB", "L", "F", "CMYK", "I;16")}


def prepare(folder: pathlib.Path) -> None:
  pass


def _whole(rng: np.random.Generator) -> tuple[bytes, str]:
  form = str(rng.choice(_FORMS))
  picture = miniature.picture(int(rng.integers(100)), (48, 40))
  mode = str(rng.choice(_MODES.get(form, ("RGB",))))
  if mode in ("I;16", "F"):
    grey = np.asarray(picture.convert("L"), np.float32)
    picture = Image.fromarray(grey if mode == "F" else (grey * 257).astype(np.uint16))
  else:
    picture = picture.convert(mode)
  return miniature.encode(picture, form), form


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
  """A file's bytes with one of many kinds of damage."""
  changed, size = bytearray(content), len(content)
  place = int(rng.integers(size)) if rng.random() < 0.5 else int(rng.integers(min(size, 64)))
  kind = rng.integers(8)
  if kind == 0:
    return bytes(changed[:place])
  if kind == 1:
    changed[place : place + 16] = bytes(len(changed[place : place + 16]))
  elif kind == 2:
    changed[place:place] = rng.bytes(int(rng.integers(1, 64)))
  elif kind == 3:
    del changed[place : place + int(rng.integers(1, 64))]
  elif kind == 4:
    changed[place : place + 4] = b"\xff\xff\xff\xff"
  elif kind == 5:
    changed[place:] = rng.bytes(size - place)
  elif kind == 6:
    return rng.bytes(size) if rng.random() < 0.5 else bytes(size)
  for _ in range(int(rng.integers(1, 5)) if kind == 7 else 0):
    changed[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
  return bytes(changed)


def case(number: int, folder: pathlib.Path) -> tuple[str, str]:
  rng = np.random.default_rng([number, 1])
  content, form = _whole(rng)
  content = damaged(content, rng)
  path = folder / f"picture.{form.lower()}"
  path.write_bytes(content)
  seen = decode.resize(decode.decode(content, path.name), SIZE)
  named = own_images.from_argument(str(path), SIZE, lambda: None).image[0]
  if not np.array_equal(seen.astype(np.float32) / 255, named):
    return "other", f"{form}: decoded and named on the command line they differ"
  with Image.open(io.BytesIO(content)) as image:
    return "fine", f"{image.format}"
