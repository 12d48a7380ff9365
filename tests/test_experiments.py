"""The commands as a user gives them: one whole run on the tiny config, and what goes wrong."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
from commands import command
from PIL import Image

import jprotop
from jprotop.cli import flags, main
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, head_on_stomach, training
from jprotop.experiments.pages import write_run_report
from jprotop.report import tables
from jprotop.runs import run as runs
from jprotop.runs.records import check_record


@pytest.fixture
def in_cache(run, monkeypatch):
  monkeypatch.setenv("JPROTOP_CACHE", str(run[1]))
  return run[0]


def test_the_run_s_folder_holds_what_its_commands_write(run):
  workdir, _, done = run
  assert "test accuracy" in done.stdout and "Head on Stomach" in done.stdout
  names = {path.name for path in (workdir / "figures").iterdir()}
  assert {"confusion_test.png", "training_curves.png", "similarity_shift.png"} <= names
  assert any(name.startswith("head_on_stomach_") for name in names)
  # Progress: each phase is named.
  for phase in ("pretrain", "warm", "joint", "push", "last_layer"):
    assert phase in done.stderr + done.stdout


def test_results_state_every_number_with_its_count_and_interval(run):
  results = json.loads((run[0] / "results.json").read_text())
  assert {"config", "environment", "accuracy", "training", "head_on_stomach"} <= results.keys()
  assert (results["config"]["train"]["seed"], results["config"]["train"]["protocol"]) == (
    0,
    "paper",
  )
  assert {"accuracy", "training", "head_on_stomach"} <= results["environment"].keys()
  attack, test = results["head_on_stomach"]["standard"], results["accuracy"]["standard"]["test"]
  shares = ("moved_to_target", "exceeds_clean_maximum", "prediction_kept", "control_moved")
  for share in [attack["metrics"][s] for s in shares] + [test["clean"]]:
    assert share["value"] == share["count"] / share["total"]
    assert share["interval"][0] <= share["value"] <= share["interval"][1]
  for where in ("source_before", "source_after", "target_before", "target_after"):
    number = attack["metrics"][f"similarity_{where}"]
    assert number["total"] == attack["num_images"]
    assert number["interval"][0] <= number["value"] <= number["interval"][1]
  assert np.trace(np.array(test["confusion"])) == test["clean"]["count"]
  push = results["training"]["standard"]["push"]
  assert push["num_prototypes"] == 6
  assert 1 <= push["distinct"] <= 6


def test_attack_arrays_agree_with_the_network_and_the_numbers(run):
  workdir = run[0]
  model, variables, _ = jprotop.load(str(workdir))
  with np.load(workdir / "attack.npz") as file:
    record = dict(file)
  off = ~record["mask"][..., None]
  change = np.abs(record["attacked"] - record["images"])
  assert (change * off).max() == 0 and change.max() <= 8 / 255 + 1e-6
  out = jax.jit(model.apply)(variables, record["attacked"])
  np.testing.assert_allclose(out.logits, record["attacked_logits"], atol=1e-3)
  own = np.asarray(out.similarity_map)[np.arange(len(change)), ..., record["prototype"]]
  np.testing.assert_allclose(own, record["attacked_similarity_map"], atol=1e-3)
  numbers = json.loads((workdir / "results.json").read_text())["head_on_stomach"]["standard"]
  flat = record["attacked_similarity_map"].reshape(len(own), -1).argmax(1)
  moved = record["target"].reshape(len(own), -1)[np.arange(len(own)), flat].sum()
  assert numbers["metrics"]["moved_to_target"]["count"] == moved


@pytest.fixture
def fast(in_cache, tmp_path):
  """Head on Stomach on the tiny run, with its smallest budget; it writes into tmp_path / "out"."""

  def measure(attack=None, **flags):
    changes = {
      f"measure.attack.{name}": v for name, v in {"num_steps": 1, **(attack or {})}.items()
    }
    opened = runs.open_run(in_cache, changes=changes)
    record = head_on_stomach.measure(opened, tmp_path / "out", **flags)
    check_record(record, head_on_stomach.HeadOnStomach, "head_on_stomach")
    return record

  return measure


def test_images_from_files_with_one_that_is_corrupt(fast, tmp_path):
  rng = np.random.default_rng(0)
  for name, shape in (("a.png", (40, 30, 3)), ("b.jpg", (20, 64))):
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
  (tmp_path / "broken.jpg").write_bytes(b"not an image")
  numbers = fast({"survive_jpeg": 75}, images=str(tmp_path), target_cells="0,0:0,1")
  assert numbers["survive_jpeg"] == 75
  assert numbers["num_images"] == 2 and [i["target"] for i in numbers["images"]] == ["cells"] * 2
  assert len(numbers["unreadable"]) == 1 and "broken.jpg" in numbers["unreadable"][0]
  assert numbers["images"][0]["true_class"] is None
  printed = "\n".join(head_on_stomach.tell(numbers, tmp_path))
  assert "JPEG files of quality 75" in printed and "not read: " in printed


def test_images_from_an_array_prototype_and_cells_as_told(fast, tmp_path):
  rng = np.random.default_rng(0)
  np.save(tmp_path / "x.npy", rng.random((3, 64, 64, 3), np.float32))
  numbers = fast({"eps": 0.0}, images=str(tmp_path / "x.npy"), prototype=4, target_cells="1,2:2,3")
  assert {row["prototype"] for row in numbers["images"]} == {4}
  assert numbers["num_images"] + len(numbers["not_attacked"]) == 3
  assert numbers["survive_jpeg"] is None
  with np.load(tmp_path / "out/attack.npz") as file:
    np.testing.assert_array_equal(file["attacked"], file["images"])
    expected = np.zeros((4, 4), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(file["target"], np.stack([expected] * len(file["target"])))


def test_test_set_indices_and_a_part(fast):
  numbers = fast(images="0,7", target_part="belly")
  assert numbers["num_images"] + len(numbers["not_attacked"]) == 2
  # Shares below would need a pass over the whole test set.
  assert "share_below_attacked" not in numbers["metrics"]
  assert all(row["target"] == "belly" for row in numbers["images"])


@pytest.mark.parametrize(
  "attack, given, message",
  [
    ({}, {"images": "0,99"}, "index 99 is outside"),
    ({}, {"images": "nowhere.jpg"}, "does not exist"),
    ({}, {"prototype": 6}, "prototype 6 does not exist"),
    ({"survive_jpeg": 96}, {}, "survive_jpeg=96 must be"),
    ({"eps": 8.0}, {}, "eps=8.0 must be a number from 0 to 1"),
    ({"num_images": 0}, {}, "num_images=0 must be a whole number from 1"),
    ({}, {"target_cells": "0,0:4,0"}, r"cell \(4, 0\) is outside .* 4 x 4"),
    ({}, {"target_part": "knee"}, "part 'knee' is not known"),
    ({}, {"target_cells": "1,1:2,2", "target_part": "tail"}, "exclude each other"),
  ],
)
def test_what_cannot_be_attacked_is_said(fast, tmp_path, attack, given, message):
  with pytest.raises(InputError, match=message):
    fast(attack, **given)
  assert not (tmp_path / "out/attack.npz").exists()


def test_an_eps_may_be_written_as_a_fraction():
  parse = flags.Fraction().parse
  assert parse("8/255") == 8 / 255 and parse("0.5") == 0.5
  for text in ("8/255/2", "8/0"):
    with pytest.raises(ValueError):
      parse(text)
  assert flags.Fraction().flag_type() == "float"  # What absl calls for --helpxml.


@pytest.mark.parametrize("text", ["1,1", "1,1:2", "a,b:c,d", "1,1:2,2:3,3"])
def test_malformed_cells(text):
  with pytest.raises(InputError, match="row,column:row,column"):
    head_on_stomach.parse_cells(text)


def test_the_report_is_one_page_with_the_numbers(in_cache, tmp_path):
  shutil.copytree(in_cache, tmp_path / "run")
  opened = runs.open_run(tmp_path / "run")
  assert training.measure(opened, tmp_path / "run")["push"]
  results = json.loads((in_cache / "results.json").read_text())
  page = write_run_report(tmp_path / "run", results).read_text()
  page = re.sub(r"</?span>", "", page)
  found = {name: results[name]["standard"] for name in EXPERIMENTS if name in results}
  accuracy = found["accuracy"]["test"]["clean"]
  assert f"{accuracy['count']}/{accuracy['total']}" in page
  for name in ("head on stomach 1", "success at k", "alteration drop", "explain 1", "gallery 1"):
    assert name in page
  for number in (
    found["success_rate"]["paper"]["rate_at"]["1"],
    found["alteration"]["selections"]["all"]["similarity_drop"],
    found["vanishing_head"]["metrics"]["drop"],
  ):
    assert tables.format_metric(number) in page
  pictures = re.findall(r"base64,[^\"']+", page)
  assert len(pictures) == len(set(pictures)) > 5  # none stands under two headings
  assert "random artefacts (App. F.2)" not in page  # which this network never saw
  assert not re.search(r"""(src|href)=["']?https?:""", page)


