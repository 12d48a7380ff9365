"""Pruning prototypes that stand for no single class, as ProtoPNet does (Chen et al. 2019)."""

import pathlib

import jax.numpy as jnp
import numpy as np

from jprotop.errors import InputError
from jprotop.prototypes import explain
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.push import Provenance
from jprotop.runs import run as runs
from jprotop.runs.run import Run


def neighbour_labels(run: Run, *, neighbours: int) -> np.ndarray:
  """Classes of each prototype's nearest training images, of all classes, un-augmented: [P, K].

  Raises:
    InputError: there are fewer training images than neighbours.
  """
  train = run.seen.train
  explain.check_neighbours(neighbours, train)
  every, size = np.arange(len(run.model.prototype_class)), run.config["compute"]["push_batch_size"]
  found = explain.nearest_cells(run.network, train, every, batch_size=size)
  return train.label[explain.nearest_images(found["nearness"], neighbours)]


def choose(
  labels: np.ndarray, prototype_class: np.ndarray | tuple[int, ...], *, threshold: int
) -> np.ndarray:
  """Which prototypes stay, boolean [P]: those with `threshold` neighbours of their own class.

  A class may lose all its prototypes, as in the reference; its score is then what the others give.

  Args:
    labels: int [P, K], classes of each prototype's nearest images.
    prototype_class: int [P].

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
  kept: np.ndarray,
) -> tuple[ProtoPNet, dict, Provenance | None]:
  """The network with the prototypes of a boolean [P] alone, and where they came from.

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
