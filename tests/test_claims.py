"""Verdicts follow from intervals alone, and every claim has the numbers that it rests on."""

import re

import numpy as np
import pytest
import study_results
from study_results import accuracies, alteration, drift, head_on_stomach, mean, rates, share

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.experiments.experiment import record_kinds
from jprotop.experiments.pages import all_claims
from jprotop.prototypes.accuracy import packed, unpacked
from jprotop.report import verdicts
from jprotop.runs.records import FORM, check_results


@pytest.mark.parametrize(
  ("interval", "wanted"),
  [
    ([0.1, 0.3], "holds"),
    ([0.001, 0.3], "holds"),
    ([-0.1, 0.3], "undecided"),
    ([-0.3, -0.1], "reversed"),
    ([-0.3, -0.021], "reversed"),
    # A little on the other side is no reversal: it is too small to matter, or not known.
    ([-0.3, -0.01], "undecided"),
    ([-0.019, 0.019], "no difference"),
    ([-0.015, -0.005], "no difference"),
    ([0.0, 0.0], "no difference"),
    # Ends that touch decide nothing.
    ([0.0, 0.3], "undecided"),
    ([-0.3, 0.0], "undecided"),
    ([-0.3, -0.02], "undecided"),
    ([-0.02, 0.01], "undecided"),
    (None, "undecided"),
  ],
)
@pytest.mark.parametrize(
  ("threshold", "direction"), [(0.0, "above"), (0.0, "below"), (0.5, "above")]
)
def test_decide(interval, wanted, threshold, direction):
  if interval and direction == "below":
    interval = [-end for end in reversed(interval)]
  if interval and threshold:
    # Moved by 1/2, with ends and margin in binary fractions, so that nothing is rounded.
    interval = [round(end * 1024) / 1024 + threshold for end in interval]
  margin = round(0.02 * 1024) / 1024 if threshold else 0.02
  assert statistics.decide(interval, threshold, direction, margin) == wanted


def test_without_a_margin_nothing_is_equal():
  assert statistics.decide([-0.1, -0.001], 0, "above", 0) == "reversed"
  assert statistics.decide([-0.001, 0.001], 0, "above", 0) == "undecided"


def test_decide_refuses_other_directions():
  with pytest.raises(ValueError, match="above or below"):
    statistics.decide([0, 1], 0.5, "over", 0)


OURS = [
  "They drop more than in the network that never saw artefacts (control)",
  "It raises accuracy under attack",
  "Altering training images at random takes away most of the drop in similarity",
  "Altering training images at random closes most of the gap in accuracy",
]


def check_claims(*rows):
  check_results({"form": FORM, "claims": list(rows)}, record_kinds(), "results.json")


def by_claim(results):
  return {row["claim"]: row for row in all_claims(results)}


def test_all_claims_of_the_paper_hold_where_the_numbers_are_the_papers():
  rows = all_claims(study_results.study())
  assert len({row["claim"] for row in rows}) == len(rows) == 20
  assert [row["claim"] for row in rows if row["verdict"] != "holds"] == []
  assert [row["claim"] for row in rows if row["ours"]] == OURS
  order = ["Section 3", "Section 4", "App. D.2", "App. E", "App. F.1", "App. F.2"]
  assert list(dict.fromkeys(row["section"] for row in rows)) == order


def test_evidence_names_counts_intervals_and_thresholds():
  rows = by_claim(study_results.study())
  moved = rows["Noise that nobody sees moves where a prototype is found, and the prediction stays"]
  assert "85.0% (17/20; 95% CI 64.0-94.8%)" in moved["evidence"]
  assert "0.0% (0/20; 95% CI 0.0-16.1%)" in moved["evidence"]
  assert moved["quantity"] == pytest.approx(0.85)
  low, high = moved["interval"]
  assert 0.5 < low < 0.85 < high <= 1
  high_similarity = rows["That similarity is high among all similarities"]
  assert high_similarity["threshold"] == 0.95
  assert "the threshold is ours" in high_similarity["evidence"]
  assert "share of them below 4: 0.999 (n = 100; 95% CI" in high_similarity["evidence"]
  drop = rows["Similarities drop when the artefacts are removed"]["evidence"]
  assert "the reverse drop, clean minus altered: 2.500 (n = 100; 95% CI" in drop
  assert "tends to make both drops positive" in drop
  unresolved = rows["It does not resolve the problem completely"]
  assert (unresolved["quantity"], unresolved["threshold"]) == (0.3, 0.95)
  assert "altered minus clean: 0.400 (n = 100; 95% CI" in unresolved["evidence"]


