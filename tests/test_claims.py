"""Verdicts follow from intervals alone, and every claim has the numbers that it rests on."""

import re

import numpy as np
import pytest
import study_results
from study_results import (
  accuracies,
  alteration,
  head_on_stomach,
  mean,
  rates,
  robustness,
  share,
)

from jprotop import statistics
from jprotop.errors import InputError
from jprotop.experiments.experiment import record_kinds
from jprotop.experiments.pages import all_claims, claim_rows, study_summary
from jprotop.prototypes.accuracy import packed, packed_numbers, unpacked, unpacked_numbers
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
  "Artefacts raise the similarity to prototypes of altered classes (no prototype is picked)",
  "They raise it more than in the network that never saw artefacts (control)",
  "Fewer of them remain than in the network that never saw artefacts (control)",
  "It falls by more than that of the network that never saw artefacts (control)",
  "It raises accuracy under attack",
  "Altering training images at random takes away most of the drop in similarity",
  "Altering training images at random closes most of the gap in accuracy",
]


MOVES = "Noise that nobody sees can move where a prototype is found, and the prediction stays"
HIGHER = (
  "Where it succeeds, the similarity at the wrong place is even higher than on the clean image"
)
ORDER = (
  "They do not simply scale down: the order of the top prototypes changes more often than in the "
  "network that never saw artefacts"
)
UNRESOLVED = (
  "It does not resolve the problem completely: artefacts change the top prototype more often than "
  "in the network that never saw artefacts"
)


def check_claims(*rows):
  check_results({"form": FORM, "claims": list(rows)}, record_kinds(), "results.json")


def by_claim(results):
  return {row["claim"]: row for row in all_claims(results)}


def test_all_claims_of_the_paper_hold_where_the_numbers_are_the_papers():
  rows = all_claims(study_results.study())
  assert len({row["claim"] for row in rows}) == len(rows) == 24
  assert [row["claim"] for row in rows if row["verdict"] != "holds"] == []
  assert [row["claim"] for row in rows if row["ours"]] == OURS
  order = ["Section 3", "Section 4", "App. D.2", "App. E", "App. F.1", "App. F.2"]
  assert list(dict.fromkeys(row["section"] for row in rows)) == order


def test_evidence_names_counts_intervals_and_thresholds():
  rows = by_claim(study_results.study())
  moved = rows[MOVES]
  assert "85.0 points (n = 20; 95% CI" in moved["evidence"]
  assert "17 images count for the first alone, 0 for the second alone" in moved["evidence"]
  assert "85.0% (17/20; 95% CI 64.0-94.8%)" in moved["evidence"]
  assert "0.0% (0/20; 95% CI 0.0-16.1%)" in moved["evidence"]
  assert moved["quantity"] == pytest.approx(0.85)
  low, high = moved["interval"]
  assert 0.5 < low < 0.85 < high <= 1
  high_similarity = rows["Where it succeeds, that similarity is high for the prototype"]
  assert high_similarity["threshold"] == 0.95
  assert "the threshold is ours" in high_similarity["evidence"]
  assert "similarities below 4: 0.999 (n = 100; 95% CI" in high_similarity["evidence"]
  drop = rows["Similarities drop when the artefacts are removed"]["evidence"]
  assert "the reverse drop, clean minus altered: 2.500 (n = 100; 95% CI" in drop
  assert "tends to make both drops positive" in drop
  unresolved = rows[UNRESOLVED]
  assert (unresolved["quantity"], unresolved["threshold"]) == (0.65, 0)
  assert "with and without artefacts, remedied network: 30.0% (30/100" in unresolved["evidence"]
  assert "with and without artefacts, standard network: 95.0% (95/100" in unresolved["evidence"]


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
      {"success_rate": {"adversarial": {"paper": rates(20, control=27)}}},
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
        },
      },
      "They drop more than in the network that never saw artefacts (control)",
      "reversed",
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
      {
        "head_on_stomach": {
          "standard": head_on_stomach(success_share_below_own=mean(0.9, half=0.02))
        }
      },
      "Where it succeeds, that similarity is high for the prototype",
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
  assert row["quantity"] == pytest.approx(left + sign * 0.5, abs=1e-6)
  assert row["verdict"] == statistics.decide(row["interval"], 0, direction, row["margin"])
  assert f"the first {'plus' if sign > 0 else 'minus'} 0.5 x the second" in row["evidence"]
  check_claims(row)


