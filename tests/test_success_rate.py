"""The success rate's numbers, and the command that measures it."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from jprotop.attacks.cases import RULES, Rules, draw_correct
from jprotop.attacks.in_turn import Outcome, Outcomes, Subjects
from jprotop.data.own_images import Images
from jprotop.data.parts import GROUPS, PARTS
from jprotop.errors import InputError
from jprotop.experiments import displacement, success_numbers, success_rate
from jprotop.experiments.experiment import Beside
from jprotop.prototypes import accuracy
from jprotop.runs import run as runs
from jprotop.runs.records import check_record

GRID, SIZE = (4, 4), 32


def hot(row, column):
  """A map whose box of high activation lies in one cell."""
  ys, xs = np.mgrid[: GRID[0], : GRID[1]]
  return (5 - np.hypot(ys - row, xs - column) - 0.01 * ys - 0.001 * xs).astype(np.float32)


# The beak in the first cell, the belly in the last.
BIRD = np.zeros((len(PARTS), 3), np.float32)
BIRD[PARTS.index("beak")], BIRD[PARTS.index("belly")] = (2, 2, 1), (29, 29, 1)
UNKNOWN = np.zeros_like(BIRD)
BIRDS = np.stack([BIRD] * 5)


def always(attackable):
  """The same images are attackable with one, two and three prototypes."""
  return np.repeat(np.array(attackable)[:, None], 3, axis=1)


def made(points=BIRDS):
  """Five images: successes at rank 0, 1 and 2 (class lost in the second), a failure, and one that
  was left out although an attack on it had succeeded."""
  images = Images(np.zeros((5, SIZE, SIZE, 3), np.float32), list("abcde"), np.zeros(5, int), points)
  subjects = Subjects(
    images=images,
    index=np.arange(5),
    prediction=np.array([2, 2, 0, 1, 1]),
    prototypes=10 * np.arange(5)[:, None] + np.arange(3),
    maps=np.stack([np.stack([hot(0, 0), hot(3, 3), hot(0, 3)])] * 5),
  )
  outcome = Outcome(
    attackable_within=always([True, True, True, True, False]),
    num_tried=np.array([1, 2, 3, 3, 1]),
    rank=np.array([0, 1, 2, -1, 0]),
    map=np.stack([hot(3, 3), hot(3, 0), hot(0, 0), 0 * hot(0, 0), hot(3, 3)]),
    prediction=np.array([2, 0, 0, -1, 1]),
    margin=np.array([1.0, 2.0, 3.0, 0.0, 1.0]),
  )
  # Going on until the class is kept leads to nothing on image 1.
  kept = dataclasses.replace(
    outcome,
    rank=np.array([0, -1, 2, -1, 0]),
    num_tried=np.array([1, 3, 3, 3, 1]),
    map=np.stack([hot(3, 3), 0 * hot(0, 0), hot(0, 0), 0 * hot(0, 0), hot(3, 3)]),
    prediction=np.array([2, -1, 0, -1, 1]),
    margin=np.array([1.0, 0.0, 3.0, 0.0, 1.0]),
  )
  return subjects, Outcomes(outcome, kept)


def both(outcome):
  return Outcomes(outcome, outcome)


def counted(share):
  return share["count"], share["total"]


def test_rates_count_attackable_images_within_the_first_k():
  subjects, outcomes = made()
  nobody = dataclasses.replace(outcomes.moved, rank=np.full(5, -1))
  found = success_numbers.summarise(subjects, outcomes, both(nobody))
  assert (found["num_images"], found["num_not_attackable"], found["top_k"]) == (4, 1, 3)
  assert {k: counted(s) for k, s in found["rate_at"].items()} == {
    "1": (1, 4), "2": (2, 4), "3": (3, 4)
  }  # fmt: skip
  assert counted(found["prediction_kept"]) == (2, 3)
  assert counted(found["success_and_prediction_kept"]) == (2, 4)
  assert {counted(s) for s in found["control"]["rate_at"].values()} == {(0, 4)}
  assert {k: counted(s) for k, s in found["kept"]["rate_at"].items()} == {
    "1": (1, 4), "2": (1, 4), "3": (2, 4)
  }  # fmt: skip
  # The image that was left out as a failure.
  assert {k: counted(s) for k, s in found["rate_of_all_at"].items()} == {
    "1": (1, 5), "2": (2, 5), "3": (3, 5)
  }  # fmt: skip
  assert found["images"] == {
    "index": [0, 1, 2, 3, 4],
    "moved": [1, 2, 3, 0, None],
    "kept": [1, 0, 3, 0, None],
    "control_moved": [0, 0, 0, 0, None],
    "control_kept": [0, 0, 0, 0, None],
  }


def test_the_control_is_counted_over_its_own_images():
  subjects, outcomes = made()
  few = dataclasses.replace(
    outcomes.moved,
    attackable_within=always([True, True, False, False, False]),
    rank=np.array([1, -1, 0, -1, -1]),
  )
  found = success_numbers.summarise(subjects, outcomes, both(few))["control"]
  assert {k: counted(s) for k, s in found["rate_at"].items()} == {
    "1": (0, 2), "2": (1, 2), "3": (1, 2)
  }  # fmt: skip
  assert found["num_not_attackable"] == 3


def test_each_k_counts_over_the_images_that_k_prototypes_leave_to_attack():
  subjects, (outcome, _) = made()
  # Images 0 to 2 succeed; 3 fails and is dropped at prototype 3; 4 has nothing to attack before.
  within = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 0, 1]], bool)
  outcome = dataclasses.replace(outcome, attackable_within=within, rank=np.array([0, 1, 2, -1, 2]))
  found = success_numbers.summarise(subjects, both(outcome), both(outcome))
  assert {k: counted(s) for k, s in found["rate_at"].items()} == {
    "1": (1, 4), "2": (2, 4), "3": (4, 4)
  }  # fmt: skip
  # Both bounds: the dropped image left out, and as a failure.
  assert {k: counted(s) for k, s in found["rate_of_all_at"].items()} == {
    "1": (1, 5), "2": (2, 5), "3": (4, 5)
  }  # fmt: skip
  assert (found["num_images"], found["num_not_attackable"]) == (4, 1)


def test_nothing_attackable_is_no_number_and_no_error():
  subjects, (outcome, _) = made()
  nothing = both(
    dataclasses.replace(outcome, attackable_within=always([False] * 5), rank=np.full(5, -1))
  )
  found = success_numbers.summarise(subjects, nothing, nothing)
  assert found["num_images"] == 0 and found["rate_at"]["3"]["value"] is None
  assert json.dumps(found, allow_nan=False)


def test_how_far_the_successes_that_keep_the_class_moved():
  """Image 0 from the beak's cell to the belly's, image 2 from (0, 3), no part, to the beak's."""
  found = success_numbers.summarise(*made(), made()[1])["displacement"]
  assert found["distance_cells"]["value"] == pytest.approx((np.hypot(3, 3) + 3) / 2)
  assert found["distance_share"]["value"] == pytest.approx((np.hypot(3, 3) + 3) / 2 / 4)
  assert found["margin"]["value"] == pytest.approx(2)
  assert counted(found["off_part"]) == (1, 1)  # image 2 sat on none
  assert counted(found["off_bird"]) == (0, 0)  # two points are no outline