def test_differences_use_the_interval_of_both_sides():
  results = study_results.study()
  rows = by_claim(results)
  row = rows["Adversarial training reduces the success rate by more than half (protocol authors)"]
  adversarial, standard = share(54, 200), share(186, 200)
  assert row["quantity"] == pytest.approx(0.27 - 0.5 * 0.93)
  wanted = statistics.difference_interval(adversarial, standard, factor=0.5)
  assert row["interval"] == pytest.approx(wanted)


@pytest.mark.parametrize(
  ("change", "claim", "wanted"),
  [
    (
      {"success_rate": {"standard": {"paper": rates(100)}, "adversarial": {"paper": rates(99)}}},
      "Adversarial training reduces the success rate by more than half (protocol paper)",
      "reversed",
    ),
    (
      {"success_rate": {"adversarial": {"paper": rates(6, control=5)}}},
      "It does not alleviate the problem entirely (protocol paper)",
      "no difference",
    ),
    (
      {"success_rate": {"adversarial": {"paper": rates(10, control=5)}}},
      "It does not alleviate the problem entirely (protocol paper)",
      "undecided",
    ),
    (
      {"alteration": {"altered": alteration(0.0)}},
      "Similarities drop when the artefacts are removed",
      "no difference",
    ),
    (
      {
        "alteration": {
          "altered": alteration(0.2),
          "standard": alteration(0.6),
        }
      },
      "They drop more than in the network that never saw artefacts (control)",
      "reversed",
    ),
    # However much similarity drops: the same prototypes stay on top.
    (
      {"alteration": {"remedied": alteration(1.5, top_kept=99)}},
      "It does not resolve the problem completely",
      "undecided",
    ),
    (
      {"alteration": {"remedied": alteration(0.4, top_kept=100)}},
      "It does not resolve the problem completely",
      "undecided",
    ),
    (
      {"accuracy": {"altered": accuracies(820, 700)}},
      "Accuracy falls on the original test set",
      "reversed",
    ),
    # Nothing to close is no success of the remedy, however small what is left.
    (
      {"accuracy": {"altered": accuracies(800, 800), "remedied": accuracies(800, 700)}},
      "Altering training images at random closes most of the gap in accuracy",
      "undecided",
    ),
    (
      {"head_on_stomach": {"standard": head_on_stomach(share_below_attacked=mean(0.9, half=0.02))}},
      "That similarity is high among all similarities",
      "reversed",
    ),
  ],
)
def test_claims_that_do_not_hold(change, claim, wanted):
  rows = by_claim({**study_results.study(), **change})
  assert rows[claim]["verdict"] == wanted


@pytest.mark.parametrize(
  ("left", "wanted", "direction"),
  [
    (0.4, "holds", "below"),
    (-0.4, "holds", "below"),
    (0.9, "reversed", "below"),
    (0.5, "no difference", "below"),
    (-0.5, "no difference", "above"),
    (-0.9, "reversed", "above"),
    (-3.0, "reversed", "above"),
  ],
)
def test_a_gap_that_opens_on_the_other_side_is_not_closed(left, wanted, direction):
  drifts = {"altered": alteration(1.0), "remedied": alteration(left)}
  row = by_claim({"alteration": drifts})[
    "Altering training images at random takes away most of the drop in similarity"
  ]
  assert (row["verdict"], row["direction"]) == (wanted, direction)
  # What the row shows is what decided it.
  sign = 1 if direction == "above" else -1
  assert row["quantity"] == pytest.approx(left + sign * 0.5)
  assert row["verdict"] == statistics.decide(row["interval"], 0, direction, row["margin"])
  assert f"the first {'plus' if sign > 0 else 'minus'} 0.5 x the second" in row["evidence"]
  check_claims(row)


def test_the_control_of_the_drop_is_the_standard_network_on_the_same_images():
  results = study_results.study()
  drifts = results["alteration"]
  drifts["altered"]["selections"]["altered_classes"] = drift(1.5)
  drifts["standard"]["selections"]["altered_classes"] = drift(0.25)
  assert by_claim(results)[OURS[0]]["quantity"] == pytest.approx(1.25)
  del drifts["standard"]
  assert OURS[0] not in by_claim(results)


@pytest.mark.parametrize("ours", [None, "no", 1])
def test_whether_a_claim_is_ours_is_a_bool(ours):
  (row, *_) = all_claims(study_results.study())
  check_claims(row)
  with pytest.raises(InputError, match=r"claims\[0\]\.ours: Expected `bool`, got"):
    check_claims({**row, "ours": ours})
  del row["ours"]
  with pytest.raises(InputError, match=r"claims\[0\]: .* missing required field `ours`"):
    check_claims(row)


