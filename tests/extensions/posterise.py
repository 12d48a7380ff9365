"""An alteration: fewer grey levels.

jprotop reproduce --config=tiny --config.extensions=posterise.py \
  --config.train.alteration.name=posterise --config.train.alteration.parameter=2 --workdir=STUDY
"""

from PIL import ImageOps

from jprotop import InputError
from jprotop.data.alterations import Alteration, register_alteration


def check(bits):
  if bits not in range(1, 9):
    raise InputError(f"posterise bits={bits!r} must be a whole number from 1 to 8")


def posterise(image, bits, rng):
  return ImageOps.posterize(image, int(bits))


register_alteration(Alteration(name="posterise", apply=posterise, parameter="bits", check=check))
