"""The whole paper on the tiny config: one command, all of its parts, nothing done twice."""

import csv
import json
import re
import shutil

import pytest
from commands import command

from configs import tiny
from experiments import reproduce, vanishing_head
from experiments.study import STAGES
from jprotop.errors import InputError
from jprotop.evaluation import schema
from jprotop.training import runs

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
  schema.check_schema(found)
  assert found["claims"] and all(found[table] for table in TABLES)
  assert found["evaluate"].keys() == set(runs.VARIANTS)
  assert found["success_rate"].keys() == {"standard", "adversarial"}
  assert {"paper", "authors", "ablation"} <= found["success_rate"]["standard"].keys()
  assert found["jpeg_drift"].keys() == {"standard", "jpeg", "jpeg_augmented"}
  assert {"head_on_stomach", "vanishing_head", "explain", "push"} <= found.keys()
  assert str(workdir / "report.html") in done.stdout


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


def test_given_again_it_repeats_nothing(finished):
  before = stamps(finished)
  history = {v: (finished / v / "history.jsonl").read_text() for v in runs.VARIANTS}
  reproduce.reproduce(config(), finished, {}, [])
  assert stamps(finished) == before and len(before) == len(STAGES)
  for variant, text in history.items():
    assert (finished / variant / "history.jsonl").read_text() == text


def test_a_changed_setting_repeats_the_stages_that_use_it_and_no_other(copy):
  before = stamps(copy)
  reproduce.reproduce(config(**{"robust.num_steps": 1}), copy, {}, ["table1"])
  after = stamps(copy)
  assert {name for name in after if after[name] != before[name]} == {"standard/evaluate"}
  found = json.loads((copy / "results.json").read_text())
  # Accuracies of the other networks are those of another setting, so they are not reported.
  assert found["evaluate"].keys() == {"standard"} and found["success_rate"]


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
  with pytest.raises(InputError, match="network of variant standard"):
    reproduce.reproduce(config(), tmp_path, {"jpeg": finished / "standard"}, ["table2"])
  other = config(**{"jpeg.quality": 50})
  with pytest.raises(InputError, match=r"jpeg\.quality: there 20, given 50"):
    reproduce.reproduce(other, tmp_path, {"jpeg": finished / "jpeg"}, ["table2"])
  other = config(**{"model.prototypes_per_class": 3})
  with pytest.raises(InputError, match=r"model\.prototypes_per_class: there 2, given 3"):
    reproduce.reproduce(other, tmp_path, {"standard": finished / "standard"}, ["table1"])


def test_a_run_that_is_not_finished_is_refused(copy, tmp_path, monkeypatch):
  original = runs.load

  def stopped(workdir):
    model, variables, info = original(workdir)
    return model, variables, {**info, "finished": False}

  monkeypatch.setattr(runs, "load", stopped)
  with pytest.raises(InputError, match="has not finished its training"):
    reproduce.reproduce(config(), tmp_path, {"standard": copy / "standard"}, ["table1"])


def test_what_was_found_before_an_error_is_written(copy, monkeypatch):
  (copy / "results.json").unlink()
  (copy / "standard/stages/vanishing_head.json").unlink()

  def broken(*_, **__):
    raise InputError("no image to be had")

  monkeypatch.setattr(vanishing_head, "measure", broken)
  with pytest.raises(InputError, match="no image to be had"):
    reproduce.reproduce(config(), copy, {}, [])
  found = json.loads((copy / "results.json").read_text())
  assert found["table3"] and "vanishing_head" not in found


def test_tables_and_pictures_of_other_settings_are_not_shown(copy):
  reproduce.reproduce(config(**{"attack.eps": 0.01}), copy, {}, ["table1"])
  assert (copy / "tables/table3.csv").exists()  # Its accuracies are still true.
  found = json.loads((copy / "results.json").read_text())
  assert "head_on_stomach" not in found and "success_rate" not in found
  page = (copy / "report.html").read_text()
  assert "standard network: head on stomach" not in page and "success at k" not in page
  assert "JPEG-altered network: jpeg example" in page


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
    (["--config.jpeg.quality=96"], "from 1 to 95"),
    (["--config.jpeg.classes=0,1,2"], "chooses 3 of 3"),
    (["--config.jpeg.classes=7"], "label 7 does not exist"),
    (["--config.success_rate.top_k=0"], "top_k=0 must be at least 1"),
    (["--config.success_rate.ablate=standrd"], "'standrd' is not known"),
  ],
)
def test_bad_input_gets_one_message_before_anything_is_trained(study, tmp_path, arguments, message):
  done = command(
    "reproduce", "--config=configs/tiny.py", f"--workdir={tmp_path}/new", *arguments, cache=study[1]
  )
  assert done.returncode == 1
  assert message in done.stderr and "Traceback" not in done.stderr
  assert not list(tmp_path.rglob("checkpoints"))
