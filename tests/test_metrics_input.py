"""What is wrong with given arrays: one message each, that names the thing and the remedy."""

import numpy as np
import pytest
from metric_arrays import world

from jprotop import metrics
from jprotop.errors import InputError
from jprotop.metrics import checks, interventions, maps, misalignment, noise, quanproto

SIZE = 40
W = world(0, SIZE)
CLASSES = (W.labels, W.prototype_class)


def changed(array, place, value):
  copy = array.copy()
  copy[place] = value
  return copy


HOLED = changed(W.maps, (3, 2, 1, slice(None)), np.nan)
NO_PARTS = np.zeros((11, 5, 3))
EMPTY = changed(W.masks, 4, False)
PEAKS = metrics.peaks(metrics.own(W.maps, *CLASSES), SIZE)

CASES = {
  "no parts": (lambda: metrics.consistency(W.maps, None, *CLASSES, image_size=SIZE), "no part ann"),
  "no visible part": (lambda: metrics.purity(W.maps, NO_PARTS, pairs=()), "no part is visible"),
  "a visible part nowhere": (
    lambda: metrics.part_hits(PEAKS, changed(W.parts, (2, 1), (np.nan, 1, 1))),
    "part 1 of image 2",
  ),
  "no masks": (lambda: metrics.comprehensiveness(W.maps, None, *CLASSES), "no object masks"),
  "masks of another size": (
    lambda: metrics.pointing_game_energy(W.maps, W.masks, *CLASSES),
    r"\[11, 224, 224\]",
  ),
  "an empty mask": (lambda: quanproto.overlap(W.maps, EMPTY, image_size=SIZE), "image 4"),
  "NaN": (
    lambda: metrics.distinctiveness(HOLED, *CLASSES),
    "nan in image 3, row 2, column 1",
  ),
  "NaN in purity": (lambda: metrics.purity(HOLED, W.parts, pairs=()), "nan in image 3"),
  "NaN in the attacked maps": (
    lambda: misalignment.misalignment(W.maps[:3], HOLED[1:4], W.labels[:3] * 0, CLASSES[1]),
    "attacked_maps holds nan",
  ),
  "another grid": (
    lambda: metrics.stability(W.maps, W.noisy[:, :3], W.parts, *CLASSES, image_size=SIZE),
    "same grid",
  ),
  "a part that does not exist": (
    lambda: metrics.purity(W.maps, W.parts, pairs=((0, 5),)),
    "part 5 does not exist; there are 0 to 4",
  ),
  "a negative class": (
    lambda: metrics.distinctiveness(W.maps, W.labels - 1, CLASSES[1]),
    "counted from 0",
  ),
  "classes without prototypes": (
    lambda: metrics.distinctiveness(W.maps, W.labels + 4, CLASSES[1]),
    "number both alike",
  ),
  "prototypes that do not exist": (
    lambda: metrics.consistency_of(metrics.part_hits(PEAKS, W.parts), 3),
    "does not exist",
  ),
  "another definition": (
    lambda: metrics.part_hits(PEAKS, W.parts, definition="mine"),
    "paper, released",
  ),
  "a box larger than the image": (
    lambda: metrics.part_hits(PEAKS, W.parts, half_size=36.0),
    "half_size=36",
  ),
  "no image": (lambda: metrics.patch_peaks(W.maps[:0]), "holds nothing"),
  "no batch": (lambda: metrics.merge([]), "no rows"),
  "batches of other sizes": (
    lambda: metrics.merge([PEAKS, PEAKS._replace(image_size=41)]),
    "image_size",
  ),
  "hits of other images": (
    lambda: metrics.stability_of(
      metrics.part_hits(PEAKS, W.parts),
      metrics.merge([metrics.part_hits(PEAKS, W.parts)] * 2),
      6,
    ),
    "same order",
  ),
  "similarities that are not positive": (
    lambda: metrics.local_size(-W.maps.max(axis=(1, 2))),
    "above 0",
  ),
  "weights that are not finite": (lambda: metrics.sparsity(np.full((2, 3), np.nan)), "finite"),
  "weights of other prototypes": (
    lambda: metrics.purity(W.maps, W.parts, pairs=(), weights=np.ones((5, 3))),
    r"\[6, C\]",
  ),
  "shares that do not reach 1": (
    lambda: metrics.relevance_ordering(np.ones((2, 2)), (0.0, 0.5)),
    "from 0 to 1",
  ),
  "no gradient": (lambda: metrics.dependence(np.zeros((2, 3, 3, 3))), "image 0"),
  "an unknown noise": (
    lambda: noise.add_noise(np.zeros((1, 4, 4, 3), np.float32), np.array([0]), kind="pink"),
    "gaussian, uniform",
  ),
  "a class without prototypes": (
    lambda: misalignment.misalignment(W.maps, W.noisy, *CLASSES, which="gt_protos"),
    "without prototypes",
  ),
  "an inactive prototype, as released": (
    lambda: misalignment.misalignment(
      -W.maps, -W.noisy, *CLASSES, image_size=SIZE, definition="released"
    ),
    'definition="paper"',
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_names_what_is_wrong(case):
  call, message = CASES[case]
  with pytest.raises(InputError, match=message):
    call()


@pytest.mark.parametrize(
  ("check", "message"),
  [
    (lambda: checks.maps(W.maps[0]), r"\[N, h, w, K\]"),
    (lambda: checks.parts(W.parts[..., :2], 11), r"\[11, L, 3\]"),
    (lambda: checks.parts(W.parts, 12), r"\[12, L, 3\]"),
    (lambda: checks.masks(W.masks[0], 11, SIZE), "one mask an image"),
    (lambda: checks.labels(W.labels.astype(float), 11), "integers"),
    (lambda: checks.labels(W.labels, 12), "12 integers"),
    (lambda: checks.share(0, "area"), "area=0"),
  ],
)
def test_arrays_of_another_shape_or_kind(check, message):
  with pytest.raises(InputError, match=message):
    check()


def test_parts_that_are_not_seen_may_be_anywhere():
  parts = changed(W.parts, (0, 0), (np.nan, np.inf, 0))
  assert metrics.part_hits(PEAKS, parts).hits.any()


def test_interventions_say_which_array_does_not_fit():
  rng = np.random.default_rng(0)
  birds = interventions.Birds(
    np.zeros(2, int), np.zeros((3, 2), int), rng.random((2, 4, 3)), rng.random((2, 1, 3)),
    rng.random((2, 3, 2)), rng.random((2, 1)), np.ones((2, 3)),
  )  # fmt: skip
  interventions.scores(birds, 0.1)
  for wrong, message in (
    (birds._replace(logits=birds.logits[:, :3]), "logits"),
    (birds._replace(attribution=np.full((2, 3), np.nan)), "attribution"),
    (birds._replace(labels=np.array([0, 3])), "label 3 does not exist"),
  ):
    with pytest.raises(InputError, match=message):
      interventions.scores(wrong, 0.1)


def test_own_maps_fill_up_classes_of_fewer_prototypes():
  chosen = maps.own(W.maps, *CLASSES)
  for i, label in enumerate(W.labels):
    own = np.flatnonzero(W.prototype_class == label)
    there = chosen.prototypes[i] >= 0
    np.testing.assert_array_equal(chosen.prototypes[i][there], own)
    np.testing.assert_array_equal(chosen.maps[i][..., there], W.maps[i][..., own])
