"""results.json: every number, its count, its interval, and where it came from. Its schema.

A share S is {"value", "count", "total", "interval"}, a mean M {"value", "total", "interval"}: the
interval is the 95% one, [low, high]; value and interval are None where total is 0. A mean over
seeds has "std" too, and no interval where there is one seed. Accuracies are of the test split.

Two kinds of folders hold one. A run's, which each command adds to: `environment` has an entry for
each command. And a study's, by experiments.reproduce, where the sections marked * hold the same
{network: ...}, network being standard, jpeg, adversarial or jpeg_augmented.

config, seed, protocol, environment (versions, device, commit)
data                the data set's identity (in a run: train.data)
train               {"data"}
evaluate            {network} of a study, {split} of a run: {clean, altered, altered_every_class,
                    robust: S, compressed_classes: {clean, altered: S}, uncompressed_classes:
                    {clean: S}, altered_minus_clean: M of paired images, confusion, class_names}
ensemble            {split: {members, clean: S, single: [S]}}
push *              {num_prototypes, distinct, accuracy_before: S, accuracy_after: S}
head_on_stomach     {metrics: {moved_to_target, control_moved, moved_and_prediction_kept,
                    prediction_kept, exceeds_clean_maximum: S, similarity_...,
                    exceeds_clean_maximum_by, percentile_of_attacked, percentile_of_4: M},
                    by_target, images, request, not_attacked, the budget}
vanishing_head      {metrics}
success_rate *      {paper, authors: {num_images, num_not_attackable, num_fewer_than_asked, top_k,
                    budget, rate_at: {"1": S, ... up to top_k}, control: {rate_at},
                    prediction_kept: S of the successful, success_and_prediction_kept: S of all,
                    parts: {groups, counts [from][to]} or None},
                    ablation: [{setting, rate, rate_first, prediction_kept: S}]}; rate_at k is of
                    the images that k prototypes alone leave to attack, and num_images of top_k
jpeg_drift *        {quality, classes, top_k, num_prototypes, shown, selections: {paper,
                    compressed_classes, uncompressed_classes, all: {num_images,
                    similarity_compressed, similarity_clean, similarity_drop,
                    similarity_drop_reverse, top_k_overlap, rank_correlation, cell_shift: M,
                    top_k_order_kept, top_prototype_kept, cell_moved: S}}}
explain, prune      what experiments.explain and experiments.prune say there
table1 ... table4   rows of jprotop.evaluation.paper_tables
claims              [{claim, section, ours, evidence, quantity, interval, threshold, direction,
                    holds}], rows of jprotop.evaluation.claims
"""

import importlib.metadata
import json
import pathlib
import platform
import subprocess
import time
from typing import Any

import jax

from jprotop.errors import InputError
from jprotop.evaluation.schema import check_schema
from jprotop.files import write_json

__all__ = ["check_schema", "environment", "read_results", "update_results"]

_PACKAGES = ("jprotop", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def read_results(workdir: str | pathlib.Path) -> dict:
  """The sections written so far; none yet is an empty dictionary."""
  path = pathlib.Path(workdir) / "results.json"
  if not path.exists():
    return {}
  try:
    return json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON ({error}); move it away and run again") from error


def update_results(
  workdir: str | pathlib.Path, config: dict, command: str, **sections: Any
) -> dict:
  """Replaces the given sections, keeps the others, and writes results.json atomically.

  A section by splits (evaluate, ensemble) keeps the splits that are not given. `command` says
  whose numbers these are: `environment` keeps one entry for each.
  """
  before = read_results(workdir)
  for name in {"evaluate", "ensemble"} & sections.keys():
    sections[name] = {**before.get(name, {}), **sections[name]}
  results = {
    **before,
    "config": config,
    "seed": config["seed"],
    "protocol": config["protocol"],
    "environment": {**before.get("environment", {}), command: environment()},
    **sections,
  }
  write_json(pathlib.Path(workdir) / "results.json", results)
  return results


def environment() -> dict:
  """Versions, device and commit that the numbers came from."""
  versions = {}
  for name in _PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      versions[name] = "not installed"
  device = jax.devices()[0]
  return {
    "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    "python": platform.python_version(),
    "platform": f"{platform.system()} {platform.machine()}",
    "device": f"{jax.device_count()} x {device.device_kind}",
    "versions": versions,
    "commit": _commit(),
  }


def _commit() -> str | None:
  """The commit of the source tree that this runs from; None outside one."""
  here = pathlib.Path(__file__).parent
  command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
  except (OSError, subprocess.TimeoutExpired):
    return None
  return done.stdout.strip() or None
