"""Shot noise as an alteration: that of counting photons."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import (
  Alteration,
  check_number,
  register_alteration,
  to_array,
  to_image,
)


def shot_noise(image: Image.Image, photons: float, rng: np.random.Generator) -> Image.Image:
  """Poisson(photons x) / photons, of x in [0, 1] (Hendrycks and Dietterich 2019): fewer photons
  make more noise."""
  return to_image(rng.poisson(photons * to_array(image)) / photons)


register_alteration(
  Alteration(
    name="shot_noise",
    apply=shot_noise,
    parameter="photons",
    check=check_number("shot noise photons", 1, 1e6),
    mildest=1e6,
    strongest=1,
  )
)
