"""The whole paper as stages: which networks it needs, what is measured on each, what is done.

A stage measures one experiment on one network and writes its figures and `stages/NAME.json` into
WORKDIR/NETWORK. The file names everything that the numbers came from, and figures and arrays by
their hashes, so that a stage is repeated when its network, a setting that it uses, or one of its
files has changed, and only then.
"""

import dataclasses
import importlib.metadata
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from jprotop.cli.measuring import measure_into
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS, Beside, Experiment
from jprotop.runs import outputs, processes
from jprotop.runs import run as runs
from jprotop.runs.checkpoints import read_config
from jprotop.runs.config import NETWORKS
from jprotop.runs.config_checks import check_config
from jprotop.runs.config_keys import differences
from jprotop.runs.run import Run
from jprotop.runs.sealed import digest_of, read_sealed, write_sealed
from jprotop.training import loop

# Of a config, what a run that was trained elsewhere takes from the study that measures it.
_MEASURING = ("measure", "compute")


class Study:
  """The networks of one paper, backbone and data set, each trained or given.

  Args:
    config: plain values of a config file; its network does not matter.
    workdir: the study's folder.
    given: finished runs, by the network that they stand for.
  """

  def __init__(self, config: dict, workdir: pathlib.Path, given: dict[str, pathlib.Path]):
    self.config = check_config(_of_network(config, "standard"))
    if (workdir / "config.json").exists():
      raise InputError(
        f"--workdir={workdir} holds a single run; a study makes a folder for each of its networks, "
        "so give it one of its own (and the run as --standard, --altered, ...)"
      )
    self.workdir, self.given = workdir, given
    begun = (self.given.get(name, self.folder(name)) / "checkpoints" for name in NETWORKS)
    if not all(folder.exists() for folder in begun):
      runs.backbone_file(self.config)  # What cannot be had is said before the data are prepared.
    self.dataset = runs.open_dataset(self.config)
    # A choice of classes that makes no experiment is an error now, not after the first training.
    for part in ("train", "measure"):
      runs.scheme_in(self.config, part, len(self.dataset.class_names))
    for name in given:  # Before anything is trained for the others.
      self._check_given(name)
    self._open: dict[str, Run] = {}

  def folder(self, network: str) -> pathlib.Path:
    return self.workdir / network

  def network(self, name: str) -> Run:
    """The network of that name: opened, or trained first."""
    if name not in self._open:
      if name in self.given:
        run = self._given(name)
      else:
        self._train(name)
        run = runs.open_run(self.folder(name), self.dataset)
      measuring = {section: self.config[section] for section in _MEASURING}
      info = {**run.info, "config": {**run.config, **measuring}}
      self._open[name] = dataclasses.replace(run, info=info)
    return self._open[name]

  def finished(self, name: str) -> bool:
    """Whether a network can be opened without training it."""
    return name in self._open or name in self.given or runs.is_finished(self.folder(name))

  def _train(self, name: str) -> None:
    print(f"\n== the {name} network", flush=True)
    siblings = [self.given.get(other, self.folder(other)) for other in NETWORKS]
    config = _of_network(self.config, name)
    loop.train(config, self.folder(name), dataset=self.dataset, siblings=siblings)

  def _check_given(self, name: str) -> None:
    """Raises InputError unless a run from elsewhere is what it is taken for."""
    workdir = self.given[name]
    config = read_config(workdir)
    if config["train"]["network"] != name:
      raise InputError(
        f"--{name}={workdir} holds the {config['train']['network']} network; give one that was "
        f"trained with --config=FILE:{name}"
      )
    here = _must_agree(_of_network(self.config, name))
    if changes := differences(_must_agree(config), here, "train."):
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


def _of_network(config: dict, network: str) -> dict:
  return {**config, "train": {**config["train"], "network": network}}


def _must_agree(config: dict) -> dict:
  """What the networks of one study have in common, however each of them was trained."""
  train = config["train"]
  own = NETWORKS[train["network"]]
  data = {key: train["data"][key] for key in ("image_size", "validation_share", "toy", "twins")}
  alike = {key: train[key] for key in ("model", "seed", "protocol")}
  return {**alike, **{section: train[section] for section in own}, "data": data}


