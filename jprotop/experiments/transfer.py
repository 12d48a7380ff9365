"""Whether noise that moves one network's explanation moves another's: a matrix of networks.

  jprotop transfer --workdir=runs/demo/standard --others=runs/demo/adversarial,runs/other/standard
  jprotop transfer --workdir=RUN --others=RUN2 --num_images=100

The noise is made on the source, for its own top prototype of each image. A success is that the
victim's own top prototype of that image is found more strongly outside its own S than inside. The
control is random noise of the same size on the same victim. Images are those that all networks
classify correctly, drawn from --seed. A study compares its networks; --others names those of a
command, which must be on the same test images.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from jprotop.attacks import transfer
from jprotop.attacks.budget import Budget
from jprotop.attacks.perturb import Views
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.experiments import transfer_numbers
from jprotop.experiments.attacking import (
  ATTACK_FLAGS,
  SEED,
  budget_of,
  count_flag,
  noise_flags,
  rows_of,
)
from jprotop.experiments.experiment import Beside, Experiment, Flag, check_distinct, register
from jprotop.experiments.transfer_text import PASSAGES, tell
from jprotop.files import ensure_folder, user_path
from jprotop.prototypes import selectors
from jprotop.prototypes.see import see
from jprotop.report import canvas, transfer_charts
from jprotop.runs import run as runs
from jprotop.runs.config import NETWORKS
from jprotop.runs.run import Run

# Images that are looked at for each that is asked for: not all are classified correctly.
_LOOKED_AT = 4


def measure(
  run: Run,
  out: pathlib.Path,
  *,
  others: Sequence[str] | None = None,
  beside: Beside | None = None,
) -> dict:
  """The matrix of a run and others; writes it as a figure.

  Args:
    others: folders of other runs, in place of the networks beside it.

  Raises:
    InputError: there is no other network, or one was given twice or sees other test images.
  """
  networks = _networks(run, others, beside)
  seed, asked = run.config["measure"]["seed"], run.config["measure"]["transfer"]["num_images"]
  order = np.random.default_rng(seed).permutation(len(run.dataset.test))
  looked_at = np.sort(order[: _LOOKED_AT * asked])
  correct = np.isin(order, looked_at[_all_correct(networks, run, looked_at)])
  found = _matrix(networks, run, np.sort(order[correct][:asked]))
  ensure_folder(out / "figures")
  canvas.save(transfer_charts.matrix(list(networks), found["cells"]), out / "figures/transfer.png")
  return {
    "networks": list(networks),
    "asked": asked,
    "looked_at": len(looked_at),
    "correct": int(correct.sum()),
    "seed": seed,
    "budget": dataclasses.asdict(_budget(run)),
    **found,
  }


def _networks(run: Run, folders: Sequence[str] | None, beside: Beside | None) -> dict[str, Run]:
  """The networks by their names: those of a study, or a run and others by their folders."""
  if folders:
    check_distinct([run.workdir, *folders], "others")
    others = [_other(run, folder) for folder in folders]
    return {str(each.workdir): each for each in (run, *others)}
  if beside is None or not beside.runs:
    raise InputError("--others is missing; name the other networks, as in --others=RUN2,RUN3")
  named = {run.config["train"]["network"]: run, **beside.runs}
  return {name: named[name] for name in NETWORKS if name in named}


def _other(run: Run, folder: str) -> Run:
  """A run that sees the same test images, though its training images may be others (by seed)."""
  model, variables, info = runs.load(folder)
  same = info["data"] == run.dataset.identity
  data = runs.dataset_of(info, run.dataset if same else None)
  other = Run(user_path(folder), model, variables, info, data)
  ours, theirs = run.dataset.test, other.dataset.test
  alike = ours.image_id == theirs.image_id and ours.image_size == theirs.image_size
  if not alike or not np.array_equal(ours.label, theirs.label):
    raise InputError(
      f"--others: {folder} has other test images than {run.workdir}, or sees them at another size; "
      "noise can be carried over between networks that see the same images alone"
    )
  return other


def _all_correct(networks: Mapping[str, Run], run: Run, index: Int[np.ndarray, " n"]) -> np.ndarray:
  """Which images all networks classify correctly."""
  test, size = run.dataset.test, run.config["compute"]["evaluation_batch_size"]
  correct = np.ones(len(index), bool)
  for each in networks.values():
    logits = see(each.network, test, selectors.logits, batch_size=size, indices=index)
    correct &= logits.argmax(axis=1) == test.label[index]
  return correct


def _matrix(networks: Mapping[str, Run], run: Run, index: Int[np.ndarray, " n"]) -> dict:
  """The cells, and what each victim's own noise missed, on images of the test set that can be
  attacked: no network's S covers the whole map."""
  images, sizes = batches.to_float(run.dataset.test.pixels[index]), {}
  sights: dict[str, transfer.Sight] = {}
  for name, each in networks.items() if len(index) else ():
    sizes[name] = max(1, min(rows_of(each), len(index)))
    sights[name] = transfer.sight(each.network, images, batch_size=sizes[name])
  covered = [sight.source.all(axis=(1, 2)) for sight in sights.values()]
  left = np.flatnonzero(~np.any(covered, axis=0)) if covered else np.zeros(0, int)
  if not left.size:
    nothing = {(a, b): _NOTHING for a in networks for b in networks}
    return _numbers(list(networks), index[left], nothing)
  sights = {name: sight.of(left) for name, sight in sights.items()}
  return _numbers(list(networks), index[left], _seen(run, sights, sizes, images[left], index[left]))


