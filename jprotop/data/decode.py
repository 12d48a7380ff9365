"""From encoded bytes to the uint8 [S, S, 3] picture a network sees: decode, crop, resize.

Pixel coordinates are continuous and half-open: pixel i covers [i, i + 1), x runs right, y down.
"""

import io
import math
import os
import pathlib
import sys

import numpy as np
from jaxtyping import Float32, Real, UInt8
from PIL import Image, UnidentifiedImageError

from jprotop.errors import InputError

# x, y, width, height in pixels of the whole image.
Box = tuple[float, float, float, float] | Real[np.ndarray, "4"]

# What undoes each value of the EXIF orientation tag (1, and anything unknown: nothing to undo).
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

# Annotated boxes may touch the border and, rounded, step over it by this many pixels; no further.
_BORDER_SLACK = 1


def decode(encoded: bytes | str | os.PathLike, name: str) -> Image.Image:
  """Decodes one picture, given as bytes or as a path, to an upright Pillow image of mode RGB.

  Pixels are those of `Image.open(...).convert("RGB")`, as in torchvision's loaders: grey becomes
  three equal channels and transparency is dropped, not composited: what lies beneath shows. Where
  that call would clip, values are scaled: 16-bit grey by 255 / 65535; float grey by 255 if all of
  it lies in [0, 1], else it must lie in [0, 255]. EXIF orientation is applied. Of an animation,
  the first frame counts.

  Raises:
    InputError: `name`, the reason and the remedy, if the bytes are no picture, truncated, corrupt
      where the decoder can tell (JPEG carries no checksum), or larger than Pillow's limit
      against decompression bombs.
  """
  try:
    data = encoded if isinstance(encoded, bytes) else pathlib.Path(encoded).read_bytes()
    with Image.open(io.BytesIO(data)) as image:
      # Pillow only warns between one and two times its limit.
      limit = Image.MAX_IMAGE_PIXELS
      if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
      image.load()
      upright = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
      return _to_rgb(image if upright is None else image.transpose(upright))
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise InputError(
      f"{name}: refused as a possible decompression bomb ({error}); scale the picture down, or "
      f"raise PIL.Image.MAX_IMAGE_PIXELS (now {Image.MAX_IMAGE_PIXELS}) if you trust it"
    ) from error
  except UnidentifiedImageError as error:  # Its own message shows an object's address.
    raise InputError(
      f"{name}: not a picture of a form that Pillow knows; replace or remove the file"
    ) from error
  except Exception as error:  # Pillow's decoders raise a dozen types on bad bytes: all mean this.
    raise InputError(
      f"{name}: not a picture that can be decoded ({error or type(error).__name__}); "
      "replace or remove the file"
    ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
  """A decoded image of any Pillow mode, as RGB."""
  if image.mode == "RGB":
    return image.copy()  # A plain Image, free of the file it came from.
  if image.mode == "I" or image.mode.startswith("I;16"):
    return _grey(_sixteen_to_eight(np.asarray(image)))
  if image.mode == "F":
    return _grey(_float_to_eight(np.asarray(image)))
  if image.mode == "P" and "transparency" in image.info:
    image = image.convert("RGBA")  # The same colours; straight to RGB, Pillow may warn.
  return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
  return Image.fromarray(values).convert("RGB")


def _sixteen_to_eight(values: np.ndarray) -> np.ndarray:
  """round(v * 255 / 65535) for integers v in [0, 65535]."""
  low, high = int(values.min()), int(values.max())
  if low < 0 or high > 65535:
    raise ValueError(f"integer grey values {low}..{high}, allowed 0..65535; save it with 8 bits")
  return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_to_eight(values: np.ndarray) -> np.ndarray:
  """round(255 v) for v in [0, 1], round(v) for v in [0, 255]."""
  low, high = float(values.min()), float(values.max())
  if not (low >= 0 and high <= 255):  # NaN fails both.
    raise ValueError(f"float grey values {low:g}..{high:g}, allowed [0, 1] or [0, 255]")
  return np.rint(values * 255 if high <= 1 else values).astype(np.uint8)


def pixel_box(box: Box, image_size: tuple[int, int] | None) -> tuple[int, int, int, int]:
  """The whole pixels (x, y, width, height) that `crop` takes for a box; idempotent.

  Columns int(x) to int(x + w), rows int(y) to int(y + h), half-open, as the reference truncates.
  A step of at most one pixel over the border of image_size (width, height; None: of any) is cut
  off.

  Raises:
    InputError: the box and the image size, if the box is empty or leaves the image.
  """
  x, y, w, h = (float(value) for value in box)
  width, height = image_size or (sys.maxsize, sys.maxsize)
  given = f"box (x={x:g}, y={y:g}, width={w:g}, height={h:g})"
  given += f" of a {width} x {height} image" if image_size else ""
  remedy = "correct the bounding box, or leave it out"
  if not all(map(math.isfinite, (x, y, w, h))):
    raise InputError(f"{given} is not finite; {remedy}")
  slack = _BORDER_SLACK
  if min(x, y) < -slack or x + w > width + slack or y + h > height + slack:
    raise InputError(f"{given} leaves the image by more than {slack} pixel; {remedy}")
  left, top = max(int(x), 0), max(int(y), 0)
  right, bottom = min(int(x + w), width), min(int(y + h), height)
  if right <= left or bottom <= top:
    raise InputError(f"{given} contains no pixel; {remedy}")
  return left, top, right - left, bottom - top


def crop(image: Image.Image, box: Box) -> Image.Image:
  """The reference's image[int(y):int(y + h), int(x):int(x + w)] for box (x, y, w, h); copies.

  Raises InputError as `pixel_box` does.
  """
  x, y, w, h = pixel_box(box, image.size)
  return image.crop((x, y, x + w, y + h))


def crop_points(points: Real[np.ndarray, "K _"], box: Box, size: int) -> Float32[np.ndarray, "K 3"]:
  """Moves annotated points from the image into its crop resized to size x size.

  x' = (x - left) * size / width, y' likewise: floor(x') is the column that shows the point. A box
  that steps over the border must be passed through `pixel_box` first, so that both agree.

  Args:
    points: (x, y, visible) in pixels of the whole image.
    box: (x, y, w, h), as given to `crop`.
    size: side of the resized crop, pixels.

  Returns:
    (x', y', 1), x' and y' in [0, size); zeros for a point that is invisible or outside the crop.
  """
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or points.shape[1] != 3:
    raise InputError(f"points of shape {points.shape}, must be [K, 3]: x, y, visible")
  _check_size(size)
  left, top, width, height = pixel_box(box, None)
  place = (points[:, :2] - (left, top)) / (width, height)
  inside = (points[:, 2] > 0) & np.all((place >= 0) & (place < 1), axis=1)
  # In float32 the largest place may round up to `size` itself, which is outside.
  place = np.minimum((place * size).astype(np.float32), np.nextafter(np.float32(size), 0))
  moved = np.concatenate([place, np.ones((len(points), 1), np.float32)], axis=1)
  return np.where(inside[:, None], moved, np.float32(0))


def resize(image: Image.Image, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
  """The RGB image at another size: antialiased bilinear, aspect ratio not kept."""
  _check_size(size)
  if image.mode != "RGB":
    raise InputError(f"image of mode {image.mode}, must be RGB; decode() gives that")
  return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def _check_size(size: int):
  if size < 1:
    raise InputError(f"size={size} must be at least 1 pixel")