def test_off_the_bird_is_outside_of_the_hull_of_its_parts():
  bird = BIRD.copy()
  bird[PARTS.index("tail")] = (2, 29, 1)  # lower left: the upper right corner is off
  found = success_numbers.summarise(*made(np.stack([bird] * 5)), made()[1])["displacement"]
  assert counted(found["off_bird"]) == (0, 2)
  maps = np.stack([hot(0, 3), hot(3, 3), hot(3, 0), hot(1, 1)])
  assert displacement.off_bird(maps, np.stack([bird] * 4), SIZE).tolist() == [True] + [False] * 3


def test_from_which_part_to_which():
  subjects, (outcome, _) = made()
  parts = success_numbers.count_parts(subjects, outcome)
  assert parts["groups"] == [*GROUPS, "background"]
  moved = {
    (parts["groups"][y], parts["groups"][x]): count
    for (y, x), count in np.ndenumerate(parts["counts"])
    if count
  }
  # Image 4 is not attackable, so that it is not counted.
  assert moved == {
    ("head", "stomach"): 1, ("stomach", "background"): 1, ("background", "head"): 1
  }  # fmt: skip


def test_images_without_annotated_parts_have_no_part():
  subjects, (outcome, _) = made(np.stack([UNKNOWN] * 5))
  assert success_numbers.count_parts(subjects, outcome) is None
  subjects, (outcome, _) = made(np.stack([BIRD, *[UNKNOWN] * 4]))
  parts = success_numbers.count_parts(subjects, outcome)
  assert np.sum(parts["counts"]) == 1
  rows = success_numbers.per_image(*made(np.stack([BIRD, *[UNKNOWN] * 4])))
  assert [row["to_part"] for row in rows] == ["stomach", None, None, None, None]


