"""results.json says what its schema says, and a file that does not is told where."""

import concurrent.futures
import copy
import json
import pathlib

import jsonschema
import pytest
import study_results
from study_results import share

from jprotop.errors import InputError
from jprotop.experiments import collect
from jprotop.experiments.experiment import record_kinds
from jprotop.experiments.pages import all_claims
from jprotop.report import paper_tables
from jprotop.runs import records, results

SCHEMA = pathlib.Path(__file__).parent.parent / "docs/results.schema.json"


def check(found, source="results.json"):
  records.check_results(found, record_kinds(), source)


def whole_study():
  found = study_results.study()
  found |= paper_tables.all_tables(found)
  found["claims"] = all_claims(found)
  return found


def test_a_study_keeps_the_schema_also_after_json():
  found = whole_study()
  check(found)
  check(json.loads(json.dumps(found, allow_nan=False)))
  check({"form": records.FORM})


def test_collected_results_keep_the_schema():
  seeds = [(f"run{seed}", study_results.study(seed=seed, more=seed)) for seed in range(2)]
  check(collect.collect(seeds))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"interval": None}, "table1.0.clean: there is no interval"),
    ({"interval": [0.9, 1.0]}, r"table1\.0\.clean: .* does not hold its value"),
    ({"value": None}, r"table1\.0\.clean\.value: Expected `float`, got `null`"),
    ({"std": "a"}, r"table1\.0\.clean\.std: .*got `str`"),
  ],
)
def test_what_is_wrong_with_a_mean_over_seeds_is_named(change, words):
  found = collect.collect([(f"{seed}", study_results.study(seed=seed)) for seed in range(2)])
  found["table1"][0]["clean"] |= change
  with pytest.raises(InputError, match=words):
    check(found)


def test_a_run_s_results_have_the_form_of_a_study_s():
  """What is measured stands under its network, also where there is one."""
  found = study_results.study()
  measured = ("training", "success_rate", "accuracy", "alteration")
  run = {name: {"standard": found[name]["standard"]} for name in measured}
  run |= {"form": records.FORM, "accuracy": {"standard": {}}}
  check(run)
  run["accuracy"]["standard"]["validation"] = found["accuracy"]["standard"]["test"]
  check(run)
  del run["training"]["standard"]["push"]["distinct"]
  with pytest.raises(
    InputError, match=r"results\.json: training\.standard\.push: .* missing .*`distinct`"
  ):
    check(run)


def test_numbers_of_nothing_are_none():
  nothing = {"value": None, "count": 0, "total": 0, "interval": None}
  found = whole_study()
  found["success_rate"]["adversarial"]["paper"]["prediction_kept"] = nothing
  check(found)


# (path, new value or DELETE, what the error says after the file's name)
DELETE = object()
CLEAN = "accuracy.altered.test.clean"
MINUS = "accuracy.altered.test.altered_minus_clean"
BROKEN = [
  (f"{CLEAN}.value", 0.5, f"{CLEAN}: value 0.5 is not 460/1000"),
  (f"{CLEAN}.interval", [0.5, 0.6], f"{CLEAN}: .* does not hold its value 0.46"),
  (f"{CLEAN}.interval", [-0.1, 0.6], rf"{CLEAN}: .* leaves \[0, 1\]"),
  (f"{CLEAN}.interval", None, f"{CLEAN}: there is no interval"),
  (f"{CLEAN}.interval", 0.5, rf"{CLEAN}.interval: Expected `array \| null`"),
  (f"{CLEAN}.interval", [0.5], f"{CLEAN}.interval: Expected `array` of length 2"),
  (f"{CLEAN}.total", DELETE, f"{CLEAN}: .* missing required field `total`"),
  (f"{CLEAN}.total", 0, f"{CLEAN}: .* total 0"),
  (f"{CLEAN}.total", "a", f"{CLEAN}.total: Expected `int`, got `str`"),
  (f"{CLEAN}.value", None, f"{CLEAN}: value None, total 1000"),
  (f"{CLEAN}.value", "a", rf"{CLEAN}.value: Expected `float \| null`, got `str`"),
  (CLEAN, DELETE, "accuracy.altered.test: .* missing required field `clean`"),
  (MINUS, share(1, 2), f"{MINUS}: .* unknown field `count`"),
  (f"{MINUS}.value", float("nan"), f"{MINUS}: .* does not hold its value nan"),
  (
    "success_rate.standard.paper.rate_at.3",
    0.5,
    "success_rate.standard.paper.rate_at.3: .*",
  ),
  ("success_rate.standard.authors.control", DELETE, "success_rate.standard.authors: .*`control`"),
  (
    "head_on_stomach.standard.metrics.control_moved",
    DELETE,
    "head_on_stomach.standard.metrics: .* missing required field `control_moved`",
  ),
  (
    "head_on_stomach.standard.extra",
    {"value": 0.5, "interval": [0, 1]},
    "head_on_stomach.standard: .* unknown field `extra`",
  ),
  (
    "head_on_stomach.standard.by_target.stomach.moved_to_target.count",
    0,
    "head_on_stomach.standard.by_target.stomach.moved_to_target: value 0.9 is not 0/20",
  ),
  (
    "alteration.altered.selections.paper.cell_moved",
    DELETE,
    "alteration.altered.selections.paper: .* missing required field `cell_moved`",
  ),
  ("training.altered.push.distinct", 1.5, "training.altered.push.distinct: Expected `int`"),
  ("table3.1.clean.count", 12, "table3.1.clean: value .* is not 12/"),
  ("table3.1.clean.total", DELETE, "table3.1.clean: .* missing required field `total`"),
  ("table3.1.backbone", DELETE, r"table3\[1\]: .* missing required field `backbone`"),
  ("config.train.model.backbone", DELETE, "config.train.model: .* required field `backbone`"),
  ("config.train.data.name", DELETE, "config.train.data: .* required field `name`"),
  ("config.train.seed", "x", "config.train.seed: Expected `int`, got `str`"),
  ("config.train.protocol", DELETE, "config.train: .* required field `protocol`"),
  ("claims.0.verdict", "yes", r"claims\[0\]\.verdict: Invalid enum value 'yes'"),
  ("claims.0.verdict", None, r"claims\[0\]\.verdict"),
  ("claims.0.verdict", "reversed", r"claims\[0\]: verdict reversed, but by its interval"),
  ("claims.2.evidence", DELETE, r"claims\[2\]: .* missing required field `evidence`"),
  ("claims.2.threshold", DELETE, r"claims\[2\]: .* missing required field `threshold`"),
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
  with pytest.raises(InputError, match=f"^runs/mine: {words}") as error:
    check(found, "runs/mine")
  assert "repeat the command that wrote it" in str(error.value)


def test_an_open_verdict_is_allowed():
  found = whole_study()
  found["claims"][0]["verdict"] = "undecided"
  check(found)


# --- docs/results.schema.json


def test_the_schema_in_docs_is_that_of_the_records():
  made = records.results_schema(record_kinds())
  assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(made)), (
    "write docs/results.schema.json anew, from jprotop.runs.records.results_schema"
  )
  jsonschema.Draft202012Validator.check_schema(made)


