"""Speckle as an alteration: the multiplicative noise of ultrasound images (Section 2.3)."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import (
  Alteration,
  check_number,
  register_alteration,
  to_array,
  to_image,
)


def speckle(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
  """x (1 + sigma n), with n standard normal, of x in [0, 1] (Hendrycks and Dietterich 2019)."""
  x = to_array(image)
  return to_image(x * (1 + sigma * rng.standard_normal(x.shape)))


register_alteration(
  Alteration(
    name="speckle",
    apply=speckle,
    parameter="sigma",
    check=check_number("speckle sigma", 0, 10),
    mildest=0.001,
    strongest=10,
  )
)
