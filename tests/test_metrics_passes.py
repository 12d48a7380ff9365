"""Metrics of images that are changed: relevance ordering, dependence, noise, FunnyBirds' scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_arrays import inputs
from scipy import stats

from jprotop import metrics, regions
from jprotop.metrics import interventions, noise
from jprotop.metrics.interventions import Birds
from jprotop.metrics.part_sets import contrast_pair, minimal_sufficient_sets

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=15)

# --- relevance ordering


def test_pixels_are_revealed_in_the_order_of_the_map():
  rng = np.random.default_rng(0)
  maps = rng.random((2, 3, 3)).astype(np.float32)
  order = metrics.pixel_order(maps, 12)
  images, random = np.ones((2, 12, 12, 3)), np.zeros((2, 12, 12, 3))
  for share in (0, 0.25, 0.5, 1):
    shown = metrics.reveal(images, random, order, share)[..., 0] == 1
    for similarity_map, mask in zip(maps, shown):
      up = regions.upsample(similarity_map, 12, 12)
      assert mask.sum() == round(share * 144)
      if mask.any() and not mask.all():
        assert up[mask].min() >= up[~mask].max()
  assert (random == 0).all() and (images == 1).all()


@few
@given(seeds)
def test_relevance_ordering_is_the_area_under_the_curve_and_where_it_arrives(seed):
  rng = np.random.default_rng(seed)
  similarities, shares = rng.uniform(-0.5, 1.5, (8, 5)), (0.0, 0.1, 0.3, 0.6, 1.0)
  similarities[0, -1], similarities[1, -1] = 0.8, -0.2
  found = metrics.relevance_ordering(similarities, shares)
  areas, reached = [], []
  for row in similarities:
    if row[-1] <= 0:
      continue
    area = 0
    for i in range(4):
      area += (shares[i + 1] - shares[i]) * (row[i] + row[i + 1]) / 2
    areas.append(area / row[-1])
    reached.append(next(x for x, s in zip(shares, row) if s >= row[-1] * (1 - 1e-4)))
  assert found.area.value == pytest.approx(np.mean(areas))
  assert found.reached.value == pytest.approx(np.mean(reached))
  assert found.never_positive == len(similarities) - len(areas)


@few
@given(seeds)
def test_dependence_counts_the_pixels_that_hold_the_gradient(seed):
  rng = np.random.default_rng(seed)
  gradients = rng.normal(size=(3, 6, 7, 3)) * (rng.random((3, 6, 7, 1)) < 0.4)
  gradients[:, 2, 3] = 1
  boxes = np.array([[0, 3, 1, 5], [2, 6, 0, 7], [1, 2, 3, 4]])
  found = metrics.dependence(gradients, boxes)
  rows = []
  for gradient, (y0, y1, x0, x1) in zip(gradients, boxes):
    size = np.abs(gradient).sum(axis=-1)
    needed = []
    for level in (0.5, 0.95):
      total = count = 0
      for value in sorted(size.ravel(), reverse=True):
        if total / size.sum() >= level:
          break
        total, count = total + value, count + 1
      needed.append(count / 42)
    rows.append(((size > 0).mean(), *needed, size[y0:y1, x0:x1].sum() / size.sum()))
  ours = [found.any.value, found.half.value, found.most.value, found.in_box.value]
  assert ours == pytest.approx(np.mean(rows, axis=0).tolist())
  assert metrics.dependence(gradients).in_box is None


# --- noise


def test_noise_is_in_imagenets_units_and_does_not_depend_on_the_batch():
  images = np.full((3, 64, 64, 3), 0.5, np.float32)
  found = noise.add_noise(images, np.array([4, 5, 6])) - images
  limit = noise.in_pixel_range(0.25)
  np.testing.assert_allclose(limit, 0.25 * np.array([0.229, 0.224, 0.225]), rtol=1e-6)
  np.testing.assert_allclose(np.abs(found).max(axis=(0, 1, 2)), limit, rtol=1e-4)
  # A normal distribution that is cut off at 1.25 of its deviation.
  cut = 1.25
  inside = stats.truncnorm(-cut, cut).var() * (1 - 2 * stats.norm.sf(cut))
  deviation = np.sqrt(inside + 2 * stats.norm.sf(cut) * cut**2) * 0.2
  np.testing.assert_allclose(found.std(axis=(0, 1, 2)) / noise.IMAGENET_STD, deviation, rtol=0.02)
  alone = noise.add_noise(images[:1], np.array([5])) - images[:1]
  np.testing.assert_array_equal(alone[0], found[1])
  assert (noise.add_noise(images[:1], np.array([5]), seed=1) != images[:1] + alone).any()


@pytest.mark.parametrize("kind", noise.KINDS)
def test_every_noise_is_as_large_at_most_as_the_published_one(kind):
  images = np.zeros((4, 20, 30, 3), np.float32)
  found = noise.add_noise(images, np.arange(4), kind=kind)
  assert (np.abs(found) <= noise.in_pixel_range(0.25) + 1e-7).all()
  assert found.std() > 0


# --- FunnyBirds


def few_birds(seed):
  """Ten images of six classes with three parts and two objects, with ties and negative numbers."""
  rng = np.random.default_rng(seed)
  variants = np.unique(rng.integers(0, 2, (6, 3)), axis=0)
  count, classes = 10, len(variants)
  logits = rng.normal(0.5, 1, (count, 8, classes))
  return Birds(
    labels=rng.integers(0, classes, count),
    variants=variants,
    logits=logits,
    logits_background=logits[:, :1] + rng.normal(0, 0.1, (count, 2, classes)),
    importance=np.round(rng.normal(0.3, 0.5, (count, classes, 3)), 1),
    importance_background=rng.normal(0, 0.3, (count, 2)),
    attribution=rng.normal(1, 1, (count, classes)),
  )


def without(parts):
  return sum(2**part for part in parts)


def slow_rows(birds, i, threshold):
  """(csdc, pc, dc, distractibility) of image i; None where it has none."""
  label, whole = birds.labels[i], birds.logits[i, 0]
  predicted = whole.argmax()

  def important(target):
    level = max(threshold * birds.attribution[i, target], 0)
    return {part for part in range(3) if birds.importance[i, target, part] > level}, level

  parts, level = important(label)
  shares = []
  for size in range(1, 4):
    for chosen in slow_sets(birds.variants, label):
      if len(chosen) == size:
        shares.append(len(parts & chosen) / size)
  csdc = max(shares) if predicted == label and shares else None
  mine, _ = important(predicted)
  pc = birds.logits[i, without({0, 1, 2} - mine)].argmax() == predicted
  dc = birds.logits[i, without(mine)].argmax() != predicted
  irrelevant = wrong = 0
  things = [(part in parts, birds.logits[i, 2**part, label]) for part in range(3)]
  things += [
    (weight > level, logits[label])
    for weight, logits in zip(birds.importance_background[i], birds.logits_background[i])
  ]
  for called, logit in things:
    if whole[label] - logit < 0.05 * whole[label]:
      irrelevant, wrong = irrelevant + 1, wrong + called
  return csdc, float(pc), float(dc), 1 - wrong / irrelevant if irrelevant else None


def slow_sets(variants, label):
  """Sets of parts that no other class has all of, without those that hold a smaller one."""
  every = [{p for p in range(3) if bits >> p & 1} for bits in range(1, 8)]
  others = [row for k, row in enumerate(variants) if k != label]
  enough = [
    s for s in every if not any(all(row[p] == variants[label][p] for p in s) for row in others)
  ]
  return [s for s in enough if not any(smaller < s for smaller in enough)]


@few
@given(seeds, st.sampled_from([0.05, 0.3]))
def test_funnybirds_scores_image_by_image(seed, threshold):
  birds = few_birds(seed)
  found = interventions.scores(birds, threshold)
  rows = [slow_rows(birds, i, threshold) for i in range(len(birds.labels))]
  means = []
  for column, name in zip(zip(*rows), ("csdc", "pc", "dc", "distractibility")):
    values = [value for value in column if value is not None]
    assert getattr(found, name).total == len(values)
    means.append(np.mean(values) if values else None)
    assert getattr(found, name).value == pytest.approx(means[-1])
  if None not in means:
    assert found.completeness == pytest.approx((sum(means[:3]) / 3 + means[3]) / 2)
  correct = birds.logits[:, 0].argmax(axis=1) == birds.labels
  assert found.accuracy.count == correct.sum()


@few
@given(seeds)
def test_correctness_and_background_independence_image_by_image(seed):
  birds = few_birds(seed)
  found = interventions.scores(birds, 0.1)
  correct, independent = [], []
  for i, label in enumerate(birds.labels):
    whole = birds.logits[i, 0, label]
    drops = [whole - birds.logits[i, 2**part, label] for part in range(3)]
    weights = birds.importance[i, label]
    if len(set(weights)) > 1:
      correct.append((1 + stats.spearmanr(weights, drops).statistic) / 2)
    matters = [whole - logits[label] >= 0.05 * whole for logits in birds.logits_background[i]]
    independent.append(1 - np.mean(matters))
  assert found.correctness.value == pytest.approx(np.mean(correct))
  assert found.background_independence.value == pytest.approx(np.mean(independent))


def test_the_threshold_is_the_first_of_the_best_ones():
  birds = few_birds(3)
  thresholds = (0.01, 0.02, 0.2, 0.4)
  sums = []
  for threshold in thresholds:
    found = interventions.scores(birds, threshold)
    parts = (found.csdc, found.pc, found.dc, found.distractibility)
    sums.append(sum(part.value or 0 for part in parts))
  assert interventions.best_threshold(birds, thresholds) == thresholds[int(np.argmax(sums))]


def test_contrastivity_asks_two_classes_about_their_shared_parts():
  variants = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 2, 2]])
  assert contrast_pair(variants, 0)[0][0] == 1 and contrast_pair(variants, 0)[1][0] == 2
  assert contrast_pair(variants[:2], 0) is None
  logits = np.zeros((2, 16, 4))
  logits[:, 0] = 1
  logits[:, without({0, 1})] = [0, -3, 1, 0]  # without what class 1 shares, its logit falls most
  logits[:, without({2, 3})] = [0, 1, -3, 0]
  importance = np.zeros((2, 4, 4))
  importance[0, 1, :2] = importance[:, 2, 2:] = 1  # the second image's follows only class 2
  birds = Birds(
    np.zeros(2, int), variants, logits, np.zeros((2, 0, 4)), importance, np.zeros((2, 0)),
    np.ones((2, 4)),
  )  # fmt: skip
  np.testing.assert_array_equal(interventions.contrastivity(birds), [1, 0.5])
  # A network that does not lose more of class 1 without its parts says nothing of the explanation.
  logits[1, without({0, 1}), 1] = 2
  np.testing.assert_array_equal(interventions.contrastivity(birds), [1, np.nan])
  assert interventions.scores(birds, 0.1).background_independence.value is None


def test_the_papers_csdc_does_not_leave_out_the_last_class():
  arrays = inputs().arrays
  variants = arrays["fb_classes"]
  paper, released = (
    minimal_sufficient_sets(variants, definition=definition) for definition in ("paper", "released")
  )
  assert len(paper[-1]) > 0 == len(released[-1])
  for mine, theirs in zip(paper[:-1], released[:-1]):
    np.testing.assert_array_equal(mine, theirs)
