"""The last-layer phase: everything below is fixed, so each copy goes through the network once.

Where nothing below the last layer changes from pass to pass, the activations of all augmented
copies are computed once and stored, and every pass only reads them. The JPEG remedy tosses its coin
anew in each pass, so both versions of each copy are stored. Adversarial images follow the last
layer, and the batch statistics of protocol `authors` drift: those take the training step instead.
"""

import dataclasses
import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jprotop import parallel
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.prototypes import losses
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.runs import run as runs
from jprotop.training import phases as phases_lib
from jprotop.training import steps

# Beyond it the activations lie in a memory-mapped file that goes away with the program.
MAX_MEMORY_BYTES = 4e9
# Of the activations that are on the device at a time.
_GROUP_BYTES = 2.5e8


def is_stored(config: dict, phase: phases_lib.Phase) -> bool:
  """Whether a copy's activations are the same in every pass of a config's phase."""
  same = config["train"]["protocol"] == "paper" and config["train"]["network"] != "adversarial"
  return phase.name == "last_layer" and same


@dataclasses.dataclass(frozen=True)
class Stored:
  """What the last-layer phase needs of M augmented copies, in V versions: compressed or not.

  Attributes:
    activations: float32 [V, M, P].
    costs: float32 [V, M, 2], cluster and separation cost; they are only reported.
    label: int [M].
  """

  activations: np.ndarray
  costs: np.ndarray
  label: np.ndarray


def _look(model: ProtoPNet, copies: int, shared: tuple, batch: dict) -> dict:
  variables, crops = shared
  out = model.apply(variables, batches.images_of(crops, copies, batch))
  costs = model.head.costs(out, batch["label"], jnp.array(model.prototype_class))
  return {"activations": out.activations, "costs": jnp.stack(costs, axis=-1)}


def store(
  model: ProtoPNet, variables: dict, augmented: batches.AugmentedEpochs, bar: tqdm
) -> Stored:
  """Runs every version of every copy through the network; the bar moves on by images."""
  shape = (augmented.num_versions, augmented.num_examples)
  activations = _array((*shape, len(model.prototype_class)))
  costs = np.empty((*shape, 2), np.float32)
  size = parallel.round_up(augmented.batch_size)
  look = parallel.per_example(_look, model, augmented.copies)
  shared = (variables, augmented.crops())
  for version in range(augmented.num_versions):
    images = augmented.in_order(version, size)
    start = 0
    for part in parallel.map_examples(look, shared, images, size):
      rows = slice(start, start + len(part["costs"]))
      activations[version, rows], costs[version, rows] = part["activations"], part["costs"]
      bar.update(len(part["costs"]))
      start = rows.stop
  return Stored(activations, costs, augmented.labels)


def _array(shape: tuple[int, ...]) -> np.ndarray:
  if np.prod(shape, dtype=np.int64) * 4 <= MAX_MEMORY_BYTES:
    return np.empty(shape, np.float32)
  with tempfile.TemporaryFile() as file:
    return np.memmap(file, np.float32, "w+", shape=shape)


@functools.lru_cache(maxsize=8)
def _pass_over_group(
  model: ProtoPNet,
  phase: phases_lib.Phase,
  weights: steps.LossWeights,
  num_batches: int,
):
  """(params, opt_state) and batches stacked on a leading axis, to the new ones and sums."""
  optimizer = phases_lib.make_optimizer(phase, num_batches, 0.0)
  classes = jnp.array(model.prototype_class)

  def mean_loss(trained, batch):
    unused = jnp.zeros((len(classes), model.prototype_depth))
    variables = {"params": {**trained, "prototypes": unused}}
    logits = model.apply(variables, batch["activations"], method="logits_of")
    cluster, separation = jnp.moveaxis(batch["costs"], -1, 0)
    penalty = losses.incorrect_class_l1(trained["last_layer"], classes)
    values = steps.weighted(
      weights, logits, batch["label"], cluster=cluster, separation=separation, penalty=penalty
    )
    sums = jax.tree.map(lambda value: jnp.sum(jnp.where(batch["mask"] > 0, value, 0.0)), values)
    count = jnp.sum(batch["mask"])
    return sums["loss"] / count, {**sums, "count": count}

  def step(state, batch):
    trained, opt_state = state
    gradient, sums = jax.grad(mean_loss, has_aux=True)(trained, batch)
    updates, opt_state = optimizer.update(gradient, opt_state, trained)
    return (optax.apply_updates(trained, updates), opt_state), sums

  return jax.jit(lambda state, group: jax.lax.scan(step, state, group))


