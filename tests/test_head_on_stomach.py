"""Head on Stomach: which cells, which prototype, which pixels, and what is counted."""

import dataclasses

import jax
import numpy as np
import pytest
from conftest import drawn_variables
from PIL import Image
from tiny_network import TINY

from jprotop import regions, statistics
from jprotop.attacks import cases as attack_cases
from jprotop.attacks import visibility
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import RULES, Target
from jprotop.data.alterations import jpeg
from jprotop.data.own_images import Images
from jprotop.data.parts import PARTS
from jprotop.errors import InputError
from jprotop.experiments import head_on_stomach_numbers as hos
from jprotop.prototypes import selectors
from jprotop.prototypes.protopnet import make_model
from jprotop.prototypes.see import Network, see

GRID, SIZE = (4, 4), 32  # cells of 8 pixels


def cells(*places, grid=GRID):
  found = np.zeros(grid, bool)
  for place in places:
    found[place] = True
  return found


def bird(**places):
  """Part points [15, 3]: a visible part in the middle of each named cell; underscore for space."""
  points = np.zeros((len(PARTS), 3), np.float32)
  for name, (row, column) in places.items():
    points[PARTS.index(name.replace("_", " "))] = (8 * column + 4, 8 * row + 4, 1)
  return points


def hot(row, column, height=5.0, grid=GRID):
  """A map that is highest at one cell and falls off from there: all values differ."""
  ys, xs = np.mgrid[: grid[0], : grid[1]]
  return (height - np.hypot(ys - row, xs - column) - 0.01 * ys - 0.001 * xs).astype(np.float32)


def images_with(*points):
  rng = np.random.default_rng(0)
  count = len(points)
  return Images(
    image=rng.random((count, SIZE, SIZE, 3)).astype(np.float32),
    image_id=[f"bird {i}" for i in range(count)],
    label=np.arange(count) % 3,
    points=np.stack(points),
  )


# --- parts


def test_parts_and_groups_by_name():
  assert [PARTS[i] for i in attack_cases.part_indices("stomach")] == ["belly", "breast"]
  assert [PARTS[i] for i in attack_cases.part_indices("left eye")] == ["left eye"]
  assert len(attack_cases.part_indices("head")) == 7
  with pytest.raises(
    InputError, match=r"'knee' is not known; parts: back, .* groups: head, stomach"
  ):
    attack_cases.part_indices("knee")


def test_a_prototype_sits_on_the_part_in_its_box_that_is_nearest_to_its_peak():
  points = bird(beak=(0, 0), crown=(0, 1), belly=(2, 2), tail=(3, 3))

  def at(box, peak):
    return attack_cases.group_at(regions.Box(*box), peak, points)

  assert at((0, 8, 0, 16), (1, 1)) == "head"
  assert at((16, 24, 16, 24), (20, 20)) == "stomach"
  # Two parts of the head are in the box, but the peak is on the belly.
  assert at((0, 32, 0, 32), (19, 21)) == "stomach"
  assert at((0, 32, 0, 32), (0, 0)) == "head"
  assert at((0, 8, 16, 32), (4, 20)) == ""
  # Half-open: the belly's point at (20, 20) is not in a box that ends there.
  assert at((16, 20, 16, 20), (19, 19)) == ""
  points[PARTS.index("belly"), 2] = 0
  assert at((16, 24, 16, 24), (20, 20)) == ""


# --- S_noisy

BIRD = bird(beak=(0, 0), crown=(0, 1), belly=(2, 2), breast=(1, 1), tail=(3, 3))


@pytest.mark.parametrize(
  ("target", "group", "wanted", "rule"),
  [
    (Target(cells=((1, 2), (2, 3))), "head", [(1, 2), (1, 3), (2, 2), (2, 3)], "cells"),
    (Target(part="tail"), "head", [(3, 3)], "tail"),
    (Target(part="stomach"), "tail", [(2, 2), (1, 1)], "stomach"),
    (Target(), "head", [(2, 2), (1, 1)], "stomach"),
    (Target(), "tail", [(3, 2), (3, 3)], "least active"),
    (Target(), "", [(3, 2), (3, 3)], "least active"),
  ],
)
def test_find_target(target, group, wanted, rule):
  found, how = attack_cases.find_target(hot(0, 0), cells((0, 0), (0, 1)), group, BIRD, SIZE, target)
  assert how == rule
  assert (found == cells(*wanted)).all()


