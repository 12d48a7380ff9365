"""Every metric as the released code of its paper computes it, on made-up arrays."""

import itertools

import numpy as np
import pytest
from metric_arrays import golden, inputs, points

from jprotop import metrics, regions
from jprotop.metrics import interventions, maps, misalignment, pointing_game, quanproto
from jprotop.metrics.interventions import Birds
from jprotop.metrics.part_sets import minimal_sufficient_sets

GIVEN = inputs()
OWN = maps.own(GIVEN.maps, GIVEN.labels, GIVEN.prototype_class)
CLASSES = (GIVEN.labels, GIVEN.prototype_class)
RELEASED = {"definition": "released"}


def value(name):
  return golden()[name]["value"]


def detail(name, key):
  return golden()[name]["intermediate"][key]


def names(start):
  found = [name for name in golden() if name.startswith(start)]
  assert found
  return found


def setting(name, key):
  """The number after a key in a name such as consistency/A/half36/thresh0.8."""
  (part,) = [part for part in name.split("/") if part.startswith(key)]
  return float(part.removeprefix(key))


def parts(variant):
  """A: in the frame of the crop; B: in the original's, with a box."""
  if variant == "A":
    return metrics.part_positions(GIVEN.parts, np.tile([0, 0, 224, 224], (24, 1)))
  original = points(GIVEN.arrays["parts_orig_xy"], GIVEN.arrays["parts_visible"])
  return metrics.part_positions(original, GIVEN.arrays["boxes_xywh"])


# --- upsampling


@pytest.mark.parametrize("name", ["maps", "maps_noise", "maps_attack"])
def test_peaks_of_opencvs_cubic_upsampling(name):
  wanted = value("upsample/cv2_cubic")["peaks"][name]
  given = np.moveaxis(GIVEN.arrays[name], 1, -1)
  everything = maps.Chosen(given, np.tile(np.arange(12), (24, 1)))
  np.testing.assert_array_equal(maps.peaks(everything).place, wanted["row_col"])
  highest = maps.per_map(lambda up, _: up.max(axis=(1, 2)), given, 224)
  np.testing.assert_allclose(highest, wanted["value"], rtol=1e-6)


def test_samples_of_opencvs_cubic_upsampling():
  wanted = value("upsample/cv2_cubic")
  one = GIVEN.arrays["maps"][wanted["sample_image"], wanted["sample_prototype"]]
  place = np.ix_(wanted["sample_rows"], wanted["sample_rows"])
  found = regions.upsample(one, 224, 224)[place]
  np.testing.assert_allclose(found, wanted["sample"], atol=1e-6)


def test_peaks_of_bilinear_upsampling_have_the_first_of_equals():
  wanted = value("upsample/torch_bilinear_argmax")["row_col"]
  np.testing.assert_array_equal(maps.peaks(OWN, kernel="bilinear").place, wanted)


# --- consistency, stability


@pytest.mark.parametrize("variant", "AB")
def test_part_positions(variant):
  found, wanted = parts(variant), np.array(value(f"part_positions/{variant}"))
  seen = found[..., 2] > 0
  np.testing.assert_array_equal(found[seen][:, :2], wanted[seen])
  assert (wanted[~seen] == -1).all()


def test_three_positions_lose_a_pixel_by_rounding():
  every = points(np.stack([np.arange(224)] * 2, axis=1)[None], np.ones((1, 224)))
  found = metrics.part_positions(every, np.array([[0, 0, 224, 224]]))[0, :, 0]
  wrong = np.flatnonzero(found != np.arange(224))
  assert wrong.tolist() == value("part_position_rounding")
  assert (found[wrong] == wrong - 1).all()


@pytest.mark.parametrize("name", names("consistency/"))
def test_consistency(name):
  found = metrics.consistency(
    GIVEN.maps, parts(name.split("/")[1]), *CLASSES,
    half_size=setting(name, "half") / 224, threshold=setting(name, "thresh"), **RELEASED,
  )  # fmt: skip
  assert 100 * found.value == pytest.approx(value(name), abs=1e-9)
  wanted = detail(name, "per_prototype_part_fraction")
  np.testing.assert_allclose(np.nan_to_num(found.part_share), wanted)