@dataclasses.dataclass(frozen=True)
class Stage:
  """One experiment on one network."""

  experiment: Experiment
  network: str

  @property
  def name(self) -> str:
    return self.experiment.name

  @property
  def needs(self) -> tuple[str, ...]:
    return self.experiment.needs(self.network)

  @property
  def parts(self) -> set[str]:
    """What --only may call it."""
    tables = self.experiment.parts.items()
    return {self.name, *(part for part, networks in tables if self.network in networks)}


def stages() -> list[Stage]:
  """All stages of a study; those of a network that is trained later come later."""
  found = [Stage(e, network) for e in EXPERIMENTS.values() for network in e.networks]
  order = list(NETWORKS)
  return sorted(found, key=lambda stage: max(order.index(name) for name in stage.needs))


def parts() -> list[str]:
  """What --only may name."""
  named = [e for e in EXPERIMENTS.values() if e.networks]
  return list(dict.fromkeys([*(e.name for e in named), *(p for e in named for p in e.parts)]))


def run_stages(study: Study, chosen: Sequence[Stage]) -> None:
  """Runs those that are not done yet, in order, training networks as they are needed."""
  for number, stage in enumerate(chosen, 1):
    run, folder = study.network(stage.network), study.folder(stage.network)
    title = f"\n[{number}/{len(chosen)}] {stage.name} on the {stage.network} network"
    changed = changed_files(study, stage)
    if changed == []:
      print(f"{title}: done already", flush=True)
      continue
    print(title, flush=True)
    if changed:
      names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if changed[3:] else "")
      print(f"  measured again: what it wrote into {folder} was changed or removed: {names}")
    start, experiment = time.monotonic(), stage.experiment
    arguments = experiment.in_study(study.config, stage.network)
    # So the network's own results.json holds what it would after the command alone.
    found = measure_into(
      experiment, run, folder, wait=True, beside=_beside(study, stage), **arguments
    )
    for line in experiment.tell(found.record, folder):
      print(line)
    written = {
      "fingerprint": _fingerprint(study, stage),
      "seconds": round(time.monotonic() - start, 1),
      "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
      "record": found.record,
      "files": found.files,
    }
    write_sealed(_path(study, stage), written)


def _beside(study: Study, stage: Stage) -> Beside:
  """The other networks that a stage needs, and what was found on those measured before it."""
  others = [name for name in stage.needs if name != stage.network]
  before = [s for s in stages() if s.name == stage.name and s.network in others]
  found = {s.network: record_of(study, s) for s in before if study.finished(s.network)}
  return Beside(
    runs={name: study.network(name) for name in others},
    found={name: record for name, record in found.items() if record is not None},
  )


def record_of(study: Study, stage: Stage) -> Any:
  """What a stage found; None if it was not run, or something that it depends on has changed."""
  written = _written(study, stage)
  return written and written["record"]


def changed_files(study: Study, stage: Stage) -> list[str] | None:
  """Those of a stage's files that are not what it wrote any more; None where `record_of` is."""
  written, folder = _written(study, stage), study.folder(stage.network)
  return processes.from_first(lambda: written and outputs.changed(folder, written["files"]))


def collect_records(study: Study) -> dict[str, dict]:
  """All that the study has found so far: {experiment: {network: record}}, and its `files`."""
  found: dict = {"files": {}}
  for stage in stages():
    if not all(study.finished(name) for name in stage.needs):
      continue
    if written := _written(study, stage):
      for kept, what in ((found, "record"), (found["files"], "files")):
        kept.setdefault(stage.name, {})[stage.network] = written[what]
  return found


def _written(study: Study, stage: Stage) -> dict | None:
  """stages/NAME.json, where all that its numbers depend on is as it was; else None."""
  written = processes.from_first(lambda: read_sealed(_path(study, stage)))
  fits = written is not None and written.get("fingerprint") == _fingerprint(study, stage)
  return written if fits and "files" in written else None


def _path(study: Study, stage: Stage) -> pathlib.Path:
  return study.folder(stage.network) / "stages" / f"{stage.name}.json"


def _fingerprint(study: Study, stage: Stage) -> str:
  """A name for all that a stage's numbers depend on."""
  what = {
    "networks": [study.network(name).digest for name in stage.needs],
    "settings": {name: study.config["measure"][name] for name in stage.experiment.settings},
    "arguments": stage.experiment.in_study(study.config, stage.network),
    "protocol": study.config["train"]["protocol"],
    "version": importlib.metadata.version("jprotop"),
  }
  return digest_of(what)
