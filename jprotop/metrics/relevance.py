"""Relevance ordering: is a prototype's similarity made of the pixels that its map calls relevant?

  order = pixel_order(maps, 224)                   # of one map an image
  for share in SHARES: reveal(images, noise, order, share) -> the network -> similarities
  relevance_ordering(similarities, SHARES).area.value

Carmichael et al., "Pixel-Grounded Prototypical Part Networks" (PixPNet; WACV 2024), Section 4;
docs/metrics/relevance_ordering.md. It needs one pass over the images for each share.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Int32

from jprotop.errors import InputError
from jprotop.metrics import checks
from jprotop.metrics.checks import Array
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import per_map

# From pure noise to the image: 20 steps, as many passes of each image and one more.
SHARES = tuple(step / 20 for step in range(21))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelevanceOrdering:
  """Means over images.

  Attributes:
    area: under the curve of the similarity, as a share of the original one, over the share of
      pixels that are shown; a prototype of one small spot has nearly 1.
    reached: the share of pixels at which the original similarity is reached for the first time.
    never_positive: how many images were left out, whose original similarity is not above 0.
  """

  area: Estimate
  reached: Estimate
  never_positive: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dependence:
  """How much of an image a prototype depends on, by its gradient; means over images.

  Attributes:
    any: the share of pixels with a gradient that is not 0.
    half, most: the smallest share of pixels that has half, and 95%, of the gradient's size.
    in_box: the share of the gradient's size in the prototype's box; None without boxes.
  """

  any: Estimate
  half: Estimate
  most: Estimate
  in_box: Estimate | None


def pixel_order(maps: Float[Array, "N h w"], image_size: int = 224) -> Int[np.ndarray, "N pixels"]:
  """Pixels of each image from the most to the least relevant one, as numbers row x S + column.

  By the map, upsampled with the cubic kernel; of equals the first comes first.
  """
  checked = checks.maps(np.asarray(maps)[..., None])

  def order(up: Float[np.ndarray, "m S S"], _) -> Int32[np.ndarray, "m pixels"]:
    return np.argsort(-up.reshape(len(up), -1), axis=1, kind="stable").astype(np.int32)

  return per_map(order, checked, image_size)[:, 0]


def reveal(
  images: Float[Array, "N H W C"],
  noise: Float[Array, "N H W C"],
  order: Int[np.ndarray, "N pixels"],
  share: float,
) -> Float[np.ndarray, "N H W C"]:
  """Noise in which the most relevant `share` of the pixels are those of the images."""
  if not 0 <= share <= 1:
    raise InputError(f"share={share} must be 0 to 1")
  images, shown = np.asarray(images), np.array(noise)
  count = round(share * order.shape[1])
  rows = np.arange(len(images))[:, None]
  flat = (len(images), -1, images.shape[-1])
  shown.reshape(flat)[rows, order[:, :count]] = images.reshape(flat)[rows, order[:, :count]]
  return shown


def relevance_ordering(
  similarities: Float[Array, "N T"], shares: tuple[float, ...] = SHARES, *, tolerance: float = 1e-4
) -> RelevanceOrdering:
  """The area under the curve of revealed pixels, and where it reaches the original similarity.

  Args:
    similarities: the prototype's activation with each share of pixels shown, the last of which is
      the complete image.
    shares: T, ascending, from 0 to 1.
    tolerance: how much less than the original similarity, as a share of it, counts as reached: for
      the rounding of a network.

  Raises:
    InputError: shapes do not fit, shares do not go from 0 to 1, or a similarity is not finite.
  """
  similarities, x = np.asarray(similarities, np.float64), np.asarray(shares, np.float64)
  if similarities.ndim != 2 or similarities.shape[1] != len(x):
    raise InputError(
      f"similarities has the shape {similarities.shape}; with {len(x)} shares it must be "
      f"[N, {len(x)}]"
    )
  if len(x) < 2 or x[0] != 0 or x[-1] != 1 or (np.diff(x) <= 0).any():
    raise InputError(f"shares go from {x[0]} to {x[-1]}; they must ascend from 0 to 1")
  if not np.isfinite(similarities).all():
    raise InputError("similarities holds numbers that are not finite; leave those images out")
  positive = similarities[:, -1] > 0
  relative = similarities[positive] / similarities[positive, -1:]
  reached = x[(relative >= 1 - tolerance).argmax(axis=1)]
  return RelevanceOrdering(
    area=Estimate.of_mean(np.trapezoid(relative, x, axis=1), "image"),
    reached=Estimate.of_mean(reached, "image"),
    never_positive=int((~positive).sum()),
  )


def dependence(
  gradients: Float[Array, "N H W C"], boxes: Int[Array, "N 4"] | None = None
) -> Dependence:
  """How much of an image a prototype's activation really depends on: our check of its box.

  Args:
    gradients: of each image's prototype's activation with respect to the image.
    boxes: half-open (y0, y1, x0, x1) that the prototype is shown by, in pixels.

  Raises:
    InputError: a gradient is not finite, or is 0 everywhere.
  """
  size = np.abs(np.asarray(gradients, np.float64)).sum(axis=-1)
  count, height, width = size.shape
  total = size.sum(axis=(1, 2))
  if not np.isfinite(total).all() or (total == 0).any():
    image = int((~np.isfinite(total) | (total == 0)).argmax())
    raise InputError(
      f"the gradient of image {image} is not finite or is 0 everywhere, so it does not say where "
      "the prototype looks; leave that image out"
    )
  descending = -np.sort(-size.reshape(count, -1), axis=1)
  summed = np.cumsum(descending, axis=1) / total[:, None]
  half, most = ((summed < level).sum(axis=1) + 1 for level in (0.5, 0.95))
  inside = None
  if boxes is not None:
    y0, y1, x0, x1 = np.asarray(boxes)[..., None].transpose(1, 0, 2)
    y, x = np.arange(height), np.arange(width)
    mask = ((y0 <= y) & (y < y1))[:, :, None] & ((x0 <= x) & (x < x1))[:, None, :]
    inside = Estimate.of_mean((size * mask).sum(axis=(1, 2)) / total, "image")
  pixels = height * width
  return Dependence(
    any=Estimate.of_mean((size > 0).mean(axis=(1, 2)), "image"),
    half=Estimate.of_mean(half / pixels, "image"),
    most=Estimate.of_mean(most / pixels, "image"),
    in_box=inside,
  )
