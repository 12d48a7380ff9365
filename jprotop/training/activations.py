"""The last-layer phase: everything below is fixed, so each copy goes through the network once.

Where nothing below the last layer changes from pass to pass, the activations of all augmented
copies are computed once and stored, and every pass only reads them. The remedy of App. F.2 tosses
its coin anew in each pass, so both versions of each copy are stored. Adversarial images follow the
last layer, and the batch statistics of protocol `authors` drift: those take the training step on
images instead.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32, Int
from tqdm import tqdm

from jprotop import parallel
from jprotop.data.batches import EpochPlan, Epochs
from jprotop.prototypes import losses, selectors
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.see import Scene, look
from jprotop.training import copies, fronts, steps
from jprotop.training.phases import Phase, make_optimizer

# Of the activations that are on the device at a time.
_GROUP_BYTES = 2.5e8


def is_stored(config: dict, phase: Phase) -> bool:
  """Whether a copy's activations are the same in every pass of a config's phase."""
  same = config["train"]["protocol"] == "paper" and config["train"]["network"] != "adversarial"
  return phase.name == "last_layer" and same


@dataclasses.dataclass(frozen=True)
class Stored:
  """What the last-layer phase needs of M augmented copies, in V versions: altered or not.

  Attributes:
    costs: cluster and separation cost; they are only reported.
  """

  activations: Float32[np.ndarray, "V M P"]
  costs: Float32[np.ndarray, "V M 2"]
  label: Int[np.ndarray, " M"]


def store(model: ProtoPNet, variables: dict, epochs: Epochs, bar: tqdm, cost: float) -> Stored:
  """Runs every version of every copy through the network; the bar moves on by the cost of each."""
  plan, renderer = epochs.plan, epochs.renderer
  shape = (plan.num_versions, plan.num_examples)
  activations = copies.array((*shape, len(model.prototype_class)))
  costs = np.empty((*shape, 2), np.float32)
  shared = {**renderer.shared, "prototype_class": np.array(model.prototype_class)}
  scene = Scene(fronts.network_of(model, variables, epochs), shared)
  kept = look(selectors.costs, renderer.on_device)
  for which, part in copies.every(kept, scene, epochs, bar, cost):
    activations[which], costs[which] = part["activations"], part["costs"]
  return Stored(activations, costs, plan.labels)


def groups(stored: Stored, plan: EpochPlan, number: int) -> Iterator[dict]:
  """The batches of the epoch of that number, with their coins: many at a time.

  Yields:
    activations [K, B, P], costs [K, B, 2], label and mask [K, B] of K batches.
  """
  size, num_batches = plan.batch_size, plan.num_batches
  order, coin, _ = plan.drawn(number)
  at_a_time = max(1, int(_GROUP_BYTES // (size * stored.activations.shape[-1] * 4)))
  for first in range(0, num_batches, at_a_time):
    rows = slice(first * size, min(first + at_a_time, num_batches) * size)
    chosen = order[rows]
    batch = {
      "activations": stored.activations[coin[rows], chosen],
      "costs": stored.costs[coin[rows], chosen],
      "label": stored.label[chosen],
    }
    padded = parallel.pad(batch, -(-len(chosen) // size) * size)
    yield {key: value.reshape(-1, size, *value.shape[1:]) for key, value in padded.items()}


def _losses(model: ProtoPNet, weights: steps.LossWeights) -> Callable:
  """({last_layer}, batch) to the mean loss, and sums of the values an image, `count` among them."""
  classes = jnp.array(model.prototype_class)

  def mean_loss(trained, batch):
    unused = jnp.zeros((len(classes), model.prototype_depth))
    variables = {"params": {**trained, "prototypes": unused}}
    logits = nn.apply(ProtoPNet.logits_of, model)(variables, batch["activations"])
    cluster, separation = jnp.moveaxis(batch["costs"], -1, 0)
    penalty = losses.incorrect_class_l1(trained["last_layer"], classes)
    values = steps.weighted(
      weights, logits, batch["label"], cluster=cluster, separation=separation, penalty=penalty
    )
    sums = jax.tree.map(lambda value: jnp.sum(jnp.where(batch["mask"] > 0, value, 0.0)), values)
    count = jnp.sum(batch["mask"])
    return sums["loss"] / count, {**sums, "count": count}

  return mean_loss


@functools.lru_cache(maxsize=8)
def group_step(
  model: ProtoPNet, phase: Phase, weights: steps.LossWeights, num_batches: int
) -> Callable[[steps.TrainState, dict], tuple[steps.TrainState, dict[str, float]]]:
  """The train step of the phase over stored activations, for a group of batches one after another.

  Its state has the group `last_layer` alone. The loss is that of the training step on the images,
  which it equals within rounding; the costs of the prototypes do not depend on this layer.

  Args:
    num_batches: of an epoch.

  Returns:
    (state, group of `groups`) to the state after it, and sums of its metrics.
  """
  optimizer, mean_loss = make_optimizer(phase, num_batches, 0.0), _losses(model, weights)

  def step(state, batch):
    gradient, sums = jax.grad(mean_loss, has_aux=True)(state.params, batch)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = jax.tree.map(optax.apply_updates, state.params, updates)
    return state.replace(params=params, opt_state=opt_state), sums

  over_group = jax.jit(lambda state, group: jax.lax.scan(step, state, group))

  def summed(state: steps.TrainState, group: dict) -> tuple[steps.TrainState, dict[str, float]]:
    state, sums = over_group(state, group)
    return state, {name: float(values.sum()) for name, values in sums.items()}

  return summed