@pytest.mark.parametrize("variant", "AB")
def test_consistency_and_stability_of_the_first_release(variant):
  arguments = (parts(variant), *CLASSES)
  consistency = metrics.consistency(GIVEN.maps, *arguments, **RELEASED).value
  stability = metrics.stability(
    GIVEN.maps, GIVEN.noisy, *arguments, definition="first_release"
  ).value
  wanted = [
    value(f"{what}_first_release/{variant}/half36") for what in ("consistency", "stability")
  ]
  assert [100 * consistency, 100 * stability] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("name", names("stability/"))
def test_stability(name):
  found = metrics.stability(
    GIVEN.maps, GIVEN.noisy, parts(name.split("/")[1]), *CLASSES,
    half_size=setting(name, "half") / 224, **RELEASED,
  )  # fmt: skip
  assert 100 * found.value == pytest.approx(value(name), abs=1e-4)
  np.testing.assert_allclose(found.by_prototype, detail(name, "per_prototype"), atol=1e-6)


# --- purity


@pytest.mark.parametrize("name", names("purity/A"))
def test_purity(name):
  chosen = {"top_k": int(setting(name, "topk"))} if "topk" in name else {}
  chosen = chosen or {"top_k": None, "min_score": setting(name, "all_over_")}
  weights = GIVEN.arrays["weights_pip"].T
  found = metrics.purity(GIVEN.maps, GIVEN.parts, weights=weights, **chosen, **RELEASED)
  wanted = value(name)
  assert found.value == pytest.approx(wanted["mean_purity"])
  assert found.std == pytest.approx(wanted["std_purity"])
  assert found.most_frequent.value == pytest.approx(wanted["mean_purity_most_often"])
  assert found.total == wanted["prototypes"]
  assert found.over_half.count == wanted["prototypes_over_half"]
  by_prototype = {int(p): pure for p, pure in detail(name, "purity").items()}
  assert dict(enumerate(found.by_prototype[:11])) == pytest.approx(by_prototype)
  assert np.isnan(found.by_prototype[11])


# --- distinctiveness, comprehensiveness


@pytest.mark.parametrize("name", names("distinctiveness/"))
def test_distinctiveness(name):
  rows = metrics.distinctiveness_rows(OWN, box_size=setting(name, "box") / 224, **RELEASED)
  found = metrics.distinctiveness_of(rows)
  # Peaks in border cells are ties, which PyTorch breaks by its rounding.
  assert found.value == pytest.approx(value(name), abs=2e-3)
  inside = np.delete(rows, detail(name, "images_with_a_peak_in_a_border_cell"))
  assert inside.mean() == pytest.approx(detail(name, "score_without_them"), abs=1e-6)


@pytest.mark.parametrize("name", names("comprehensiveness/"))
def test_comprehensiveness(name):
  threshold = setting(name, "thresh")
  rows = metrics.comprehensiveness_rows(OWN, GIVEN.masks, threshold=threshold, **RELEASED)
  np.testing.assert_allclose(rows, detail(name, "iou_per_image"), atol=1e-6)
  found = metrics.comprehensiveness(
    GIVEN.maps, GIVEN.masks, *CLASSES, threshold=threshold, **RELEASED
  )
  assert found.value == pytest.approx(value(name), abs=1e-6)


# --- the pointing game

KERNELS = {"cv2_cubic": "cubic", "torch_bilinear": "bilinear"}