@pytest.fixture(scope="module")
def validator():
  return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_studies_runs_and_collected_results_are_valid(study, validator):
  files = [study[0] / "results.json", *study[0].glob("*/results.json")]
  assert len(files) == 5
  for file in files:
    validator.validate(json.loads(file.read_text()))
  seeds = [(f"run{seed}", study_results.study(seed=seed, more=seed)) for seed in range(2)]
  for found in (whole_study(), collect.collect(seeds)):
    validator.validate(json.loads(json.dumps(found)))


@pytest.mark.parametrize(
  ("path", "value"),
  [
    ("form", 1),
    ("accuracy.elsewhere", {}),
    ("accuracy.standard.test.robust", share(1, 2)),
    ("success_rate.standard.paper.rate_at.3", 0.5),
    ("alteration.altered.selections.paper.cell_moved.interval", [0.5]),
    ("head_on_stomach.standard", study_results.share(1, 2)),
    ("table3", [{}]),
    ("config", {}),
    ("claims", [{"claim": "It is so"}]),
  ],
)
def test_the_schema_in_docs_refuses_what_is_no_results_json(validator, path, value):
  found = copy.deepcopy(whole_study())
  *way, last = path.split(".")
  node = found
  for name in way:
    node = node[name]
  node[last] = value
  with pytest.raises(jsonschema.ValidationError):
    validator.validate(json.loads(json.dumps(found)))


# --- files


CONFIG = study_results.config()


def test_update_keeps_other_records_and_names_each_command(tmp_path):
  results.update_results(
    tmp_path, CONFIG, "accuracy", {"accuracy": lambda before: {"test": {}}}, data="abc"
  )
  add(tmp_path, "prune", {"num_pruned": 1})
  found = results.read_results(tmp_path)
  assert found["config"] == CONFIG and found["data"] == "abc"
  assert found["accuracy"] == {"standard": {"test": {}}}
  assert found["prune"] == {"standard": {"num_pruned": 1}}
  assert found["environment"].keys() == {"accuracy", "prune"}
  assert results.read_results(tmp_path / "none") == {}


def test_update_gives_what_there_was_and_keeps_other_networks(tmp_path):
  other = copy.deepcopy(CONFIG)
  other["train"]["network"] = "altered"
  seen = []

  def add(config, number):

    def change(before):
      seen.append(before)
      return {**(before or {}), str(number): number}

    return results.update_results(tmp_path, config, "accuracy", {"accuracy": change})

  add(CONFIG, 1)
  add(other, 2)
  found = add(CONFIG, 3)
  assert seen == [None, None, {"1": 1}]
  assert found["accuracy"] == {"standard": {"1": 1, "3": 3}, "altered": {"2": 2}}
  assert results.read_results(tmp_path) == found


