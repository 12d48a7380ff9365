"""Results of several studies as one set of tables: backbones side by side, seeds averaged.

A study is what `jprotop reproduce` measures: one backbone, one data set, one seed. Studies of
several backbones give the rows of the paper's tables, in its order. Of several seeds of one
backbone, each number becomes its mean over the seeds, with its spread: see `over_seeds`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax.traverse_util import flatten_dict

from jprotop.errors import InputError
from jprotop.experiments import over_seeds
from jprotop.experiments.experiment import record_kinds
from jprotop.experiments.over_seeds import Study
from jprotop.report import paper_tables
from jprotop.runs.records import check_results
from jprotop.runs.results import header

# What may differ between seeds of one study: the seeds, and what is drawn (which classes).
_SEEDS = (
  *("train.seed", "train.alteration.seed", "train.alteration.classes"),
  *("measure.seed", "measure.alteration.seed", "measure.alteration.classes"),
)


def collect(found: Sequence[Study]) -> dict:
  """Merges (name, results.json) of studies; names, such as folders, are for messages.

  Returns:
    `sources`: name, backbone, seed and altered classes of each study; `factors`: what varies among
    them (`over_seeds.Factor`), with every number and claim of those studies as one; and `table1` to
    `table4` and `targets` as paper_tables.all_tables has them, where a share of several seeds is
    what `over_seeds.mean_over` returns.

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
  factors = over_seeds.factors([(name, over_seeds.with_images(study)) for name, study in found])
  # Of each backbone the first: the others are draws of one of its seeds.
  first = {factor.backbone: factor for factor in reversed(factors)}
  tables = [_tables(factor, dict(found)) for factor in first.values()]
  return {
    **header(found[0][1]["config"]),
    "sources": [_source(name, results) for name, results in found],
    "factors": [_factor(factor) for factor in factors],
    **{
      name: sorted((row for table in tables for row in table[name]), key=paper_tables.row_order)
      for name in tables[0]
    },
  }


def _source(name: str, results: Mapping[str, Any]) -> dict:
  altered = paper_tables.lookup(results, "accuracy", "altered", "test", "classes")
  return {
    "name": name,
    "backbone": results["config"]["train"]["model"]["backbone"],
    "seed": over_seeds.seed_of(results),
    "draw": over_seeds.draw_of(results),
    "classes": altered,
  }


def _factor(factor: over_seeds.Factor) -> dict:
  return {
    "label": factor.label,
    "varied": factor.varied,
    "backbone": factor.backbone,
    "studies": factor.names,
    "claims": over_seeds.claims(factor),
    "numbers": over_seeds.numbers(factor),
  }


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
  if a["train.seed"] == b["train.seed"] and over_seeds.draw_of({"config": one}) == (
    over_seeds.draw_of({"config": other})
  ):
    raise InputError(
      f"{names} are the same study with the same seed, {a['train.seed']}, and the same altered "
      "classes; name it once, or repeat it with another --config.train.seed, or with another "
      "--config.train.alteration.seed"
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


def _tables(factor: over_seeds.Factor, found: Mapping[str, Mapping]) -> dict[str, list[dict]]:
  """The paper's tables of a factor's studies, a row for all of them; of one study as they are."""
  if len(factor.studies) == 1:
    return paper_tables.all_tables(found[factor.names[0]])
  tables = [paper_tables.all_tables(results) for _, results in factor.studies]
  return {
    name: _merge([row for table in tables for row in table[name]], factor.varied)
    for name in tables[0]
  }


def _merge(rows: Sequence[dict], varied: str) -> list[dict]:
  """Rows of the same training (or of the same way) as one."""
  groups = itertools.groupby(sorted(rows, key=paper_tables.row_order), key=paper_tables.row_order)
  return [_one_row(list(group), varied) for _, group in groups]


def _one_row(rows: list[dict], varied: str) -> dict:
  merged: dict[str, Any] = {}
  for key, first in rows[0].items():
    cells = [row[key] for row in rows]
    if any(isinstance(cell, Mapping) for cell in cells):
      merged[key] = over_seeds.mean_over(cells, varied)
    else:
      # Such as the altered classes, where each seed draws its own.
      same = all(cell == first for cell in cells)
      merged[key] = first if same else "others in each study"
  return merged
