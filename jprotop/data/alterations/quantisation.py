"""Colour quantisation as an alteration: few levels in each channel."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import (
  Alteration,
  check_number,
  register_alteration,
  to_array,
  to_image,
)


def quantise(image: Image.Image, levels: float, rng: np.random.Generator) -> Image.Image:
  """Each channel rounded to the nearest of so many equally spaced levels, 0 and 255 among them."""
  return to_image(np.rint(to_array(image) * (levels - 1)) / (levels - 1))


register_alteration(
  Alteration(
    name="quantisation",
    apply=quantise,
    parameter="levels",
    check=check_number("quantisation levels", 2, 256, whole=True),
    mildest=256,
    strongest=2,
    whole=True,
  )
)
