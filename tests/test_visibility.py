"""PSNR and SSIM of attacked images, against what their papers say, pixel by pixel."""

import numpy as np
import pytest

from jprotop.attacks import visibility


def pictures(size=14, count=2, seed=0):
  return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


def slow_ssim(x, y):
  """Eq. 13 of Wang et al. (2004) at every window of 11 x 11 pixels that fits, and its mean."""
  at = np.arange(-5, 6)
  window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
  window /= window.sum()
  found = []
  for row in range(len(x) - 10):
    for column in range(len(x) - 10):
      for channel in range(3):
        a, b = (i[row : row + 11, column : column + 11, channel].astype(float) for i in (x, y))
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        together = (window * (a - mean_a) * (b - mean_b)).sum()
        found.append(
          (2 * mean_a * mean_b + 1e-4)
          * (2 * together + 9e-4)
          / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
        )
  return np.mean(found)


def test_ssim_is_that_of_every_window():
  image, other = pictures(), np.clip(pictures() + pictures(seed=1) / 4, 0, 1)
  wanted = [slow_ssim(x, y) for x, y in zip(image, other)]
  np.testing.assert_allclose(visibility.ssim(image, other), wanted, rtol=1e-6)
  assert 0.3 < min(wanted) < max(wanted) < 0.99
  np.testing.assert_allclose(visibility.ssim(image, image), 1)


def test_psnr_is_in_decibels():
  image = np.full((2, 3, 3, 3), 0.5, np.float32)
  changed = image.copy()
  changed[0] += 0.1
  changed[1, 0] += 0.1
  found = visibility.psnr(image, changed)
  assert found == pytest.approx([20, 20 + 10 * np.log10(3)], abs=1e-5)
  assert np.isinf(visibility.psnr(image, image)).all()