def test_a_claim_without_its_section_is_left_out():
  results = study_results.study()
  del results["accuracy"]["adversarial"], results["success_rate"], results["alteration"]
  del results["strong_attack"]
  assert {row["section"] for row in all_claims(results)} == {"Section 3", "App. E", "App. F.2"}
  assert all_claims({}) == []


def test_numbers_of_no_image_decide_nothing():
  names = ("altered", "standard", "remedied")
  empty = {name: alteration(1.0) for name in names}
  for numbers in empty.values():
    for selection in numbers["selections"].values():
      for name, metric in selection.items():
        if name != "num_images":
          selection[name] = statistics.share([]) if "count" in metric else statistics.mean([])
  rows = all_claims({"alteration": empty})
  assert len(rows) == 6
  assert {row["verdict"] for row in rows} == {"undecided"}
  assert all("n/a (" in row["evidence"] for row in rows)
  assert {row["quantity"] for row in rows} == {None}


@pytest.mark.parametrize(
  ("numbers", "wanted"),
  [
    (statistics.mean([2.5]), "undecided"),
    (statistics.mean([2.4, 2.6] * 4), "undecided"),
    (statistics.mean([2.4, 2.6] * 5), "holds"),
    (statistics.mean([2.5] * 50), "undecided"),
    (statistics.mean([0.0] * 50), "undecided"),
    (share(50, 50), "holds"),
    (share(9, 9), "holds"),
  ],
)
def test_a_mean_of_few_or_equal_values_decides_nothing(numbers, wanted):
  (row,) = verdicts.of_metric("It is so", "Section 3", ("number", numbers), verdicts.Rule(0.1))
  assert row["verdict"] == wanted
  assert ("left undecided" in row["evidence"]) == (wanted == "undecided")
  (row,) = verdicts.of_difference(
    "So", "Section 3", ("a", numbers), ("b", mean(0.1)), verdicts.Rule(0.1), factor=0.5
  )
  assert row["verdict"] == wanted


@pytest.mark.parametrize(
  ("values", "missing"),
  [
    ([2.5], "over 1 image, and at least 10 are needed; measure more"),
    ([2.4, 2.6], "over 2 images, and at least 10 are needed; measure more"),
    ([], "there is no such image; measure more"),
    ([2.5] * 50, "all 50 images have the same value, .* measure more"),
  ],
)
def test_an_open_verdict_says_what_is_missing_and_what_to_do(values, missing):
  numbers = ("number", statistics.mean(values))
  for (row,) in (
    verdicts.of_metric("It is so", "Section 3", numbers, verdicts.Rule(0.1)),
    verdicts.of_difference(
      "It is so", "Section 3", numbers, ("other", mean(0.1)), verdicts.Rule(0.1)
    ),
  ):
    assert re.search(missing, row["evidence"])
    assert ("no interval" in row["evidence"]) == (len(values) == 1)


# --- accuracies, image by image


def test_accuracies_are_compared_image_by_image():
  """21 images are right after standard training alone, 1 after the other: 20 of 1000 less."""
  results = study_results.study()
  standard, adversarial = (
    results["accuracy"][name]["test"] for name in ("standard", "adversarial")
  )
  right = np.arange(1000) < 800
  other = right.copy()
  other[:21], other[900] = False, True
  for record, hits in ((standard, right), (adversarial, other)):
    record["hits"]["clean"], record["clean"] = packed(hits), statistics.share(hits)
  row = by_claim(results)["It comes at a drop in accuracy on the test set"]
  assert row["quantity"] == pytest.approx(0.02)
  assert row["interval"] == list(statistics.tango_interval(21, 1, 1000))
  assert row["p"] == pytest.approx(2 * (1 + 22) / 2**22)  # binomial, 1 of 22 or fewer, twice
  assert row["verdict"] == "holds"
  check_claims(row)


def test_one_discordant_image_refutes_nothing():
  """The bootstrap's upper end was exactly 0 then, and the claim refuted."""
  results = study_results.study()
  results["accuracy"]["altered"] = accuracies(801, 800)
  row = by_claim(results)["Accuracy falls on the original test set"]
  assert row["verdict"] == "no difference"


def test_holms_p_is_adjusted_for_all_claims_that_have_one():
  rows = [row for row in all_claims(study_results.study()) if "p" in row]
  assert len(rows) == 5
  wanted = statistics.holm([row["p"] for row in rows])
  assert [row["p_holm"] for row in rows] == list(wanted)
  check_claims(*rows)


def test_hits_are_packed_and_unpacked():
  hits = np.random.default_rng(0).random(37) < 0.5
  assert (unpacked(packed(hits), 37) == hits).all()
  assert (unpacked(packed(hits[:0]), 0) == hits[:0]).all()