def test_a_row_an_image():
  rows = success_numbers.per_image(*made())
  assert rows[1] == {
    "image_id": "b",
    "attackable": True,
    "prototypes_tried": 2,
    "success_at": 2,
    "prototype": 11,
    "from_part": "stomach",
    "to_part": "background",
    "prediction_kept": False,
    "success_with_class_kept_at": None,
    "margin": None,
  }
  assert (rows[2]["success_with_class_kept_at"], rows[2]["margin"]) == (3, 3.0)
  assert (rows[3]["success_at"], rows[3]["prototype"], rows[3]["prediction_kept"]) == (None,) * 3
  assert [row["attackable"] for row in rows] == [True] * 4 + [False]


def test_the_ablation_switches_on_each_difference_that_matters_alone():
  switched = [
    {name for name, value in vars(rules).items() if value}
    for rules in success_numbers.ABLATION.values()
  ]
  assert [s for s in switched if len(s) > 1] == [{"rectangular_target", "drop_shared_cells"}]
  assert set.union(*switched) == vars(Rules()).keys()
  assert len(switched) == len({frozenset(s) for s in switched})


def test_images_that_are_drawn_are_correct_and_the_seed_says_which():
  label = np.arange(40) % 2
  logits = np.eye(2)[label]
  logits[::4] = 1 - logits[::4]  # every fourth is wrong
  drawn, correct = draw_correct(logits, label, 10, seed=0)
  assert len(drawn) == 10 and (np.diff(drawn) > 0).all() and (drawn % 4 > 0).all()
  assert correct == 30
  assert (drawn == draw_correct(logits, label, 10, seed=0)[0]).all()
  assert (drawn != draw_correct(logits, label, 10, seed=1)[0]).any()
  # Where there are fewer: all of them.
  every, correct = draw_correct(logits, label, 100, seed=0)
  assert every.tolist() == [i for i in range(40) if i % 4] and correct == 30
  other = np.arange(40) < 6
  both, correct = draw_correct(logits, label, 100, seed=0, also_correct=other)
  assert both.tolist() == [1, 2, 3, 5] and correct == 4
  for arguments, message in (
    ({"count": 0}, "num_images=0 must be at least 1"),
    ({"also_correct": np.zeros(40, bool)}, "by both networks"),
    ({"also_correct": np.ones(3, bool)}, "about 3 images, but there are 40"),
    ({"logits": 1 - np.eye(2)[label]}, "no test image correctly"),
  ):
    with pytest.raises(InputError, match=message):
      draw_correct(
        **{"logits": logits, "label": label, "count": 5, "seed": 0, "also_correct": None}
        | arguments
      )


# --- the command


@pytest.fixture
def open_with(run, monkeypatch):
  """Opens the tiny run's standard network, with changes of config.measure."""
  monkeypatch.setenv("JPROTOP_CACHE", str(run[1]))
  return lambda **changes: runs.open_run(
    run[0], changes={f"measure.{key.replace('__', '.')}": v for key, v in changes.items()}
  )


def read_rows(path):
  return list(csv.DictReader(path.read_text().splitlines()))