def test_help_lists_the_flags_that_commands_share(tmp_path):
  listed = command("head_on_stomach", "--help", cache=tmp_path).stdout
  for name in ("workdir", "out", "seed", "images", "eps", "target_part", "config"):
    assert f"  --{name}: " in listed
  assert "--config.measure.attack.eps" in listed


def test_the_overview_has_every_command_with_what_it_is_for():
  text = main.overview()
  names = [*EXPERIMENTS, "train", "import_checkpoint", "download_cub", "reproduce", "report"]
  for name in [*names, "benchmark"]:
    (line,) = re.findall(rf"^  {name.replace('_', '-')} +(.*)$", text, re.MULTILINE)
    assert line


def test_a_flag_is_another_name_for_a_key_and_own_images_have_a_folder_of_their_own(run, tmp_path):
  records, own = [], run[0] / "head-on-stomach-1"
  kept = [run[0] / "attack.npz", run[0] / "results.json", *(run[0] / "figures").iterdir()]
  before = {path: path.read_bytes() for path in kept}
  by_key = ["--config.measure.attack.eps=4/255", f"--out={tmp_path / 'out'}"]
  for out, flags_ in ((own, ["--eps=4/255"]), (tmp_path / "out", by_key)):
    arguments = [f"--workdir={run[0]}", "--images=0,7", *flags_]
    done = command("head_on_stomach", *arguments, "--num_steps=1", cache=run[1])
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"figures in {out}/figures" in done.stdout
    assert (f"goes to {own}" in done.stdout) == (out == own)
    found = json.loads((out / "results.json").read_text())
    assert found["config"]["measure"]["attack"]["eps"] == 4 / 255
    records.append(found["head_on_stomach"]["standard"])
  assert records[0] == records[1]
  assert records[0]["eps"] == 4 / 255 and records[0]["num_steps"] == 1
  assert {path: path.read_bytes() for path in before} == before
  # The run keeps its own.
  config = json.loads((run[0] / "config.json").read_text())
  assert config["measure"]["attack"]["eps"] == 8 / 255


