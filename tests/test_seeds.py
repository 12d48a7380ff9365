"""Studies of several seeds and draws: which there are, what each does, and where it lies."""

import csv
import json
import shutil
import types

import pytest

from configs import tiny
from jprotop.cli import reproduce, seeds
from jprotop.cli.study import stages
from jprotop.errors import InputError
from jprotop.experiments.experiment import record_kinds
from jprotop.runs.config import NETWORKS
from jprotop.runs.config_checks import check_config
from jprotop.runs.records import check_results


def config(**changes):
  found = tiny.get_config()
  found.update_from_flattened_dict(changes)
  return found.to_dict()


def planned(workdir, num_seeds, num_draws, **changes):
  """(folder, training seed, seed of the draw, seed of the measurements) of each study."""
  found = seeds.repetitions(config(**changes), workdir, num_seeds, num_draws)
  rows = []
  for one in found:
    train, measure = one.config["train"], one.config["measure"]
    check_config(one.config)
    assert train["alteration"]["seed"] == measure["alteration"]["seed"]
    rows.append((one.folder.name, train["seed"], train["alteration"]["seed"], measure["seed"]))
  return rows


def test_the_draw_follows_the_seed_unless_it_is_varied_on_its_own(tmp_path):
  assert planned(tmp_path, 3, 1) == [
    ("seed0", 0, 0, 0), ("seed1", 1, 1, 1), ("seed2", 2, 2, 2)
  ]  # fmt: skip
  assert planned(tmp_path, 1, 3) == [
    ("seed0", 0, 0, 0), ("seed0_draw1", 0, 1, 0), ("seed0_draw2", 0, 2, 0)
  ]  # fmt: skip
  # One at a time where both are varied.
  assert planned(tmp_path, 2, 2) == [
    ("seed0", 0, 0, 0), ("seed1", 1, 0, 1), ("seed0_draw1", 0, 1, 0)
  ]  # fmt: skip


def test_they_begin_with_the_config_s_seeds(tmp_path):
  changes = {"train.seed": 7, "measure.seed": 40, "train.alteration.seed": 3}
  changes |= {"measure.alteration.seed": 3}
  assert planned(tmp_path, 2, 1, **changes) == [("seed7", 7, 3, 40), ("seed8", 8, 4, 41)]
  assert planned(tmp_path, 1, 2, **changes)[1] == ("seed7_draw4", 7, 4, 40)


def test_classes_that_are_not_drawn_have_no_draws(tmp_path):
  for changes in ({"train.alteration.classes": "0"}, {"train.protocol": "authors"}):
    with pytest.raises(InputError, match=r"draws the altered classes, but .* draws none"):
      planned(tmp_path, 1, 2, **changes)
    assert len(planned(tmp_path, 2, 1, **changes)) == 2


def test_a_further_draw_does_only_what_the_draw_has_a_say_in(tmp_path):
  first, drawn = seeds.repetitions(config(), tmp_path, 1, 2)
  assert all(map(first.measures, stages()))
  measured = {(stage.name, stage.network) for stage in stages() if drawn.measures(stage)}
  assert {("accuracy", n) for n in ("standard", "altered", "remedied")} <= measured
  assert {("alteration", n) for n in ("standard", "altered", "remedied")} <= measured
  assert not {name for name, _ in measured} & {"head_on_stomach", "success_rate", "explain"}
  assert not any(network == "adversarial" for _, network in measured)


def test_a_further_draw_takes_the_finished_networks_that_see_no_altered_image(
  study, tmp_path, monkeypatch
):
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))
  shutil.copytree(study[0], tmp_path / "seed0")
  first, drawn = seeds.repetitions(config(), tmp_path, 1, 2)
  assert first.given() == {}
  assert drawn.given() == {
    name: tmp_path / "seed0" / name for name in ("standard", "adversarial")
  }  # fmt: skip
  shutil.rmtree(tmp_path / "seed0/standard/checkpoints")
  assert drawn.given().keys() == {"adversarial"}


def test_a_folder_holds_one_study_or_several(study, tmp_path, monkeypatch):
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))
  with pytest.raises(InputError, match=r"holds a study of one seed \(standard/\)"):
    seeds.repetitions(config(), study[0], 2, 1)
  (tmp_path / "seed0/standard").mkdir(parents=True)
  (tmp_path / "seed0/standard/config.json").write_text("{}")
  with pytest.raises(InputError, match=r"studies of several seeds \(seed0/\); give --seeds again"):
    reproduce.reproduce(config(), tmp_path, {}, [])


def test_unknown_networks_are_named(tmp_path):
  with pytest.raises(InputError, match=r"--networks=jpeg is not known; networks are standard"):
    reproduce.reproduce(config(), tmp_path, {}, [], networks=["jpeg"])


def test_finished_seeds_are_not_repeated_but_collected(study, tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))
  shutil.copytree(study[0], tmp_path / "seed0")
  stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("stages/*.json")}
  reproduce.reproduce_several(config(), tmp_path, (1, 1), [], list(NETWORKS))
  assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
  found = json.loads((tmp_path / "results.json").read_text())
  check_results(found, record_kinds(), "results.json")
  (factor,) = found["factors"]
  own = json.loads((tmp_path / "seed0/results.json").read_text())
  assert factor["studies"] == [str(tmp_path / "seed0")]
  assert {row["experiment"] for row in factor["numbers"]} >= own.keys() & {"accuracy", "metrics"}
  assert sum(sum(c["verdicts"].values()) for c in factor["claims"]) == len(own["claims"])
  assert str(tmp_path / "report.html") in capsys.readouterr().out
  assert (tmp_path / "tables/table1.md").exists()
  with open(tmp_path / "tables/numbers.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == len(factor["numbers"])
  (row,) = [r for r in rows if (r["network"], r["number"]) == ("altered", "test.clean")]
  clean = own["accuracy"]["altered"]["test"]["clean"]["value"]
  assert float(row[str(tmp_path / "seed0")]) == float(row["over"]) == clean


def test_networks_restrict_what_is_trained(tmp_path, monkeypatch):
  ran = []
  monkeypatch.setattr(
    reproduce.study, "Study", lambda config, *_: types.SimpleNamespace(config=config)
  )
  monkeypatch.setattr(reproduce.study, "run_stages", lambda _, chosen, tell: ran.extend(chosen))
  monkeypatch.setattr(reproduce, "write_results", lambda _: {})
  reproduce.reproduce(config(), tmp_path, {}, [], networks=["standard", "altered"])
  assert {name for stage in ran for name in stage.needs} == {"standard", "altered"}
  measured = {stage.name for stage in ran}
  assert {"accuracy", "alteration", "head_on_stomach"} <= measured
  assert "success_rate" not in measured  # which takes images that the adversarial one knows too
