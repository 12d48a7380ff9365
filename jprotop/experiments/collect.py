"""Results of several studies as one set of tables: backbones side by side, seeds averaged.

A study is what `jprotop reproduce` measures: one backbone, one data set, one seed. Studies of
several backbones give the rows of the paper's tables, in its order. Of several seeds of one
backbone, each share becomes its mean over the seeds, with the standard deviation.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy
from flax.traverse_util import flatten_dict

from jprotop.errors import InputError
from jprotop.experiments.experiment import record_kinds
from jprotop.report import paper_tables
from jprotop.runs.records import check_results
from jprotop.runs.results import header

# What may differ between seeds of one study: what is drawn (alteration.seed: which classes).
_SEEDS = ("train.seed", "measure.seed", "train.alteration.seed", "measure.alteration.seed")

Study = tuple[str, Mapping[str, Any]]


def collect(found: Sequence[Study]) -> dict:
  """Merges (name, results.json) of studies; names, such as folders, are for messages.

  Returns:
    `table1` to `table4` as paper_tables.all_tables has them, a share that was measured with
    several seeds as {"value", "std", "total", "interval"}: mean, standard deviation, number of
    seeds and 95% t-interval; and `sources`: name, backbone and seed of each study.

  Raises:
    InputError: results that are none of a study or against the schema; different data sets,
      protocols or budgets; a study given twice, or two of a backbone that differ in more than
      their seed.
  """
  if not found:
    raise InputError("nothing to collect; name at least one folder of jprotop reproduce")
  for name, results in found:
    _check_study(name, results)
  for one, other in itertools.combinations(found, 2):
    _check_pair(one, other)
  tables = [paper_tables.all_tables(results) for _, results in found]
  rows = {name: [row for table in tables for row in table[name]] for name in tables[0]}
  trained = [(name, results["config"]["train"]) for name, results in found]
  return {
    **header(found[0][1]["config"]),
    "sources": [
      {"name": name, "backbone": train["model"]["backbone"], "seed": train["seed"]}
      for name, train in trained
    ],
    **{name: _merge(table) for name, table in rows.items()},
  }


def mean_over_seeds(shares: Sequence[Mapping[str, Any] | None]) -> dict | None:
  """Mean of a share over seeds; None where no seed has it.

  Its t-interval is about other seeds, and cut to [0, 1]; one seed alone has no interval.
  """
  values = [s["value"] for s in shares if s is not None and s["value"] is not None]
  if not values:
    return None
  count, mean = len(values), float(np.mean(values))
  if count == 1:
    return {"value": mean, "std": None, "total": 1, "interval": None}
  std = float(np.std(values, ddof=1))
  half = float(scipy.stats.t.ppf(0.975, count - 1)) * std / count**0.5
  interval = [max(0.0, mean - half), min(1.0, mean + half)]
  return {"value": mean, "std": std, "total": count, "interval": interval}


def _check_study(name: str, results: Mapping[str, Any]) -> None:
  if "config" not in results or ("accuracy" not in results and "success_rate" not in results):
    raise InputError(
      f"{name} holds no study with a config and numbers; give folders of jprotop reproduce"
    )
  check_results(results, record_kinds(), name)


def _check_pair(one: Study, other: Study) -> None:
  """That two studies belong into one set of tables."""
  names, (a, b) = f"{one[0]} and {other[0]}", (one[1], other[1])
  for what, of in (("data set", _data_set), ("protocol", _protocol), ("noise", _noise)):
    if of(a) != of(b):
      raise InputError(
        f"{names} differ in their {what}: {of(a)} and {of(b)}; collect those of one {what} at a "
        "time"
      )
  if _known_and_differ(paper_tables.class_names, a, b) or (
    _drawn(a) == _drawn(b) and _known_and_differ(lambda results: results.get("data"), a, b)
  ):
    raise InputError(
      f"{names} differ in their data set: one name, but other classes, images or labels; collect "
      "those of one data set at a time"
    )
  _check_seeds(names, a["config"], b["config"])


def _check_seeds(names: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
  """That two configs have different backbones, or nothing but different seeds."""
  a, b = (
    flatten_dict({name: dict(config[name]) for name in ("train", "measure")}, sep=".")
    for config in (one, other)
  )
  if a["train.model.backbone"] != b["train.model.backbone"]:
    return
  others = sorted(k for k in a.keys() | b.keys() if k not in _SEEDS and a.get(k) != b.get(k))
  if others:
    key = others[0]
    raise InputError(
      f"{names} have one backbone but differ in more than their seed: {key} is {a.get(key)} and "
      f"{b.get(key)}; collect one of them, or repeat it with the other's config"
    )
  if a["train.seed"] == b["train.seed"]:
    raise InputError(
      f"{names} are the same study with the same seed, {a['train.seed']}; name it once, or repeat "
      "it with another --config.train.seed"
    )


def _data_set(results: Mapping[str, Any]) -> str:
  """The data set in words: its name, its number of classes, and what ToyBirds are drawn from."""
  data, names = results["config"]["train"]["data"], paper_tables.class_names(results)
  classes = f" with {len(names)} classes" if names else ""
  toy = f" drawn with {data.get('toy')}" if data["name"] == "toybirds" else ""
  return data["name"] + classes + toy


def _protocol(results: Mapping[str, Any]) -> str:
  return results["config"]["train"]["protocol"]


def _noise(results: Mapping[str, Any]) -> dict:
  """What the attacks may do, and what images are altered by."""
  names = ("eps", "step_size", "num_steps", "name", "parameter")
  sections = results["config"]["measure"].items()
  sections = {name: values for name, values in sections if isinstance(values, Mapping)}
  return {f"{s}.{n}": values[n] for s, values in sections.items() for n in names if n in values}


def _drawn(results: Mapping[str, Any]) -> tuple:
  """What the validation split, and so the data set's identity, is drawn from."""
  train = results["config"]["train"]
  return (train["seed"], train["data"].get("validation_share"))


def _known_and_differ(of: Callable[[Mapping], Any], one: Mapping, other: Mapping) -> bool:
  return None not in (of(one), of(other)) and of(one) != of(other)


def _merge(rows: Sequence[dict]) -> list[dict]:
  """Rows in the paper's order, those of one backbone (and training) as one."""
  groups = itertools.groupby(sorted(rows, key=paper_tables.row_order), key=paper_tables.row_order)
  return [_one_row(list(group)) for _, group in groups]


def _one_row(rows: list[dict]) -> dict:
  if len(rows) == 1:
    return rows[0]
  merged = {}
  for key, first in rows[0].items():
    cells = [row[key] for row in rows]
    is_metric = any(isinstance(cell, Mapping) for cell in cells)
    same = all(cell == first for cell in cells)
    # Such as the altered classes, where each seed draws its own.
    merged[key] = mean_over_seeds(cells) if is_metric else first if same else "others in each study"
  return merged