def test_the_stomach_is_taken_without_the_cells_of_s():
  source = cells((0, 0), (0, 1), (1, 0), (1, 1))  # covers the breast
  found, how = attack_cases.find_target(hot(0, 0), source, "head", BIRD, SIZE, Target())
  assert how == "stomach" and (found == cells((2, 2))).all()
  # Nothing of the stomach is left beside S, or nothing of it is visible: the fallback.
  for points in (bird(beak=(0, 0), breast=(1, 1)), bird(beak=(0, 0))):
    found, how = attack_cases.find_target(hot(0, 0), source, "head", points, SIZE, Target())
    assert how == "least active" and found.sum() == 4 and not (found & source).any()


@pytest.mark.parametrize(
  ("source", "target", "reason"),
  [
    (cells((0, 0)), Target(part="left wing"), "left wing is not visible"),
    (np.ones(GRID, bool), Target(), "S covers the whole map"),
  ],
)
def test_a_target_that_is_not_there_has_a_reason(source, target, reason):
  found, how = attack_cases.find_target(hot(0, 0), source, "head", BIRD, SIZE, target)
  assert found is None and how == reason


def test_cells_and_parts_that_do_not_exist_are_input_errors():
  arguments = (hot(0, 0), cells((0, 0)), "head", BIRD, SIZE)
  with pytest.raises(InputError, match="outside this network's 4 x 4 grid"):
    attack_cases.find_target(*arguments, Target(cells=((0, 0), (4, 0))))
  with pytest.raises(InputError, match="not known"):
    attack_cases.find_target(*arguments, Target(part="knee"))


def test_cases_take_s_from_the_box_and_skip_what_cannot_be_attacked():
  images = images_with(BIRD, bird(beak=(0, 0)), BIRD)
  maps = np.stack([hot(0, 0), hot(0, 0), hot(3, 3)])
  found = attack_cases.build_cases(
    images, np.array([5, 1, 0]), maps, Target(part="belly"), RULES["paper"]
  )
  assert found.images.image_id == ["bird 0", "bird 2"]
  assert (found.images.image == images.image[[0, 2]]).all()
  assert found.images.label.tolist() == [0, 2]
  assert found.prototype.tolist() == [5, 0]
  assert found.rule == ["belly", "belly"]
  assert found.source_group == ["head", "tail"]
  assert found.skipped == [{"image_id": "bird 1", "reason": "belly is not visible"}]
  assert (found.target == cells((2, 2))).all()
  for source, similarity_map in zip(found.source, maps[[0, 2]]):
    box = regions.high_activation_box(similarity_map, SIZE, SIZE)
    assert (source == regions.box_cells(box, GRID, (SIZE, SIZE))).all()
  with pytest.raises(InputError, match=r"none of the 3 images .* throat is not visible"):
    attack_cases.build_cases(images, np.zeros(3, int), maps, Target(part="throat"), RULES["paper"])


def test_the_authors_rules_make_rectangles_and_take_the_border_cell(monkeypatch):
  # A box of high activation that ends exactly on the border of cell (0, 0).
  monkeypatch.setattr(regions, "high_activation_box", lambda *_: regions.Box(0, 8, 0, 8))
  images, maps = images_with(bird(belly=(3, 1), breast=(1, 3))), hot(0, 0)[None]
  paper, authors = (
    attack_cases.build_cases(images, np.array([0]), maps, Target(part="stomach"), RULES[name])
    for name in ("paper", "authors")
  )
  assert (paper.source == cells((0, 0))).all()
  assert (paper.target == cells((3, 1), (1, 3))).all()
  assert (authors.source == cells((0, 0), (0, 1), (1, 0), (1, 1))).all()
  assert (authors.target == regions.cell_rectangle((1, 1), (3, 3), GRID)).all()
  assert dataclasses.astuple(RULES["paper"]) == (False,) * 6
  assert dataclasses.astuple(RULES["authors"]) == (True,) * 6


# --- prototypes


def test_choose_prototypes(tiny):
  model, _ = tiny  # prototypes 0, 1 of class 0; 2, 3 of 1; 4, 5 of 2
  logits = np.array([[0.0, 1, 0], [3, 2, 1]])
  activations = np.array([[9.0, 9, 1, 2, 9, 9], [3, 3, 9, 9, 9, 9]])
  assert attack_cases.choose_prototypes(model, logits, activations, None).tolist() == [3, 0]
  assert attack_cases.choose_prototypes(model, logits, activations, 5).tolist() == [5, 5]
  for bad in (-1, 6):
    with pytest.raises(InputError, match=f"prototype {bad} does not exist; .* 0 to 5"):
      attack_cases.choose_prototypes(model, logits, activations, bad)


