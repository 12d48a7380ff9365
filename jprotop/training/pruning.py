"""Pruning prototypes that stand for no single class, as ProtoPNet does (Chen et al. 2019)."""

import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jprotop.errors import InputError
from jprotop.prototypes import explain
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.push import Provenance
from jprotop.runs import run as runs
from jprotop.runs.run import Run


def neighbour_labels(run: Run, *, neighbours: int) -> Int[np.ndarray, "P {neighbours}"]:
  """Classes of each prototype's nearest training images, of all classes, un-augmented.

  Raises:
    InputError: there are fewer training images than neighbours.
  """
  train = run.seen.train
  explain.check_neighbours(neighbours, train)
  every, size = np.arange(len(run.model.prototype_class)), run.config["compute"]["push_batch_size"]
  found = explain.nearest_cells(run.network, train, every, batch_size=size)
  return train.label[explain.nearest_images(found["nearness"], neighbours)]


def choose(
  labels: Int[np.ndarray, "P K"],
  prototype_class: Sequence[int] | Int[np.ndarray, " P"],
  *,
  threshold: int,
) -> Bool[np.ndarray, " P"]:
  """Which prototypes stay: those with `threshold` neighbours of their own class.

  A class may lose all its prototypes, as in the reference; its score is then what the others give.

  Args:
    labels: classes of each prototype's nearest images.

  Raises:
    InputError: the threshold is not 1 to K, or no prototype would stay.
  """
  neighbours = labels.shape[1]
  if not 1 <= threshold <= neighbours:
    raise InputError(f"threshold={threshold} must be 1 to {neighbours}, the number of neighbours")
  own = (labels == np.asarray(prototype_class)[:, None]).sum(axis=1)
  if own.max() < threshold:
    raise InputError(
      f"no prototype has {threshold} of its {neighbours} nearest images in its own class, so none "
      f"would be left; lower the threshold to {own.max()} or less, or train for longer"
    )
  return own >= threshold


def keep(
  model: ProtoPNet,
  variables: dict,
  provenance: Provenance | None,
  kept: Bool[np.ndarray, " P"],
) -> tuple[ProtoPNet, dict, Provenance | None]:
  """The network with some of its prototypes alone, and where they came from.

  Its logits are the original ones with the other prototypes' rows of the last layer set to zero.
  """
  rows = np.flatnonzero(kept)
  classes = tuple(model.prototype_class[row] for row in rows)
  params = dict(variables["params"])
  for name in ("prototypes", "last_layer"):
    params[name] = jnp.asarray(params[name])[rows]
  if provenance is not None:
    provenance = provenance.of(rows)
  return model.clone(prototype_class=classes), {**variables, "params": params}, provenance


def check_place(run: Run, place: pathlib.Path) -> None:
  """InputError, before any work, unless the pruned network of a run can become a run in `place`."""
  if not run.info["finished"]:
    raise InputError(
      f"{run.workdir} has not finished its training; run jprotop train on it again first"
    )
  runs.check_new(place, "out")


def write_run(
  run: Run,
  place: pathlib.Path,
  model: ProtoPNet,
  variables: dict,
  provenance: Provenance | None,
) -> None:
  """Makes `place` a finished run of the pruned network, which `jprotop.load` opens."""
  position = {**run.info["position"], "history_rows": 0, "history_digest": ""}
  info = {"position": position, "class_names": run.class_names, "data": run.info["data"]}
  runs.write_finished(place, run.config, model, variables, provenance, info)
