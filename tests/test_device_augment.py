import functools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data import augment, decode, device_augment
from jprotop.data.device_augment import DISTORT, KINDS, ROTATE, SHEAR, SKEW

SIZE = 48
SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(60, 240)
CROPS = st.tuples(SIDES, SIDES) | st.sampled_from([(240, 60), (50, 200), (400, 90), (97, 97)])
DRAWS = 4000

draw = jax.jit(device_augment.draw)
draw_many = jax.jit(jax.vmap(device_augment.draw, in_axes=(0, None)))
flow = jax.jit(device_augment.flow, static_argnames="size")
sample = jax.jit(device_augment.sample)
augmented_batch = jax.jit(device_augment.augmented_batch)


def drawn(seed, crop, kind):
  """Parameters of a copy, as host numbers."""
  return jax.device_get(draw(jax.random.key(seed), jnp.array(crop), kind=kind))


def on_host(copy, image):
  """What `augment` makes of an image with given parameters."""
  if copy.kind == ROTATE:
    image = augment.rotate(image, int(copy.degrees))
  elif copy.kind == SKEW:
    image = augment.skew(image, augment.image_corners(image) + copy.moves)
  elif copy.kind == SHEAR:
    image = augment.shear(image, int(copy.degrees), "xy"[int(copy.axis)])
  else:
    image = augment.distort(image, copy.offsets)
  return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if copy.flip else image


def host_flow(copy, crop):
  """`augment`'s map [h, w, 2], found by transforming pictures that show their own coordinates."""
  places = np.mgrid[: crop[1], : crop[0]][::-1].astype(np.float32) + 0.5
  return np.stack([np.asarray(on_host(copy, Image.fromarray(p))) for p in places], axis=-1)


def device_flow(copy, crop, size):
  """The same map at the middles of size x size places, in pixels of the crop."""
  return np.asarray(flow(copy, jnp.array(crop), size=size)) * (np.array(crop) / size)


