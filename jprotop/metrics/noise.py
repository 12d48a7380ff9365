"""Noise on images, in the units that the papers give it in, whatever the network's own.

Papers state noise and budgets in units of images that were normalised as for ImageNet. There, 0.2
is 0.2 times 0.229, 0.224 and 0.225 of the range of red, green and blue, about 0.045 of it.

Every image has its own generator, seeded by the seed and its index: batches do not matter.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from jprotop.errors import InputError
from jprotop.metrics.checks import Array

IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def in_pixel_range(normalised: float) -> Float[np.ndarray, "3"]:
  """An amount in ImageNet's normalised units, for red, green and blue, in [0, 1] units."""
  return np.float32(normalised) * IMAGENET_STD


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "H W 3"]:
  """The noise of stability as published: N(0, 0.2^2), cut off at 0.25."""
  return np.clip(rng.normal(0, 0.2, shape), -0.25, 0.25)


def uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "H W 3"]:
  """Each value anew in [-0.25, 0.25]: as large at most as the published noise."""
  return rng.uniform(-0.25, 0.25, shape)


def brightness(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "H W 3"]:
  """The whole image lighter or darker by one amount in [-0.25, 0.25]."""
  return np.full(shape, rng.uniform(-0.25, 0.25))


def coarse(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "H W 3"]:
  """The published noise, but the same in blocks of 8 x 8 pixels: what a resize does not remove."""
  height, width, channels = shape
  small = gaussian(rng, (-(-height // 8), -(-width // 8), channels))
  return small.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


# From a generator and [H, W, 3] to noise in ImageNet's normalised units.
KINDS: dict[str, Callable] = {
  "gaussian": gaussian,
  "uniform": uniform,
  "brightness": brightness,
  "coarse": coarse,
}


def add_noise(
  images: Float[Array, "N H W 3"],
  indices: Int[np.ndarray, " N"],
  *,
  kind: str = "gaussian",
  seed: int = 0,
) -> Float[np.ndarray, "N H W 3"]:
  """Images with noise, float32.

  They are not clipped to [0, 1], as in the released code.

  Args:
    images: in [0, 1].
    indices: the number of each in its data set, for its generator.
    kind: one of KINDS.

  Raises:
    InputError: the kind is not known.
  """
  if kind not in KINDS:
    raise InputError(f"kind={kind!r} of noise is not known; it must be one of {', '.join(KINDS)}")
  images = np.asarray(images, np.float32)
  noise = [KINDS[kind](np.random.default_rng([seed, int(i)]), images.shape[1:]) for i in indices]
  return images + np.stack(noise).astype(np.float32) * IMAGENET_STD