def add(folder, name, record):
  """What the command of an experiment does once it has measured."""
  return results.update_results(folder, CONFIG, name, {name: lambda before: record})


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"{", "is not JSON"),
    (b"", "is not JSON"),
    (b"\xff\xfe", "is not JSON"),
    (b"[" * 100_000, "is not JSON"),
    (b"[]", "does not hold what jprotop writes there"),
    (b"null", "does not hold what jprotop writes there"),
    (None, "cannot be read"),
  ],
)
def test_a_damaged_file_says_so_and_what_to_do(content, words, tmp_path):
  path = tmp_path / "results.json"
  path.mkdir() if content is None else path.write_bytes(content)
  for read in (lambda: results.read_results(tmp_path), lambda: add(tmp_path, "accuracy", {})):
    with pytest.raises(InputError, match=rf"results\.json {words}.*; move it away and run again"):
      read()


EDITS = {
  "accuracy": lambda found: found["accuracy"]["standard"].update(value=0.51),
  "config": lambda found: found["config"]["train"].update(seed=7),
  "data": lambda found: found.update(data="another"),
  "table1": lambda found: found.update(table1=[{"backbone": "resnet18"}]),
}


@pytest.mark.parametrize("entry", EDITS)
def test_what_was_edited_is_not_believed_until_it_is_measured_again(entry, tmp_path):
  results.update_results(
    tmp_path, CONFIG, "accuracy", {"accuracy": lambda before: {"value": 0.5}}, data="abc"
  )
  found = json.loads((tmp_path / "results.json").read_text())
  EDITS[entry](found)
  edited = json.dumps(found)
  (tmp_path / "results.json").write_text(edited)
  words = rf"results\.json: {entry} was changed since .*; delete that entry"
  with pytest.raises(InputError, match=words):
    results.read_results(tmp_path)
  with pytest.raises(InputError, match=words):
    add(tmp_path, "prune", {})
  assert (tmp_path / "results.json").read_text() == edited
  del found[entry]  # As told.
  (tmp_path / "results.json").write_text(json.dumps(found))
  again = add(tmp_path, "accuracy", {"value": 0.5})
  assert results.read_results(tmp_path) == again


def test_another_order_and_layout_of_the_file_is_no_edit(tmp_path):
  found = add(tmp_path, "accuracy", {"by_class": {"2": 0.1, "10": 0.3}, "pair": [1, 2.0]})
  text = json.dumps(json.loads((tmp_path / "results.json").read_text()), sort_keys=True)
  (tmp_path / "results.json").write_text(text)
  assert results.read_results(tmp_path) == found


def test_keys_that_are_numbers_and_pairs_have_the_digest_of_what_comes_back(tmp_path):
  add(tmp_path, "accuracy", {"by_k": {2: 0.1, 10: 0.3}, "pair": (1, 2)})
  found = results.read_results(tmp_path)["accuracy"]["standard"]
  assert found == {"by_k": {"2": 0.1, "10": 0.3}, "pair": [1, 2]}


def test_results_without_digests_are_refused(tmp_path):
  (tmp_path / "results.json").write_text(json.dumps(whole_study()))
  with pytest.raises(InputError, match=r"has no digests, .*move it away"):
    results.read_results(tmp_path)


def test_a_study_that_is_written_anew_says_which_edits_are_lost(tmp_path, caplog):
  results.write_results(tmp_path, whole_study())
  results.write_results(tmp_path, whole_study())
  assert not caplog.text
  found = json.loads((tmp_path / "results.json").read_text())
  found["claims"] = []
  (tmp_path / "results.json").write_text(json.dumps(found))
  results.write_results(tmp_path, whole_study())
  assert "results.json: what was changed in claims is written anew" in caplog.text
  assert results.read_results(tmp_path)["claims"]


def test_two_commands_at_once_lose_nothing_of_each_other(tmp_path, monkeypatch):
  monkeypatch.setattr(results, "environment", dict)

  def command(number):
    for update in range(25):
      add(tmp_path, f"experiment_{number}_{update}", {"number": number})

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    list(pool.map(command, range(2)))
  found = results.read_results(tmp_path)
  assert len([name for name in found if name.startswith("experiment_")]) == 50
  assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
  ("former", "version"),
  [
    ({"seed": 0, "evaluate": {"test": {}}}, "0.1"),
    ({"form": records.FORM + 1, "jprotop": "9.3"}, "9.3"),
  ],
)
def test_results_of_another_form_are_refused_with_what_to_do(tmp_path, former, version):
  (tmp_path / "results.json").write_text(json.dumps(former))
  words = rf"results\.json has the form of jprotop {version}, .*run the command .* again"
  with pytest.raises(InputError, match=words):
    results.read_results(tmp_path)
  with pytest.raises(InputError, match=words):
    results.update_results(tmp_path, CONFIG, "prune", {"prune": lambda before: {}})
  assert json.loads((tmp_path / "results.json").read_text()) == former
  with pytest.raises(InputError, match=f"runs/a has the form of jprotop {version}"):
    check(former, "runs/a")