def smooth(width, height):
  """A picture that resampling hardly blurs, different in every place."""
  y, x = np.mgrid[:height, :width] + 0.5
  x, y = x / width, y / height
  waves = [np.sin(7 * x + 1), np.cos(6 * y), np.sin(4 * x + 7 * y)]
  return Image.fromarray((127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


# --- The same parameters give the same copy.


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, crop=CROPS, kind=st.sampled_from(KINDS))
@example(seed=1, crop=(240, 60), kind=ROTATE)
@example(seed=1, crop=(60, 240), kind=SHEAR)
@example(seed=3, crop=(400, 90), kind=SKEW)
def test_the_flow_is_the_host_paths(seed, crop, kind):
  copy = drawn(seed, crop, kind)
  # The host's map at the middles of the device's pixels, each of its axes interpolated in turn.
  expected = host_flow(copy, crop)
  for axis, side in ((0, crop[1]), (1, crop[0])):
    places = (np.arange(SIZE) + 0.5) * side / SIZE - 0.5
    look_up = functools.partial(np.interp, places, np.arange(side))
    expected = np.apply_along_axis(look_up, axis, expected)
  error = np.abs(device_flow(copy, crop, SIZE) - expected)
  # Pillow bends the ramp in the last two pixels at its border, and we along the mesh's lines.
  assert error.mean() < 0.15 and error.max() < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_flow_at_native_resolution(kind):
  """Pixel by pixel, but for Pillow's border; its bicubic misses a ramp by up to 0.0963."""
  for seed in range(5):
    copy = drawn(seed, (97, 97), kind)
    expected = host_flow(copy, (97, 97))
    inside = np.all((expected > 2) & (expected < 95), axis=-1)
    error = np.abs(device_flow(copy, (97, 97), 97) - expected)[inside]
    assert inside.mean() > 0.8 and error.max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crop", [(150, 120), (90, 210), (240, 60), (60, 240), (33, 41)])
def test_images_are_the_host_paths(kind, crop):
  image = smooth(*crop)
  resized = decode.resize(image, SIZE)
  for seed in range(6):
    copy = drawn(seed, crop, kind)
    expected = decode.resize(on_host(copy, image), SIZE) / 255
    made = np.asarray(sample(resized, flow(copy, jnp.array(crop), size=SIZE)))
    assert np.abs(made - expected).mean() * 255 < 2
    assert np.abs(made - resized / 255).mean() * 255 > 4 or not copy.flip


def test_a_flip_mirrors_all_else():
  copy = drawn(0, (90, 70), DISTORT)
  there, mirrored = (
    device_flow(copy._replace(flip=np.array(flip)), (90, 70), SIZE) for flip in (False, True)
  )
  np.testing.assert_allclose(mirrored, there[:, ::-1], atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, crop=st.tuples(st.integers(1, 12), st.integers(1, 600)), kind=st.integers(0, 3))
def test_no_place_lies_outside_however_odd_the_crop(seed, crop, kind):
  places = np.asarray(flow(drawn(seed, crop, kind), jnp.array(crop), size=SIZE))
  assert np.isfinite(places).all()
  assert places.min() > -1e-3 and places.max() < SIZE + 1e-3


# --- The parameters are drawn from the same distribution.


@functools.cache
def device_draws(crop, kind=None):
  keys = jax.random.split(jax.random.key(7), DRAWS)
  if kind is None:
    return jax.device_get(draw_many(keys, jnp.array(crop)))
  kind = jnp.array(kind)
  draws = jax.jit(jax.vmap(lambda key: device_augment.draw(key, jnp.array(crop), kind=kind)))
  return jax.device_get(draws(keys))


def host_draws(monkeypatch, name, crop):
  """What augment.random_<name> gives to augment.<name>, as hashable parameters."""
  calls = []
  monkeypatch.setattr(augment, name, lambda image, *given: calls.append(given) or image)
  rng, image = np.random.default_rng(0), Image.new("RGB", crop)
  for _ in range(DRAWS):
    getattr(augment, f"random_{name}")(image, rng)
  return calls


def assert_same_shares(ours, theirs):
  """Both counts of DRAWS have the same values, as often but for chance."""
  assert set(ours) == set(theirs)
  for value in ours:
    share = (ours[value] + theirs[value]) / (2 * DRAWS)
    assert abs(ours[value] - theirs[value]) < 4.5 * math.sqrt(2 * share * (1 - share) * DRAWS)


def test_kinds_and_flips_have_their_shares():
  draws = device_draws((60, 45))
  for kind in KINDS:
    assert abs((draws.kind == kind).mean() - 0.25) < 3.5 * math.sqrt(0.25 * 0.75 / DRAWS)
    flips = draws.flip[draws.kind == kind]
    assert abs(flips.mean() - 0.55) < 3.5 * math.sqrt(0.55 * 0.45 / len(flips))


def test_kinds_are_in_the_host_paths_order():
  names = {ROTATE: "rotate", SKEW: "skew", SHEAR: "shear", DISTORT: "distort"}
  assert [f"random_{names[k]}" for k in KINDS] == [t.__name__ for t in augment.TRANSFORMS]
  assert (device_draws((60, 45), DISTORT).kind == DISTORT).all()


def test_rotations_are_drawn_alike(monkeypatch):
  draws = device_draws((60, 45), ROTATE)
  theirs = Counter(degrees for (degrees,) in host_draws(monkeypatch, "rotate", (60, 45)))
  assert_same_shares(Counter(draws.degrees.tolist()), theirs)


def test_shears_are_drawn_alike(monkeypatch):
  draws = device_draws((60, 45), SHEAR)
  ours = Counter((d, "xy"[a]) for d, a in zip(draws.degrees.tolist(), draws.axis))
  assert_same_shares(ours, Counter(host_draws(monkeypatch, "shear", (60, 45))))


@pytest.mark.parametrize("crop", [(30, 21), (7, 26), (2, 1)])
def test_skews_are_drawn_alike(monkeypatch, crop):
  corners = augment.image_corners(Image.new("RGB", crop))
  calls = host_draws(monkeypatch, "skew", crop)
  theirs = Counter((moved - corners).astype(int).tobytes() for (moved,) in calls)
  moves = device_draws(crop, SKEW).moves
  assert_same_shares(Counter(move.astype(int).tobytes() for move in moves), theirs)


def test_distortions_are_drawn_alike(monkeypatch):
  offsets = device_draws((60, 45), DISTORT).offsets
  (theirs,) = host_draws(monkeypatch, "distort", (60, 45))[0]
  assert offsets.shape[1:] == theirs.shape
  shares = np.unique(offsets, return_counts=True)
  assert shares[0].tolist() == list(range(-5, 6))
  np.testing.assert_allclose(shares[1] / offsets.size, 1 / 11, rtol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_move_pixels_as_far_as_the_host_paths(kind):
  """How far, over many copies of a picture whose colour tells the place; flips left out."""
  crop, count = (160, 110), 200
  y, x = np.mgrid[: crop[1], : crop[0]] + 0.5
  ramp = np.stack([255 * x / crop[0], 255 * y / crop[1], 0 * x], axis=-1)
  image = Image.fromarray(np.rint(ramp).astype(np.uint8))
  plain = decode.resize(image, SIZE)
  keys = jax.random.split(jax.random.key(3), count)
  crops, kinds = jnp.array([crop]), jnp.full(count, kind)
  made = augmented_batch(plain[None], crops, jnp.zeros(count, int), keys, kinds=kinds)
  host = [
    decode.resize(augment.augment_copy(image, seed=0, index=i, copy=kind), SIZE)
    for i in range(count)
  ]

  def distances(pictures):
    """Mean shift of each picture in shares of the crop, those not mirrored."""
    shifts = np.asarray(pictures, np.float64) / 255 - plain / 255
    upright = shifts[np.abs(shifts[..., 0]).mean((1, 2)) < 0.25]
    return np.abs(upright[..., :2]).mean((1, 2))

  ours, theirs = distances(np.asarray(made) * 255), distances(host)
  assert abs(len(ours) - len(theirs)) < 4 * math.sqrt(2 * count * 0.55 * 0.45)
  spread = np.sqrt(ours.var(axis=0) / len(ours) + theirs.var(axis=0) / len(theirs))
  assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 4 * spread + 0.002).all()
  np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.4)


