"""jprotop: does this really look like that? Prototype networks in JAX, trained and put to the test.

model, variables, info = jprotop.load("runs/demo")
out = model.apply(variables, images)   # images float32 [N, S, S, 3] in [0, 1]
"""

import contextlib
import pathlib
from typing import Any

from jprotop.errors import InputError

__all__ = ["InputError", "load"]


def load(workdir: str) -> tuple[Any, dict, dict]:
  """The network of a run, as trained so far.

  Returns:
    The ProtoPNet module; its variables, a tree of arrays; and info: `config`, `class_names`,
    `position`, `finished`, and `provenance` (None before the push): int arrays image [P], cell
    [P, 2], box [P, 4] (y0, y1, x0, x1) and float sq_dist [P].

  Raises:
    InputError: no run, no checkpoint yet, or one that does not fit the run's config.
  """
  import jax

  from jprotop.models import protopnet
  from jprotop.training import checkpoints

  path = pathlib.Path(workdir)
  config = checkpoints.read_config(path)
  if not (path / "checkpoints").is_dir():
    raise InputError(f"{path} holds no finished epoch yet; run experiments.train on it again")
  with contextlib.closing(checkpoints.Checkpoints(path)) as store:
    step = store.latest()
    if step is None:
      raise InputError(f"{path} holds no finished epoch yet; run experiments.train on it again")
    arrays, info = store.restore(step)
  model = protopnet.make_model(config["model"], len(info["class_names"]))
  params = {group: value for group, value in arrays["params"].items() if group != "classifier"}
  variables = jax.tree.map(
    jax.numpy.asarray, {"params": params, "batch_stats": arrays["batch_stats"]}
  )
  protopnet.check_variables(model, variables, config["data"]["image_size"])
  return model, variables, {**info, "config": config, "provenance": arrays.get("provenance")}
