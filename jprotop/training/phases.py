"""What is trained, at which rate, for how long: warm, joint, push, last layer (App. B).

Parameters fall into groups, named as at the top of the parameter tree: features (the backbone),
add_on, prototypes, last_layer, and classifier (only in the optional spell as a plain classifier).
"""

import dataclasses
from collections.abc import Hashable, Mapping

import jax
import jax.numpy as jnp
import optax

from jprotop.errors import InputError
from jprotop.networks.families import first_parts

PROTOCOLS = ("paper", "authors")
SCHEDULES = ("constant", "step", "cosine")
# Coupled into the gradient as torch.optim.Adam does, not AdamW's decoupled decay.
DECAYED_GROUPS = ("features", "add_on")


@dataclasses.dataclass(frozen=True)
class Phase:
  """One stage of training.

  Attributes:
    name: "pretrain", "warm", "joint", "push" or "last_layer".
    epochs: passes over the augmented training set; push takes 1.
    learning_rate: (group, rate) of what is trained; nothing else changes.
    schedule: "constant", "step" (x 0.1 every `decay_every` epochs, stepped before each epoch as
      the reference does, so that the first such span is one epoch shorter), or "cosine".
    train_batch_stats: batch norm uses and updates the batch's statistics.
    frozen: names of the layers in each of the backbone's first parts that are not trained.
  """

  name: str
  epochs: int
  learning_rate: tuple[tuple[str, float], ...] = ()
  schedule: str = "constant"
  decay_every: int = 5
  train_batch_stats: bool = False
  frozen: tuple[tuple[str, ...], ...] = ()

  @property
  def trained(self) -> tuple[str, ...]:
    return tuple(group for group, _ in self.learning_rate)

  def part_of(self, params: Mapping) -> dict:
    """What it trains of {group: parameters}."""
    part = {group: params[group] for group in self.trained}
    if self.frozen and "features" in part:
      frozen = {name for names in self.frozen for name in names}
      part["features"] = {n: layer for n, layer in part["features"].items() if n not in frozen}
    return part

  def merged(self, params: Mapping, part: Mapping) -> dict:
    """{group: parameters} with what was trained of them."""
    merged = {**params, **part}
    if self.frozen and "features" in part:
      merged["features"] = {**params["features"], **part["features"]}
    return merged

  @property
  def passes(self) -> int:
    """Cost of one image in units of a forward pass; a backward pass costs two."""
    return 3 if "features" in self.trained else 1


def make_phases(training: Mapping, protocol: str) -> tuple[Phase, ...]:
  """The stages of a run from its `train` config.

  In `paper`, batch statistics are frozen with their weights. In `authors` they drift in every
  phase, so that a pushed prototype is no longer exactly a training patch. Where a config freezes
  all of batch norm they never change.
  """
  if protocol not in PROTOCOLS:
    raise InputError(f"protocol={protocol!r} is not known; it must be one of {PROTOCOLS}")
  frozen, drift = training["frozen"], protocol == "authors"
  parts = first_parts(training["model"]["backbone"], frozen["parts"])
  phases = []
  for name in ("pretrain", "warm", "joint", "push", "last_layer"):
    fields = training[name] if name != "push" else {"epochs": 1}
    if fields["epochs"] < 0:
      raise InputError(f"train.{name}.epochs={fields['epochs']} must not be negative")
    schedule = fields.get("schedule", "constant")
    if schedule not in SCHEDULES:
      raise InputError(
        f"train.{name}.schedule={schedule!r} is not known; it must be one of {SCHEDULES}"
      )
    rates = tuple(sorted(fields.get("learning_rate", {}).items()))
    learns = "features" in dict(rates) or (drift and name != "push")
    phase = Phase(
      name=name,
      epochs=fields["epochs"],
      learning_rate=rates,
      schedule=schedule,
      decay_every=fields.get("decay_every", 5),
      train_batch_stats=learns and not frozen["batch_norm"],
      frozen=parts,
    )
    phases += [phase] if phase.epochs else []
  return tuple(phases)


def phases_of(config: Mapping) -> tuple[Phase, ...]:
  """The stages of a config's network; the adversarial one has last-layer passes of its own, and may
  have joint epochs of its own."""
  training = config["train"]
  if training["network"] == "adversarial":
    own = training["adversarial"]
    epochs = {"last_layer": own["last_layer_epochs"], "joint": own["joint_epochs"]}
    training = {
      **training,
      "last_layer": {**training["last_layer"], "epochs": epochs["last_layer"]},
      "joint": {**training["joint"], "epochs": epochs["joint"] or training["joint"]["epochs"]},
    }
  return make_phases(training, config["train"]["protocol"])


def _rate(phase: Phase, rate: float, steps_per_epoch: int) -> optax.Schedule:
  if phase.schedule == "cosine":
    return optax.cosine_decay_schedule(rate, phase.epochs * steps_per_epoch)
  if phase.schedule == "step":
    return lambda step: (
      rate * 0.1 ** ((jnp.floor_divide(step, steps_per_epoch) + 1) // phase.decay_every)
    )
  return optax.constant_schedule(rate)


def make_optimizer(
  phase: Phase, steps_per_epoch: int, weight_decay: float
) -> optax.GradientTransformation:
  """Adam (0.9, 0.999, 1e-8) for a tree {group: parameters} of the phase's trained groups."""
  transforms: dict[Hashable, optax.GradientTransformation] = {}
  for group, rate in phase.learning_rate:
    decay = optax.add_decayed_weights(weight_decay if group in DECAYED_GROUPS else 0.0)
    adam = optax.scale_by_adam()
    descend = optax.scale_by_learning_rate(_rate(phase, rate, steps_per_epoch))
    transforms[group] = optax.chain(decay, adam, descend)

  def labels(params):
    return {group: jax.tree.map(lambda _, g=group: g, sub) for group, sub in params.items()}

  return optax.multi_transform(transforms, labels)
