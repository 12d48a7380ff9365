"""What a measurement writes: whole or not at all, known by its hashes, and in its own folder."""

import dataclasses
import json
import types

import miniature
import pytest
import study_results

from jprotop.cli import measuring
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, Experiment
from jprotop.files import held
from jprotop.runs import outputs, records, results

NETWORK = "standard"


def made(folder, **texts):
  """A folder of files NAME_txt; returns it."""
  for name, text in texts.items():
    miniature.write(folder / name.replace("__", "/").replace("_txt", ".txt"), text)
  return folder


# --- files and their hashes


def test_files_move_over_those_that_are_there_and_are_known_by_their_hashes(tmp_path):
  folder = made(tmp_path / "out", a_txt="former", b_txt="another's")
  files = outputs.move(made(tmp_path / "new", a_txt="one", figures__c_txt="two"), folder)
  assert files.keys() == {"a.txt", "figures/c.txt"}
  assert (folder / "a.txt").read_text() == "one" and (folder / "b.txt").exists()
  assert outputs.changed(folder, files) == []
  (folder / "figures/c.txt").write_text("tow")
  (folder / "a.txt").unlink()
  assert outputs.changed(folder, files) == ["a.txt", "figures/c.txt"]


def test_what_was_replaced_is_not_removed(tmp_path):
  files = outputs.move(made(tmp_path / "new", a_txt="one", b_txt="two"), tmp_path / "out")
  (tmp_path / "out/b.txt").write_text("the user's")
  outputs.remove(tmp_path / "out", files)
  assert list(miniature.tree(tmp_path / "out")) == ["b.txt"]


def test_no_name_reaches_out_of_the_folder(tmp_path):
  """results.json is a file from outside."""
  outside = miniature.write(tmp_path / "a.txt", "one")
  (tmp_path / "out").mkdir()
  (digest,) = outputs.move(made(tmp_path / "new", a_txt="one"), tmp_path / "out").values()
  for name in ("../a.txt", "x/../../a.txt", str(outside)):
    assert not outputs.is_unchanged(tmp_path / "out", name, digest)
    outputs.remove(tmp_path / "out", {name: digest})
  assert outside.exists()


@pytest.mark.parametrize("files", [[], {"a": []}, {"a": {"standard": {"x.png": 3}}}])
def test_files_that_are_none_are_named(files):
  with pytest.raises(InputError, match=r"results\.json: files"):
    outputs.files_of({"files": files}, "a", "standard")


def test_each_new_folder_is_another_one(tmp_path):
  names = [outputs.new_folder(tmp_path, "explain").name for _ in range(3)]
  assert names == ["explain-1", "explain-2", "explain-3"]
  made(tmp_path, explain_txt="")
  with pytest.raises(InputError, match="cannot make the folder"):
    outputs.new_folder(tmp_path / "explain.txt", "explain")


# --- a measurement into a folder


class Written(records.Record):
  """A record of one number."""

  number: int


def writing(*names, fails=False, **changes):
  """An experiment that writes files of these names, and then perhaps fails."""

  def measure(run, out, *, number=1):
    for name in names:
      miniature.write(out / name, f"{name} {number}")
    if fails:
      raise InputError("no image to be had")
    return {"number": number}

  return Experiment(name="writing", summary="", measure=measure, record=Written, **changes)


RUN = types.SimpleNamespace(config=study_results.config(), info={"data": "abc"})


def contents(folder):
  return {name: (folder / name).read_text() for name in miniature.tree(folder)}


def test_numbers_and_files_come_together_and_the_former_ones_go(tmp_path):
  both = writing("figures/a.png", "figures/b.png", "x.npz")
  measuring.measure_into(both, RUN, tmp_path)
  done = measuring.measure_into(writing("figures/a.png", "y.npz"), RUN, tmp_path, number=2)
  found = contents(tmp_path)
  assert found.pop("results.json")
  assert found == {"figures/a.png": "figures/a.png 2", "y.npz": "y.npz 2"}
  kept = results.read_results(tmp_path)
  assert kept == done.results and kept["writing"] == {NETWORK: {"number": 2}}
  assert kept["files"] == {"writing": {NETWORK: done.files}}
  assert outputs.changed(tmp_path, done.files) == []


def test_an_experiment_that_adds_to_its_record_keeps_its_files(tmp_path):
  add = dict(merge=lambda before, now: {"number": (before or {"number": 0})["number"] + 1})
  measuring.measure_into(writing("test.png", **add), RUN, tmp_path)
  done = measuring.measure_into(writing("validation.png", **add), RUN, tmp_path)
  assert done.results["writing"][NETWORK] == {"number": 2}
  assert done.results["files"]["writing"][NETWORK].keys() == {"test.png", "validation.png"}
  assert done.files.keys() == {"validation.png"}


def test_a_measurement_that_fails_leaves_the_former_one_whole(tmp_path):
  measuring.measure_into(writing("a.png", "b.png"), RUN, tmp_path)
  before = contents(tmp_path)
  with pytest.raises(InputError, match="no image"):
    measuring.measure_into(writing("a.png", fails=True), RUN, tmp_path, number=2)
  wrong = dataclasses.replace(writing("a.png"), record=records.Share)
  with pytest.raises(InputError):
    measuring.measure_into(wrong, RUN, tmp_path)
  assert contents(tmp_path) == before
  with pytest.raises(InputError, match="no image"):
    measuring.measure_into(writing("a.png", fails=True), RUN, tmp_path / "new")
  assert not (tmp_path / "new").exists()


def test_what_a_killed_command_left_goes_with_the_next(tmp_path):
  made(tmp_path / ".new-12345678", a_txt="half")
  measuring.measure_into(writing("a.png"), RUN, tmp_path)
  assert contents(tmp_path).keys() == {"a.png", "results.json"}


def test_the_second_of_two_commands_in_one_folder_is_told(tmp_path):
  with held(tmp_path), pytest.raises(InputError, match="another command is writing into"):
    measuring.measure_into(writing("a.png"), RUN, tmp_path)
  assert not list(tmp_path.iterdir())


def test_results_json_that_cannot_be_added_to_is_said_before_the_work(tmp_path):
  (tmp_path / "results.json").write_text(json.dumps({"seed": 0}))
  with pytest.raises(InputError, match=r"has the form of jprotop 0\.1"):
    measuring.measure_into(dataclasses.replace(writing(), measure=None), RUN, tmp_path)


def test_commands_that_take_images_of_one_s_own_have_a_folder_for_them():
  """They would replace the run's own measurement."""
  own = {name for name, e in EXPERIMENTS.items() if any(flag.apart for flag in e.flags)}
  assert own == {"alteration", "explain", "head_on_stomach"}
