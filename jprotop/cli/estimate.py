"""How long a study will take: what is to be done, in forward passes of an image, times their time.

The time of a pass is that of the networks that this study has trained; else the one recorded of
networks of the same kind on this machine (rates.json in the cache); else a few images are timed.
Each says less than the one before, and the range that is told is the wider for it.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jprotop.cli.study import Stage, Study, changed_files
from jprotop.data.dataset import default_cache
from jprotop.errors import InputError
from jprotop.files import read_json, user_path, write_json
from jprotop.prototypes.protopnet import make_model
from jprotop.prototypes.see import Network
from jprotop.runs import run as runs
from jprotop.runs.config import NETWORKS
from jprotop.training import copies, phases, pretrained, work

# How far off the whole may be, as factors, by where the time of a pass is from. A training step is
# slower than three forward passes by 1.0 to 2.2 on the processors of docs/performance.md, and a
# shared machine is now this fast and now that.
_RANGES = {"timed": (0.7, 2.5), "recorded": (0.7, 1.6), "trained": (0.8, 1.3)}
# Seconds that a training compiles, which are in the time of a pass where networks were trained.
_COMPILING = {"timed": (10.0, 90.0), "recorded": (0.0, 0.0), "trained": (0.0, 0.0)}
# Of a measurement, whose attacks end early or late; and what each takes to compile and to draw.
_MEASURED_RANGE = (0.4, 2.0)
_OVERHEAD = (5.0, 20.0)
_TIMED_IMAGES = 4


class Rate(NamedTuple):
  """Seconds of a forward pass of one image, and where that is from: a key of `_RANGES`."""

  seconds: float
  source: str


class Estimate:
  """What a study's stages will take, told before it starts and again as networks finish."""

  def __init__(self, study: Study, chosen: Sequence[Stage]):
    self.study, self.chosen = study, list(chosen)
    self._rate: Rate | None = None

  def tell(self) -> str:
    """The line to print; nothing where nothing is to be done."""
    trainings = self.trainings()
    stages = [stage for stage in self.chosen if not self._is_done(stage)]
    if not trainings and not stages:
      return ""
    rate = self.rate()
    train = [
      factor * rate.seconds * sum(trainings.values()) + compiling * len(trainings)
      for factor, compiling in zip(_RANGES[rate.source], _COMPILING[rate.source])
    ]
    known = sum(self.passes_of(stage) for stage in stages)
    measure = [
      factor * rate.seconds * known + overhead * len(stages)
      for factor, overhead in zip(_MEASURED_RANGE, _OVERHEAD)
    ]
    parts = []
    if trainings:
      parts.append(f"{_count(len(trainings), 'training')} {_span(*train)}")
    if stages:
      parts.append(f"{_count(len(stages), 'measurement')} {_span(*measure)}")
    whole = _span(*(a + b for a, b in zip(train, measure)))
    how = {
      "timed": f"{_TIMED_IMAGES} images went through the network, "
      f"{1000 * rate.seconds:.0f} ms each",
      "recorded": "as fast as the last such network on this machine",
      "trained": "as fast as the networks that this study has trained",
    }
    return f"Still to do: about {whole} ({', '.join(parts)}; a guess: {how[rate.source]})"

  def trainings(self) -> dict[str, float]:
    """What is left of each network that must be trained, in passes; a pretraining counts once."""
    wanted = dict.fromkeys(name for stage in self.chosen for name in stage.needs)
    done = [name for name in NETWORKS if self.study.finished(name)]
    left, pretrainings = {}, {self._pretraining(name) for name in done}
    for name in (name for name in wanted if name not in done):
      config, images = self.study.config_of(name), self.study.dataset.train
      plan, epoch = self._position(name)
      if plan and plan[0].name == "pretrain" and self._pretraining(name) in pretrainings:
        plan = plan[1:]
      pretrainings.add(self._pretraining(name))
      epochs = copies.plan_of(config, images)
      left[name] = work.work_left(config, plan, epochs, len(images), epoch)
    return left

  def _pretraining(self, name: str) -> str:
    return pretrained.fingerprint(self.study.config_of(name), self.study.dataset.identity)

  def _position(self, name: str) -> tuple[tuple[phases.Phase, ...], int]:
    """The phases that are left of a network, and the epochs of the first that are done."""
    plan = phases.phases_of(self.study.config_of(name))
    try:
      position = runs.load(self.study.folder(name))[2]["position"]
    except InputError:  # It has no checkpoint yet.
      return plan, 0
    return plan[position["phase"] :], position["epoch"]

  def _is_done(self, stage: Stage) -> bool:
    return all(map(self.study.finished, stage.needs)) and changed_files(self.study, stage) == []

  def passes_of(self, stage: Stage) -> float:
    """About how many passes a measurement takes; 0 where its experiment does not say."""
    measure = self.study.config["measure"]
    return stage.experiment.passes(measure, stage.network, len(self.study.dataset.test))

  def rate(self) -> Rate:
    """The best that is known of the time of a pass."""
    passes, seconds = (sum(column) for column in zip((0.0, 0.0), *self.study.trained))
    if passes:
      self._rate = Rate(seconds / passes, "trained")
      _record(self.study.config, self._rate.seconds)
    elif self._rate is None:
      known = _recorded(self.study.config)
      self._rate = Rate(known, "recorded") if known else Rate(timed(self.study.config), "timed")
    return self._rate


def timed(config: dict) -> float:
  """Seconds of a forward pass of one image, of a few; the network's numbers do not matter."""
  train = config["train"]
  model = make_model(train["model"], num_classes=2)
  size = train["data"]["image_size"]
  images = jnp.zeros((_TIMED_IMAGES, size, size, 3))
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)
  network, forward = Network(model, variables), jax.jit(lambda network, images: network(images))
  jax.block_until_ready(forward(network, images))  # Compiles it.
  times = []
  for _ in range(3):
    start = time.perf_counter()
    jax.block_until_ready(forward(network, images))
    times.append(time.perf_counter() - start)
  return min(times) / _TIMED_IMAGES


def _path(config: dict):
  cache = config["data"]["cache"]
  return (user_path(cache) if cache else default_cache()) / "rates.json"


def _key(config: dict) -> str:
  """What networks of one speed have in common."""
  train = config["train"]
  device = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
  kind = {name: train["model"][name] for name in ("backbone", "dtype")}
  return json.dumps([device, kind, train["data"]["image_size"], train["frozen"]["parts"]])


def _recorded(config: dict) -> float | None:
  """Seconds of a pass of the last such network; None where there was none."""
  try:
    found = read_json(_path(config), remedy="").get(_key(config))
  except InputError:
    return None
  return found if isinstance(found, float) and found > 0 else None


def _record(config: dict, seconds: float) -> None:
  known = {}
  with contextlib.suppress(InputError):
    known = read_json(_path(config), remedy="")
  with contextlib.suppress(OSError):  # A cache that cannot be written costs only the estimate.
    write_json(_path(config), {**known, _key(config): seconds})


def _count(number: int, what: str) -> str:
  return f"{number} {what}{'s' * (number != 1)}"


def _span(low: float, high: float) -> str:
  """ "4 to 11 minutes", in a unit that fits."""
  unit, size = next(
    (unit, size)
    for unit, size in (("hours", 3600), ("minutes", 60), ("seconds", 1))
    if high >= 2 * size or size == 1
  )
  digits = 1 if unit == "hours" else 0
  return f"{low / size:.{digits}f} to {high / size:.{digits}f} {unit}"
