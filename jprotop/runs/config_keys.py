"""Keys of configs: what differs between two, what is changed, and what they were called before."""

from collections.abc import Mapping
from typing import Any


def names_in(text: str) -> list[str]:
  """ "a, b" to ["a", "b"]."""
  return [name.strip() for name in text.split(",") if name.strip()]


def apply_changes(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict:
  """A config of plain values with {key: value} changed."""
  changed = dict(config)
  for key, value in changes.items():
    section, _, rest = key.partition(".")
    changed[section] = apply_changes(changed[section], {rest: value}) if rest else value
  return changed


def differences(there: dict, given: dict, prefix: str = "") -> list[str]:
  """Lines that name each key whose values differ."""
  lines = []
  for key in sorted(there.keys() | given.keys()):
    old, new = there.get(key, "(absent)"), given.get(key, "(absent)")
    if isinstance(old, dict) and isinstance(new, dict):
      lines += differences(old, new, f"{prefix}{key}.")
    elif old != new:
      lines.append(f"{prefix}{key}: there {old!r}, given {new!r}")
  return lines


_FORMER: tuple[tuple[str, str], ...] = (
  ("variant", "train.network"),
  ("training.evaluation_batch_size", "compute.evaluation_batch_size"),
  ("training.push_batch_size", "compute.push_batch_size"),
  ("training.keep_checkpoints", "compute.keep_checkpoints"),
  ("attack.batch_size", "compute.attack_batch_size"),
  ("jpeg.quality", "train.alteration.parameter"),
  ("jpeg.probability", "train.remedy.probability"),
  ("training", "train"),
  ("jpeg", "train.alteration"),
  ("robust", "measure.class_pgd"),
  ("attack", "measure.attack"),
  ("success_rate", "measure.success_rate"),
  *((name, f"train.{name}") for name in ("seed", "protocol", "model", "init", "loss")),
  ("adversarial", "train.adversarial"),
  ("data", "train.data"),
)


def present_key(former: str) -> str | None:
  """What a key of jprotop 0.1 is called now; None: it had no such key."""
  for old, new in _FORMER:
    if former == old or former.startswith(f"{old}."):
      return new + former.removeprefix(old)
  return None