@pytest.mark.parametrize(
  "module, arguments, message",
  [
    ("train", ["--config=configs/tiny.py"], "--workdir is missing"),
    ("train", ["--workdir=x", "--config=configs/tiny.py", "--config.data.dri=y"], "data.dir"),
    ("train", ["--workdir=x", "--config=configs/tiny.py", "--config.modle.addon=y"], "model.addon"),
    ("train", ["--workdir=x", "--config=configs/nope.py"], "configs/nope.py cannot be read"),
    (
      "train",
      ["--workdir=x", "--config=tiny", "--config.attack.eps=4/255", "--config.variant=jpeg"],
      "the config key attack.eps is measure.attack.eps since jprotop 0.2\n"
      "the config key variant is train.network since jprotop 0.2",
    ),
    ("accuracy", ["--workdir=nowhere"], "holds no run"),
    ("accuracy", ["--workdir=RUN/.."], "holds a study; name one of its networks"),
    ("accuracy", ["--workdir=RUN", "surplus"], "surplus"),
    (
      "accuracy",
      ["--workdir=RUN", "--config.train.seed=5"],
      "--config.train.seed belongs to the training of the run",
    ),
    ("accuracy", ["--workdir=FORMER"], "holds a run of jprotop 0.1, whose config has another"),
    (
      "accuracy",
      ["--workdir=RUN", "--out=FORMER"],
      "has the form of jprotop 0.1, and this version reads form 4 alone (jprotop 0.3); move it "
      "away and run the command that wrote it again",
    ),
    ("explain", ["--workdir=RUN", "--prototypes=a"], "--prototypes: 'a' is no number"),
    ("explain", ["--workdir=RUN", "--num_images=0"], "num_images"),
    (
      "head_on_stomach",
      ["--workdir=RUN", "--target_cells=1,1:2,2", "--target_part=tail"],
      "exclude each other",
    ),
    ("head_on_stomach", ["--workdir=RUN", "--eps=8/0"], "its denominator is 0"),
    ("prune", ["--workdir=RUN"], "--out is missing"),
    (
      "train",
      ["--workdir=RUN", "--config=configs/tiny.py", "--config.train.seed=5"],
      "seed: there 0",
    ),
    ("train", ["--workdir=x", "--config=configs/cub_small.py", "--config.data.dir=n"], "download"),
  ],
)
def test_bad_commands_get_one_message_and_no_traceback(run, tmp_path, module, arguments, message):
  (tmp_path / "config.json").write_text(json.dumps({"variant": "standard", "seed": 0}))
  (tmp_path / "results.json").write_text(json.dumps({"seed": 0, "evaluate": {}}))
  arguments = [a.replace("RUN", str(run[0])).replace("FORMER", str(tmp_path)) for a in arguments]
  done = command(module, *arguments, cache=run[1])
  assert done.returncode != 0
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert done.stderr.count("error: ") == 1
  assert len(list(tmp_path.iterdir())) == 2
