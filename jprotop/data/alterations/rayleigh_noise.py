"""Rayleigh noise as an alteration: that of magnitude images in MRI (Section 2.3)."""

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import (
  Alteration,
  check_number,
  register_alteration,
  to_array,
  to_image,
)


def rayleigh_noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
  """|x + sigma (n + i m)|, with n and m standard normal, of x in [0, 1].

  The magnitude of a complex signal with Gaussian noise in both of its parts (Gudbjartsson and Patz
  1995; Dietrich et al. 2008): Rayleigh distributed where x is 0, Rician elsewhere.
  """
  x = to_array(image)
  real, imaginary = sigma * rng.standard_normal((2, *x.shape))
  return to_image(np.hypot(x + real, imaginary))


register_alteration(
  Alteration(
    name="rayleigh_noise",
    apply=rayleigh_noise,
    parameter="sigma",
    check=check_number("Rayleigh noise sigma", 0, 1),
    mildest=0.001,
    strongest=1,
  )
)
