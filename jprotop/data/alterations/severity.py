"""How much an alteration costs an image, and which of another costs as much.

Alterations of one peak signal-to-noise ratio change the pixels by equally much, so that what they
do to explanations can be compared.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from jprotop.data.alterations.form import ALTERATIONS, Scheme, to_array
from jprotop.errors import InputError

_HALVINGS = 20


def psnr(image: Image.Image, altered: Image.Image) -> float:
  """Peak signal-to-noise ratio in dB: 10 log10(1 / mean squared error) of pixels in [0, 1].

  Infinite where the images are equal.
  """
  error = np.mean((to_array(image) - to_array(altered)) ** 2)
  return float("inf") if error == 0 else float(-10 * np.log10(error))


def mean_psnr(scheme: Scheme, images: Sequence[Image.Image]) -> float:
  """The ratio of the mean squared error over all images, which weighs each image alike, in dB."""
  errors = [10 ** (-psnr(image, scheme.apply(image, i)) / 10) for i, image in enumerate(images)]
  error = float(np.mean(errors))
  return float("inf") if error == 0 else float(-10 * np.log10(error))


def matched(name: str, images: Sequence[Image.Image], wanted: float) -> float:
  """The parameter of an alteration whose `mean_psnr` on the images is nearest to a wanted one.

  It is found by bisection on a logarithmic scale, the nearest whole number where it must be one.

  Args:
    wanted: in dB.

  Raises:
    InputError: the alteration has no bounds to look between, or cannot reach it.
  """
  alteration = ALTERATIONS[name]
  if alteration.mildest is None or alteration.strongest is None:
    raise InputError(
      f"the alteration {name} does not say between which numbers a {alteration.parameter} is to be "
      f"looked for; give one with --config.train.alteration.parameter=NUMBER"
    )
  mild, strong = (_logarithm(x) for x in (alteration.mildest, alteration.strongest))
  if not _psnr_at(name, strong, images) <= wanted <= _psnr_at(name, mild, images):
    raise InputError(
      f"no {alteration.parameter} of the alteration {name} costs these images {wanted:.1f} dB; "
      "give one with --config.train.alteration.parameter=NUMBER"
    )
  for _ in range(_HALVINGS):
    middle = (mild + strong) / 2
    if _psnr_at(name, middle, images) > wanted:
      mild = middle
    else:
      strong = middle
  return min(
    (_number(name, mild), _number(name, strong)),
    key=lambda number: abs(mean_psnr(Scheme(name, number), images) - wanted),
  )


def _logarithm(number: float) -> float:
  return float(np.log1p(number))  # A WebP file's quality can be 0.


def _number(name: str, logarithm: float) -> float:
  """Rounded, so that a config can show it: to a whole one, or to four digits."""
  number = float(np.expm1(logarithm))
  return float(round(number)) if ALTERATIONS[name].whole else float(f"{number:.4g}")


def _psnr_at(name: str, logarithm: float, images: Sequence[Image.Image]) -> float:
  return mean_psnr(Scheme(name, _number(name, logarithm)), images)
