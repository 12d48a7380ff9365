import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data import device_jpeg
from jprotop.data.alterations import jpeg

QUALITIES = (5, 20, 50, 75, 95)
round_trip = jax.jit(device_jpeg.round_trip)


def picture(height, width, seed=0):
  """Like a photograph: structure of every size in all colours, the coarser the stronger; uint8."""
  rng = np.random.default_rng(seed)
  values = np.zeros((height, width, 3))
  for cells in (2, 4, 8, 16, 32):
    noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
    layer = noise.resize((width, height), Image.Resampling.BICUBIC)
    values += (np.asarray(layer, np.float64) - 127) * 1.5 / np.sqrt(cells)
  return np.clip(127 + values, 0, 255).astype(np.uint8)


def pillow(pixels, quality):
  return np.asarray(jpeg.compress(Image.fromarray(pixels), quality), np.float64)


def ours(pixels, quality):
  """One uint8 picture, there and back, in grey levels."""
  return np.asarray(round_trip(pixels[None] / np.float32(255), quality)[0], np.float64) * 255


@pytest.mark.parametrize("quality", QUALITIES)
def test_equals_pillow_within_two_grey_levels(quality):
  """On average over the picture; in fact half a level."""
  for seed in range(3):
    pixels = picture(112, 112, seed)
    error = np.abs(ours(pixels, quality) - pillow(pixels, quality)).mean()
    assert error < 0.5
    assert np.abs(pixels - pillow(pixels, quality)).mean() > 2 * error


@settings(deadline=None, max_examples=10)
@given(height=st.integers(1, 40), width=st.integers(1, 40), quality=st.sampled_from(QUALITIES))
@example(height=3, width=4, quality=20)
@example(height=33, width=17, quality=20)
def test_any_size(height, width, quality):
  """On average over some pictures: in a small one a single rounding may be the whole picture."""
  pixels = np.stack([picture(height, width, seed) for seed in range(16)])
  made = np.asarray(round_trip(pixels / np.float32(255), quality)) * 255
  assert made.shape == pixels.shape
  assert np.abs(made - np.stack([pillow(p, quality) for p in pixels])).mean() < 2


@pytest.mark.parametrize("colour", [(0, 0, 255), (255, 0, 0), (255, 255, 255), (0, 0, 0)])
def test_pure_colours(colour):
  pixels = np.full((16, 16, 3), colour, np.uint8)
  assert np.abs(ours(pixels, 90) - pillow(pixels, 90)).max() < 1.01


def test_tables_are_pillows():
  """At every quality: the tables that Pillow writes into its files."""
  tables = (device_jpeg.LUMA, device_jpeg.CHROMA)
  scaled = jax.jit(lambda q: [device_jpeg.quantisation(t, q) for t in tables])
  for quality in range(1, 101):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
      written = [image.quantization[i] for i in (0, 1)]
    for ours, theirs in zip(scaled(quality), written):
      assert np.asarray(ours).astype(int).ravel().tolist() == list(theirs)


def test_results_are_eight_bit_values_and_stay_in_range():
  noise = np.random.default_rng(0).integers(0, 2, (32, 32, 3), np.uint8) * 255
  made = ours(noise, 20)
  assert made.min() >= 0 and made.max() <= 255
  np.testing.assert_allclose(made, np.rint(made), atol=1e-4)


def test_each_image_may_have_its_own_quality():
  images = np.stack([picture(24, 40, seed) for seed in (0, 1)]) / np.float32(255)
  each = jax.jit(jax.vmap(lambda x, q: device_jpeg.round_trip(x[None], q)[0]))
  made = each(images, jnp.array([10, 80]))
  for place, quality in enumerate((10, 80)):
    alone = round_trip(images[place : place + 1], quality)[0]
    # Another order of sums may turn a rounding here and there.
    assert np.abs(made[place] - alone).mean() * 255 < 0.2


# --- Gradients


def grey_levels(height, width, seed=0):
  """Random floats, far from black and white."""
  return np.random.default_rng(seed).uniform(0.3, 0.7, (1, height, width, 3)).astype(np.float32)


def test_brightness_has_the_gradient_of_the_identity():
  """At any quality if rounding passes the gradient on: a change of all three colours alike."""
  images = grey_levels(20, 18)
  change = np.repeat(np.random.default_rng(1).normal(size=(1, 20, 18, 1)), 3, axis=3)
  change = change.astype(np.float32)
  for quality in (100, 30):
    through = jax.jit(
      lambda x, v, q=quality: jax.jvp(lambda x: device_jpeg.round_trip(x, q), (x,), (v,))[1]
    )
    np.testing.assert_allclose(through(images, change), change, atol=1e-4)


def test_colours_have_the_gradient_of_the_subsampling():
  """The same colour everywhere passes as it is, one pixel's is spread over its neighbours."""
  images = grey_levels(32, 32)
  jvp = jax.jit(lambda v: jax.jvp(lambda x: device_jpeg.round_trip(x, 50), (images,), (v,))[1])
  even = np.broadcast_to(np.array([0.5, -1, 2], np.float32), images.shape)
  np.testing.assert_allclose(jvp(even), even, atol=1e-4)
  spot = np.zeros_like(images)
  spot[0, 16, 16, 2] = 1
  spread = np.asarray(jvp(spot))
  blue = spread[0, :, :, 2] - spread[0, :, :, 0]
  assert np.isclose(blue.sum(), 1, atol=1e-3) and 0 < blue[16, 16] < 0.5
  assert {*np.argwhere(np.abs(blue) > 1e-4).ravel()} == set(range(15, 19))


@jax.jit
def loss(images, quality):
  return jnp.mean((device_jpeg.round_trip(images, quality) - np.float32(0.5)) ** 2)


gradient_of = jax.jit(jax.grad(loss))


@pytest.mark.parametrize("quality", QUALITIES)
def test_gradients_point_the_way(quality):
  """Finite, and a step along them changes the compressed picture as they say."""
  images = picture(32, 32)[None] / np.float32(255) * np.float32(0.8) + np.float32(0.1)
  gradient = np.asarray(gradient_of(images, quality))
  assert np.isfinite(gradient).all() and np.abs(gradient).mean() > 0
  step = 0.2 * gradient / np.abs(gradient).max()
  lower, here, higher = (loss(x, quality) for x in (images - step, images, images + step))
  assert lower < here < higher


def test_black_and_white_pass_their_gradient_and_what_is_beyond_none():
  gradient = jax.jit(jax.grad(lambda x: device_jpeg.round_trip(x, 90).sum()))
  for value, expected in ((0.0, 1), (1.0, 1), (-0.5, 0), (1.5, 0)):
    images = jnp.full((1, 16, 16, 3), value)
    np.testing.assert_allclose(gradient(images), expected, atol=1e-3)
