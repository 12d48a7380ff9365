"""Is a results.json what jprotop.evaluation.results says it is?"""

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from jprotop.errors import InputError
from jprotop.evaluation.verdicts import decide

_NETWORKS = {"standard", "jpeg", "adversarial", "jpeg_augmented"}

_SHARE, _MEAN = ("value", "count", "total", "interval"), ("value", "total", "interval")
_KINDS = {
  "a share": lambda x: isinstance(x, Mapping) and set(_SHARE) <= x.keys(),
  "a mean": lambda x: isinstance(x, Mapping) and set(_MEAN) <= x.keys() and "count" not in x,
  "a count": lambda x: isinstance(x, int) and not isinstance(x, bool) and x >= 0,
  "a text": lambda x: isinstance(x, str),
}
_RATE = {
  "num_images": "a count",
  "top_k": "a count",
  "rate_at.*": "a share",
  "prediction_kept": "a share",
  "success_and_prediction_kept": "a share",
  "control.rate_at.*": "a share",
}
_DRIFT_MEANS = [
  "similarity_compressed",
  "similarity_clean",
  "similarity_drop",
  "similarity_drop_reverse",
  "top_k_overlap",
  "rank_correlation",
  "cell_shift",
]
_DRIFT_SHARES = ("top_k_order_kept", "top_prototype_kept", "cell_moved")
# What a section must hold, by path: * is every key, NAME? may be missing, with all below it.
_FIELDS = {
  "config": {
    "model.backbone": "a text",
    "data.name": "a text",
    "seed": "a count",
    "protocol": "a text",
  },
  "evaluate": {
    **{f"*.{name}": "a share" for name in ("clean", "altered", "altered_every_class", "robust")},
    "*.altered_minus_clean": "a mean",
    "*.compressed_classes.*": "a share",
    "*.uncompressed_classes.*": "a share",
  },
  "push": {
    "num_prototypes": "a count",
    "distinct": "a count",
    "accuracy_before": "a share",
    "accuracy_after": "a share",
  },
  "head_on_stomach": {
    **{
      f"metrics.{name}": "a share"
      for name in (
        "moved_to_target",
        "control_moved",
        "moved_and_prediction_kept",
        "prediction_kept",
        "exceeds_clean_maximum",
      )
    },
    "metrics.exceeds_clean_maximum_by": "a mean",
    "metrics.percentile_of_attacked?": "a mean",
    "metrics.percentile_of_4?": "a mean",
  },
  "success_rate": {
    **{f"{p}?.{path}": kind for p in ("paper", "authors") for path, kind in _RATE.items()},
    "ablation?.*.setting": "a text",
    "ablation?.*.rate": "a share",
    "ablation?.*.rate_first": "a share",
  },
  "jpeg_drift": {
    "top_k": "a count",
    "selections.*.num_images": "a count",
    **{f"selections.*.{name}": "a mean" for name in _DRIFT_MEANS},
    **{f"selections.*.{name}": "a share" for name in _DRIFT_SHARES},
  },
  **{f"table{number}": {"*.backbone": "a text"} for number in (1, 2, 3, 4)},
  "claims": {f"*.{name}": "a text" for name in ("claim", "section", "evidence", "direction")},
}
# Sections without shares or means: settings, and claims, which have other fields.
_PLAIN = ("config", "environment", "claims")
_BY_NETWORK = ("push", "success_rate", "jpeg_drift")


def check_schema(results: Mapping[str, Any], source: str = "results.json") -> None:
  """Checks the sections that there are, and every share, mean and claim in them.

  Raises:
    InputError: names the first path that is wrong, in `source`, and how.
  """
  for path, problem in _problems(results):
    raise InputError(f"{source}: {path} {problem}; repeat the command that wrote it")


