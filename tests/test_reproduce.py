"""The whole paper on the tiny config: one command, all of its parts, nothing done twice."""

import csv
import dataclasses
import json
import re
import shutil

import pytest
from commands import command
from matplotlib.figure import Figure

from configs import tiny
from jprotop.cli import reproduce
from jprotop.cli.measuring import measure_into
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments.experiment import record_kinds
from jprotop.files import held
from jprotop.report import canvas, tables
from jprotop.runs import run as runs
from jprotop.runs.config import NETWORKS
from jprotop.runs.records import check_results

TABLES = ("table1", "table2", "table3", "table4")


@pytest.fixture
def finished(study, monkeypatch):
  """The study's folder; tests must not change it."""
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))
  return study[0]


@pytest.fixture
def copy(finished, tmp_path):
  shutil.copytree(finished, tmp_path / "study")
  return tmp_path / "study"


def config(**changes):
  found = tiny.get_config()
  found.update_from_flattened_dict(changes)
  return found.to_dict()


def stamps(workdir):
  """When each stage was last run."""
  paths = workdir.rglob("stages/*.json")
  return {f"{p.parent.parent.name}/{p.stem}": p.stat().st_mtime_ns for p in paths}


def test_it_writes_the_whole_paper_and_says_where(study):
  workdir, _, done = study
  found = json.loads((workdir / "results.json").read_text())
  check_results(found, record_kinds(), "results.json")
  assert found["claims"] and all(found[table] for table in TABLES)
  assert found["accuracy"].keys() == found["training"].keys() == set(NETWORKS)
  assert found["success_rate"].keys() == {"standard", "adversarial"}
  assert {"paper", "authors", "ablation"} <= found["success_rate"]["standard"].keys()
  assert found["alteration"].keys() == {"standard", "altered", "remedied"}
  for experiment in ("head_on_stomach", "vanishing_head", "explain"):
    assert found[experiment].keys() == {"standard"}
  assert str(workdir / "report.html") in done.stdout


def test_each_network_s_folder_holds_what_the_commands_alone_would_write(finished):
  found = json.loads((finished / "results.json").read_text())
  for network in NETWORKS:
    own = json.loads((finished / network / "results.json").read_text())
    check_results(own, record_kinds(), f"{network}/results.json")
    assert own["config"]["train"]["network"] == network and own["data"] == found["data"]
    measured = {name for name in EXPERIMENTS if network in found.get(name, {})}
    assert measured and measured == set(EXPERIMENTS) & own.keys()
    assert own["environment"].keys() == measured | {"train"}
    for name in measured:
      assert own[name] == {network: found[name][network]}


def test_tables_come_in_three_forms_with_the_same_numbers(finished):
  found = json.loads((finished / "results.json").read_text())
  for table in TABLES:
    markdown = (finished / f"tables/{table}.md").read_text()
    assert r"\begin{tabular}" in (finished / f"tables/{table}.tex").read_text()
    with open(finished / f"tables/{table}.csv", newline="") as file:
      rows = list(csv.DictReader(file))
    assert len(rows) == len(found[table])
    for row, values in zip(rows, found[table]):
      shares = {k: v for k, v in values.items() if isinstance(v, dict) and "count" in v}
      assert shares
      for name, share in shares.items():
        assert f"({share['count']}/{share['total']}" in markdown
        assert int(row[f"{name}_count"]) == share["count"]


def test_the_report_shows_claims_tables_and_captioned_pictures(finished):
  page = (finished / "report.html").read_text()
  found = json.loads((finished / "results.json").read_text())
  for heading in ("What the paper says", "Table 1", "Table 4", "Head on Stomach", "App. D.2"):
    assert heading in page
  assert page.count("data:image/png;base64,") > 15
  assert not re.search(r"""(src|href)=["']?https?:""", page)
  share = found["success_rate"]["standard"]["paper"]["rate_at"]["1"]
  assert f"({share['count']}/{share['total']}" in page
  sample = found["success_rate"]["standard"]["paper"]["sample"]
  assert f"{sample['available']} test images, {sample['correct']} classified correctly" in page


def test_given_again_it_repeats_nothing(finished):
  before = stamps(finished)
  history = {v: (finished / v / "history.jsonl").read_text() for v in NETWORKS}
  reproduce.reproduce(config(), finished, {}, [])
  applying = reproduce.chosen_stages(config(), [])
  assert stamps(finished) == before and len(before) == len(applying)
  for network, text in history.items():
    assert (finished / network / "history.jsonl").read_text() == text


def test_a_changed_setting_repeats_the_stages_that_use_it_and_no_other(copy):
  before = stamps(copy)
  reproduce.reproduce(config(**{"measure.class_pgd.num_steps": 1}), copy, {}, ["table1"])
  after = stamps(copy)
  assert {name for name in after if after[name] != before[name]} == {"standard/accuracy"}
  found = json.loads((copy / "results.json").read_text())
  # Accuracies of the other networks are those of another setting, so they are not reported.
  assert found["accuracy"].keys() == {"standard"} and found["success_rate"]


