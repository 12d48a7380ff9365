"""Down- and up-sampling as an alteration: an image that was once stored smaller."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import Alteration, check_number, register_alteration


def resample(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
  """The image made smaller by a factor, and as large again, both by Pillow's bilinear filter."""
  width, height = (max(1, round(side / factor)) for side in image.size)
  bilinear = Image.Resampling.BILINEAR
  return image.resize((width, height), bilinear).resize(image.size, bilinear)


register_alteration(
  Alteration(
    name="resampling",
    apply=resample,
    parameter="factor",
    check=check_number("resampling factor", 1, 100),
    mildest=1,
    strongest=100,
  )
)
