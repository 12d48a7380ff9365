"""What results.json may hold: shares, means and claims that agree with themselves, and records."""

import copy
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from jprotop.errors import InputError
from jprotop.runs.config import NETWORKS
from jprotop.statistics import Verdict, decide

FORM = 4  # of results.json; earlier versions of jprotop wrote others
_TABLES = ("table1", "table2", "table3", "table4", "targets")
# {experiment: {network: {path below the network's folder: hash}}} of what was written.
FILES = dict[str, dict[str, dict[str, str]]]


class Share(msgspec.Struct, forbid_unknown_fields=True):
  """A share of images or prototypes, and its Wilson interval."""

  value: float | None
  count: int
  total: int
  interval: tuple[float, float] | None

  def __post_init__(self):
    _check_metric(self)


class Mean(msgspec.Struct, forbid_unknown_fields=True):
  """A mean over images, and its bootstrap interval."""

  value: float | None
  total: int
  interval: tuple[float, float] | None

  def __post_init__(self):
    _check_metric(self)


class Paired(msgspec.Struct, forbid_unknown_fields=True):
  """A difference of two shares of the same images: see statistics.paired_difference."""

  value: float | None
  total: int
  only_a: int
  only_b: int
  interval: tuple[float, float] | None
  p: float | None

  def __post_init__(self):
    _check_metric(self)
    if self.value is not None and not _equal(self.value, (self.only_a - self.only_b) / self.total):
      raise ValueError(f"value {self.value} is not ({self.only_a} - {self.only_b})/{self.total}")


class Number(msgspec.Struct, forbid_unknown_fields=True):
  """A share or a mean of a published metric, and what its interval is a sample of."""

  value: float | None
  total: int
  interval: tuple[float, float] | None
  unit: Literal["image", "prototype"]
  count: int | None = None

  def __post_init__(self):
    _check_metric(self)


class OverSeeds(msgspec.Struct, forbid_unknown_fields=True):
  """A share's mean over seeds, its standard deviation and its t-interval, in collected tables."""

  value: float
  std: float | None
  total: int
  interval: tuple[float, float] | None

  def __post_init__(self):
    if self.interval is not None or self.total != 1:
      _check_metric(self)


