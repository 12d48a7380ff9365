"""Alterations of images (Section 4; App. D), one file each: JPEG is the paper's, the others its
conjecture's (Section 2.3)."""

from jprotop.data.alterations import (  # noqa: F401 (each registers itself)
  blur,
  gaussian_noise,
  jpeg,
  quantisation,
  rayleigh_noise,
  resampling,
  shot_noise,
  speckle,
  webp,
)
from jprotop.data.alterations.form import (
  ALTERATIONS,
  Alteration,
  Scheme,
  choose_classes,
  register_alteration,
  rule_of,
  scheme_of,
)

__all__ = [
  "ALTERATIONS",
  "Alteration",
  "Scheme",
  "choose_classes",
  "register_alteration",
  "rule_of",
  "scheme_of",
]
