"""Experiments make the stages of a study: what may be registered, and what comes after what."""

import dataclasses
import json
import shutil

import pytest

from configs import tiny
from jprotop.cli import reproduce
from jprotop.cli import study as studies
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, Experiment, register
from jprotop.experiments.experiment import record_kinds
from jprotop.runs import records
from jprotop.runs.config import NETWORKS


class Counted(records.Record):
  """A record of one number."""

  number: int


def experiment(**changes):
  wanted = {
    "name": "counting",
    "summary": "counts to three",
    "measure": lambda run, out, beside=None: {"number": 3},
    "record": Counted,
    "networks": ("altered", "standard"),
  }
  return Experiment(**{**wanted, **changes})


@pytest.fixture(autouse=True)
def registry():
  """What a test registers is gone after it."""
  before = dict(EXPERIMENTS)
  yield
  EXPERIMENTS.clear()
  EXPERIMENTS.update(before)


@pytest.mark.parametrize(
  ("wanted", "words"),
  [
    (experiment(name="accuracy"), "there is an experiment 'accuracy' already"),
    (experiment(networks=("standard", "jpeg")), "needs a network 'jpeg', which no study has"),
    (experiment(also=("robust",)), "needs a network 'robust', .* standard, altered, remedied"),
    (experiment(name="two words"), "'two words' must be letters, digits and _"),
    (lambda run: None, "is no Experiment"),
    ({"name": "counting"}, "is no Experiment"),
    (Experiment, "is no Experiment"),
  ],
)
def test_what_cannot_be_registered_is_said(wanted, words):
  before = dict(EXPERIMENTS)
  with pytest.raises(InputError, match=words):
    register(wanted)
  assert before == EXPERIMENTS


def test_a_name_is_registered_once():
  one = experiment()
  assert register(one) is one
  with pytest.raises(InputError, match="'counting' already; choose another name"):
    register(experiment(summary="another"))
  assert EXPERIMENTS["counting"] is one
  assert record_kinds()["counting"] is Counted


def test_every_stage_comes_after_the_stages_of_networks_that_are_trained_before():
  order = list(NETWORKS)
  last = [max(order.index(name) for name in stage.needs) for stage in studies.stages()]
  assert last == sorted(last)
  # So a network is trained when the first stage needs it, in this order.
  needed = dict.fromkeys(name for stage in studies.stages() for name in stage.needs)
  assert set(needed) == set(order)


def test_the_altered_network_is_measured_before_those_that_show_its_images():
  stages = [stage for stage in studies.stages() if stage.name == "alteration"]
  assert [stage.network for stage in stages] == ["altered", "standard", "remedied"]
  assert all("altered" in stage.needs for stage in stages)


def test_an_experiment_that_is_added_is_a_stage_of_each_of_its_networks_and_a_part():
  before = studies.stages()
  register(experiment())
  added = [stage for stage in studies.stages() if stage.name == "counting"]
  assert [stage.network for stage in added] == ["standard", "altered"]
  assert [stage for stage in studies.stages() if stage not in added] == before
  assert "counting" in studies.parts() and added[0].parts == {"counting"}
  register(experiment(name="by_command_alone", networks=()))
  assert len(studies.stages()) == len(before) + 2 and "by_command_alone" not in studies.parts()


def test_tables_are_parts_of_the_stages_that_they_need():
  needed = {
    part: {(s.name, s.network) for s in studies.stages() if part in s.parts}
    for part in ("table1", "table3")
  }
  assert needed["table1"] == {("accuracy", "standard")}
  assert needed["table3"] == {
    (name, network)
    for name in ("accuracy", "robustness", "success_rate")
    for network in ("standard", "adversarial")
  }


def test_a_stage_that_is_added_leaves_the_form_and_the_numbers_of_the_others(
  study, tmp_path, monkeypatch
):
  monkeypatch.setenv("JPROTOP_CACHE", str(study[1]))
  workdir = tmp_path / "study"
  shutil.copytree(study[0], workdir)
  stamps = {path: path.stat().st_mtime_ns for path in workdir.rglob("stages/*.json")}
  before = json.loads((workdir / "results.json").read_text())

  register(experiment())
  # Of one network until now: with a second one its record stays where it was.
  wider = dataclasses.replace(
    EXPERIMENTS["vanishing_head"],
    networks=("standard", "adversarial"),
    measure=lambda run, out, beside=None: before["vanishing_head"]["standard"],
  )
  EXPERIMENTS["vanishing_head"] = wider
  found = reproduce.reproduce(tiny.get_config().to_dict(), workdir, {}, [])

  assert found["counting"] == {"standard": {"number": 3}, "altered": {"number": 3}}
  assert found["vanishing_head"].keys() == {"standard", "adversarial"}
  assert found["vanishing_head"]["standard"] == before["vanishing_head"]["standard"]
  ours = ("counting", "vanishing_head", "environment", "files", "digests")
  assert {name: found[name] for name in before if name not in ours} == {
    name: value for name, value in before.items() if name not in ours
  }
  records.check_results(found, record_kinds(), "results.json")
  added = {
    "counting": found["files"]["counting"],
    "vanishing_head": found["files"]["vanishing_head"],
  }
  assert found["files"] == {**before["files"], **added}
  assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
  added = {path.relative_to(workdir) for path in workdir.rglob("stages/*.json")} - {
    path.relative_to(workdir) for path in stamps
  }
  assert {str(path) for path in added} == {
    "standard/stages/counting.json",
    "altered/stages/counting.json",
    "adversarial/stages/vanishing_head.json",
  }
  own = json.loads((workdir / "adversarial/results.json").read_text())
  assert own["vanishing_head"] == {"adversarial": before["vanishing_head"]["standard"]}