def test_the_control_of_the_drop_is_the_standard_network_on_the_same_images():
  results = study_results.study()
  row = by_claim(results)[OURS[0]]
  drops = [
    unpacked_numbers(results["alteration"][name]["per_image"]["similarity_drop"])[:100]
    for name in ("altered", "standard")
  ]
  # Image by image: not what two independent means would have.
  assert row["interval"] == statistics.mean(drops[0] - drops[1])["interval"]
  assert row["quantity"] == pytest.approx(2.4)
  # Other classes, another k: there is nothing to compare.
  for change in ({"top_k": 3}, {"per_image": alteration(0.1)["per_image"] | {"altered_class": ""}}):
    other = results["alteration"] | {"standard": results["alteration"]["standard"] | change}
    assert OURS[0] not in by_claim({"alteration": other})
  del results["alteration"]["standard"]
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
  del results["robustness"], results["strong_attack"]
  assert {row["section"] for row in all_claims(results)} == {"Section 3", "App. E", "App. F.2"}
  assert all_claims({}) == []


def test_numbers_of_no_image_decide_nothing():
  names = ("altered", "standard", "remedied")
  empty = {name: alteration(1.0) for name in names}
  for numbers in empty.values():
    numbers["per_image"] = dict.fromkeys(numbers["per_image"], "")
    for selection in numbers["selections"].values():
      for name, metric in selection.items():
        if name != "num_images":
          selection[name] = statistics.share([]) if "count" in metric else statistics.mean([])
  rows = all_claims({"alteration": empty})
  assert len(rows) == 9
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
  assert len(rows) == 10
  wanted = statistics.holm([row["p"] for row in rows])
  assert [row["p_holm"] for row in rows] == list(wanted)
  check_claims(*rows)


# --- what the paper claims of successes, and of artefacts


def test_what_is_claimed_of_successes_is_decided_by_them():
  """Over all images the mean is below the clean maximum, since the noise often fails; where it
  succeeds it lies above. That was said not to hold."""
  metrics = head_on_stomach(
    exceeds_clean_maximum_by=mean(-1.143, half=0.7, total=37),
    share_below_attacked=mean(0.629, half=0.13, total=37),
    success_exceeds_clean_maximum_by=mean(1.02, half=0.4, total=14),
  )
  row = by_claim({"head_on_stomach": {"standard": metrics}})[HIGHER]
  assert row["verdict"] == "holds" and row["quantity"] == 1.02
  assert "over all attacked images, also where it failed: -1.143 (n = 37" in row["evidence"]
  check_claims(row)


@pytest.mark.parametrize(
  ("only_attack", "only_control", "wanted"),
  [(14, 0, "holds"), (1, 0, "undecided"), (0, 14, "reversed")],
)
def test_that_noise_can_do_it_is_decided_image_by_image(only_attack, only_control, wanted):
  difference = study_results.paired(only_attack, only_control, 37)
  found = head_on_stomach(success_minus_control=difference)
  row = by_claim({"head_on_stomach": {"standard": found}})[MOVES]
  assert row["verdict"] == wanted
  assert row["interval"] == list(statistics.tango_interval(only_attack, only_control, 37))
  assert row["p"] == statistics.mcnemar_p(only_attack, only_control)


@pytest.mark.parametrize(
  ("altered", "standard", "wanted"),
  [(8, 8, "no difference"), (8, 80, "holds"), (80, 8, "reversed")],
)
def test_an_order_that_changes_as_often_in_the_standard_network_is_no_finding(
  altered, standard, wanted
):
  """7.5% were kept on both, and that the order changes was said to hold."""
  drifts = {
    "altered": alteration(1.0, kept=altered),
    "standard": alteration(0.5, kept=standard),
  }
  row = by_claim({"alteration": drifts})[ORDER]
  assert row["verdict"] == wanted
  assert row["quantity"] == pytest.approx((standard - altered) / 100)
  assert ORDER not in by_claim({"alteration": {"altered": drifts["altered"]}})


