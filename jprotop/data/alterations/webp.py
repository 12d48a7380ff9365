"""WebP compression as an alteration."""

import io

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import Alteration, check_number, register_alteration


def compress(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
  """The RGB image as it comes back from a lossy WebP file of a quality from 0 to 100."""
  file = io.BytesIO()
  image.save(file, "WEBP", quality=int(quality))
  with Image.open(file) as compressed:
    return compressed.convert("RGB")


register_alteration(
  Alteration(
    name="webp",
    apply=compress,
    parameter="quality",
    check=check_number("WebP quality", 0, 100, whole=True),
    mildest=100,
    strongest=0,
    whole=True,
  )
)