def one_pass(
  model: ProtoPNet,
  stored: Stored,
  augmented: batches.AugmentedEpochs,
  number: int,
  state: tuple[dict, optax.OptState],
  *,
  phase: phases_lib.Phase,
  weights: steps.LossWeights,
) -> tuple[tuple[dict, optax.OptState], dict[str, float]]:
  """The state ({last_layer}, optimiser's) after the epoch of that number, and sums of its metrics.

  Batches, coins and loss are those of the training step on the images, which it equals within
  rounding; the costs of the prototypes do not depend on this layer.
  """
  size, num_batches = augmented.batch_size, augmented.num_batches
  order, coin, _ = augmented.plan(number)
  run = _pass_over_group(model, phase, weights, num_batches)
  at_a_time = max(1, int(_GROUP_BYTES // (size * stored.activations.shape[-1] * 4)))
  totals: dict[str, float] = {}
  for first in range(0, num_batches, at_a_time):
    rows = slice(first * size, min(first + at_a_time, num_batches) * size)
    chosen = order[rows]
    batch = {
      "activations": stored.activations[coin[rows], chosen],
      "costs": stored.costs[coin[rows], chosen],
      "label": stored.label[chosen],
    }
    padded = parallel.pad(batch, -(-len(chosen) // size) * size)
    group = {key: value.reshape(-1, size, *value.shape[1:]) for key, value in padded.items()}
    state, sums = run(state, group)
    for name, values in sums.items():
      totals[name] = totals.get(name, 0.0) + float(values.sum())
  return state, totals


def tune(model: ProtoPNet, variables: dict, split: Split, config: dict, *, epochs: int) -> dict:
  """The variables after `epochs` passes of a run's last-layer phase over its training images.

  Args:
    split: the training images as the network sees them (`Run.seen`).
    config: the run's; its loss, optimiser, augmentation, protocol and network hold here too.
  """
  if not epochs:
    return variables
  fields = {**config["train"]["last_layer"], "epochs": epochs}
  training = {**config["train"], "last_layer": fields}
  phase = phases_lib.make_phases(training, config["train"]["protocol"])[-1]
  augmented = runs.augmented_epochs(config, split)
  if not is_stored(config, phase):
    return _tune_on_images(model, variables, augmented, config, phase)
  with _bar("activations", augmented.num_examples * augmented.num_versions, "image") as bar:
    stored = store(model, variables, augmented, bar)
  trained = {"last_layer": jnp.asarray(variables["params"]["last_layer"])}
  optimizer = phases_lib.make_optimizer(phase, augmented.num_batches, 0.0)
  state, weights = (trained, optimizer.init(trained)), steps.loss_weights(config)
  with _bar("last layer", epochs, "pass") as bar:
    for number in range(epochs):
      state, _ = one_pass(model, stored, augmented, number, state, phase=phase, weights=weights)
      bar.update()
  return {**variables, "params": {**variables["params"], **state[0]}}


def _tune_on_images(
  model: ProtoPNet,
  variables: dict,
  augmented: batches.AugmentedEpochs,
  config: dict,
  phase: phases_lib.Phase,
) -> dict:
  """Every pass goes through the whole network, as the run's own last-layer phase did."""
  parallel.check_batch_size(augmented.batch_size, "--config.train.batch_size")
  step = steps.step_of(config, model, phase, augmented.num_batches)
  weight_decay = config["train"]["weight_decay"]
  optimizer = phases_lib.make_optimizer(phase, augmented.num_batches, weight_decay)
  # A copy: the step takes over its state's memory, and the caller still needs these arrays.
  params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
  opt_state = optimizer.init({group: params[group] for group in phase.trained})
  state = parallel.replicate(steps.TrainState(params, batch_stats, opt_state))
  crops = parallel.replicate(augmented.crops())
  with _bar("last layer", phase.epochs * augmented.num_batches, "batch") as bar:
    for epoch in range(phase.epochs):
      for batch in augmented.epoch(epoch):
        state, _ = step(state, parallel.place(batch, augmented.batch_size), crops)
        bar.update()
  return {"params": state.params, "batch_stats": state.batch_stats}


def _bar(title: str, total: int, unit: str) -> tqdm:
  return tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True)