# --- Copies.


@pytest.fixture(scope="module")
def crops():
  """(pixels, crop sizes) of five different crops, one of them elongated."""
  sizes = [(100, 80), (60, 90), (240, 60), (70, 70), (30, 120)]
  return np.stack([decode.resize(smooth(*s), SIZE) for s in sizes]), np.array(sizes)


def test_copies_are_a_function_of_their_keys(crops):
  keys = jax.random.split(jax.random.key(0), 6)
  indices = jnp.array([4, 0, 0, 2, 2, 1])
  batch = np.asarray(augmented_batch(*crops, indices, keys))
  assert batch.shape == (6, SIZE, SIZE, 3) and batch.dtype == np.float32
  assert batch.min() >= 0 and batch.max() <= 1
  assert np.array_equal(batch, augmented_batch(*crops, indices, keys))
  assert not np.array_equal(batch[1], batch[2])
  # Wherever a copy stands in a batch, it is the same.
  turned = np.asarray(augmented_batch(*crops, indices[::-1], keys[::-1]))
  np.testing.assert_allclose(turned[::-1], batch, atol=1e-6)


def test_a_batch_is_made_of_single_copies(crops):
  pixels, sizes = crops
  keys, kinds = jax.random.split(jax.random.key(1), 4), jnp.array(KINDS)
  batch = augmented_batch(pixels, sizes, jnp.array([0, 1, 2, 4]), keys, kinds=kinds)
  one = jax.jit(device_augment.augment)
  for place, index in enumerate([0, 1, 2, 4]):
    copy = one(pixels[index], sizes[index], keys[place], kind=kinds[place])
    np.testing.assert_allclose(batch[place], copy, atol=1e-6)
  as_float = one(pixels[0] / np.float32(255), sizes[0], keys[0], kind=kinds[0])
  np.testing.assert_allclose(as_float, batch[0], atol=1e-5)


def test_an_epoch_is_one_scan(crops):
  """Keys and indices may be what a compiled loop runs over."""
  keys = jax.random.split(jax.random.key(2), (3, 2))
  indices = jnp.array([[0, 1], [2, 3], [4, 0]])
  _, batches = jax.jit(
    lambda: jax.lax.scan(
      lambda carry, step: (carry, device_augment.augmented_batch(*map(jnp.asarray, crops), *step)),
      None,
      (indices, keys),
    )
  )()
  np.testing.assert_allclose(batches[1], augmented_batch(*crops, indices[1], keys[1]), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, crop=CROPS)
def test_no_border_is_shown(seed, crop):
  keys = jax.random.split(jax.random.key(seed), 8)
  white = np.full((1, SIZE, SIZE, 3), 255, np.uint8)
  batch = augmented_batch(white, jnp.array([crop]), jnp.zeros(8, int), keys)
  np.testing.assert_allclose(batch, 1, atol=1e-6)


def test_sampling_between_pixels():
  image = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
  places = np.array([[0.5, 0.5], [1.5, 0.5], [1.0, 0.5], [0.5, 1.25], [-9.0, 9.0]], np.float32)
  expected = [image[0, 0], image[0, 1], image[0].mean(0), image[0, 0] + 4.5, image[1, 0]]
  np.testing.assert_allclose(sample(image, places), expected, atol=1e-5)
