"""JPEG compression as an alteration of the data (Section 4; Appendix D)."""

import io

from PIL import Image

from jprotop.data.alterations.form import Alteration, register_alteration
from jprotop.errors import InputError

QUALITIES = range(1, 96)  # Above 95 Pillow's encoder advises against itself.
SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


def compress(image: Image.Image, quality: float, *, subsampling: str = "4:2:0") -> Image.Image:
  """The RGB image as it comes back from a JPEG file, at the same size.

  The paper uses quality 20 with 4:2:0 (Pillow's default), on the crop's native resolution, before
  it is resized. Deterministic for one Pillow and libjpeg.

  Raises:
    InputError: for another mode, a quality outside 1..95, or an unknown chroma subsampling.
  """
  check_quality(quality)
  if subsampling not in SUBSAMPLINGS:
    raise InputError(f"JPEG subsampling={subsampling!r} must be one of {', '.join(SUBSAMPLINGS)}")
  if image.mode != "RGB":
    raise InputError(f"image of mode {image.mode}, must be RGB; decode() gives that")
  file = io.BytesIO()
  image.save(file, "JPEG", quality=int(quality), subsampling=subsampling)
  with Image.open(file) as compressed:
    return compressed.copy()


def check_quality(quality: float) -> None:
  """Raises InputError unless it is Pillow's."""
  if quality not in QUALITIES:
    raise InputError(f"JPEG quality={quality!r} must be a whole number from 1 to 95")


register_alteration(
  Alteration(
    name="jpeg",
    apply=lambda image, quality, _: compress(image, quality),
    parameter="quality",
    check=check_quality,
    mildest=95,
    strongest=1,
    whole=True,
  )
)