class _Seen(NamedTuple):
  """What a victim sees of N images: where its prototype left by the noise, and by random noise, and
  where it sees the class that it saw before."""

  moved: Bool[np.ndarray, " N"]
  control: Bool[np.ndarray, " N"]
  kept: Bool[np.ndarray, " N"]


_NOTHING = _Seen(*np.zeros((3, 0), bool))


def _seen(
  run: Run,
  sights: Mapping[str, transfer.Sight],
  sizes: Mapping[str, int],
  images: Float32[np.ndarray, "N S S 3"],
  index: Int[np.ndarray, " N"],
) -> dict[tuple[str, str], _Seen]:
  """By source and victim."""
  budget, objective = _budget(run), run.config["measure"]["attack"]["objective"]
  seed = run.config["measure"]["seed"]

  def noise(name: str, objective: str | None) -> Views:
    return transfer.noisy(
      sights[name],
      images,
      index,
      budget,
      objective=objective,
      seed=seed,
      batch_size=sizes[name],
      title=f"{'noise' if objective else 'random noise'} on {pathlib.Path(name).name}",
    )

  control = {name: noise(name, None) for name in sights}
  found = {}
  for source in sights:
    attacked = noise(source, objective)
    for victim, sight in sights.items():
      views = attacked
      if victim != source:
        views = transfer.looked_at(sight, attacked.image, budget, batch_size=sizes[victim])
      found[source, victim] = _Seen(
        moved=transfer.left(views.similarity_map, sight.source),
        control=transfer.left(control[victim].similarity_map, sight.source),
        kept=views.logits.argmax(axis=1) == sight.prediction,
      )
  return found


def _budget(run: Run) -> Budget:
  """The paper's, with the steps of a transfer."""
  steps = run.config["measure"]["transfer"]["num_steps"]
  return dataclasses.replace(budget_of(run), num_steps=steps)


def _numbers(
  names: list[str], index: Int[np.ndarray, " n"], seen: Mapping[tuple[str, str], _Seen]
) -> dict:
  moved = {pair: each.moved for pair, each in seen.items()}
  return {
    "images": index.tolist(),
    "cells": [transfer_numbers.cell(*pair, *each) for pair, each in seen.items()],
    "missed": transfer_numbers.missed(names, moved),
  }


register(
  Experiment(
    name="transfer",
    summary="whether noise made on one network moves the explanations of another",
    measure=measure,
    record=transfer_numbers.Transfer,
    networks=("standard",),
    also=tuple(NETWORKS),
    settings=("attack", "transfer", "seed"),
    flags=(
      Flag(name="others", kind=list, help="Other runs on the same test images."),
      count_flag("measure.transfer", "num_images", "How many images."),
      count_flag("measure.transfer", "num_steps", "Gradient steps of the attack.", least=0),
      *noise_flags("measure.attack"),
      *ATTACK_FLAGS,
      SEED,
    ),
    tell=tell,
    passages=PASSAGES,
  )
)