@pytest.mark.parametrize(
  ("remedied", "standard", "wanted"),
  [(84, 84, "no difference"), (84, 100, "holds"), (100, 84, "reversed")],
)
def test_a_remedied_network_is_compared_with_the_standard_one(remedied, standard, wanted):
  """84% kept their top prototype, fewer than 95, as in a network that never saw artefacts."""
  drifts = {
    "standard": alteration(0.5, top_kept=standard),
    "remedied": alteration(0.4, top_kept=remedied),
  }
  assert by_claim({"alteration": drifts})[UNRESOLVED]["verdict"] == wanted


def test_a_success_by_protocol_paper_keeps_the_class():
  """What moved while the class was lost does not count: 90 of 200 in place of 190."""
  lost = rates(190) | {"kept": rates(91)["kept"]}
  lost["images"] = lost["images"] | {"kept": rates(91)["images"]["kept"]}
  standard = {"paper": rates(190), "authors": rates(190)}
  rows = by_claim({"success_rate": {"standard": standard, "adversarial": {"paper": lost}}})
  row = rows["Adversarial training reduces the success rate by more than half (protocol paper)"]
  assert row["quantity"] == pytest.approx(0.45 - 0.5 * 189 / 200)
  assert "with the first prototype alone" in row["evidence"]


def test_attack_and_control_are_compared_on_images_that_both_leave():
  """The control keeps 60 images that the attack drops, and would have succeeded on none."""
  found = rates(54, control=54, dropped=60)
  claim = "It does not alleviate the problem entirely (protocol authors)"
  robust = {"robustness": study_results.study()["robustness"]}
  row = by_claim({"success_rate": {"adversarial": {"authors": found}}, **robust})[claim]
  assert row["quantity"] == 0 and row["verdict"] == "no difference"
  for bound in (
    "38.6% (54/140",
    "27.0% (54/200",
    "without the 60 images that could not be attacked",
  ):
    assert bound in row["evidence"]
  # Over images of its own the control seemed to succeed on 54 of 200, the attack on 54 of 140.
  assert statistics.difference_interval(share(54, 140), share(54, 200))[0] > 0.01


def test_a_shift_over_all_prototypes_is_found_where_the_drop_is_not():
  """The standard network's drops are as large, but no shift is."""
  drifts = {"altered": alteration(0.5), "standard": alteration(0.5)}
  rng = np.random.default_rng(0)
  shift = 0.05 + 0.1 * rng.normal(size=200)
  drifts["altered"]["per_image"]["shift"] = packed_numbers(shift)
  drifts["standard"]["per_image"]["shift"] = packed_numbers(0.1 * rng.normal(size=200))
  rows = by_claim({"alteration": drifts})
  assert rows[OURS[0]]["verdict"] == "undecided"  # its interval has no width
  assert rows[OURS[2]]["verdict"] == "holds"
  assert f"{shift.mean():.3f} (n = 200" in rows[OURS[2]]["evidence"]  # of all test images


def test_a_fall_in_accuracy_is_compared_with_that_of_the_standard_network():
  """Both lose 60 of 1000 images: compression is hard, but nobody learnt to tell by it."""
  results = {"accuracy": {"altered": accuracies(760, 820), "standard": accuracies(740, 800)}}
  rows = by_claim(results)
  assert rows["Accuracy falls on the original test set"]["verdict"] == "holds"
  row = rows[OURS[4]]
  assert row["quantity"] == 0 and row["verdict"] == "no difference"


def test_each_row_says_what_difference_it_could_have_found():
  rows = all_claims(study_results.study())
  check_claims(*rows)
  for row in rows:
    low, high = row["interval"]
    assert row["detectable"] == pytest.approx((high - low) / 2 * (1.959964 + 0.841621) / 1.959964)


def test_what_is_detectable_is_found_in_eight_of_ten_samples():
  rng = np.random.default_rng(0)
  spread = 1 / np.sqrt(50)
  interval = (-1.959964 * spread, 1.959964 * spread)
  means = rng.normal(statistics.detectable(interval), spread, 20_000)
  assert np.mean(means + interval[0] > 0) == pytest.approx(0.8, abs=0.01)
  assert statistics.detectable(None) is None and statistics.detectable((0.5, 0.5)) is None