class Record(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
  """What an experiment found on one network: each experiment's file has a class of its own."""


class Claim(msgspec.Struct, forbid_unknown_fields=True):
  """What was found of a statement; its verdict follows from the interval, or is left open.

  p is that of a paired difference of shares being none, p_holm the same adjusted for all claims of
  the study that have one.
  """

  claim: str
  section: str
  ours: bool
  evidence: str
  quantity: float | None
  interval: tuple[float, float] | None
  threshold: float
  direction: str
  margin: float
  verdict: Verdict
  p: float | None = None
  p_holm: float | None = None

  def __post_init__(self):
    found = decide(self.interval, self.threshold, self.direction, self.margin)
    if self.verdict not in (found, "undecided"):
      raise ValueError(f"verdict {self.verdict}, but by its interval {self.interval} it is {found}")


class _Model(msgspec.Struct):
  backbone: str


class _Data(msgspec.Struct):
  name: str


class _Train(msgspec.Struct):
  network: str
  protocol: str
  seed: int
  data: _Data
  model: _Model


class Config(msgspec.Struct):
  """What tables and reports read of a config; the rest of it is free."""

  train: _Train


class Row(msgspec.Struct):
  """A row of a table; its other cells are texts, numbers, shares, or means over seeds."""

  backbone: str


def _check_metric(metric: Share | Mean | Paired | Number | OverSeeds) -> None:
  """ValueError where value, count, total and interval contradict each other."""
  value, total, count = metric.value, metric.total, getattr(metric, "count", None)
  if value is None or total == 0:
    if (value, total, metric.interval) != (None, 0, None):
      raise ValueError(f"value {value}, total {total} and interval {metric.interval} do not agree")
    return
  if count is not None and not _equal(value, count / total):
    raise ValueError(f"value {value} is not {count}/{total}")
  if metric.interval is None:
    raise ValueError("there is no interval")
  low, high = metric.interval
  if not (low <= value or _equal(low, value)) or not (value <= high or _equal(value, high)):
    raise ValueError(f"interval {metric.interval} does not hold its value {value}")
  if count is not None and not 0 <= low <= high <= 1:
    raise ValueError(f"interval {metric.interval} leaves [0, 1]")


def _equal(a: float, b: float) -> bool:
  """But for rounding."""
  return abs(a - b) <= 1e-6 * max(1.0, abs(a), abs(b))


def check_record(record: Any, kind: type | types.GenericAlias, where: str) -> None:
  """InputError, which names the place in the record, unless it is of an experiment's kind."""
  problem = _problem(record, kind)
  if problem is None:
    return
  text, _, path = problem.partition(" - at `$")
  place = _with_keys(copy.deepcopy(record), kind, path.rstrip("`"))
  raise InputError(f"{where}{place}: {text}; repeat the command that wrote it")


def _problem(record: Any, kind: type | types.GenericAlias) -> str | None:
  try:
    msgspec.convert(record, kind)
  except (msgspec.ValidationError, ValueError) as error:
    return str(error)


def _with_keys(record: Any, kind: type | types.GenericAlias, path: str) -> str:
  """The path to a problem with the keys of dictionaries, for which msgspec writes [...].

  It is the key with which alone the problem is there; `record` is used up.
  """
  *parts, last = path.split("[...]")
  place, found = record, ""
  for part in parts:
    for name in re.findall(r"\w+", part):
      place = place[int(name)] if isinstance(place, list) else place[name]
    for key, child in list(place.items()):
      place.clear()
      place[key] = child
      if _problem(record, kind):
        break
    place, found = child, f"{found}{part}.{key}"
  return found + last


def check_results(results: Mapping[str, Any], kinds: Mapping[str, type], source: str) -> None:
  """Checks the sections that there are: config, records by `kinds`, claims, and tables.

  Raises:
    InputError: names the first place that is wrong, in `source`, and how; or another form.
  """
  check_form(results, source)
  if "config" in results:
    check_record(results["config"], Config, f"{source}: config")
  for name, kind in kinds.items():
    for network, record in results.get(name, {}).items():
      check_record(record, kind, f"{source}: {name}.{network}")
  check_record(results.get("files", {}), FILES, f"{source}: files")
  check_record(results.get("claims", []), list[Claim], f"{source}: claims")
  for table in _TABLES:
    check_record(results.get(table, []), list[Row], f"{source}: {table}")
    for place, metric in metrics_in(results.get(table, []), table):
      check_record(metric, OverSeeds if "std" in metric else Share, f"{source}: {place}")


def results_schema(kinds: Mapping[str, type]) -> dict:
  """The JSON Schema of a results.json whose experiments have records of these kinds.

  docs/results.schema.json is that of the experiments that come with jprotop.
  """
  parts = {"config": Config, "files": FILES, "claims": list[Claim]}
  parts |= {**dict.fromkeys(_TABLES, list[Row]), **kinds}
  schemas, definitions = msgspec.json.schema_components(
    parts.values(), ref_template="#/$defs/{name}"
  )
  parts = dict(zip(parts, schemas))
  networks = {"enum": list(NETWORKS)}
  by_network = {
    name: {"type": "object", "propertyNames": networks, "additionalProperties": parts.pop(name)}
    for name in kinds
  }
  return {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "results.json of jprotop, of a run or of a study",
    "type": "object",
    "properties": {
      "form": {"const": FORM},
      "jprotop": {"type": "string"},
      "environment": {"type": "object"},
      "data": {"type": ["string", "null"]},
      "digests": {"type": "object", "additionalProperties": {"type": "string"}},
      **parts,
      **by_network,
    },
    "required": ["form", "jprotop", "config"],
    "$defs": definitions,
  }


def metrics_in(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
  """(path, metric) of everything in a tree that is a share or a mean."""
  if isinstance(node, Mapping) and "value" in node:
    yield path, node
  elif isinstance(node, Mapping | list):
    for key, child in node.items() if isinstance(node, Mapping) else enumerate(node):
      yield from metrics_in(child, f"{path}.{key}")


def check_form(results: Mapping[str, Any], source: str) -> None:
  """InputError where results are of another version's form."""
  if results.get("form") != FORM:
    version = results.get("jprotop", "0.1")
    raise InputError(
      f"{source} has the form of jprotop {version}, and this version reads form {FORM} alone "
      "(jprotop 0.3); move it away and run the command that wrote it again"
    )
