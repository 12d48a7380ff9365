"""The six files of docs/extending.md, each run from end to end on the tiny config."""

import json
import pathlib
import re

import pytest
from commands import ROOT, command, installed

from jprotop.errors import InputError
from jprotop.runs import config_files

EXTENSIONS = ROOT / "tests/extensions"
FILES = sorted(EXTENSIONS.glob("*.py"))


def extend(name):
  return f"--config.extensions={EXTENSIONS / name}.py"


def records(workdir, experiment):
  return json.loads((workdir / "results.json").read_text())[experiment]


def test_each_example_is_one_file_of_at_most_60_lines_that_the_page_shows():
  page = (ROOT / "docs/extending.md").read_text()
  shown = re.findall(r'--8<-- "tests/extensions/(\w+\.py)"', page)
  assert sorted(shown) == [path.name for path in FILES] and len(shown) == 6
  assert all(len(path.read_text().splitlines()) <= 60 for path in FILES)


def run(*arguments, cache):
  done = command(*arguments, cache=cache)
  assert done.returncode == 0, done.stderr[-3000:]
  return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """A run whose backbone and images are extensions."""
  base = tmp_path_factory.mktemp("extended")
  both = f"{extend('plain_net')},{EXTENSIONS / 'discs.py'}"
  run(
    "train",
    "--config=tiny",
    both,
    "--config.train.model.backbone=plain_net",
    "--config.train.data.name=discs",
    f"--workdir={base / 'run'}",
    cache=base / "cache",
  )
  return base / "run", base / "cache", both


def test_a_backbone_and_a_data_set_are_trained_and_measured(trained):
  workdir, cache, both = trained
  run("accuracy", f"--workdir={workdir}", both, cache=cache)
  numbers = records(workdir, "accuracy")["standard"]["test"]
  assert numbers["class_names"] == ["red", "green", "blue"] and numbers["clean"]["total"] == 18


def test_a_run_s_own_files_load_no_extension(trained):
  workdir, cache, _ = trained
  done = command("accuracy", f"--workdir={workdir}", cache=cache)
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert "plain_net.py" in done.stderr and "--config.extensions=" in done.stderr


def test_a_remedy_trains_the_adversarial_network(tmp_path):
  arguments = ["--config=tiny:adversarial", "--config.train.adversarial.method=random_noise"]
  workdir = f"--workdir={tmp_path / 'run'}"
  warm_alone = [f"--config.train.{p}.epochs=0" for p in ("pretrain", "joint", "last_layer")]
  run("train", *arguments, extend("random_noise"), *warm_alone, workdir, cache=tmp_path)
  config = json.loads((tmp_path / "run/config.json").read_text())
  assert config["train"]["adversarial"]["method"] == "random_noise"
  unknown = command("train", *arguments, f"--workdir={tmp_path / 'other'}", cache=tmp_path)
  assert unknown.returncode == 1 and "'random_noise' is not known" in unknown.stderr


def test_an_alteration_is_measured(study, tmp_path):
  workdir, cache, _ = study
  settings = ["--config.measure.alteration.name=posterise", "--parameter=2"]
  out = f"--out={tmp_path}"
  run(
    "alteration",
    f"--workdir={workdir / 'altered'}",
    extend("posterise"),
    *settings,
    out,
    cache=cache,
  )
  record = records(tmp_path, "alteration")["altered"]
  assert (record["alteration"], record["parameter"]) == ("posterise", 2)
  assert record["selections"]["all"]["similarity_drop"]["total"] == 18


def test_an_objective_is_what_an_attack_raises(study, tmp_path):
  workdir, cache, _ = study
  network, out = f"--workdir={workdir / 'standard'}", f"--out={tmp_path}"
  objective = "--config.measure.attack.objective=squeeze"
  run("head_on_stomach", network, extend("squeeze"), objective, out, cache=cache)
  metrics = records(tmp_path, "head_on_stomach")["standard"]["metrics"]
  before = metrics["similarity_source_before"]["value"]
  assert metrics["similarity_source_after"]["value"] < before


def test_a_metric_is_in_results_report_only_and_help(study, tmp_path):
  workdir, cache, _ = study
  given = [f"--{network}={workdir / network}" for network in ("standard", "adversarial")]
  arguments = ["--config=tiny", extend("peakedness"), "--only=peakedness", *given]
  run("reproduce", *arguments, f"--workdir={tmp_path / 'study'}", cache=cache)
  found = records(tmp_path / "study", "peakedness")
  assert found.keys() == {"standard", "adversarial"}
  assert found["standard"]["peak_over_mean"]["total"] == 18
  assert "How peaked the maps are" in (tmp_path / "study/report.html").read_text()
  overview = command("reproduce", "--help", extend("peakedness"), cache=cache).stdout
  assert "peakedness" in overview
  listed = installed("peakedness", "--help", extend("peakedness"), cache=cache).stdout
  assert "--top: " in listed


@pytest.mark.parametrize(
  "text, words",
  [
    ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ("x = 1\ny = x.wing\n", "line 2"),
    ("def broken(:\n", "line 1"),
    (EXTENSIONS.joinpath("posterise.py").read_text().replace('"posterise"', '"jpeg"'), "'jpeg'"),
    ("from jprotop.experiments import register\nregister(3)\n", "Experiment"),
    ("from jprotop.experiments import Experiment\nExperiment(name='x')\n", "missing"),
  ],
)
def test_a_bad_extension_gets_one_message(tmp_path, text, words):
  path = pathlib.Path(tmp_path) / "bad.py"
  path.write_text(text)
  done = command(
    "train", "--config=tiny", f"--config.extensions={path}", "--workdir=x", cache=tmp_path
  )
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert "bad.py" in done.stderr and words in done.stderr


def test_a_file_that_is_not_named_as_one_of_python_is_told_so(tmp_path):
  path = pathlib.Path(tmp_path) / "notes.txt"
  path.write_text("x = 1")
  with pytest.raises(InputError, match=r"notes\.txt is no file of Python; .*\.py"):
    config_files.load_file(path)