def _problems(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for section, fields in _FIELDS.items():
    for path, numbers in _instances(results, section):
      for field, kind in fields.items():
        for place, value in _follow(numbers, field.split("."), path):
          if not _KINDS[kind](value):
            yield place, "is missing" if value is None else f"is not {kind}"
  for path, metric in _metrics({k: v for k, v in results.items() if k not in _PLAIN}):
    if problem := _metric_problem(metric):
      yield path, problem
  for number, claim in enumerate(results.get("claims", [])):
    if problem := _claim_problem(claim):
      yield f"claims.{number}", problem


def _instances(results: Mapping[str, Any], section: str) -> Iterator[tuple[str, Any]]:
  """(path, numbers) of a section, one for each network in a study."""
  if section not in results:
    return
  numbers = results[section]
  if section in _BY_NETWORK and isinstance(numbers, Mapping) and _NETWORKS & numbers.keys():
    yield from ((f"{section}.{network}", values) for network, values in numbers.items())
  else:
    yield section, numbers


def _children(node: Any) -> Iterator[tuple[str, Any]]:
  if isinstance(node, Mapping):
    yield from node.items()
  elif isinstance(node, list):
    yield from ((str(i), value) for i, value in enumerate(node))


def _follow(node: Any, names: list[str], path: str) -> Iterator[tuple[str, Any]]:
  """(path, value) of all that a field names; value None where it is missing."""
  if not names:
    yield path, node
    return
  name, rest = names[0], names[1:]
  if name == "*":
    for key, child in _children(node):
      yield from _follow(child, rest, f"{path}.{key}")
    return
  child = node.get(name.removesuffix("?")) if isinstance(node, Mapping) else None
  path = f"{path}.{name.removesuffix('?')}"
  if child is not None:
    yield from _follow(child, rest, path)
  elif not name.endswith("?"):
    yield path, None


def _metrics(node: Any, path: str = "") -> Iterator[tuple[str, Mapping]]:
  """(path, metric) of everything in a tree that is a share or a mean, or was meant as one."""
  if isinstance(node, Mapping) and ("value" in node or {"count", "total"} <= node.keys()):
    yield path, node
    return
  for key, child in _children(node):
    yield from _metrics(child, f"{path}.{key}" if path else key)


def _metric_problem(metric: Mapping[str, Any]) -> str | None:
  """What is wrong with a share or a mean; None if nothing is."""
  if missing := [name for name in _MEAN if name not in metric]:
    return f"has no {missing[0]}"
  value, total, interval = (metric[name] for name in _MEAN)
  if not _KINDS["a count"](total):
    return f"has total {total!r}, which is no count"
  if value is None or total == 0:
    right = value is None and total == 0 and interval is None
    return None if right else f"has value {value}, total {total} and interval {interval}"
  if not isinstance(value, Real):
    return f"has value {value!r}, which is no number"
  if "count" in metric and not _equal(value, metric["count"] / total):
    return f"has value {value}, which is not {metric['count']}/{total}"
  if interval is None:
    alone = "std" in metric and total == 1
    return None if alone else "has no interval"
  return _interval_problem(value, interval, is_share="count" in metric)


def _interval_problem(value: float, interval: Any, *, is_share: bool) -> str | None:
  """What is wrong with the interval of a value."""
  if not (isinstance(interval, list) and [isinstance(end, Real) for end in interval] == [True] * 2):
    return f"has interval {interval!r}, which is not [low, high]"
  low, high = interval
  if not (low <= value or _equal(low, value)) or not (value <= high or _equal(value, high)):
    return f"has interval {interval}, which does not hold its value {value}"
  if is_share and not 0 <= low <= high <= 1:
    return f"has interval {interval}, which leaves [0, 1]"
  return None


def _claim_problem(claim: Mapping[str, Any]) -> str | None:
  """What is wrong with a claim: its verdict must follow from its interval, or be open."""
  needed = ("ours", "quantity", "interval", "threshold", "direction", "holds")
  if missing := [name for name in needed if name not in claim]:
    return f"has no {missing[0]}"
  if not isinstance(claim["ours"], bool):
    return f"has ours {claim['ours']!r}, which is not true or false"
  holds = claim["holds"]
  if not (isinstance(holds, bool) or holds == "undecided"):
    return f'has holds {holds!r}, which is not true, false or "undecided"'
  verdict = decide(claim["interval"], claim["threshold"], claim["direction"])
  if holds not in (verdict, "undecided"):
    return f"holds: {holds}, but by its interval {claim['interval']} it is {verdict}"
  return None


def _equal(a: float, b: float) -> bool:
  """But for rounding."""
  return abs(a - b) <= 1e-6 * max(1.0, abs(a), abs(b))
