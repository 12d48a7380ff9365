"""Gaussian noise as an alteration: electronic noise of a sensor."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import (
  Alteration,
  check_number,
  register_alteration,
  to_array,
  to_image,
)


def gaussian_noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
  """x + sigma n, with n standard normal, of x in [0, 1] (Hendrycks and Dietterich 2019)."""
  x = to_array(image)
  return to_image(x + sigma * rng.standard_normal(x.shape))


register_alteration(
  Alteration(
    name="gaussian_noise",
    apply=gaussian_noise,
    parameter="sigma",
    check=check_number("Gaussian noise sigma", 0, 1),
    mildest=0.001,
    strongest=1,
  )
)
