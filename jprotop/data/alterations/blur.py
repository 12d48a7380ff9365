"""Blur as an alteration: an image out of focus."""

import numpy as np
from PIL import Image, ImageFilter

from jprotop.data.alterations.form import Alteration, check_number, register_alteration


def blur(image: Image.Image, radius: float, rng: np.random.Generator) -> Image.Image:
  """Pillow's Gaussian blur, whose radius is a standard deviation in pixels of the image."""
  return image.filter(ImageFilter.GaussianBlur(radius))


register_alteration(
  Alteration(
    name="blur",
    apply=blur,
    parameter="radius",
    check=check_number("blur radius", 0, 100),
    mildest=0.1,
    strongest=100,
  )
)
