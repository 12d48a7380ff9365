"""The training loop: a phase's passes over its images, or over the activations that they leave."""

import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jprotop import parallel
from jprotop.data.batches import EpochPlan, Epochs
from jprotop.errors import InputError
from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.runs import processes
from jprotop.training import activations, steps
from jprotop.training.phases import Phase, make_optimizer
from jprotop.training.steps import TrainState

# (state, epoch of the phase) to the state after it, and sums of its metrics, `count` among them.
Pass = Callable[[TrainState, int], tuple[TrainState, dict[str, float]]]


def optimizer_of(config: dict, phase: Phase, plan: EpochPlan) -> optax.GradientTransformation:
  """The optimiser of a config's phase."""
  return make_optimizer(phase, plan.num_batches, config["train"]["weight_decay"])


def cost_of(config: dict, phase: Phase) -> int:
  """Cost of one image in forward passes; each step towards an adversarial one costs three more."""
  steps_to_it = config["train"]["adversarial"]["num_steps"]
  return phase.passes + 3 * steps_to_it * steps.is_adversarial(config, phase)


def work_of(config: dict, phase: Phase, plan: EpochPlan, done: int = 0) -> int:
  """What is left of a phase after `done` epochs of it, in forward passes of images."""
  if activations.is_stored(config, phase):
    return plan.num_examples * plan.num_versions
  return (phase.epochs - done) * cost_of(config, phase) * plan.num_examples


def passes_of(
  config: dict,
  network: ProtoPNet | BackboneClassifier,
  phase: Phase,
  epochs: Epochs,
  *,
  variables: dict,
  bar: tqdm,
  first: int = 0,
) -> Pass:
  """The passes of a phase, each of which takes a state on by an epoch.

  A pass raises InputError where the loss or the network is no longer finite.

  Args:
    variables: of the network, as the phase begins or goes on.
    bar: moves on by the work that is done (`work_of`).
    first: number of the phase's first epoch among all epochs of the run: the order of the images
      follows from it.
  """
  if isinstance(network, ProtoPNet) and activations.is_stored(config, phase):
    bar.set_description("activations of all copies")
    stored = activations.store(network, variables, epochs, bar)
    return _over_activations(config, network, phase, epochs.plan, stored, first)
  return _over_images(config, network, phase, epochs, bar, first)


def _over_images(
  config: dict,
  network: ProtoPNet | BackboneClassifier,
  phase: Phase,
  epochs: Epochs,
  bar: tqdm,
  first: int,
) -> Pass:
  step = steps.step_of(config, network, phase, epochs)
  shared = parallel.replicate(epochs.renderer.shared)

  def batches(number: int) -> Iterator[tuple]:
    for batch in epochs.epoch(number):
      yield parallel.place(batch, epochs.plan.batch_size), shared
      bar.update(len(batch["label"]) * cost_of(config, phase))

  def one_pass(state: TrainState, epoch: int) -> tuple[TrainState, dict[str, float]]:
    return _one_pass(step, batches(first + epoch), phase, parallel.replicate(state), epoch)

  return one_pass


def _over_activations(
  config: dict,
  model: ProtoPNet,
  phase: Phase,
  plan: EpochPlan,
  stored: activations.Stored,
  first: int,
) -> Pass:
  step = activations.group_step(model, phase, steps.loss_weights(config), plan.num_batches)

  def one_pass(state: TrainState, epoch: int) -> tuple[TrainState, dict[str, float]]:
    layer = TrainState({"last_layer": jnp.asarray(state.params["last_layer"])}, {}, state.opt_state)
    groups = ((group,) for group in activations.groups(stored, plan, first + epoch))
    # One device does it, and all processes must have the same.
    layer, totals = processes.from_first(lambda: _one_pass(step, groups, phase, layer, epoch))
    params = {**state.params, **layer.params}
    return TrainState(params, state.batch_stats, layer.opt_state), totals

  return one_pass


def _one_pass(
  step: Callable, batches: Iterable, phase: Phase, state: TrainState, epoch: int
) -> tuple[TrainState, dict[str, float]]:
  """One pass: a step for each of the batches, which are its arguments after the state."""
  totals: dict[str, Any] = {}
  for number, batch in enumerate(batches):
    state, sums = step(state, *batch)
    totals = jax.tree.map(operator.add, totals, sums) if totals else sums
    if number % 20 == 0:
      _check_finite(sums["loss"], phase, epoch)
  # The parameters too: the last step's loss was taken before its update.
  _check_finite((totals, state.params, state.batch_stats), phase, epoch)
  return state, {name: float(value) for name, value in totals.items()}


def _check_finite(tree: Any, phase: Phase, epoch: int) -> None:
  if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)):
    raise InputError(
      f"the loss or the network is no longer finite in phase {phase.name}, epoch {epoch + 1}; "
      f"the checkpoint before it is kept. Lower train.{phase.name}.learning_rate, in another "
      "--workdir"
    )
