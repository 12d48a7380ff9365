"""The whole paper as stages: which networks it needs, what is measured on each, what is done.

A stage measures one thing on one network and writes its figures and `stages/NAME.json` into
WORKDIR/NETWORK. The file names everything that the numbers came from, so that a stage is repeated
when its network or a setting that it uses has changed, and only then.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from experiments import (
  evaluate,
  explain,
  head_on_stomach,
  jpeg,
  report,
  success_rate,
  vanishing_head,
)
from jprotop.errors import InputError
from jprotop.evaluation import accuracy, results
from jprotop.files import ensure_folder, write_json
from jprotop.training import loop, runs
from jprotop.training.checkpoints import differences, read_config, trained_part
from jprotop.training.runs import Run

# What later commands read of a config; a run that was trained elsewhere is measured by the study's.
_MEASURED = ("attack", "success_rate", "robust", "jpeg")


class Study:
  """The networks of one paper, backbone and data set, each trained or given.

  Args:
    config: plain values of a config file; its variant does not matter.
    workdir: the study's folder.
    given: finished runs, by the network that they stand for.
  """

  def __init__(self, config: dict, workdir: pathlib.Path, given: dict[str, pathlib.Path]):
    self.config = runs.check_config({**config, "variant": "standard"})
    if (workdir / "config.json").exists():
      raise InputError(
        f"--workdir={workdir} holds a single run; a study makes a folder for each of its networks, "
        "so give it one of its own (and the run as --standard, --jpeg, ...)"
      )
    self.workdir, self.given = workdir, given
    begun = (self.given.get(name, self.place(name)) / "checkpoints" for name in runs.VARIANTS)
    if not all(folder.exists() for folder in begun):
      runs.backbone_file(self.config)  # What cannot be had is said before the data are prepared.
    self.dataset = runs.open_dataset(self.config)
    # A choice of classes that makes no experiment is an error now, not after the first training.
    runs.jpeg_scheme(self.config, len(self.dataset.class_names))
    for name in given:  # Before anything is trained for the others.
      self._check_given(name)
    self._open: dict[str, Run] = {}
    self._correct: dict[str, np.ndarray] = {}

  def place(self, network: str) -> pathlib.Path:
    return self.workdir / network

  def network(self, name: str) -> Run:
    """The network of that name: opened, or trained first."""
    if name not in self._open:
      if name in self.given:
        run = self._given(name)
      else:
        self._train(name)
        run = runs.open_run(self.place(name), self.dataset)
      measured = {section: self.config[section] for section in _MEASURED}
      info = {**run.info, "config": {**run.config, **measured}}
      self._open[name] = dataclasses.replace(run, info=info)
    return self._open[name]

  def finished(self, name: str) -> bool:
    """Whether a network can be opened without training it."""
    return name in self._open or name in self.given or runs.is_finished(self.place(name))

  def _train(self, name: str) -> None:
    print(f"\n== the {name} network", flush=True)
    config = {**self.config, "variant": name}
    siblings = [self.given.get(other, self.place(other)) for other in runs.VARIANTS]
    loop.train(config, self.place(name), dataset=self.dataset, siblings=siblings)

  def _check_given(self, name: str) -> None:
    """Raises InputError unless a run from elsewhere is what it is taken for."""
    workdir = self.given[name]
    config = read_config(workdir)
    if config["variant"] != name:
      raise InputError(
        f"--{name}={workdir} holds a network of variant {config['variant']}; give one that was "
        f"trained with --config=FILE:{name}"
      )
    if changes := differences(_must_agree(config), _must_agree({**self.config, "variant": name})):
      raise InputError(
        f"--{name}={workdir} does not belong to this study; make these equal with "
        "--config.KEY=VALUE, or leave it out\n  " + "\n  ".join(changes)
      )

  def _given(self, name: str) -> Run:
    workdir = self.given[name]
    run = runs.open_run(workdir, self.dataset)
    if not run.info["finished"]:
      raise InputError(
        f"--{name}={workdir} has not finished its training; give the command that trains it again"
      )
    return run

  def correct(self, name: str) -> np.ndarray:
    """Which clean test images a network classifies correctly, boolean [N]."""
    if name not in self._correct:
      run, test = self.network(name), self.dataset.test
      size = run.config["training"]["evaluation_batch_size"]
      self._correct[name] = accuracy.correct(run.model, run.variables, test, batch_size=size)
    return self._correct[name]


def _must_agree(config: dict) -> dict:
  """What the networks of one study have in common, however each of them was trained."""
  what = trained_part(config)
  data = {key: what["data"][key] for key in ("image_size", "validation_share", "toy")}
  alike = {key: what[key] for key in ("model", "seed", "protocol", "jpeg") if key in what}
  return {**alike, "data": data}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One measurement on one network.

  Attributes:
    name: of the measurement.
    network: what it is made on.
    measure: (study, run, place) to sections of results.json.
    parts: the parts of the paper, as --only names them, that need it.
    settings: config sections that it depends on.
    also: other networks that it takes something from.
  """

  name: str
  network: str
  measure: Callable[[Study, Run, pathlib.Path], dict]
  parts: tuple[str, ...]
  settings: tuple[str, ...] = ()
  also: tuple[str, ...] = ()


def _plain(module) -> Callable[[Study, Run, pathlib.Path], dict]:
  return lambda study, run, place: module.measure(run, place)


def _drawn(module) -> Callable[[Study, Run, pathlib.Path], dict]:
  """For what draws images or noise: a study of another seed draws others."""
  return lambda study, run, place: module.measure(run, place, seed=study.config["seed"])


