"""Vanishing head: where the noise goes, what it lowers, and what is counted."""

import json

import numpy as np
import pytest

from jprotop import regions
from jprotop.attacks.budget import Budget
from jprotop.attacks.perturb import Views, see_own
from jprotop.data.own_images import Images
from jprotop.data.parts import PARTS
from jprotop.errors import InputError
from jprotop.experiments import vanishing_head
from jprotop.prototypes.see import Network
from jprotop.runs import run as runs
from jprotop.runs.records import check_record


def test_the_noise_may_change_the_box_in_pixels_not_in_cells():
  ys, xs = np.mgrid[:4, :4]
  maps = np.stack([5 - np.hypot(ys - 1.4, xs - 1.8), 5 - np.hypot(ys - 3, xs)])
  pixels = vanishing_head.box_pixels(maps, 32)
  for mask, similarity_map in zip(pixels, maps):
    box = regions.high_activation_box(similarity_map, 32, 32)
    assert regions.tight_box(mask) == box
    assert mask.sum() == (box.y1 - box.y0) * (box.x1 - box.x0)
  cells = regions.cells_to_pixels(maps[0] == maps[0].max(), 32, 32)
  assert (pixels[0] != cells).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_attack_lowers_the_activation_inside_the_box_more_than_random_noise(tiny, seed):
  network = Network(*tiny)
  rng = np.random.default_rng(seed)
  images = Images(
    rng.random((3, 64, 64, 3)).astype(np.float32), list("abc"), np.zeros(3, int),
    np.zeros((3, len(PARTS), 3), np.float32),
  )  # fmt: skip
  prototype = np.array([0, 3, 5])
  clean = see_own(network, images.image, prototype, batch_size=2)
  budget = Budget(num_steps=5)
  batch, seen = vanishing_head.attack(
    network, images, prototype, clean, budget, seed=seed, batch_size=2
  )  # fmt: skip
  change = np.abs(seen["attacked"].image - images.image).max(axis=-1)
  assert (change[~batch.pixels] == 0).all() and 0 < change.max() <= budget.eps + 1e-6
  rows = np.arange(3)
  before, after, control = (
    seen[name].activations[rows, prototype] for name in ("clean", "attacked", "control")
  )
  np.testing.assert_allclose(before, clean.similarity_map.max(axis=(1, 2)), atol=1e-4)
  assert (after < before).all() and (after < control).all()
  np.testing.assert_allclose(after, seen["attacked"].similarity_map.max(axis=(1, 2)), atol=1e-6)


def seen_with(activations, predicted):
  count = len(predicted)
  image, maps = np.zeros((count, 1, 1, 3), np.float32), np.zeros((count, 1, 1))
  return Views(image, maps, np.array(activations), np.eye(2)[predicted])


def test_summarise_counts_what_it_says():
  prototype = np.array([0, 0, 1])
  seen = {
    "clean": seen_with([[4.0, 1], [4, 2], [3, 2]], [0, 0, 1]),
    "attacked": seen_with([[3.0, 1], [1, 2], [3, 0.5]], [0, 1, 1]),
    "control": seen_with([[4.0, 1], [3, 2], [3, 2]], [0, 0, 1]),
  }
  numbers = vanishing_head.summarise(prototype, seen)
  counts = {k: (v["count"], v["total"]) for k, v in numbers.items() if "count" in v}
  assert counts == {
    "no_longer_most_activated": (1, 2),  # on the third image it was not at first
    "prediction_kept": (2, 3),
    "halved": (2, 3),
    "control_halved": (0, 3),
  }
  means = {k: v["value"] for k, v in numbers.items() if "count" not in v}
  assert means == {
    "similarity_before": pytest.approx(10 / 3),
    "similarity_after": pytest.approx(4.5 / 3),
    "drop": pytest.approx((1 + 3 + 1.5) / 3),
    "control_drop": pytest.approx(1 / 3),
    "relative_drop": pytest.approx((0.25 + 0.75 + 0.75) / 3),
    # No picture of these was changed.
    "psnr": None,
    "ssim": pytest.approx(1),
  }
  linear = vanishing_head.summarise(prototype, seen, log_similarity=False)
  assert numbers.keys() - linear.keys() == {"relative_drop", "halved", "control_halved"}


@pytest.fixture
def open_with(run, monkeypatch):
  """Opens the tiny run's standard network, with other numbers of the attack."""
  monkeypatch.setenv("JPROTOP_CACHE", str(run[1]))
  return lambda **attack: runs.open_run(
    run[0], changes={f"measure.attack.{name}": value for name, value in attack.items()}
  )


def test_measure(open_with, tmp_path):
  found = vanishing_head.measure(open_with(num_images=2, num_steps=1), tmp_path)
  check_record(found, vanishing_head.VanishingHead, "vanishing_head")
  assert json.dumps(found, allow_nan=False)
  assert 1 <= found["num_images"] <= 2 and found["num_steps"] == 1
  assert found["metrics"]["similarity_before"]["total"] == found["num_images"]
  sample = found["sample"]
  assert (sample["asked"], sample["taken"]) == (2, found["num_images"])
  assert sample["taken"] <= sample["correct"] <= sample["available"]
  pictures = {path.name for path in (tmp_path / "figures").iterdir()}
  assert pictures == {f"vanishing_head_{i}.png" for i in range(found["num_images"])}
  printed = "\n".join(vanishing_head.tell(found, tmp_path))
  assert "Vanishing head" in printed
  assert f"{sample['available']} test images, {sample['correct']} classified correctly" in printed


def test_a_number_that_makes_no_sense_is_said(open_with, tmp_path):
  with pytest.raises(InputError, match="num_steps=-1"):
    vanishing_head.measure(open_with(num_steps=-1), tmp_path)
  assert not list(tmp_path.iterdir())
