"""Several studies of one config: training seeds, and draws of the classes whose images are altered.

Each lies in a folder of its own, seed0, seed1, ... and seed0_draw1, ...: studies as any other.
"""

import dataclasses
import pathlib

from jprotop.cli.study import Stage
from jprotop.errors import InputError
from jprotop.runs import run as runs
from jprotop.runs.config import NETWORKS
from jprotop.runs.config_keys import apply_changes


@dataclasses.dataclass(frozen=True)
class Repetition:
  """One of the studies.

  Attributes:
    folder: where it lies.
    config: with its seeds.
    shares: the folder of a study whose networks it takes where the draw has no say in them; None:
      it trains all of its own.
  """

  folder: pathlib.Path
  config: dict
  shares: pathlib.Path | None = None

  def given(self) -> dict[str, pathlib.Path]:
    """The networks that it need not train."""
    if self.shares is None:
      return {}
    there = {name: self.shares / name for name in NETWORKS if not _is_drawn(name)}
    return {name: folder for name, folder in there.items() if runs.is_finished(folder)}

  def measures(self, stage: Stage) -> bool:
    """Whether a stage belongs to it: of a further draw, only what the draw has a say in."""
    if self.shares is None:
      return True
    asked = "alteration" in stage.experiment.settings or any(map(_is_drawn, stage.needs))
    return asked and "adversarial" not in stage.needs


def _is_drawn(network: str) -> bool:
  return "alteration" in NETWORKS[network]


def repetitions(config: dict, workdir: pathlib.Path, seeds: int, draws: int) -> list[Repetition]:
  """The studies of so many training seeds, from the config's on, and of so many draws.

  With `seeds` alone the draw follows the seed. With `draws` too, the two are varied one at a time:
  all seeds have the config's draw, and the further draws are of the config's seed.

  Raises:
    InputError: the config draws no classes, or the folder holds a single study.
  """
  _check(config, workdir, draws)
  first, drawn = config["train"]["seed"], config["train"]["alteration"]["seed"]
  found = [
    Repetition(
      workdir / f"seed{first + i}", _with_seeds(config, first + i, drawn + i * (draws < 2))
    )
    for i in range(seeds)
  ]
  return found + [
    Repetition(
      workdir / f"seed{first}_draw{drawn + i}",
      _with_seeds(config, first, drawn + i),
      shares=found[0].folder,
    )
    for i in range(1, draws)
  ]


def _with_seeds(config: dict, seed: int, draw: int) -> dict:
  changes = {"train.seed": seed, "measure.seed": config["measure"]["seed"] + seed}
  changes["measure.seed"] -= config["train"]["seed"]
  draws = {f"{part}.alteration.seed": draw for part in ("train", "measure")}
  return apply_changes(config, {**changes, **draws})


def _check(config: dict, workdir: pathlib.Path, draws: int) -> None:
  rule = runs.rule_in(config)
  if draws > 1 and rule != "half":
    raise InputError(
      f"--draws={draws} draws the altered classes, but train.alteration.classes is {rule!r}, which "
      "draws none; leave out one of them, or give --config.train.alteration.classes=half"
    )
  single = [name for name in NETWORKS if (workdir / name).exists()]
  if single:
    raise InputError(
      f"--workdir={workdir} holds a study of one seed ({single[0]}/); several seeds lie in folders "
      "of their own, so give another --workdir (a finished study may be moved there, as seed0)"
    )


def check_single(workdir: pathlib.Path) -> None:
  """InputError where a folder holds studies of several seeds, in which a single one would mix."""
  if several := sorted(path.parent.parent.name for path in workdir.glob("seed*/*/config.json")):
    raise InputError(
      f"--workdir={workdir} holds studies of several seeds ({several[0]}/); give --seeds again, or "
      f"name one of them, as in --workdir={workdir / several[0]}"
    )
