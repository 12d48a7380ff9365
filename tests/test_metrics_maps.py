"""What metrics say of where maps lie: each against the paper's formula, one map at a time."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_arrays import world

from jprotop import metrics, regions
from jprotop.metrics import misalignment, pointing_game, quanproto

SIZE = 40
seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=12)


def own_maps(w, i):
  """The maps of the prototypes of image i's class."""
  return [w.maps[i, :, :, p] for p in np.flatnonzero(w.prototype_class == w.labels[i])]


def strongest_own(w, i, k):
  return sorted(own_maps(w, i), key=lambda m: -m.max())[:k]


def up(similarity_map, kernel="cubic"):
  return regions.upsample(similarity_map, SIZE, SIZE, kernel)


def mean_over_images(values):
  return np.mean([np.mean(image) for image in values if len(image)])


# --- distinctiveness and comprehensiveness


def slow_iou(first, second, side):
  """Of two boxes around pixels, cut off at the border, by counting a fine raster."""
  fine = np.arange(0, SIZE, 0.25) + 0.125
  masks = []
  for row, column in (first, second):
    rows, columns = (abs(fine - centre) < side / 2 for centre in (row, column))
    masks.append(rows[:, None] & columns[None, :])
  return (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()


@few
@given(seeds, st.sampled_from([8, 13]), st.sampled_from([2, 5]))
def test_distinctiveness_is_one_minus_the_overlap_of_boxes(seed, side, k):
  w = world(seed, SIZE)
  found = metrics.distinctiveness(
    w.maps, w.labels, w.prototype_class,
    box_size=side / SIZE, num_prototypes=k, image_size=SIZE,
  )  # fmt: skip
  scores = []
  for i in range(len(w.maps)):
    peaks = [
      np.unravel_index(up(m, "bilinear").argmax(), (SIZE, SIZE)) for m in strongest_own(w, i, k)
    ]
    pairs = list(itertools.combinations(peaks, 2))
    if pairs:
      scores.append(1 - np.mean([slow_iou(*pair, side) for pair in pairs]))
  assert found.value == pytest.approx(np.mean(scores), abs=1e-6)
  assert found.total == len(scores) and found.unit == "image"


@few
@given(seeds, st.sampled_from([0.4, 0.6, 1.0]), st.sampled_from([1, 5]))
def test_comprehensiveness_is_the_iou_of_the_object_and_the_union_of_maps(seed, threshold, k):
  w = world(seed, SIZE)
  found = metrics.comprehensiveness(
    w.maps, w.masks, w.labels, w.prototype_class,
    threshold=threshold, num_prototypes=k, image_size=SIZE,
  )  # fmt: skip
  scores = []
  for i in range(len(w.maps)):
    union, maps = np.zeros((SIZE, SIZE), bool), strongest_own(w, i, k)
    for similarity_map in maps:
      big = up(similarity_map, "bilinear")
      union |= (big - big.min()) / (big.max() - big.min()) >= threshold
    if maps:
      scores.append((union & w.masks[i]).sum() / (union | w.masks[i]).sum())
  assert found.value == pytest.approx(np.mean(scores))
  assert found.total == len(scores)


def test_a_map_that_says_nothing_covers_nothing():
  flat = np.ones((1, 4, 4, 1), np.float32)
  everything = np.ones((1, SIZE, SIZE), bool)
  found = metrics.comprehensiveness(flat, everything, np.array([0]), np.array([0]), image_size=SIZE)
  assert found.value == 0


# --- the pointing game


@few
@given(seeds)
def test_energy_is_the_share_of_the_positive_map_inside_the_mask(seed):
  w = world(seed, SIZE)
  w = w._replace(maps=w.maps - np.float32(0.4))
  found = metrics.pointing_game_energy(
    w.maps, w.masks, w.labels, w.prototype_class, image_size=SIZE
  )
  shares = []
  for i, mask in enumerate(w.masks):
    positive = [np.maximum(up(m).astype(float), 0) for m in own_maps(w, i)]
    shares.append([p[mask].sum() / p.sum() for p in positive])
  every = [share for image in shares for share in image]
  assert found.value == pytest.approx(np.mean(every), abs=1e-6)
  assert found.total == sum(bool(image) for image in shares)


@few
@given(seeds, st.sampled_from([0.1, 0.02]))
def test_the_strongest_pixels_are_counted_inside_the_mask(seed, area):
  w = world(seed, SIZE)
  found = metrics.pointing_game_mask(
    w.maps, w.masks, w.labels, w.prototype_class, area=area, image_size=SIZE
  )
  count, shares = round(area * SIZE**2), []
  for i, mask in enumerate(w.masks):
    for similarity_map in own_maps(w, i):
      order = np.argsort(-up(similarity_map).ravel())[:count]
      shares.append(mask.ravel()[order].mean())
  # Equals of the weakest pixel count in part, and not in the order of a sort.
  assert found.value == pytest.approx(np.mean(shares), abs=0.02)


def test_equals_of_the_weakest_pixel_count_with_the_share_that_fits():
  attribution = np.array([[[3.0, 2, 2, 2, 2, 0, 0, 0, 0, 0]]])
  mask = np.array([[[True, True, False, False, False, True, True, True, True, True]]])
  # Three pixels: the 3, and two of the four 2s, of which a quarter is inside.
  found = pointing_game.strongest_inside(attribution, mask, 0.3)
  np.testing.assert_allclose(found, (1 + 2 / 4) / 3)
  released = pointing_game.strictly_above_inside(attribution, mask, 0.3)
  np.testing.assert_allclose(released, 1)  # the 3 alone is above element 7, a 2


def test_signed_energy_can_exceed_one_and_the_papers_cannot():
  attribution = np.array([[[2.0, -1]]])
  mask = np.array([[[True, False]]])
  assert pointing_game.energy_inside(attribution, mask, signed=True) == 2
  assert pointing_game.energy_inside(attribution, mask, signed=False) == 1


# --- QuanProto


@few
@given(seeds)
def test_overlaps_of_the_strongest_prototypes_of_all_classes(seed):
  w = world(seed, SIZE)
  found = quanproto.overlap(w.maps, w.masks, num_prototypes=3, image_size=SIZE)
  rows = {name: [] for name in ("object", "background", "iou", "ior", "ratio")}
  for maps, mask in zip(w.maps, w.masks):
    order = sorted(range(maps.shape[2]), key=lambda p: -maps[..., p].max())[:3]
    for p in order:
      big = up(maps[..., p])
      region = big >= np.quantile(big, 0.95)
      both = region & mask
      rows["object"].append(both.sum() / mask.sum())
      rows["background"].append(1 - both.sum() / region.sum())
      rows["iou"].append(both.sum() / (region | mask).sum())
      inside = big[both].mean() / big.max() if both.any() else 0
      outside = big[region & ~mask].mean() / big.max() if (region & ~mask).any() else 0
      rows["ior"].append(inside - outside)
      if both.any():
        rows["ratio"].append(outside / inside)
  means = [np.mean(rows[name]) for name in rows]
  ours = [
    found.object_overlap, found.background_overlap, found.iou, found.inside_outside, found.ratio,
  ]  # fmt: skip
  assert [one.value for one in ours] == pytest.approx(means, abs=1e-5)


def test_one_prototype_that_misses_the_object_makes_the_released_ratio_infinite():
  maps = np.zeros((2, 4, 4, 1), np.float32)
  maps[0, 0, 0] = maps[1, 3, 3] = 1
  mask = np.zeros((2, SIZE, SIZE), bool)
  mask[:, :20, :20] = True
  ratios = [
    quanproto.overlap(maps, mask, image_size=SIZE, definition=definition).ratio
    for definition in ("paper", "released")
  ]
  assert (ratios[0].value, ratios[0].total) == (0, 1)
  assert ratios[1].value == float("inf") and ratios[1].interval is None


# --- spatial misalignment


@few
@given(seeds, st.sampled_from(misalignment.ATTACKED))
def test_misalignment_of_the_strongest_attacked_prototype(seed, which):
  w = world(seed, SIZE)
  keep = w.labels != 3  # whose class has no prototype
  w = w._replace(**{name: getattr(w, name)[keep] for name in ("maps", "noisy", "labels")})
  found = misalignment.misalignment(
    w.maps, w.noisy, w.labels, w.prototype_class, which=which, image_size=SIZE
  )
  rows = []
  for before, after, label in zip(w.maps, w.noisy, w.labels):
    own = range(6) if which == "top_proto" else np.flatnonzero(w.prototype_class == label)
    j = max(own, key=lambda p: before[..., p].max())
    pac = 1 - after[..., j].max() / before[..., j].max()
    others = np.flatnonzero(w.prototype_class != w.prototype_class[j])
    ranks = [sum(m[..., p].max() > m[..., j].max() for p in others) for m in (before, after)]
    masks = []
    for m in (before, after):
      big = up(np.maximum(m[..., j], 0), "bilinear")
      masks.append(big > np.quantile(big, 0.9))
    plc = 1 - (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    rows.append((pac, ranks[1] - ranks[0], plc))
  wanted = np.mean(rows, axis=0)
  ours = (found.pac.value, found.prc.value, found.plc.value)
  assert ours == pytest.approx(tuple(wanted), abs=1e-5)


def test_the_protected_region_is_the_box_and_a_margin_all_around():
  maps = np.zeros((1, 7, 7, 2), np.float32)
  maps[0, 6, 6, 0] = maps[0, 2, 3, 1] = 1
  corner = metrics.Chosen(maps[..., :1], np.array([[0]]))
  box = regions.high_activation_box(maps[0, ..., 0], 224, 224)
  wanted = np.zeros((224, 224), bool)
  wanted[box.y0 - 10 :, box.x0 - 10 :] = True
  np.testing.assert_array_equal(misalignment.protected_region(corner)[0], wanted)
  # By a slip, the release lets the last row and column be attacked.
  wanted[-1] = wanted[:, -1] = False
  released = misalignment.protected_region(corner, definition="released")
  np.testing.assert_array_equal(released[0], wanted)
  both = metrics.Chosen(maps, np.array([[0, 1]]))
  alone = [
    misalignment.protected_region(metrics.Chosen(maps[..., k : k + 1], np.array([[k]])))
    for k in (0, 1)
  ]
  np.testing.assert_array_equal(misalignment.protected_region(both), alone[0] | alone[1])
  none = metrics.Chosen(maps, np.array([[0, -1]]))
  np.testing.assert_array_equal(misalignment.protected_region(none), alone[0])


def test_a_prototype_that_was_not_active_has_no_change_of_activation():
  np.testing.assert_array_equal(
    misalignment.pac(np.array([2.0, -1.0, 2.0]), np.array([1.0, 1.0, -3.0])), [0.5, np.nan, 1]
  )


# --- sizes


@few
@given(seeds, st.sampled_from([0.1, 0.8]))
def test_sizes_count_prototypes(seed, threshold):
  rng = np.random.default_rng(seed)
  activations = rng.uniform(0.1, 1, (5, 7))
  slow = [sum(a > threshold * max(row) for a in row) for row in activations]
  assert metrics.local_size(activations, threshold=threshold).value == pytest.approx(np.mean(slow))
  weights = rng.choice([0, 0, 1e-7, -0.5, 1.5], (6, 3))
  counts = metrics.weight_counts(weights)
  real = np.abs(weights) > 1e-5
  assert metrics.global_size(weights) == sum(row.any() for row in real)
  assert metrics.sparsity(weights) == pytest.approx((~real).mean())
  negative = (weights == -0.5).sum()
  assert counts.negative_share == (negative / real.sum() if real.any() else None)


# --- batches


def test_batches_and_jax_arrays_give_the_same_as_all_at_once():
  w = world(7, SIZE)
  classes = (w.labels, w.prototype_class)
  batches = {name: [] for name in ("distinct", "covered", "energy", "mask", "overlap", "found")}
  prototypes = []
  for rows in (slice(0, 4), slice(4, None)):
    maps, masks = jnp.asarray(w.maps[rows]), w.masks[rows]
    own = metrics.own(maps, w.labels[rows], w.prototype_class)
    top = metrics.strongest(maps, 2)
    prototypes.append(own.prototypes)
    batches["distinct"].append(metrics.distinctiveness_rows(own, image_size=SIZE))
    batches["covered"].append(metrics.comprehensiveness_rows(own, masks, image_size=SIZE))
    batches["energy"].append(metrics.energy_rows(own, masks, image_size=SIZE))
    batches["mask"].append(metrics.mask_rows(own, masks, image_size=SIZE))
    batches["overlap"].append(quanproto.overlap_rows(top, masks, image_size=SIZE))
    batches["found"].append(quanproto.found_parts(top, w.parts[rows], image_size=SIZE))
  merged = {name: metrics.merge(rows) for name, rows in batches.items()}
  own = metrics.merge(prototypes)
  pairs = [
    (
      metrics.distinctiveness_of(merged["distinct"]),
      metrics.distinctiveness(w.maps, *classes, image_size=SIZE),
    ),
    (
      metrics.comprehensiveness_of(merged["covered"]),
      metrics.comprehensiveness(w.maps, w.masks, *classes, image_size=SIZE),
    ),
    (
      metrics.pointing_game_of(merged["energy"], own),
      metrics.pointing_game_energy(w.maps, w.masks, *classes, image_size=SIZE),
    ),
    (
      metrics.pointing_game_of(merged["mask"], own),
      metrics.pointing_game_mask(w.maps, w.masks, *classes, image_size=SIZE),
    ),
    (
      quanproto.overlap_of(merged["overlap"]).iou,
      quanproto.overlap(w.maps, w.masks, num_prototypes=2, image_size=SIZE).iou,
    ),
    (
      quanproto.consistency_of(merged["found"], 6),
      quanproto.consistency(w.maps, w.parts, num_prototypes=2, image_size=SIZE),
    ),
  ]
  for streamed, whole in pairs:
    assert streamed.value == pytest.approx(whole.value, abs=1e-12)
    assert streamed.interval == pytest.approx(whole.interval, abs=1e-12)
