"""Consistency, stability and purity: what the papers define, one image and prototype at a time."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_arrays import world

from jprotop import metrics, regions
from jprotop.metrics import quanproto

SIZE = 40
seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=15)


def slow_peak(similarity_map, kernel="cubic"):
  up = regions.upsample(similarity_map, SIZE, SIZE, kernel)
  return np.unravel_index(up.argmax(), up.shape)


def slow_hits(similarity_map, parts, half):
  """The parts in the box of 2 x half pixels around the maximum."""
  row, column = slow_peak(similarity_map)
  hits = set()
  for part, (x, y, visible) in enumerate(parts):
    in_image = 0 <= x < SIZE and 0 <= y < SIZE
    if visible and in_image and row - half <= y < row + half and column - half <= x < column + half:
      hits.add(part)
  return hits


def slow_consistency(w, half, threshold):
  consistent = {}
  for p, own in enumerate(w.prototype_class):
    images = [i for i, label in enumerate(w.labels) if label == own]
    if not images:
      continue
    best = 0
    for part in range(w.parts.shape[1]):
      visible = [i for i in images if w.parts[i, part, 2]]
      hit = [i for i in visible if part in slow_hits(w.maps[i, :, :, p], w.parts[i], half)]
      if visible:
        best = max(best, len(hit) / len(visible))
    consistent[p] = best >= threshold
  return consistent


@few
@given(seeds, st.sampled_from([4, 7.5, 12]), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_consistency_counts_prototypes_that_hit_a_part_often_enough(seed, half, threshold):
  w = world(seed, SIZE)
  found = metrics.consistency(
    w.maps, w.parts, w.labels, w.prototype_class,
    image_size=SIZE, half_size=half / SIZE, threshold=threshold,
  )  # fmt: skip
  slow = slow_consistency(w, half, threshold)
  assert (found.count, found.total) == (sum(slow.values()), len(slow))
  assert {p: bool(found.consistent[p]) for p in slow} == slow
  assert found.unit == "prototype" and found.interval[0] <= found.value <= found.interval[1]


def test_the_curve_of_consistency_falls_and_has_the_published_point():
  w = world(3, SIZE)
  arguments = (w.maps, w.labels, w.prototype_class)
  hits = metrics.part_hits(metrics.peaks(metrics.own(*arguments), SIZE), w.parts)
  curve = metrics.consistency_curve(hits, len(w.prototype_class))
  values = [point.value for point in curve]
  assert values == sorted(values, reverse=True) and values[0] > values[-1]
  published = metrics.consistency(
    w.maps, w.parts, w.labels, w.prototype_class, image_size=SIZE, threshold=0.8
  )
  assert curve[15].value == published.value


@few
@given(seeds, st.sampled_from([4, 12]))
def test_stability_is_the_mean_over_prototypes_of_images_with_equal_parts(seed, half):
  w = world(seed, SIZE)
  found = metrics.stability(
    w.maps, w.noisy, w.parts, w.labels, w.prototype_class,
    image_size=SIZE, half_size=half / SIZE,
  )  # fmt: skip
  by_prototype, empty, pairs = [], [], 0
  for p, own in enumerate(w.prototype_class):
    images = [i for i, label in enumerate(w.labels) if label == own]
    if images:
      hits = [
        [slow_hits(maps[i, :, :, p], w.parts[i], half) for maps in (w.maps, w.noisy)]
        for i in images
      ]
      by_prototype.append(np.mean([before == after for before, after in hits]))
      empty.append(np.mean([not before and not after for before, after in hits]))
      pairs += len(images)
  assert found.value == pytest.approx(np.mean(by_prototype))
  assert found.empty.value == pytest.approx(np.mean(empty))
  assert found.pairs == pairs and found.unit == "image"
  assert found.interval[0] <= found.value <= found.interval[1]


def test_stability_says_how_much_of_it_is_background():
  """One prototype that looks at nothing before and after, one that leaves its part."""
  maps, noisy = np.zeros((2, 1, 4, 4, 2), np.float32)
  maps[0, 0, 0, 0] = noisy[0, 0, 0, 0] = 1  # far from the only part
  maps[0, 3, 3, 1] = noisy[0, 0, 3, 1] = 1
  parts = np.array([[[35.0, 35.0, 1]]])
  found = metrics.stability(
    maps, noisy, parts, np.array([0]), np.array([0, 0]), image_size=SIZE, half_size=8 / SIZE
  )
  assert (found.value, found.empty.value) == (0.5, 0.5)
  assert (found.stable_where_hit.value, found.stable_where_hit.total) == (0, 1)


def slow_purity(w, weights, pairs, top_k):
  """Grid of 4 x 5 cells; patches of 6 pixels, of which the last ends with the image."""
  patch, grid = round(SIZE * 32 / 224), w.maps.shape[1:3]
  steps = [round((SIZE - patch) / (n - 1)) for n in grid]
  purities = {}
  for p in range(w.maps.shape[3]):
    if max(weights[p]) <= 1e-5:
      continue
    order = sorted(range(len(w.maps)), key=lambda i: (-w.maps[i, :, :, p].max(), i))[:top_k]
    hits = np.zeros(w.parts.shape[1])
    for i in order:
      cell = np.unravel_index(w.maps[i, :, :, p].argmax(), grid)
      low = [SIZE - patch if c == n - 1 else c * s for c, n, s in zip(cell, grid, steps)]
      inside = {
        part
        for part, (x, y, visible) in enumerate(w.parts[i])
        if visible and low[0] <= y < low[0] + patch and low[1] <= x < low[1] + patch
      }
      merged = {dict(pairs).get(part, part) for part in inside}
      for part in merged:
        hits[part] += 1
    purities[p] = max(hits) / len(order)
  return purities


@few
@given(seeds, st.integers(1, 12))
def test_purity_is_the_share_of_best_patches_with_the_same_part(seed, top_k):
  w = world(seed, SIZE)
  weights = np.random.default_rng(seed).choice([0, 1e-6, 0.5], (len(w.prototype_class), 3))
  weights[0] = 1.0
  pairs = ((0, 1), (2, 3))
  found = metrics.purity(
    w.maps, w.parts, weights=weights, pairs=pairs, top_k=top_k, image_size=SIZE
  )
  slow = slow_purity(w, weights, pairs, top_k)
  assert {p: found.by_prototype[p] for p in slow} == pytest.approx(slow)
  assert found.value == pytest.approx(np.mean(list(slow.values())))
  assert found.std == pytest.approx(np.std(list(slow.values())))
  assert found.total == len(slow) and found.unit == "prototype"


def test_a_part_that_is_seen_once_makes_a_prototype_pure_in_the_release_alone():
  maps = np.zeros((4, 4, 4, 1), np.float32)
  maps[:, 0, 0] = 1
  parts = np.zeros((4, 2, 3))
  parts[0, 0] = (1, 1, 1)  # in the patch of cell (0, 0), on one image of four
  found = {
    definition: metrics.purity(maps, parts, pairs=(), image_size=SIZE, definition=definition).value
    for definition in ("paper", "released")
  }
  assert found == {"paper": 0.25, "released": 1.0}


@few
@given(seeds, st.booleans())
def test_quanprotos_consistency_is_over_the_parts_that_are_ever_held(seed, boxes):
  w = world(seed, SIZE)
  found = quanproto.consistency(w.maps, w.parts, num_prototypes=2, boxes=boxes, image_size=SIZE)
  held = {}
  for maps, parts in zip(w.maps, w.parts):
    for p in sorted(range(maps.shape[2]), key=lambda p: -maps[..., p].max())[:2]:
      up = regions.upsample(maps[..., p], SIZE, SIZE)
      mask = up >= np.quantile(up, 0.95)
      if boxes:
        box = regions.tight_box(mask)
        mask[box.y0 : box.y1, box.x0 : box.x1] = True
      ids = [
        part
        for part, (x, y, visible) in enumerate(parts)
        if visible and 0 <= x < SIZE and 0 <= y < SIZE and mask[int(y), int(x)]
      ]
      held.setdefault(p, []).append(ids)
  scores = []
  for images in held.values():
    ever = {part for ids in images for part in ids}
    shares = [sum(part in ids for ids in images) / len(images) for part in ever]
    scores.append(np.mean(shares) if ever else 0)
  assert found.value == pytest.approx(np.mean(scores))


def test_batches_and_jax_arrays_give_the_same_as_all_at_once():
  w = world(5, SIZE)
  number = len(w.prototype_class)
  hits, noisy, cells = [], [], []
  for rows in (slice(0, 5), slice(5, 6), slice(6, None)):
    for maps, into in ((w.maps, hits), (w.noisy, noisy)):
      own = metrics.own(jnp.asarray(maps[rows]), w.labels[rows], w.prototype_class)
      into.append(metrics.part_hits(metrics.peaks(own, SIZE), w.parts[rows]))
    cells.append(metrics.patch_peaks(jnp.asarray(w.maps[rows])))
  arguments = (w.parts, w.labels, w.prototype_class)
  whole = metrics.consistency(w.maps, *arguments, image_size=SIZE)
  merged = metrics.consistency_of(metrics.merge(hits), number)
  assert vars(merged)["value"] == whole.value and merged.interval == whole.interval
  np.testing.assert_array_equal(merged.part_share, whole.part_share)
  whole = metrics.stability(w.maps, w.noisy, *arguments, image_size=SIZE)
  merged = metrics.stability_of(metrics.merge(hits), metrics.merge(noisy), number)
  assert (merged.value, merged.interval) == (whole.value, whole.interval)
  whole = metrics.purity(w.maps, w.parts, pairs=(), image_size=SIZE)
  merged = metrics.purity_of(metrics.merge(cells), w.parts, pairs=(), image_size=SIZE)
  assert (merged.value, merged.interval) == (whole.value, whole.interval)
