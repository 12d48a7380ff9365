"""Every number of several studies as one: its mean over them, its spread, and each study's value.

Studies of one backbone differ in the seed of the training, and in the draw of the classes whose
images are altered. These are two factors, reported apart: a `Factor` is studies that differ in one
of them, or that have a draw of their own for each training seed.

No experiment is named here: what is merged are all metrics of its record, wherever they stand, and
all plain numbers that are not the same in all studies (as settings are).
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jprotop import statistics
from jprotop.experiments.experiment import EXPERIMENTS
from jprotop.runs import run as runs

Study = tuple[str, Mapping[str, Any]]

# From so many studies on, those at hand stand for others well enough to be drawn from.
FEWEST_TO_RESAMPLE = 10
# What `with_images` adds to a metric: its value on each test image.
_IMAGES = "per_image"
# It differs from study to study and says nothing of what was found.
_SEED = "seed"


@dataclasses.dataclass(frozen=True)
class Factor:
  """Studies of one backbone that differ in one thing.

  Attributes:
    varied: "seed": of the training, and of the draw where that follows; "draw": of the altered
      classes, at one training seed.
    studies: one for each seed, or for each draw.
  """

  backbone: str
  varied: str
  studies: tuple[Study, ...]

  @property
  def names(self) -> list[str]:
    return [name for name, _ in self.studies]

  @property
  def label(self) -> str:
    """What varies, in words."""
    count, (_, first) = len(self.studies), self.studies[0]
    if self.varied == "draw":
      return f"{count} draws of the altered classes, all with training seed {seed_of(first)}"
    seeds = f"{count} training seed{'s' * (count != 1)}"
    if len({draw_of(results) for _, results in self.studies}) == 1:
      return f"{seeds} with the same altered classes" if count > 1 else seeds
    return f"{seeds}, each with its own draw of the altered classes"


def seed_of(results: Mapping[str, Any]) -> int:
  """The training seed of a study."""
  return results["config"]["train"]["seed"]


def draw_of(results: Mapping[str, Any]) -> int | str:
  """Which classes a study alters: the seed that they are drawn from, or how they are given."""
  config = results["config"]
  rule = runs.rule_in(config)
  return config["train"]["alteration"]["seed"] if rule == "half" else rule


def factors(found: Sequence[Study]) -> list[Factor]:
  """What varies among the studies, backbone by backbone in their order.

  Over training seeds there is one study for each: the first that was named. Then come the draws of
  each training seed that has several.
  """
  backbones: dict[str, list[Study]] = collections.defaultdict(list)
  for name, results in found:
    backbones[results["config"]["train"]["model"]["backbone"]].append((name, results))
  result = []
  for backbone, studies in backbones.items():
    by_seed: dict[int, list[Study]] = collections.defaultdict(list)
    for study in studies:
      by_seed[seed_of(study[1])].append(study)
    draws = [Factor(backbone, "draw", tuple(s)) for s in by_seed.values() if len(s) > 1]
    if len(by_seed) > 1 or not draws:
      first = tuple(studies[0] for studies in by_seed.values())
      result.append(Factor(backbone, "seed", first))
    result += draws
  return result


def with_images(results: Mapping[str, Any]) -> dict[str, Any]:
  """The results, each metric with its value on each image where its experiment says it."""
  changed = dict(results)
  for name, experiment in EXPERIMENTS.items():
    for network, record in results.get(name, {}).items():
      values = experiment.per_image(record)
      record = _with_images(record, values)
      changed[name] = {**changed[name], network: record}
  return changed


def _with_images(node: Any, values: Mapping[str, np.ndarray], path: str = "") -> Any:
  if is_metric(node):
    return {**node, _IMAGES: values[path]} if path in values else node
  if isinstance(node, Mapping):
    return {key: _with_images(child, values, _join(path, key)) for key, child in node.items()}
  return node


def is_metric(node: Any) -> bool:
  """Whether it is a share, a mean, a paired difference, or another number with its interval."""
  return isinstance(node, Mapping) and "value" in node and "total" in node


def mean_over(metrics: Sequence[Mapping[str, Any] | None], varied: str = "seed") -> dict | None:
  """The mean of a metric over studies that differ in a factor; None where no study has it.

  Its interval is about other seeds (or draws). From `FEWEST_TO_RESAMPLE` studies on that have their
  value on each image, it is about other images, too: `statistics.crossed_interval`. Else it is
  Student's, and a single study has none. It ends where the metric does: at 0 and 1 of a share.
  """
  found = [m for m in metrics if m is not None and m["value"] is not None]
  if not found:
    return None
  values = np.array([metric["value"] for metric in found], np.float64)
  mean, std = math.fsum(values) / len(values), None
  if len(values) > 1:  # Of equal values exactly 0.
    std = float(np.std(values, ddof=1)) if np.ptp(values) else 0.0
  interval, method = statistics.t_interval(values), "t" if len(values) > 1 else None
  images = [metric[_IMAGES] for metric in found if _IMAGES in metric]
  if len(values) >= FEWEST_TO_RESAMPLE and len(images) == len(found) and _one_length(images):
    interval, method = statistics.crossed_interval(np.stack(images)), "seeds and images"
  low, high = _range_of(found[0])
  return {
    "value": mean,
    "std": std,
    "total": len(values),
    "interval": interval and [max(low, interval[0]), min(high, interval[1])],
    "method": method,
    "varied": varied,
    "unit": "share" if (low, high) == (0, 1) else "points" if low == -1 else "number",
  }


def _one_length(arrays: Sequence[np.ndarray]) -> bool:
  return len({len(array) for array in arrays}) == 1


def _range_of(metric: Mapping[str, Any]) -> tuple[float, float]:
  """Between which numbers a metric of its kind lies."""
  if "only_a" in metric:  # a difference of two shares
    return (-1.0, 1.0)
  return (0.0, 1.0) if metric.get("count") is not None else (-np.inf, np.inf)


def numbers(factor: Factor) -> list[dict]:
  """Each number of each experiment and network: `mean_over` the studies, and `values` of each."""
  rows = []
  for experiment in EXPERIMENTS:
    sections = [results.get(experiment, {}) for _, results in factor.studies]
    for network in dict.fromkeys(network for section in sections for network in section):
      found = [dict(_numbers_of(section.get(network))) for section in sections]
      for path in dict.fromkeys(path for one in found for path in one):
        metrics = [one.get(path) for one in found]
        merged = mean_over(metrics, factor.varied)
        if merged is None or _is_setting(metrics):
          continue
        rows.append(
          {
            "experiment": experiment,
            "network": network,
            "number": path,
            "values": {n: m["value"] if m else None for n, m in zip(factor.names, metrics)},
            "over": merged,
          }
        )
  return rows


def _numbers_of(record: Any, path: str = "", *, listed: bool = False) -> Iterator[tuple[str, dict]]:
  """(path, metric) of each number; a plain one is a metric without an interval.

  Entries of lists are named by their texts. Their plain numbers are left out: they are of single
  images, which are others in each study.
  """
  if is_metric(record):
    yield path, record
  elif isinstance(record, Mapping):
    for key, child in record.items():
      if key != _SEED:
        yield from _numbers_of(child, _join(path, key), listed=listed)
  elif isinstance(record, list):
    names = [_named(entry) for entry in record]
    if all(names) and len(set(names)) == len(names):
      for name, entry in zip(names, record):
        yield from _numbers_of(entry, f"{path}[{name}]", listed=True)
  elif isinstance(record, int | float) and not isinstance(record, bool) and not listed:
    yield path, {"value": record, "plain": True}


def _join(path: str, key: str) -> str:
  return f"{path}.{key}" if path else key


def _named(entry: Any) -> str:
  texts = entry.values() if isinstance(entry, Mapping) else ()
  return ", ".join(text for text in texts if isinstance(text, str))


def _is_setting(metrics: Iterable[Mapping[str, Any] | None]) -> bool:
  """Whether it is a plain number that is the same in every study that has it."""
  found = [metric for metric in metrics if metric is not None]
  return all("plain" in metric for metric in found) and len({m["value"] for m in found}) == 1


def claims(factor: Factor) -> list[dict]:
  """Each claim: in how many studies it got which verdict, and its quantity over them.

  `verdict` follows from the interval over the studies. It is left undecided where that has no
  width, and where a study gave its own for another reason than its interval, such as too few
  images; where all of them gave the same for such a reason, it is that one.
  """
  by_claim: dict[tuple, dict[str, dict]] = collections.defaultdict(dict)
  for name, results in factor.studies:
    for claim in results.get("claims", []):
      key = (claim["claim"], claim["section"], *(claim[k] for k in _RULE))
      by_claim[key][name] = claim
  return [_claim(factor, of_studies) for of_studies in by_claim.values()]


_RULE = ("threshold", "direction", "margin")


def _claim(factor: Factor, of_studies: Mapping[str, Mapping[str, Any]]) -> dict:
  found = list(of_studies.values())
  rule = [found[0][key] for key in _RULE]
  merged = mean_over([{"value": claim["quantity"]} for claim in found], factor.varied)
  interval = merged["interval"] if merged else None
  verdict: str = statistics.decide(interval, *rule)
  otherwise = {
    c["verdict"] for c in found if c["verdict"] != statistics.decide(c["interval"], *rule)
  }
  if otherwise or (merged is not None and merged["std"] == 0):
    same = otherwise == {claim["verdict"] for claim in found}
    verdict = otherwise.pop() if same and len(otherwise) == 1 else "undecided"
  return {
    **{key: found[0][key] for key in ("claim", "section", "ours", *_RULE)},
    "verdicts": dict(collections.Counter(claim["verdict"] for claim in found)),
    "values": {name: claim["quantity"] for name, claim in of_studies.items()},
    "over": merged,
    "verdict": verdict,
  }