# --- the attack


@pytest.fixture(scope="module")
def cases(tiny):
  """Five pictures; S is the first row of the 2x2 grid, S_noisy a cell of the second."""
  rng = np.random.default_rng(1)
  grid = (2, 2)
  images = dataclasses.replace(
    images_with(*[BIRD] * 5), image=rng.random((5, SIZE, SIZE, 3)).astype(np.float32)
  )
  target = np.stack([cells((1, i % 2), grid=grid) for i in range(5)])
  source = np.stack([cells((0, 0), (0, 1), grid=grid)] * 5)
  return attack_cases.Cases(
    images, np.arange(5), source, target, ["cells"] * 5, [""] * 5, skipped=[]
  )  # fmt: skip


@pytest.mark.parametrize("protocol", RULES)
def test_attack_stays_in_its_bounds_and_raises_its_objective(tiny, cases, protocol):
  budget = Budget(num_steps=10)
  record = hos.attack(Network(*tiny), cases, budget, RULES[protocol], seed=0, batch_size=4)
  attacked, images, mask = record["attacked"], record["images"], record["mask"]
  assert (mask == regions.cells_to_pixels(cases.target, SIZE, SIZE)).all() and mask.sum() == 5 * 256
  assert (attacked[~mask] == images[~mask]).all()
  assert (attacked[mask] != images[mask]).mean() > 0.9
  assert np.abs(attacked - images).max() <= budget.eps + 1e-6
  assert attacked.min() >= 0 and attacked.max() <= 1

  def objective(maps):
    return maps[cases.target] - maps[cases.source].reshape(5, 2).mean(1)

  clean = objective(record["clean_similarity_map"])
  assert (objective(record["attacked_similarity_map"]) > clean).all()
  gain = objective(record["attacked_similarity_map"]) - clean
  assert gain.mean() > 3 * np.abs(objective(record["control_similarity_map"]) - clean).mean()


def test_records_are_of_the_images_they_name(tiny, cases):
  network, budget = Network(*tiny), Budget(num_steps=2)
  record = hos.attack(network, cases, budget, RULES["paper"], seed=0, batch_size=5)
  seen = see(network, cases.images.image, selectors.maps, batch_size=2)
  own = [seen["similarity_map"][i, ..., p] for i, p in enumerate(cases.prototype)]
  np.testing.assert_allclose(record["clean_similarity_map"], own, atol=1e-4)
  np.testing.assert_allclose(record["clean_logits"], seen["logits"], atol=1e-4)
  np.testing.assert_allclose(seen["activations"], seen["similarity_map"].max((1, 2)), atol=1e-6)
  after = see(network, record["attacked"], selectors.maps, batch_size=5)
  np.testing.assert_allclose(record["attacked_logits"], after["logits"], atol=1e-4)


def test_an_image_is_attacked_the_same_in_any_batch(tiny, cases):
  def run(size, seed=0):
    options = {"seed": seed, "batch_size": size}
    return hos.attack(Network(*tiny), cases, Budget(num_steps=2), RULES["paper"], **options)[
      "attacked"
    ]

  whole, pairs, other = run(5), run(2), run(5, seed=1)
  # Rounding may turn the sign of a gradient that is next to nothing, not more.
  assert (np.abs(whole - pairs) > 1e-6).mean() < 1e-3
  assert (np.abs(whole - other) > 1e-6).mean() > 0.1


def test_without_a_random_start_the_seed_does_not_matter(tiny, cases):
  budget = Budget(num_steps=1, random_start=False)
  first, second = (
    hos.attack(Network(*tiny), cases, budget, RULES["paper"], seed=seed, batch_size=5)
    for seed in (0, 1)
  )
  assert (first["attacked"] == second["attacked"]).all()
  change = np.abs(first["attacked"] - first["images"])
  assert change.max() == pytest.approx(budget.step_size, abs=1e-6)


def saved_by_pillow(images, quality):
  """Float images [N, S, S, 3] as they come back from files that Pillow wrote."""
  pixels = [Image.fromarray(p) for p in np.round(images * 255).astype(np.uint8)]
  return np.stack([np.asarray(jpeg.compress(p, quality)) for p in pixels]).astype(np.float32) / 255