@pytest.mark.parametrize("name", names("pointing_game_energy/"))
def test_pointing_game_energy(name):
  wanted = detail(name, "per_image_own_prototype")
  kernel = KERNELS.get(name.split("/")[1])
  if kernel:
    found = maps.per_map(
      lambda up, i: pointing_game.energy_inside(up, GIVEN.masks[i], signed=True),
      OWN.maps, 224, kernel=kernel,
    )  # fmt: skip
  else:
    found = metrics.energy_rows(OWN, GIVEN.masks, **RELEASED)
    whole = metrics.pointing_game_energy(GIVEN.maps, GIVEN.masks, *CLASSES, **RELEASED)
    assert whole.value == pytest.approx(value(name), abs=1e-6)
  np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("name", names("pointing_game_mask/"))
def test_pointing_game_mask(name):
  area, kernel = setting(name, "area"), KERNELS.get(name.split("/")[1])
  if kernel:
    found = maps.per_map(
      lambda up, i: pointing_game.strictly_above_inside(up, GIVEN.masks[i], area),
      OWN.maps, 224, kernel=kernel,
    )  # fmt: skip
  else:
    found = metrics.mask_rows(OWN, GIVEN.masks, area=area, **RELEASED)
    whole = metrics.pointing_game_mask(GIVEN.maps, GIVEN.masks, *CLASSES, area=area, **RELEASED)
    assert whole.value == pytest.approx(value(name), abs=1e-6)
  # A pixel more or less above the level is 0.001 of the smallest area.
  np.testing.assert_allclose(found, detail(name, "per_image_own_prototype"), atol=1.1e-3)
  assert found.mean() == pytest.approx(value(name), abs=1e-4)


# --- QuanProto


@pytest.mark.parametrize("name", names("quanproto/local_size"))
def test_local_size(name):
  found = metrics.local_size(GIVEN.maps.max(axis=(1, 2)), threshold=setting(name, "thresh"))
  assert found.value == pytest.approx(value(name))


def test_quanproto_overlaps_of_each_image_and_prototype():
  wanted = value("quanproto/complexity_parts")
  chosen = metrics.strongest(GIVEN.maps, 5)
  np.testing.assert_array_equal(chosen.prototypes, wanted["topk"])
  rows = quanproto.overlap_rows(chosen, GIVEN.masks)
  for name, field in (
    ("ior", "inside_outside"),
    ("oirr", "ratio"),
    *zip(rows._fields[:3], rows._fields),
  ):
    np.testing.assert_allclose(getattr(rows, field), np.array(wanted[name], float), atol=1e-6)


@pytest.mark.parametrize("name", names("quanproto/complexity")[:3])
def test_quanproto_complexity(name):
  scale = 6 if name.endswith("times_6") else 1
  given, wanted = scale * GIVEN.maps, value(name)
  found = quanproto.overlap(given, GIVEN.masks, **RELEASED)
  assert 100 * found.object_overlap.value == pytest.approx(wanted["Object Overlap"], abs=1e-4)
  assert 100 * found.background_overlap.value == pytest.approx(
    wanted["Background Overlap"], abs=1e-4
  )
  assert 100 * found.iou.value == pytest.approx(wanted["IOU"], abs=1e-4)
  assert found.inside_outside.value == pytest.approx(wanted["IOR"], abs=1e-6)
  assert found.ratio.value == float(wanted["OIRR"]) == float("inf")
  consistency = quanproto.consistency(given, GIVEN.parts, boxes="bbox" in name, **RELEASED)
  assert 100 * consistency.value == pytest.approx(wanted["Consistency"], abs=1e-4)


# --- spatial misalignment


@pytest.mark.parametrize("name", names("misalignment/"))
def test_misalignment(name):
  which, focal = name.split("/")[1], name.endswith("focal")
  # The stand-in's focal similarity: above the map's mean.
  before, after = (
    np.maximum(m - m.mean(axis=(1, 2), keepdims=True), 0) if focal else m
    for m in (GIVEN.maps, GIVEN.attacked)
  )
  rows = misalignment.misalignment_rows(before, after, *CLASSES, which=which, **RELEASED)
  np.testing.assert_allclose(100 * rows.pac, detail(name, "PAC"), atol=1e-4)
  np.testing.assert_array_equal(rows.prc, detail(name, "PRC"))
  # A pixel more or less above a level is 0.01 of a hundred.
  np.testing.assert_allclose(100 * rows.plc, detail(name, "PLC"), atol=0.02)
  found = misalignment.misalignment(before, after, *CLASSES, which=which, **RELEASED)
  percent = {"PAC": 100 * found.pac.value, "PLC": 100 * found.plc.value, "PRC": found.prc.value}
  assert percent == pytest.approx({key: value(name)[key] for key in percent}, abs=1e-3)