def drawing(numbers):
  """Vanishing head, quickly: known numbers, and a picture that shows how many steps it took."""

  def measure(run, out, beside=None):
    steps = run.config["measure"]["attack"]["num_steps"]
    canvas.save(Figure(figsize=(steps, 1)), out / "figures/vanishing_head_0.png")
    return {**numbers, "num_steps": steps}

  return dataclasses.replace(EXPERIMENTS["vanishing_head"], measure=measure)


def test_figures_that_another_command_replaced_are_measured_again(copy, capsys, monkeypatch):
  """The user's own attack into the network's folder must not stand beside the study's numbers."""
  figure, stamped = copy / "standard/figures/vanishing_head_0.png", stamps(copy)
  numbers = json.loads((copy / "results.json").read_text())["vanishing_head"]
  monkeypatch.setitem(EXPERIMENTS, "vanishing_head", drawing(numbers["standard"]))
  run = runs.open_run(copy / "standard", changes={"measure.attack.num_steps": 1})
  measure_into(EXPERIMENTS["vanishing_head"], run, copy / "standard")
  theirs = figure.read_bytes()
  # Until then the numbers are still the study's, and its report does not show the pictures.
  reproduce.reproduce(config(), copy, {}, ["table1"])
  assert json.loads((copy / "results.json").read_text())["vanishing_head"] == numbers
  page = (copy / "report.html").read_text()
  assert "network: vanishing head 1." not in page and "left out" in page
  capsys.readouterr()
  found = reproduce.reproduce(config(), copy, {}, ["vanishing_head", "table1"])
  printed = capsys.readouterr().out
  assert "measured again" in printed and "figures/vanishing_head_0.png" in printed
  assert found["vanishing_head"] == numbers and figure.read_bytes() != theirs
  assert "network: vanishing head 1." in (copy / "report.html").read_text()
  changed = {name for name, time in stamps(copy).items() if time != stamped[name]}
  assert changed == {"standard/vanishing_head"}


def test_two_commands_in_one_study_s_folder(copy):
  before = stamps(copy)
  with held(copy), pytest.raises(InputError, match=r"another command is writing into .*study"):
    reproduce.reproduce(config(), copy, {}, [])
  assert stamps(copy) == before