def test_noise_that_survives_jpeg_is_still_there_in_pillows_files(cases):
  model = make_model({**TINY, "backbone": "resnet_small"}, 3)
  network, quality, rules = Network(model, drawn_variables(model, SIZE)), 50, RULES["paper"]
  smooth = np.asarray(jax.image.resize(cases.images.image, (5, 4, 4, 3), "linear"))
  smooth = np.asarray(jax.image.resize(smooth, cases.images.image.shape, "cubic")).clip(0, 1)
  smooth = dataclasses.replace(cases, images=dataclasses.replace(cases.images, image=smooth))

  def in_files(**changes):
    """Eq. (2) in the files of the attacked pictures; and what the record says of them."""
    limits = Budget(num_steps=8, **changes)
    record = hos.attack(network, smooth, limits, rules, seed=0, batch_size=5)
    assert np.abs(record["attacked"] - record["images"])[record["mask"]].max() < 8 / 255 + 1e-6
    files = saved_by_pillow(record["attacked"], quality)
    seen = see(network, files, selectors.maps, batch_size=5)
    maps = np.stack([seen["similarity_map"][i, ..., p] for i, p in enumerate(smooth.prototype)])
    raised = maps[smooth.target] - maps[smooth.source].reshape(5, 2).mean(1)
    return raised, maps, record

  plain, _, _ = in_files()
  surviving, maps, record = in_files(survive_jpeg=quality)
  assert (surviving > plain).all()
  # All that is recorded was seen in files, which are Pillow's but for rounding.
  spread = np.ptp(record["attacked_similarity_map"])
  assert np.abs(record["attacked_similarity_map"] - maps).mean() < 0.02 * spread
  raw, saved = (
    see(network.in_files(q), smooth.images.image, selectors.logits, batch_size=5)
    for q in (None, quality)
  )
  np.testing.assert_allclose(record["clean_logits"], saved, atol=1e-4)
  assert np.abs(record["clean_logits"] - raw).max() > 1e-3


# --- numbers


def made_record():
  """Three images on a 2x2 grid, S the left column and S_noisy the lower right cell."""
  source, target = cells((0, 0), (1, 0), grid=(2, 2)), cells((1, 1), grid=(2, 2))
  clean = np.array([[3.0, 1], [2, 0.5]])
  attacked = [
    [[1.0, 0], [2, 4]],  # moved, and above the clean maximum
    [[1.0, 0], [2, 2.5]],  # moved, yet below it
    [[4.0, 0], [2, 3.5]],  # not moved, though above it
  ]
  control = [[[3.0, 1], [2, 3.5]], clean, clean]
  image = np.full((3, 2, 2, 3), 0.5, np.float32)
  return {
    "images": image,
    "attacked": image + np.float32(0.03) * np.array([1, 0, -1], np.float32)[:, None, None, None],
    "source": np.stack([source] * 3),
    "target": np.stack([target] * 3),
    "prototype": np.array([0, 3, 5]),
    "clean_similarity_map": np.stack([clean] * 3),
    "attacked_similarity_map": np.array(attacked),
    "control_similarity_map": np.array(control),
    "clean_logits": np.array([[2.0, 1], [2, 1], [1, 2]]),
    "attacked_logits": np.array([[3.0, 1], [0, 1], [1, 9]]),
    "control_logits": np.array([[1.0, 3], [2, 1], [1, 2]]),
  }


def test_summarise_counts_what_it_says():
  record = made_record()
  result = hos.summarise(record, ["stomach", "least active", "stomach"])
  numbers = result["metrics"]
  counts = {k: v["count"] for k, v in numbers.items() if isinstance(v, dict) and "count" in v}
  assert counts == {
    "moved_to_target": 2,
    "exceeds_clean_maximum": 2,
    "prediction_kept": 2,
    "moved_and_prediction_kept": 1,
    # Random noise moved the first image's prototype, and changed its class.
    "control_moved_and_prediction_kept": 0,
    "success_exceeds_clean_maximum": 1,
    "clean_peak_in_target": 0,
    "control_moved": 1,
  }
  assert all(numbers[name]["total"] == 3 for name in counts if name[:7] != "success")
  assert numbers["success_exceeds_clean_maximum"]["total"] == 1
  assert numbers["success_minus_control"] == statistics.paired_difference(
    [True, False, False], [False] * 3
  )
  means = {k: v["value"] for k, v in numbers.items() if isinstance(v, dict) and k not in counts}
  assert means == {
    "similarity_source_before": pytest.approx(3),
    "similarity_source_after": pytest.approx((2 + 2 + 4) / 3),
    "similarity_target_before": pytest.approx(0.5),
    "similarity_target_after": pytest.approx(10 / 3),
    "exceeds_clean_maximum_by": pytest.approx((1 - 0.5 + 0.5) / 3),
    # Of the one success alone.
    "success_exceeds_clean_maximum_by": pytest.approx(1),
    "success_minus_control": pytest.approx(1 / 3),
    # Two images changed by 0.03 everywhere; the third not at all.
    "psnr": pytest.approx(-20 * np.log10(0.03), abs=1e-4),
    "ssim": pytest.approx(np.mean(visibility.ssim(record["images"], record["attacked"]))),
  }
  assert (numbers["psnr"]["total"], numbers["ssim"]["total"]) == (2, 3)
  assert numbers["largest_change"] == pytest.approx(0.03, abs=1e-6)
  noise = {k: v["control_moved"]["count"] for k, v in result["by_target"].items()}
  assert noise == {"stomach": 1, "least active": 0}
  by_target = {k: v["moved_to_target"] for k, v in result["by_target"].items()}
  assert (by_target["stomach"]["count"], by_target["stomach"]["total"]) == (1, 2)
  assert (by_target["least active"]["count"], by_target["least active"]["total"]) == (1, 1)


