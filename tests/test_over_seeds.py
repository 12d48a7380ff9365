"""Every number of every experiment over several studies: its mean, its spread, each value."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from study_results import share, study

from jprotop import statistics
from jprotop.experiments import EXPERIMENTS, Experiment, collect, collected_page, over_seeds, pages
from jprotop.experiments.experiment import record_kinds
from jprotop.prototypes.accuracy import packed
from jprotop.report import seed_charts
from jprotop.runs.records import check_results


def with_claims(seed=0, draw=None, **options):
  """A study with its claims; `draw` is the seed that its altered classes are drawn from."""
  results = study(seed=seed, **options)
  if draw is not None:
    for part in ("train", "measure"):
      section = results["config"][part]
      section["alteration"] = {**section["alteration"], "seed": draw}
  return {**results, "claims": pages.all_claims(results)}


def found_in(factor, experiment, network, number):
  """The one row of a number."""
  rows = [row for row in factor["numbers"] if row["number"] == number]
  (row,) = [r for r in rows if (r["experiment"], r["network"]) == (experiment, network)]
  return row


def test_numbers_of_every_section_and_network_are_merged():
  found = collect.collect([(f"seed{seed}", with_claims(seed, more=10 * seed)) for seed in range(3)])
  check_results(found, record_kinds(), "results.json")
  (factor,) = found["factors"]
  measured = set(EXPERIMENTS) & study().keys()
  assert {row["experiment"] for row in factor["numbers"]} == measured
  row = found_in(factor, "accuracy", "remedied", "test.clean")
  assert row["values"] == {"seed0": 0.77, "seed1": 0.78, "seed2": 0.79}
  assert row["over"]["value"] == pytest.approx(0.78) and row["over"]["unit"] == "share"
  assert row["over"]["interval"] == pytest.approx([0.78 - 0.0248414, 0.78 + 0.0248414], abs=1e-6)
  # A mean has no bounds, and a difference of shares those of one.
  assert found_in(factor, "alteration", "altered", "selections.all.similarity_drop")["over"]["unit"]
  difference = found_in(factor, "accuracy", "altered", "test.altered_minus_clean")["over"]
  assert difference["unit"] == "points" and difference["value"] == pytest.approx(0.35)
  # An entry of a list by what it is called, settings not at all.
  found_in(factor, "head_on_stomach", "standard", "movements[head, stomach].moved_to_target")
  assert not any("eps" in row["number"] or "seed" in row["number"] for row in factor["numbers"])


def test_an_experiment_of_one_s_own_is_merged_too(monkeypatch):
  monkeypatch.setitem(
    EXPERIMENTS, "own", Experiment(name="own", summary="", measure=None, record=dict)
  )
  studies = []
  for seed in range(2):
    number = {"kept": share(3 + seed, 10), "steps": 5 + seed, "eps": 0.1, "notes": ["a", "b"]}
    studies.append((f"seed{seed}", {**study(seed=seed), "own": {"standard": number}}))
  (factor,) = collect.collect(studies)["factors"]
  rows = {row["number"]: row for row in factor["numbers"] if row["experiment"] == "own"}
  assert rows.keys() == {"kept", "steps"}
  assert rows["steps"]["values"] == {"seed0": 5, "seed1": 6}
  assert rows["kept"]["over"]["value"] == pytest.approx(0.35)


def test_training_seeds_and_draws_of_classes_are_reported_apart():
  seeds = [("seed0", with_claims(0)), ("seed1", with_claims(1, more=100))]
  draws = [(f"draw{draw}", with_claims(0, draw, more=draw)) for draw in (1, 2)]
  found = collect.collect([*seeds, *draws])
  check_results(found, record_kinds(), "results.json")
  over, drawn = found["factors"]
  assert (over["varied"], over["studies"]) == ("seed", ["seed0", "seed1"])
  assert (drawn["varied"], drawn["studies"]) == ("draw", ["seed0", "draw1", "draw2"])
  clean = [found_in(f, "accuracy", "altered", "test.clean")["over"] for f in (over, drawn)]
  assert [c["std"] for c in clean] == pytest.approx([0.1 / 2**0.5, 0.001])
  assert found["table2"][0]["original"]["total"] == 2  # not four: draws are no seeds
  assert [(s["seed"], s["draw"]) for s in found["sources"]] == [(0, 0), (1, 1), (0, 1), (0, 2)]
  # With draws alone the tables are about these.
  (only,) = collect.collect([seeds[0], *draws])["factors"]
  assert only["varied"] == "draw" and "3 draws" in only["label"]


def test_classes_that_are_not_drawn_are_the_same_in_all_seeds():
  studies = [(f"seed{seed}", with_claims(seed)) for seed in range(2)]
  for _, results in studies:
    for part in ("train", "measure"):
      results["config"][part]["alteration"] |= {"classes": "0,3"}
  (factor,) = collect.collect(studies)["factors"]
  assert "with the same altered classes" in factor["label"]


def test_claims_say_in_how_many_studies_they_got_which_verdict():
  studies = [(f"seed{seed}", with_claims(seed, more=seed)) for seed in range(3)]
  name = "Accuracy falls on the original test set"
  for claim in studies[2][1]["claims"]:
    if claim["claim"] == name:
      claim |= {"quantity": 0.0, "interval": [-0.05, 0.05], "verdict": "undecided"}
  (factor,) = collect.collect(studies)["factors"]
  (claim,) = [c for c in factor["claims"] if c["claim"] == name]
  assert claim["verdicts"] == {"holds": 2, "undecided": 1}
  assert claim["values"] == {"seed0": 0.36, "seed1": pytest.approx(0.359), "seed2": 0.0}
  assert claim["over"]["total"] == 3
  # Student's interval of 0.36, 0.359 and 0 goes below 0.
  assert claim["verdict"] == "undecided" and claim["over"]["interval"][0] < 0


def test_a_claim_is_decided_over_studies_by_an_interval_with_a_width_and_no_open_premise():
  claim_of_one = with_claims()["claims"][0]

  def verdict(quantities, verdicts=("holds", "holds", "holds")):
    studies = []
    for seed, (quantity, found) in enumerate(zip(quantities, verdicts)):
      row = {"quantity": quantity, "interval": [quantity - 0.01, quantity + 0.01]}
      studies.append((f"seed{seed}", {"claims": [{**claim_of_one, **row, "verdict": found}]}))
    (claim,) = over_seeds.claims(over_seeds.Factor("resnet34", "seed", tuple(studies)))
    return claim["verdict"]

  assert verdict([0.5, 0.51, 0.52]) == "holds"
  assert verdict([0.5, 0.5, 0.5]) == "undecided"
  assert verdict([0.5, 0.51, 0.52], ("holds", "undecided", "holds")) == "undecided"
  assert verdict([-0.5, -0.51, -0.52], ("reversed",) * 3) == "reversed"
  # All of them open, though their intervals would say more, as where a premise is not met.
  assert verdict([0.5, 0.51, 0.52], ("untested",) * 3) == "untested"
  assert verdict([0.5, 0.51, 0.52], ("untested", "untested", "holds")) == "undecided"


def test_from_ten_seeds_on_images_are_drawn_too_where_they_are_known():
  studies = [(f"seed{seed}", study(seed=seed, more=seed)) for seed in range(10)]
  (factor,) = collect.collect(studies)["factors"]
  clean = found_in(factor, "accuracy", "standard", "test.clean")["over"]
  assert clean["method"] == "seeds and images"
  # The images say more than the seeds here, which t alone cannot see.
  narrow = statistics.t_interval([0.79 + seed / 1000 for seed in range(10)])
  assert clean["interval"][1] - clean["interval"][0] > 5 * (narrow[1] - narrow[0])
  (row,) = collect.collect(studies)["table1"]
  assert row["clean"] == clean
  whole = found_in(factor, "accuracy", "standard", "test.altered_every_class")["over"]
  assert whole["method"] == "t"
  (few,) = collect.collect(studies[:9])["factors"]
  assert found_in(few, "accuracy", "standard", "test.clean")["over"]["method"] == "t"


def test_values_on_each_image_have_the_mean_that_the_record_says():
  record = study()["accuracy"]["altered"]
  rng = np.random.default_rng(0)
  right = {name: rng.random(1000) < 0.6 for name in ("clean", "altered", "pgd_accuracy")}
  record["test"] |= {name: statistics.share(hits) for name, hits in right.items()}
  record["test"]["hits"] = {name: packed(hits) for name, hits in right.items()}
  difference = statistics.paired_difference(right["altered"], right["clean"])
  record["test"]["altered_minus_clean"] = difference
  found = EXPERIMENTS["accuracy"].per_image(record)
  for path, values in found.items():
    name = path.removeprefix("test.")
    assert values.mean() == pytest.approx(record["test"][name]["value"])
  assert len(found) == 4


def plainly_crossed(values, resamples, rng):
  """Means of the table of which rows and columns are drawn anew, one after the other."""
  rows, columns = values.shape
  means = []
  for _ in range(resamples):
    some = values[rng.integers(0, rows, rows)][:, rng.integers(0, columns, columns)]
    means.append(some.mean())
  return np.percentile(means, [2.5, 97.5])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_the_crossed_interval_is_that_of_drawing_rows_and_columns_apart(seed):
  rng = np.random.default_rng(seed)
  of_row, of_column = rng.normal(0, 1, (12, 1)), rng.normal(0, 0.5, (1, 30))
  values = of_row + of_column + rng.normal(0, 0.2, (12, 30))
  found = statistics.crossed_interval(values, resamples=1000, seed=seed)
  plain = plainly_crossed(values, 500, rng)
  width = plain[1] - plain[0]
  assert np.abs(np.array(found) - plain).max() < 0.2 * width
  assert found[0] <= values.mean() <= found[1]


def test_the_crossed_interval_of_rows_alone_and_of_nothing_that_varies():
  assert statistics.crossed_interval(np.ones((10, 7))) == (1, 1)
  many = np.tile(np.arange(10.0)[:, None], (1, 50_000))  # more than are drawn at once
  low, high = statistics.crossed_interval(many, resamples=400)
  assert 2.4 < low < 3.2 and 5.8 < high < 6.6


def test_the_report_shows_every_number_each_study_and_both_spreads(tmp_path):
  found = collect.collect(
    [("runs/seed0", with_claims(0)), ("runs/seed1", with_claims(1, more=30)),
     ("runs/seed0_draw1", with_claims(0, 1, more=7))]
  )  # fmt: skip
  page = collected_page.write_collected_report(tmp_path, found).read_text()
  for words in (
    "2 training seeds, each with its own draw", "2 draws of the altered classes",
    "All numbers of vanishing head" if "vanishing_head" in study() else "All numbers of accuracy",
    "holds in 2", "79.0, 82.0", "data:image/png;base64,",
  ):  # fmt: skip
    assert words in page, words
  shares = collected_page.charted(found["factors"])
  assert [len(series.values) for series in shares["altered, original images"]] == [2, 2]


def test_the_chart_has_a_dot_for_each_study_and_a_bar_for_the_interval():
  over = over_seeds.mean_over([share(70, 100), share(75, 100), share(77, 100)])
  series = seed_charts.Series("3 training seeds", [0.7, 0.75, 0.77], over)
  alone = over_seeds.mean_over([share(40, 100)])
  figure = seed_charts.spread(
    {"standard": [series], "altered": [seed_charts.Series("alone", [0.4], alone)]}
  )
  lines = [line.get_xdata() for line in figure.axes[0].lines]
  drawn = [list(x) for x in lines]
  assert [70, 75, 77] in [[pytest.approx(v) for v in x] and [round(v) for v in x] for x in drawn]
  bars = [x for x in drawn if x == [100 * end for end in over["interval"]]]
  assert len(bars) == 1  # a single study has none


def test_short_names_are_those_that_tell_studies_apart():
  found = collect.collect([("a/seed0", with_claims(0)), ("b/seed0", with_claims(1))])
  (factor,) = found["factors"]
  rows = collected_page.claim_rows(factor)
  assert "a/seed0 " in rows[0]["found"]
  assert dataclasses.is_dataclass(over_seeds.Factor)
