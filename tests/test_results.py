"""results.json says what its schema says, and a file that does not is told where."""

import json

import pytest
import study_results
from study_results import share

from jprotop.errors import InputError
from jprotop.evaluation import claims, collect, paper_tables, results


def whole_study():
  found = study_results.study()
  found |= paper_tables.all_tables(found)
  found["claims"] = claims.claims(found)
  return found


def test_a_study_keeps_the_schema_also_after_json():
  found = whole_study()
  results.check_schema(found)
  results.check_schema(json.loads(json.dumps(found, allow_nan=False)))
  results.check_schema({})


def test_collected_results_keep_the_schema():
  seeds = [(f"run{seed}", study_results.study(seed=seed, more=seed)) for seed in range(2)]
  results.check_schema(collect.collect(seeds))


def test_a_run_holds_sections_of_its_one_network():
  found = study_results.study()
  sections = {
    name: found[name]["adversarial"] for name in ("push", "success_rate") if name in found
  }
  sections |= {"evaluate": {"test": found["evaluate"]["standard"]}}
  results.check_schema({**sections, "jpeg_drift": found["jpeg_drift"]["jpeg"]})
  del sections["push"]["distinct"]
  with pytest.raises(InputError, match=r"results\.json: push\.distinct is missing"):
    results.check_schema(sections)


def test_numbers_of_nothing_are_none():
  nothing = {"value": None, "count": 0, "total": 0, "interval": None}
  found = whole_study()
  found["success_rate"]["adversarial"]["paper"]["prediction_kept"] = nothing
  results.check_schema(found)


# (path, new value or DELETE, what the error says)
DELETE = object()
BROKEN = [
  ("evaluate.jpeg.clean.value", 0.5, "evaluate.jpeg.clean has value 0.5, which is not 460/1000"),
  ("evaluate.jpeg.clean.interval", [0.5, 0.6], "does not hold its value 0.46"),
  ("evaluate.jpeg.clean.interval", [-0.1, 0.6], r"leaves \[0, 1\]"),
  ("evaluate.jpeg.clean.interval", None, "evaluate.jpeg.clean has no interval"),
  ("evaluate.jpeg.clean.interval", 0.5, r"which is not \[low, high\]"),
  ("evaluate.jpeg.clean.total", DELETE, "evaluate.jpeg.clean is not a share"),
  ("evaluate.jpeg.clean.total", 0, "total 0"),
  ("evaluate.jpeg.clean.value", None, "has value None, total 1000"),
  ("evaluate.jpeg.clean.value", "a", "has value 'a', which is no number"),
  ("evaluate.jpeg.clean", DELETE, "evaluate.jpeg.clean is missing"),
  ("evaluate.jpeg.altered_minus_clean", share(1, 2), "altered_minus_clean is not a mean"),
  ("evaluate.jpeg.altered_minus_clean.value", float("nan"), "does not hold its value nan"),
  ("success_rate.standard.paper.rate_at.3", 0.5, "paper.rate_at.3 is not a share"),
  ("success_rate.standard.authors.control", DELETE, "authors.control is missing"),
  ("head_on_stomach.metrics.control_moved", DELETE, "metrics.control_moved is missing"),
  ("head_on_stomach.extra", {"value": 0.5, "interval": [0, 1]}, "extra has no total"),
  ("jpeg_drift.jpeg.selections.paper.cell_moved", DELETE, "selections.paper.cell_moved is missing"),
  ("push.jpeg.distinct", 1.5, "push.jpeg.distinct is not a count"),
  ("table3.1.clean.count", 12, "table3.1.clean has value"),
  ("table3.1.backbone", DELETE, "table3.1.backbone is missing"),
  ("claims.0.holds", "yes", "claims.0 has holds 'yes'"),
  ("claims.0.holds", None, "claims.0 has holds None"),
  ("claims.0.holds", False, "claims.0 holds: False, but by its interval"),
  ("claims.2.evidence", DELETE, "claims.2.evidence is missing"),
  ("claims.2.threshold", DELETE, "claims.2 has no threshold"),
]


@pytest.mark.parametrize(("path", "value", "words"), BROKEN)
def test_what_is_wrong_is_named_by_its_path(path, value, words):
  # Through JSON, so that tables and sections do not share their numbers.
  found = json.loads(json.dumps(whole_study()))
  *way, last = path.split(".")
  node = found
  for name in way:
    node = node[int(name)] if isinstance(node, list) else node[name]
  if value is DELETE:
    del node[last]
  else:
    node[last] = value
  with pytest.raises(InputError, match=words) as error:
    results.check_schema(found, "runs/mine")
  assert str(error.value).startswith("runs/mine: ")


def test_an_open_verdict_is_allowed():
  found = whole_study()
  found["claims"][0]["holds"] = "undecided"
  results.check_schema(found)


def test_update_keeps_other_sections_and_names_each_command(tmp_path):
  config = {"seed": 3, "protocol": "paper"}
  results.update_results(tmp_path, config, "evaluate", evaluate={"test": {}})
  results.update_results(tmp_path, config, "prune", prune={"num_pruned": 1})
  found = results.read_results(tmp_path)
  assert (found["seed"], found["protocol"], found["evaluate"]) == (3, "paper", {"test": {}})
  assert found["environment"].keys() == {"evaluate", "prune"}
  assert results.read_results(tmp_path / "none") == {}


def test_results_that_are_no_json_say_so(tmp_path):
  (tmp_path / "results.json").write_text("{")
  with pytest.raises(InputError, match="is not JSON"):
    results.read_results(tmp_path)
