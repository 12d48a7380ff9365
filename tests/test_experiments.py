"""The commands as a user gives them: one whole run on the tiny config, and what goes wrong."""

import json
import re
import shutil

import numpy as np
import pytest
from commands import command
from PIL import Image

import jprotop
from experiments import budget, cli, head_on_stomach, report
from jprotop.errors import InputError
from jprotop.evaluation.attack_cases import Target
from jprotop.figures import tables
from jprotop.figures.run_report import write_run_report
from jprotop.training import runs


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
  assert {"config", "environment", "seed", "protocol", "evaluate", "push", "head_on_stomach"} <= (
    results.keys()
  )
  attack = results["head_on_stomach"]
  shares = ("moved_to_target", "exceeds_clean_maximum", "prediction_kept", "control_moved")
  for share in [attack["metrics"][s] for s in shares] + [results["evaluate"]["test"]["clean"]]:
    assert share["value"] == share["count"] / share["total"]
    assert share["interval"][0] <= share["value"] <= share["interval"][1]
  for where in ("source_before", "source_after", "target_before", "target_after"):
    number = attack["metrics"][f"similarity_{where}"]
    assert number["total"] == attack["num_images"]
    assert number["interval"][0] <= number["value"] <= number["interval"][1]
  confusion = np.array(results["evaluate"]["test"]["confusion"])
  assert np.trace(confusion) == results["evaluate"]["test"]["clean"]["count"]
  assert results["push"]["num_prototypes"] == 6
  assert 1 <= results["push"]["distinct"] <= 6


def test_attack_arrays_agree_with_the_network_and_the_numbers(run):
  workdir = run[0]
  model, variables, _ = jprotop.load(str(workdir))
  with np.load(workdir / "attack.npz") as file:
    record = dict(file)
  off = ~record["mask"][..., None]
  change = np.abs(record["attacked"] - record["images"])
  assert (change * off).max() == 0 and change.max() <= 8 / 255 + 1e-6
  out = model.apply(variables, record["attacked"])
  np.testing.assert_allclose(out.logits, record["attacked_logits"], atol=1e-3)
  own = np.asarray(out.similarity_map)[np.arange(len(change)), ..., record["prototype"]]
  np.testing.assert_allclose(own, record["attacked_similarity_map"], atol=1e-3)
  numbers = json.loads((workdir / "results.json").read_text())["head_on_stomach"]
  flat = record["attacked_similarity_map"].reshape(len(own), -1).argmax(1)
  moved = record["target"].reshape(len(own), -1)[np.arange(len(own)), flat].sum()
  assert numbers["metrics"]["moved_to_target"]["count"] == moved


@pytest.fixture
def fast(in_cache, tmp_path):
  """Head on Stomach on the tiny run, with its smallest budget; it writes into tmp_path / "out"."""
  opened = runs.open_run(in_cache)

  def measure(**given):
    found = head_on_stomach.measure(opened, tmp_path / "out", **{"num_steps": 1, **given})
    return found["head_on_stomach"]

  return measure


def test_images_from_files_with_one_that_is_corrupt(fast, tmp_path):
  rng = np.random.default_rng(0)
  for name, shape in (("a.png", (40, 30, 3)), ("b.jpg", (20, 64))):
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
  (tmp_path / "broken.jpg").write_bytes(b"not an image")
  target = Target(cells=((0, 0), (0, 1)))
  numbers = fast(images=str(tmp_path), target=target, survive_jpeg=75)
  assert numbers["survive_jpeg"] == 75
  assert numbers["num_images"] == 2 and [i["target"] for i in numbers["images"]] == ["cells"] * 2
  assert len(numbers["unreadable"]) == 1 and "broken.jpg" in numbers["unreadable"][0]
  assert numbers["images"][0]["true_class"] is None


def test_images_from_an_array_prototype_and_cells_as_told(fast, tmp_path):
  rng = np.random.default_rng(0)
  np.save(tmp_path / "x.npy", rng.random((3, 64, 64, 3), np.float32))
  numbers = fast(
    images=str(tmp_path / "x.npy"), prototype=4, target=Target(cells=((1, 2), (2, 3))), eps=0.0
  )
  assert {row["prototype"] for row in numbers["images"]} == {4}
  assert numbers["num_images"] + len(numbers["not_attacked"]) == 3
  with np.load(tmp_path / "out/attack.npz") as file:
    np.testing.assert_array_equal(file["attacked"], file["images"])
    expected = np.zeros((4, 4), bool)
    expected[1:3, 2:4] = True
    np.testing.assert_array_equal(file["target"], np.stack([expected] * len(file["target"])))