@pytest.mark.parametrize("name", names("misalignment/"))
def test_protected_region(name):
  before = GIVEN.maps
  if name.endswith("focal"):
    before = np.maximum(before - before.mean(axis=(1, 2), keepdims=True), 0)
  which = name.split("/")[1]
  chosen = misalignment.attacked_prototypes(before, *CLASSES, which=which)
  wanted = [sorted(row) for row in detail(name, "attacked_prototypes")]
  np.testing.assert_array_equal(np.sort(chosen.prototypes, axis=1), wanted)
  region = misalignment.protected_region(chosen, **RELEASED)
  np.testing.assert_allclose(1 - region.mean(axis=(1, 2)), detail(name, "attackable_fraction"))
  ends = regions.tight_boxes(region) - [0, 1, 0, 1]
  np.testing.assert_array_equal(ends, detail(name, "protected_rows_cols_first_last"))


# --- FunnyBirds

BIRDS = Birds(*(GIVEN.arrays[f"fb_{name}"] for name in (
  "labels", "classes", "logits", "logits_bg", "importance", "importance_bg", "attribution_sum"
)))  # fmt: skip


def test_funnybirds_at_every_threshold():
  rows = interventions.threshold_rows(BIRDS, interventions.THRESHOLDS, **RELEASED)
  wanted = {"csdc": "csdc", "pc": "preservation_check", "dc": "deletion_check"}
  wanted["distractibility"] = "distractibility"
  for key, name in wanted.items():
    means = np.nanmean(rows[key], axis=1)
    np.testing.assert_allclose(means, value(f"funnybirds/{name}")["values"], atol=1e-7)


def test_funnybirds_scores_at_the_best_threshold():
  threshold = interventions.best_threshold(BIRDS, **RELEASED)
  found, final = interventions.scores(BIRDS, threshold, **RELEASED), value("funnybirds/final")
  assert threshold == pytest.approx(final["best_threshold"])
  assert found.completeness == pytest.approx(final["completeness"])
  assert found.correctness.value == pytest.approx(value("funnybirds/single_deletion"))
  assert found.contrastivity.value == pytest.approx(value("funnybirds/target_sensitivity"))
  told = value("funnybirds/filtered")
  assert told[1] == f"Number of valid samples: {found.contrastivity.total}"
  independence = value("funnybirds/background_independence")
  assert found.background_independence.value == pytest.approx(independence)
  assert found.accuracy.value == pytest.approx(value("funnybirds/accuracy"))


def test_minimal_sufficient_part_sets():
  parts = ("beak", "eye", "foot", "tail", "wing")
  found = {
    str(label): sorted(
      [f"{parts[part]}_{own[part]}" for part in np.flatnonzero(chosen)] for chosen in sets
    )
    for label, (own, sets) in enumerate(
      zip(BIRDS.variants, minimal_sufficient_sets(BIRDS.variants, **RELEASED))
    )
  }
  wanted = value("funnybirds/minimal_sufficient_part_sets")
  assert found == {label: sorted(sets) for label, sets in wanted.items()}
  # By the paper, the last class has sets as the others have.
  last = minimal_sufficient_sets(BIRDS.variants)[-1]
  own = BIRDS.variants[-1]
  for chosen, other in itertools.product(last, BIRDS.variants[:-1]):
    assert (own[chosen] != other[chosen]).any()
  assert len(last)
