"""A whole run: (pretrain ->) warm -> joint -> push -> last layer, resumable after every epoch."""

import contextlib
import pathlib
from collections.abc import Sequence

from jprotop.data.dataset import Dataset
from jprotop.errors import InputError
from jprotop.runs import processes
from jprotop.runs import run as runs
from jprotop.runs.checkpoints import Checkpoints
from jprotop.runs.config import trained_part
from jprotop.runs.config_checks import check_config
from jprotop.runs.workdir import claim_workdir
from jprotop.torch_io import backbones
from jprotop.training import phases, steps
from jprotop.training.trainer import Trainer


def train(
  config: dict,
  workdir: str | pathlib.Path,
  *,
  dataset: Dataset | None = None,
  siblings: Sequence[pathlib.Path] = (),
) -> Dataset:
  """Trains the run of a config in a workdir, or continues it; returns its data set.

  Writes config.json, history.jsonl (a row an epoch), checkpoints/ and, where the backbone is
  pretrained, pretrained.npz. After every epoch the state is saved; a killed run continues from
  there to the same result, on as many devices as there are then. Of several processes the first
  writes all this, and what it reads or draws at random is what the others start from.

  Args:
    config: plain values of a config file.
    workdir: the run's folder.
    dataset: the config's data set, if it is open already.
    siblings: folders of runs that may have done the same pretraining; it is then not repeated.
  """
  workdir = pathlib.Path(workdir)
  config = check_config(config)
  plan = phases.phases_of(config)
  steps.check_method(config)
  # First, because it may have to be downloaded, or not fit.
  start = processes.from_first(lambda: _start(workdir, config))
  dataset = dataset or runs.open_dataset(config)
  _check_same_everywhere(config, dataset)
  # Before the workdir is claimed, because the data may not fit the config.
  seen = runs.as_trained(config, dataset)
  keep = config["compute"]["keep_checkpoints"]
  with (
    claim_workdir(workdir, config) as folder,
    contextlib.closing(Checkpoints(workdir, keep=keep)) as checkpoints,
  ):
    Trainer(config, folder, dataset, seen, plan, checkpoints, start, siblings).run()
  return dataset


def _check_same_everywhere(config: dict, dataset: Dataset) -> None:
  """InputError where another process than the first was given something else."""
  given = (trained_part(config), dataset.identity)
  if processes.from_first(lambda: given) != given:
    raise InputError(
      "this process was given another config or other images than the first one; give all of them "
      "the same command, and the same data"
    )


def _start(workdir: pathlib.Path, config: dict) -> dict | None:
  """Variables of the backbone from the config's file; None: random weights, or the run's own.

  From its first epoch on a run has its own; before that its folder of checkpoints is empty.
  """
  begun = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
  file = None if begun else runs.backbone_file(config)
  return None if file is None else backbones.load(file, config["train"]["model"]["backbone"])