def test_test_set_indices_and_a_part(fast):
  numbers = fast(images="0,7", target=Target(part="belly"))
  assert numbers["num_images"] + len(numbers["not_attacked"]) == 2
  # Percentiles would need a pass over the whole test set.
  assert "percentile_of_attacked" not in numbers["metrics"]
  assert all(row["target"] == "belly" for row in numbers["images"])


@pytest.mark.parametrize(
  "given, message",
  [
    ({"images": "0,99"}, "index 99 is outside"),
    ({"images": "nowhere.jpg"}, "does not exist"),
    ({"prototype": 6}, "prototype 6 does not exist"),
    ({"survive_jpeg": 0}, "JPEG quality=0 must be"),
    ({"eps": 8.0}, r"eps=8.0 is outside \[0, 1\]"),
    ({"target": Target(cells=((0, 0), (4, 0)))}, r"cell \(4, 0\) is outside .* 4 x 4"),
    ({"target": Target(part="knee")}, "part 'knee' is not known"),
  ],
)
def test_what_cannot_be_attacked_is_said(fast, tmp_path, given, message):
  with pytest.raises(InputError, match=message):
    fast(**given)
  assert not (tmp_path / "out/attack.npz").exists()


def test_an_eps_may_be_written_as_a_fraction():
  parse = budget.Fraction().parse
  assert parse("8/255") == 8 / 255 and parse("0.5") == 0.5
  for text in ("8/255/2", "8/0"):
    with pytest.raises(ValueError):
      parse(text)


def test_a_list_of_numbers():
  assert cli.integers("images", None, "indices") is None
  assert cli.integers("images", ["3", "17"], "indices") == [3, 17]
  with pytest.raises(InputError, match=r"--images=3,bird\.jpg must be indices"):
    cli.integers("images", ["3", "bird.jpg"], "indices")


@pytest.mark.parametrize("text", ["1,1", "1,1:2", "a,b:c,d", "1,1:2,2:3,3"])
def test_malformed_cells(text):
  with pytest.raises(InputError, match="row,column:row,column"):
    head_on_stomach.parse_cells(text)


def test_the_report_is_one_page_with_the_numbers(in_cache, tmp_path):
  shutil.copytree(in_cache, tmp_path / "run")
  assert "push" in report.measure(runs.open_run(tmp_path / "run"), tmp_path / "run")
  results = json.loads((in_cache / "results.json").read_text())
  page = write_run_report(tmp_path / "run", results).read_text()
  accuracy = results["evaluate"]["test"]["clean"]
  assert f"{accuracy['count']}/{accuracy['total']}" in page
  for name in ("head on stomach 0", "success at k", "jpeg drop", "explain 0", "gallery 000"):
    assert name in page
  for number in (
    results["success_rate"]["paper"]["rate_at"]["1"],
    results["jpeg_drift"]["selections"]["all"]["similarity_drop"],
    results["vanishing_head"]["metrics"]["drop"],
  ):
    assert tables.format_metric(number) in page
  pictures = re.findall(r"base64,[^\"']+", page)
  assert len(pictures) == len(set(pictures)) > 5  # none stands under two headings
  assert "random compression (App. F.2)" not in page  # which this network never saw
  assert not re.search(r"""(src|href)=["']?https?:""", page)


def test_help_lists_the_flags_that_commands_share(tmp_path):
  listed = command("head_on_stomach", "--help", cache=tmp_path).stdout
  for name in ("workdir", "out", "seed", "images", "eps", "target_part"):
    assert f"  --{name}: " in listed


@pytest.mark.parametrize(
  "module, arguments, message",
  [
    ("train", ["--config=configs/tiny.py"], "--workdir is missing"),
    ("train", ["--workdir=x", "--config=configs/tiny.py", "--config.data.dri=y"], "data.dir"),
    ("train", ["--workdir=x", "--config=configs/tiny.py", "--config.modle.addon=y"], "model.addon"),
    ("train", ["--workdir=x", "--config=configs/nope.py"], "error: the config file cannot be read"),
    ("evaluate", ["--workdir=nowhere"], "holds no run"),
    ("evaluate", ["--workdir=RUN", "surplus"], "surplus"),
    ("explain", ["--prototypes=a"], "--prototypes=a must be numbers of prototypes"),
    ("head_on_stomach", ["--target_cells=1,1:2,2", "--target_part=tail"], "exclude each other"),
    ("train", ["--workdir=RUN", "--config=configs/tiny.py", "--config.seed=5"], "seed: there 0"),
    ("train", ["--workdir=x", "--config=configs/cub_small.py", "--config.data.dir=n"], "download"),
  ],
)
def test_bad_commands_get_one_message_and_no_traceback(run, module, arguments, message):
  arguments = [a.replace("RUN", str(run[0])) for a in arguments]
  done = command(module, *arguments, cache=run[1])
  assert done.returncode != 0
  assert message in done.stderr
  assert "Traceback" not in done.stderr
