"""What the continuation of a run depends on: where it starts, and what is saved between epochs."""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes.initial import drawn_for_inputs
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.push import Provenance
from jprotop.runs import processes
from jprotop.runs.checkpoints import Checkpoints, Position
from jprotop.training import pretrained
from jprotop.training.phases import Phase

_log = logging.getLogger("jprotop")


@dataclasses.dataclass
class RunState:
  """The state of a run.

  Attributes:
    params: {group: parameters} of the whole network, with the classifier's in the pretraining.
    batch_stats: running statistics of batch norm.
    position: where it stands.
    opt_state: of the phase that it is in; None between phases.
    provenance: where the prototypes were pushed from; None before the push.
    best_last_layer: the weights of the best epoch of the last-layer phase; None: none yet.
  """

  params: dict
  batch_stats: dict
  position: Position = dataclasses.field(default_factory=Position)
  opt_state: Any = None
  provenance: Provenance | None = None
  best_last_layer: Float[np.ndarray, "P C"] | None = None

  @property
  def variables(self) -> dict:
    """The ProtoPNet's variables, without the pretraining head."""
    params = {group: self.params[group] for group in self.params if group != "classifier"}
    return {"params": params, "batch_stats": self.batch_stats}

  @property
  def classifier_variables(self) -> dict:
    """The plain classifier's variables."""
    params = {group: self.params[group] for group in ("features", "classifier")}
    return {"params": params, "batch_stats": self.batch_stats}

  def save(self, checkpoints: Checkpoints, **info: Any) -> None:
    """Makes it the next checkpoint; `info` is kept beside its position."""
    model: dict[str, Any] = {"params": self.params, "batch_stats": self.batch_stats}
    if self.provenance is not None:
      model["provenance"] = self.provenance.as_arrays()
    if self.best_last_layer is not None:
      model["best_last_layer"] = self.best_last_layer
    optimizer = {} if self.opt_state is None else {"state": self.opt_state}
    optimizer["present"] = np.array(self.opt_state is not None)
    info = {"position": dataclasses.asdict(self.position), **info}
    checkpoints.save(self.position.epochs_done, model=model, optimizer=optimizer, info=info)


def restored(model: dict, info: dict) -> RunState:
  """The state of a checkpoint, but for its optimiser's."""
  return RunState(
    params=model["params"],
    batch_stats=model["batch_stats"],
    position=Position(**info["position"]),
    provenance=Provenance.of_arrays(model.get("provenance")),
    best_last_layer=model.get("best_last_layer"),
  )


def begun(
  config: dict,
  plan: Sequence[Phase],
  networks: tuple[ProtoPNet, BackboneClassifier],
  *,
  start: dict | None,
  folders: Sequence[pathlib.Path],
  identity: str,
) -> tuple[RunState, list[str]]:
  """Where a new run starts, and lines of history that belong to it.

  Args:
    networks: the ProtoPNet, and the classifier of its pretraining.
    start: variables of the backbone; None: random weights.
    folders: of runs that may have done the same pretraining: it then starts after it.
    identity: of the data set.
  """
  params, batch_stats = processes.from_first(lambda: _drawn(config, plan, networks, start))
  found = None
  if plan[0].name == "pretrain":
    name = pretrained.fingerprint(config, identity)
    found = processes.from_first(lambda: pretrained.find_pretrained(folders, name))
  if found is None:
    return RunState(params, batch_stats), []
  variables, lines = found
  _log.info("%s starts from a backbone that is pretrained already", folders[0])
  params = {group: value for group, value in params.items() if group != "classifier"}
  params["features"] = variables["params"]["features"]
  position = Position(phase=1, epochs_done=plan[0].epochs, history_rows=len(lines))
  return RunState(params, variables.get("batch_stats", {}), position), lines


def _drawn(
  config: dict,
  plan: Sequence[Phase],
  networks: tuple[ProtoPNet, BackboneClassifier],
  start: dict | None,
) -> tuple[dict, dict]:
  """Parameters and batch statistics, drawn from the seed or, the backbone's, from a file."""
  key, size = jax.random.key(config["train"]["seed"]), config["train"]["data"]["image_size"]
  model, classifier = networks
  variables = _initialiser(model, size)(jax.random.fold_in(key, 0))
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  if config["train"]["init"]["add_on"] == "fan_in":
    params = {**params, "add_on": drawn_for_inputs(params["add_on"])}
  if plan[0].name == "pretrain":
    head = _initialiser(classifier, size)(jax.random.fold_in(key, 1))
    params = {**params, "classifier": head["params"]["classifier"]}
  if start is not None:
    params = {**params, "features": start["params"]["features"]}
    batch_stats = {**batch_stats, **start["batch_stats"]}
  return params, batch_stats


@functools.lru_cache(maxsize=8)
def _initialiser(model: nn.Module, size: int):
  """From a random key to a network's variables, compiled once for all networks of a study."""
  return jax.jit(lambda key: model.init(key, jnp.zeros((1, size, size, 3))))
