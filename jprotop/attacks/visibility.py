"""How visible noise is: the peak signal-to-noise ratio, and the structural similarity.

Both are of whole images, whatever part of them the noise is on.
"""

import numpy as np
import scipy  # Not scipy.ndimage: its first use loads it.
from jaxtyping import Float

from jprotop import statistics

# Wang et al. (2004), Section III.C: a Gaussian window of 11 x 11 pixels, and the constants.
_SIGMA, _RADIUS = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(
  image: Float[np.ndarray, "N H W 3"], changed: Float[np.ndarray, "N H W 3"]
) -> Float[np.ndarray, " N"]:
  """Peak signal-to-noise ratio of images in [0, 1], in decibels; infinite where nothing changed."""
  error = np.square(image.astype(np.float64) - changed).mean(axis=(1, 2, 3))
  with np.errstate(divide="ignore"):
    return -10 * np.log10(error)


def ssim(
  image: Float[np.ndarray, "N H W 3"], changed: Float[np.ndarray, "N H W 3"]
) -> Float[np.ndarray, " N"]:
  """Structural similarity of images in [0, 1]: 1 where nothing changed.

  Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural
  similarity", IEEE Transactions on Image Processing 13 (2004), Eq. 13 and 14; the mean over the
  three channels, and over the windows that lie within the image, or over all of an image that is
  smaller than a window.
  """
  found = [_ssim(one.astype(np.float64), other) for one, other in zip(image, changed)]
  return np.array(found, np.float64)


def _ssim(x: Float[np.ndarray, "H W 3"], y: Float[np.ndarray, "H W 3"]) -> float:
  y = y.astype(np.float64)
  mean_x, mean_y = _windowed(x), _windowed(y)
  spread_x, spread_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
  together = _windowed(x * y) - mean_x * mean_y
  luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
  structure = (2 * together + _C2) / (spread_x + spread_y + _C2)
  rows, columns = (
    slice(_RADIUS, -_RADIUS) if size > 2 * _RADIUS else slice(None) for size in x.shape[:2]
  )
  return float((luminance * structure)[rows, columns].mean())


def _windowed(values: Float[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
  """The weighted mean of the window around each pixel, channel by channel."""
  return scipy.ndimage.gaussian_filter(values, _SIGMA, radius=_RADIUS, axes=(0, 1))


def summarise(
  image: Float[np.ndarray, "N H W 3"], changed: Float[np.ndarray, "N H W 3"]
) -> dict[str, dict]:
  """{"psnr", "ssim"}: their means over images; an image that did not change has no psnr."""
  decibels = psnr(image, changed)
  return {
    "psnr": statistics.mean(decibels[np.isfinite(decibels)]),
    "ssim": statistics.mean(ssim(image, changed)),
  }