def test_measure_writes_both_protocols_and_the_ablation(open_with, run, tmp_path):
  trained = open_with(success_rate__top_k=2, attack__num_steps=1)
  found = success_rate.measure(trained, tmp_path, ablation=True, also_correct=str(run[0]))
  check_record(found, success_numbers.SuccessRate, "success_rate")
  assert json.dumps(found, allow_nan=False)
  printed = "\n".join(success_rate.tell(found, tmp_path))
  for name in RULES:
    numbers = found[name]
    asked = numbers["num_images"] + numbers["num_not_attackable"] + numbers["num_fewer_than_asked"]
    assert asked == trained.config["measure"]["success_rate"]["num_images"]
    assert numbers["rate_at"].keys() == {"1", "2"} and numbers["budget"]["num_steps"] == 1
    rows = read_rows(tmp_path / f"success_rate_{name}.csv")
    successes = [r for r in rows if r["attackable"] == "True" and r["success_at"]]
    assert len(successes) == numbers["rate_at"]["2"]["count"]
    assert f"protocol {name}, {numbers['num_images']} images" in printed
  assert (tmp_path / "figures/success_at_k.png").exists()
  rows = {row["setting"]: row for row in found["ablation"]}
  assert [*rows][:1] + [*rows][-1:] == ["paper", "authors"]
  assert len(rows) == len(success_numbers.ABLATION) + 3
  for name in RULES:
    assert rows[name]["rate"] == found[name]["rate_at"]["2"]
    assert rows[name]["rate_first"] == found[name]["rate_at"]["1"]
    assert rows[name]["prediction_kept"] == found[name]["prediction_kept"]
    assert rows[name]["kept"] == found[name]["kept"]["rate_at"]["2"]


def test_measure_takes_one_protocol_and_images_that_another_network_gets_right(
  open_with, tmp_path, monkeypatch
):
  trained = open_with(success_rate__top_k=1, attack__num_steps=0)
  split = trained.seen.test
  size = trained.config["compute"]["evaluation_batch_size"]
  right = np.flatnonzero(accuracy.correct(trained.network, split, batch_size=size))
  # As if the other network of a study got no more than two of them right.
  other = np.zeros(len(split), bool)
  other[right[:2]] = True
  monkeypatch.setattr(success_rate.accuracy, "correct", lambda *_, **__: other)
  found = success_rate.measure(
    trained, tmp_path, protocol="authors", beside=Beside(runs={"adversarial": trained})
  )
  assert found.keys() == {"authors"}
  rows = read_rows(tmp_path / "success_rate_authors.csv")
  assert [row["image_id"] for row in rows] == [split.image_id[i] for i in right[:2]]
  sample = found["authors"]["sample"]
  assert (sample["correct"], sample["networks"], sample["taken"]) == (2, 2, 2)
  assert "2 classified correctly by both networks" in "\n".join(success_rate.tell(found, tmp_path))


def test_more_images_than_there_are_takes_all_and_says_so(open_with, tmp_path):
  trained = open_with(success_rate__num_images=1000, success_rate__top_k=1, attack__num_steps=0)
  found = success_rate.measure(trained, tmp_path, protocol="paper")["paper"]
  size = trained.config["compute"]["evaluation_batch_size"]
  right = accuracy.correct(trained.network, trained.seen.test, batch_size=size).sum()
  assert found["num_images"] + found["num_not_attackable"] == right
  assert found["num_fewer_than_asked"] == 1000 - right
  count = len(trained.seen.test)
  assert found["sample"] == {
    "asked": 1000, "available": count, "correct": right, "networks": 1, "taken": right
  }  # fmt: skip
  said = f"{count} test images, {right} classified correctly, {right} taken (1000 asked for)"
  assert said in "\n".join(success_rate.tell({"paper": found}, tmp_path))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"success_rate__top_k": 7}, "between 1 and 6"),
    ({"success_rate__num_images": 0}, "num_images=0"),
    ({"attack__eps": 2.0}, "eps=2"),
  ],
)
def test_what_makes_no_sense_is_said(open_with, tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    success_rate.measure(open_with(**changes), tmp_path)
  assert not list(tmp_path.rglob("*.png"))