def test_movements_count_who_really_went_from_head_to_stomach():
  record = made_record()
  images = images_with(BIRD, BIRD, np.zeros_like(BIRD))
  cases = attack_cases.Cases(
    images, record["prototype"], record["source"], record["target"],
    ["least active", "stomach", "least active"], ["", "head", ""], [],
  )  # fmt: skip

  def counts(share):
    return share["count"], share["total"]

  assert [
    (m["sat_on"], m["target"], counts(m["moved_to_target"]), counts(m["control_moved"]))
    for m in hos.movements(record, cases)
  ] == [
    ("head", "stomach", (1, 1), (0, 1)),
    ("background", "least active", (1, 1), (1, 1)),
    ("not annotated", "least active", (0, 1), (0, 1)),
  ]


def test_percentiles_are_of_all_activations_on_clean_images():
  activations = np.array([[1.0, 2.5, 3, 3.5, 0, 2], [3.75, 4, 5, 6, 0, 7]])
  rule = ["cells"] * 3
  numbers = hos.summarise(made_record(), rule, activations=activations)["metrics"]
  # After the attack 4, 2.5 and 3.5 in S_noisy; what is equal is not below.
  assert numbers["share_below_attacked"]["value"] == pytest.approx((8 + 4 + 6) / 12 / 3)
  assert numbers["share_below_attacked"]["total"] == 3
  # Of the same prototype: 0, 3 and 5.
  assert numbers["share_below_own"]["value"] == pytest.approx((2 / 2 + 0 / 2 + 1 / 2) / 3)
  assert numbers["success_share_below_own"] == statistics.mean([1.0])
  # All six of the first image, two of the second's.
  assert numbers["share_below_4"]["value"] == pytest.approx((6 / 6 + 2 / 6) / 2)
  assert numbers["share_below_4"]["total"] == 2
  linear = hos.summarise(made_record(), rule, activations=activations, log_similarity=False)
  assert "share_below_4" not in linear["metrics"]
  assert "share_below_attacked" in linear["metrics"]


def test_rows_per_image():
  images = dataclasses.replace(
    images_with(BIRD, BIRD, BIRD), label=np.array([0, 1, -1]), image_id=["a", "b", "c"]
  )
  record = made_record()
  cases = attack_cases.Cases(
    images, record["prototype"], record["source"], record["target"],
    ["stomach", "least active", "cells"], ["head", "", "tail"], [],
  )  # fmt: skip
  rows = hos.per_image(record, cases, ["Auk", "Wren"])
  assert rows[0] == {
    "image_id": "a",
    "prototype": 0,
    "true_class": "Auk",
    "predicted_before": "Auk",
    "predicted_after": "Auk",
    "target": "stomach",
    "cells_in_source_and_target": 0,
    "prototype_sits_on": "head",
    "moved_to_target": True,
    "control_moved": True,
    "clean_maximum": 3,
    "similarity_source_before": 3,
    "similarity_source_after": 2,
    "similarity_target_before": 0.5,
    "similarity_target_after": 4,
  }
  assert [row["predicted_after"] for row in rows] == ["Auk", "Wren", "Wren"]
  assert [row["true_class"] for row in rows] == ["Auk", "Wren", None]
  assert [row["prototype_sits_on"] for row in rows] == ["head", None, "tail"]
  assert [row["moved_to_target"] for row in rows] == [True, True, False]