def test_who_went_from_head_to_stomach_is_in_results_report_and_tables(finished):
  found = json.loads((finished / "results.json").read_text())
  record = found["head_on_stomach"]["standard"]
  ways = {(m["sat_on"], m["target"]): m["moved_to_target"] for m in record["movements"]}
  counted = {}
  for row in record["images"]:
    way = (row["prototype_sits_on"] or "background", row["target"])
    arrived, total = counted.get(way, (0, 0))
    counted[way] = (arrived + row["moved_to_target"], total + 1)
  assert {way: (s["count"], s["total"]) for way, s in ways.items()} == counted
  assert [(row["sat_on"], row["target"]) for row in found["targets"]] == list(ways)
  with open(finished / "tables/targets.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert [int(row["moved_to_target_count"]) for row in rows] == [s["count"] for s in ways.values()]
  page = re.sub(r"</?span>", "", (finished / "report.html").read_text())
  assert all(tables.format_share(share) in page for share in ways.values())


def test_a_given_run_is_measured_where_the_study_is_and_left_alone(finished, tmp_path):
  before = {path: path.stat().st_mtime_ns for path in (finished / "standard").rglob("*")}
  given = {"standard": finished / "standard"}
  found = reproduce.reproduce(config(), tmp_path / "other", given, ["table1"])
  assert found["table1"] == json.loads((finished / "results.json").read_text())["table1"]
  assert not (tmp_path / "other/standard/checkpoints").exists()
  assert {path: path.stat().st_mtime_ns for path in (finished / "standard").rglob("*")} == before


def test_a_run_of_the_wrong_kind_is_refused(finished, tmp_path):
  with pytest.raises(InputError, match="holds a single run"):
    reproduce.reproduce(config(), finished / "standard", {}, [])
  with pytest.raises(InputError, match=r"holds the standard network; .* --config=FILE:altered"):
    reproduce.reproduce(config(), tmp_path, {"altered": finished / "standard"}, ["table2"])
  other = config(**{"train.alteration.parameter": 50.0})
  with pytest.raises(InputError, match=r"alteration\.parameter: there 20\.0, given 50"):
    reproduce.reproduce(other, tmp_path, {"altered": finished / "altered"}, ["table2"])
  other = config(**{"train.model.prototypes_per_class": 3})
  with pytest.raises(InputError, match=r"model\.prototypes_per_class: there 2, given 3"):
    reproduce.reproduce(other, tmp_path, {"standard": finished / "standard"}, ["table1"])


def test_a_run_that_is_not_finished_is_refused(copy, tmp_path, monkeypatch):
  original = runs.load

  def stopped(*arguments):
    model, variables, info = original(*arguments)
    return model, variables, {**info, "finished": False}

  monkeypatch.setattr(runs, "load", stopped)
  with pytest.raises(InputError, match="has not finished its training"):
    reproduce.reproduce(config(), tmp_path, {"standard": copy / "standard"}, ["table1"])


def test_a_network_s_results_of_a_former_form_are_said_before_the_work(copy, monkeypatch):
  (copy / "standard/results.json").write_text(json.dumps({"seed": 0, "vanishing_head": {}}))
  (copy / "standard/stages/vanishing_head.json").unlink()
  experiment = dataclasses.replace(EXPERIMENTS["vanishing_head"], measure=None)
  monkeypatch.setitem(EXPERIMENTS, "vanishing_head", experiment)
  with pytest.raises(InputError, match=r"has the form of jprotop 0\.1, .* again"):
    reproduce.reproduce(config(), copy, {}, ["vanishing_head"])


def test_what_was_found_before_an_error_is_written(copy, monkeypatch):
  (copy / "results.json").unlink()
  (copy / "standard/stages/vanishing_head.json").unlink()

  def broken(*_, **__):
    raise InputError("no image to be had")

  experiment = dataclasses.replace(EXPERIMENTS["vanishing_head"], measure=broken)
  monkeypatch.setitem(EXPERIMENTS, "vanishing_head", experiment)
  with pytest.raises(InputError, match="no image to be had"):
    reproduce.reproduce(config(), copy, {}, [])
  found = json.loads((copy / "results.json").read_text())
  assert found["table3"] and "vanishing_head" not in found


def test_tables_and_pictures_of_other_settings_are_not_shown(copy):
  reproduce.reproduce(config(**{"measure.attack.eps": 0.01}), copy, {}, ["table1"])
  assert (copy / "tables/table3.csv").exists()  # Its accuracies are still true.
  found = json.loads((copy / "results.json").read_text())
  assert "head_on_stomach" not in found and "success_rate" not in found
  page = (copy / "report.html").read_text()
  assert "standard network: head on stomach" not in page and "success at k" not in page
  assert "The altered network: alteration example" in page


def test_studies_are_collected(finished, tmp_path):
  with pytest.raises(InputError, match="is one of the studies to collect"):
    reproduce.collect_runs([str(finished)], finished)
  with pytest.raises(InputError, match=r"no results\.json"):
    reproduce.collect_runs([str(tmp_path)], tmp_path / "tables")
  reproduce.collect_runs([str(finished)], tmp_path / "tables")
  for table in TABLES:
    assert (tmp_path / f"tables/tables/{table}.md").exists()


@pytest.mark.parametrize(
  "arguments, message",
  [
    (["--only=table9"], "table9 is not known; parts are"),
    (["--config.train.alteration.parameter=96"], "from 1 to 95"),
    (["--config.train.alteration.classes=0,1,2"], "chooses 3 of 3"),
    (["--config.train.alteration.classes=7"], "label 7 does not exist"),
    (["--config.measure.alteration.classes=7"], "label 7 does not exist"),
    (["--config.jpeg.quality=96"], "jpeg.quality is train.alteration.parameter since jprotop 0.2"),
    (["--config.measure.success_rate.top_k=0"], "top_k=0 must be a whole number from 1"),
    (["--config.measure.success_rate.ablate=standrd"], "'standrd' is not known"),
  ],
)
def test_bad_input_gets_one_message_before_anything_is_trained(study, tmp_path, arguments, message):
  done = command(
    "reproduce", "--config=configs/tiny.py", f"--workdir={tmp_path}/new", *arguments, cache=study[1]
  )
  assert done.returncode == 1
  assert message in done.stderr and "Traceback" not in done.stderr
  assert not list(tmp_path.rglob("checkpoints"))


def edit(path, change):
  """Changes a file of JSON as a text editor does."""
  value = json.loads(path.read_text())
  change(value)
  path.write_text(json.dumps(value, indent=2))


@pytest.mark.parametrize(
  "damage",
  [
    lambda path: edit(path, lambda written: written["record"].update(mean_distance=0.123)),
    lambda path: path.write_text(path.read_text()[:100]),
    lambda path: path.write_text("[]"),
    lambda path: edit(path, lambda written: written.pop("record")),
  ],
)
def test_a_stage_that_was_edited_or_damaged_is_measured_again(damage, copy, monkeypatch, caplog):
  path = copy / "standard/stages/vanishing_head.json"
  record = json.loads(path.read_text())["record"]
  damage(path)
  measured = []
  experiment = dataclasses.replace(
    EXPERIMENTS["vanishing_head"], measure=lambda run, out, **_: measured.append(1) or record
  )
  monkeypatch.setitem(EXPERIMENTS, "vanishing_head", experiment)
  found = reproduce.reproduce(config(), copy, {}, ["vanishing_head"])
  assert measured == [1] and found["vanishing_head"]["standard"] == record
  assert str(path) in caplog.text and "measured again" in caplog.text
  assert json.loads(path.read_text())["record"] == record


def test_edited_results_of_a_study_are_not_collected(copy, tmp_path):
  edit(copy / "results.json", lambda found: found["accuracy"]["standard"].update(test={}))
  with pytest.raises(InputError, match=r"results\.json: accuracy was changed since jprotop"):
    reproduce.collect_runs([str(copy)], tmp_path / "tables")