def test_numbers_are_packed_and_unpacked():
  values = np.random.default_rng(0).normal(size=7).astype(np.float32)
  assert (unpacked_numbers(packed_numbers(values)) == values).all()
  assert unpacked_numbers("").shape == (0,)


def test_hits_are_packed_and_unpacked():
  hits = np.random.default_rng(0).random(37) < 0.5
  assert (unpacked(packed(hits), 37) == hits).all()
  assert (unpacked(packed(hits[:0]), 0) == hits[:0]).all()


# --- what a claim takes for granted


ABOUT_ROBUST_NETWORKS = [
  "Adversarial training reduces the success rate by more than half (protocol paper)",
  "Adversarial training reduces the success rate by more than half (protocol authors)",
  "It does not alleviate the problem entirely (protocol paper)",
  "It does not alleviate the problem entirely (protocol authors)",
  "Adversarial training reduces the success rate by more than half (strong attack)",
  "It does not alleviate the problem entirely (strong attack)",
  "It comes at a drop in accuracy on the test set",
]


UNLIKE = "the networks were not attacked alike"


@pytest.mark.parametrize(
  ("adversarial", "reason"),
  [
    # 10 of 200 images more: the interval's lower end is below 5 points.
    (robustness(116, 60, 10), "this network is not robust"),
    # PGD does not count, whatever it says.
    (robustness(116, 100, 2), "this network is not robust"),
    (None, "robustness was not measured"),
    ({**robustness(116, 48, 40), "eps": 4 / 255}, UNLIKE),
    ({**robustness(116, 48, 40), "images": list(range(1, 201))}, UNLIKE),
    ({**robustness(116, 48, 40), "num_steps": 2}, UNLIKE),
  ],
)
def test_claims_of_adversarial_training_are_untested_unless_it_made_the_network_robust(
  adversarial, reason
):
  results = study_results.study()
  if adversarial is None:
    del results["robustness"]["adversarial"]
  else:
    results["robustness"]["adversarial"] = adversarial
  rows = all_claims(results)
  untested = [row["claim"] for row in rows if row["verdict"] == "untested"]
  assert untested == ABOUT_ROBUST_NETWORKS
  check_claims(*rows)
  row = by_claim(results)[untested[0]]
  assert row["premise"]["reason"] == reason and row["evidence"].endswith(f": {reason}")
  # What was measured stands there all the same.
  assert "14.5% (29/200; 95% CI" in row["evidence"]
  assert "p_holm" not in by_claim(results)[untested[-1]]
  shown = {claim["claim"]: claim["verdict"] for claim in claim_rows({"claims": rows})}
  assert shown[untested[0]] == f"untested: {reason}"
  summary = study_summary({**results, "claims": rows})
  assert "7 are untested" in summary and "9 hold here" in summary


def test_the_premise_is_the_paired_difference_under_the_worst_attack():
  results = study_results.study()
  claim = by_claim(results)[ABOUT_ROBUST_NETWORKS[0]]
  assert claim["verdict"] == "holds" and claim["premise"]["reason"] == ""
  assert claim["premise"]["quantity"] == pytest.approx(0.2)
  assert claim["premise"]["interval"] == list(statistics.tango_interval(40, 0, 200))
  assert "20.0 points (n = 200; 95% CI" in claim["evidence"]
  assert "untested" not in study_summary({**results, "claims": all_claims(results)})


def test_a_verdict_goes_with_its_premise():
  row = by_claim(study_results.study())[ABOUT_ROBUST_NETWORKS[0]]
  with pytest.raises(InputError, match="premise says otherwise"):
    check_claims({**row, "verdict": "untested"})
  with pytest.raises(InputError, match="does not go with the interval"):
    check_claims({**row, "premise": {**row["premise"], "reason": "because"}})
  unmet = {**row["premise"], "interval": (0.04, 0.3), "reason": "because"}
  with pytest.raises(InputError, match="premise says otherwise"):
    check_claims({**row, "premise": unmet})
  check_claims({**row, "premise": unmet, "verdict": "untested"})
