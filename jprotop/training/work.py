"""How much a training has to do, in forward passes of one image through the whole network."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jprotop.data.batches import EpochPlan
from jprotop.prototypes.protopnet import ProtoPNet, make_model
from jprotop.training import activations, fronts, steps
from jprotop.training.phases import Phase

# A gradient to the pixels costs about as much as a forward and a backward pass.
_PER_GRADIENT = 3


def cost_of(config: dict, phase: Phase, plan: EpochPlan) -> float:
  """Cost of one image in a step of a phase; what is stored of frozen layers costs nothing more.

  A backward pass costs two forward ones, of the layers that are trained.
  """
  rest = share_behind(config)
  forward = rest if fronts.is_stored(config, phase, plan) else 1.0
  gradients = config["train"]["adversarial"]["num_steps"] * steps.is_adversarial(config, phase)
  return forward + (phase.passes - 1) * rest + _PER_GRADIENT * gradients


def work_of(config: dict, phase: Phase, plan: EpochPlan, done: int = 0) -> float:
  """What is left of a phase after `done` epochs of it; the activations of all copies are one."""
  cost = cost_of(config, phase, plan)
  if activations.is_stored(config, phase):
    return plan.num_examples * plan.num_versions * cost
  return (phase.epochs - done) * cost * plan.num_examples


def work_left(
  config: dict, phases: Sequence[Phase], plan: EpochPlan, num_images: int, epoch: int = 0
) -> float:
  """What is left of a training.

  Args:
    phases: those that are left; `epoch` epochs of the first of them are done.
    plan: of the paper's phases.
    num_images: of the training set as it is, which the push goes through.
  """
  left = 0.0
  if any(fronts.is_stored(config, phase, plan) for phase in phases):
    left += plan.num_examples * plan.num_versions * (1 - share_behind(config))
  for number, phase in enumerate(phases):
    if phase.name == "push":
      left += num_images
    else:
      done = epoch if number == 0 else 0
      left += work_of(config, phase, _plan_of(config, phase, plan), done)
  return left


def _plan_of(config: dict, phase: Phase, plan: EpochPlan) -> EpochPlan:
  """The pretraining of all networks has the same copies, in one version."""
  if phase.name != "pretrain":
    return plan
  return dataclasses.replace(plan, copies=config["train"]["data"]["copies"], num_versions=1)


def share_behind(config: dict) -> float:
  """The share of a forward pass that lies behind a config's frozen layers."""
  train = config["train"]
  if not train["frozen"]["parts"]:
    return 1.0
  # Classes and prototypes have hardly a say in it.
  model = make_model(train["model"], num_classes=2)
  return _share_behind(model, train["data"]["image_size"], train["frozen"]["parts"])


@functools.lru_cache
def _share_behind(model: ProtoPNet, image_size: int, frozen: int) -> float:
  """The mean of what XLA counts in operations and in bytes; nothing is compiled.

  The truth lies between them: on two cores the first 13 parts of an EfficientNet-Lite0 took 78% of
  the time of a pass, and are 69% of its operations and 87% of its bytes.
  """
  image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), image)

  def front(variables, image):
    return model.apply(variables, image, frozen, method=ProtoPNet.front)

  whole, first = (
    jax.jit(function).lower(variables, image).cost_analysis() for function in (model.apply, front)
  )
  if not whole or not first:  # A kind of device may not count.
    return 1.0
  share = 1 - sum(first[key] / whole[key] for key in ("flops", "bytes accessed")) / 2
  return round(64 * share) / 64  # Of which sums are exact, so that a bar ends where it should.