def _success_rate(study: Study, run: Run, place: pathlib.Path) -> dict:
  # `authors` takes images that both networks of Table 3 classify correctly.
  both = study.correct("standard") & study.correct("adversarial")
  ablated = study.config["success_rate"]["ablate"].split(",")
  ablation = run.config["variant"] in [name.strip() for name in ablated]
  seed = study.config["seed"]
  return success_rate.measure(run, place, also_correct=both, ablation=ablation, seed=seed)


def _explain(study: Study, run: Run, place: pathlib.Path) -> dict:
  # All prototypes are counted, but a page for each of 200 classes would take ten minutes to draw.
  return explain.measure(run, place, num_images=2, num_pages=2, seed=study.config["seed"])


def _jpeg(study: Study, run: Run, place: pathlib.Path) -> dict:
  # Figures 13-15 show, on the remedied network, the images of Figures 10-12.
  shown = None
  if run.config["variant"] != "jpeg":
    shown = sections_of(study, stage_of("jpeg", "jpeg"))["jpeg_drift"]["shown"]
  return jpeg.measure(run, place, images=shown, seed=study.config["seed"])


_ACCURACIES = ("robust", "jpeg")
_RATE = ("attack", "success_rate")
_BOTH = ("standard", "adversarial")
_TABLE_3 = ("table3", "success_rate")

# In the order of the paper; those of a network that is trained later come later.
STAGES = (
  Stage("report", "standard", _plain(report), ("training",)),
  Stage("evaluate", "standard", _plain(evaluate), ("table1", "table3"), _ACCURACIES),
  Stage("head_on_stomach", "standard", _drawn(head_on_stomach), ("head_on_stomach",), ("attack",)),
  Stage("vanishing_head", "standard", _drawn(vanishing_head), ("vanishing_head",), ("attack",)),
  Stage("explain", "standard", _explain, ("explain",)),
  Stage("report", "jpeg", _plain(report), ("training",)),
  Stage("evaluate", "jpeg", _plain(evaluate), ("table2",), _ACCURACIES),
  Stage("jpeg", "jpeg", _jpeg, ("jpeg",), ("jpeg",)),
  Stage("jpeg", "standard", _jpeg, ("jpeg",), ("jpeg",), ("jpeg",)),
  Stage("report", "jpeg_augmented", _plain(report), ("training",)),
  Stage("evaluate", "jpeg_augmented", _plain(evaluate), ("table4",), _ACCURACIES),
  Stage("jpeg", "jpeg_augmented", _jpeg, ("jpeg",), ("jpeg",), ("jpeg",)),
  Stage("report", "adversarial", _plain(report), ("training",)),
  Stage("evaluate", "adversarial", _plain(evaluate), ("table3",), _ACCURACIES),
  *(Stage("success_rate", n, _success_rate, _TABLE_3, _RATE, _BOTH) for n in _BOTH),
)
PARTS = tuple(dict.fromkeys(part for stage in STAGES for part in stage.parts))


def stage_of(name: str, network: str) -> Stage:
  return next(s for s in STAGES if (s.name, s.network) == (name, network))


def run_stages(study: Study, stages: Sequence[Stage]) -> None:
  """Runs those that are not done yet, in order, training networks as they are needed."""
  for number, stage in enumerate(stages, 1):
    run, place = study.network(stage.network), study.place(stage.network)
    title = f"\n[{number}/{len(stages)}] {stage.name} on the {stage.network} network"
    if sections_of(study, stage) is not None:
      print(f"{title}: done already", flush=True)
      continue
    print(title, flush=True)
    ensure_folder(place / "figures")
    start = time.monotonic()
    sections = stage.measure(study, run, place)
    record = {
      "fingerprint": _fingerprint(study, stage),
      "seconds": round(time.monotonic() - start, 1),
      "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
      "sections": sections,
    }
    # The network's own results.json holds what it would after the command alone.
    results.update_results(place, run.config, stage.name, **sections)
    write_json(_path(study, stage), record)


def sections_of(study: Study, stage: Stage) -> dict | None:
  """What a stage found; None if it was not run, or something that it depends on has changed."""
  path = _path(study, stage)
  if not path.exists():
    return None
  try:
    record = json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON ({error}); delete it and run again") from error
  return record["sections"] if record["fingerprint"] == _fingerprint(study, stage) else None


def collect_sections(study: Study) -> dict:
  """All that the study has found so far, as sections of results.json.

  What is measured on one network alone stands as it is; what is measured on several, by network.
  """
  found: dict = {}
  for stage in STAGES:
    needed = {stage.network, *stage.also}
    if not all(study.finished(name) for name in needed):
      continue
    for section, numbers in (sections_of(study, stage) or {}).items():
      if len([s for s in STAGES if s.name == stage.name]) == 1:
        found[section] = numbers
      else:
        numbers = numbers["test"] if section == "evaluate" else numbers
        found.setdefault(section, {})[stage.network] = numbers
  return found


def _path(study: Study, stage: Stage) -> pathlib.Path:
  return study.place(stage.network) / "stages" / f"{stage.name}.json"


def _fingerprint(study: Study, stage: Stage) -> str:
  """A name for all that a stage's numbers depend on."""
  what = {
    "networks": [study.network(name).digest for name in (stage.network, *stage.also)],
    "settings": {section: study.config[section] for section in stage.settings},
    "protocol": study.config["protocol"],
    "seed": study.config["seed"],
    "version": importlib.metadata.version("jprotop"),
  }
  return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
