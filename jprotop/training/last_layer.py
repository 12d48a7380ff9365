"""Tuning the last layer alone: with everything below it fixed, from activations that are computed
once, else with the training step of the last-layer phase."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jprotop import losses, parallel
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.models.protopnet import ProtoPNet
from jprotop.training import phases as phases_lib
from jprotop.training import runs, steps

# Of all augmented copies; beyond it the images are run through the network in every pass.
MAX_ACTIVATION_BYTES = 4e9


def tune(model: ProtoPNet, variables: dict, split: Split, config: dict, *, epochs: int) -> dict:
  """The variables after `epochs` passes of a run's last-layer phase over its training images.

  Args:
    split: the training images as the network sees them (`Run.seen`).
    config: the run's; its loss, optimiser, augmentation, protocol and variant hold here too.
  """
  if not epochs:
    return variables
  phase = _phase(config, epochs)
  augmented = runs.augmented_epochs(config, split)
  size = augmented.num_examples * len(model.prototype_class) * 4
  if not _is_fixed(config) or size > MAX_ACTIVATION_BYTES:
    return _tune_on_images(model, variables, augmented, config, phase)
  activations, label = copies_activations(model, variables, augmented)
  last_layer = tune_on_activations(
    model,
    variables,
    activations,
    label,
    phase=phase,
    l1=config["loss"]["l1"],
    batch_size=augmented.batch_size,
    seed=config["seed"],
  )
  return {**variables, "params": {**variables["params"], "last_layer": last_layer}}


def _phase(config: dict, epochs: int) -> phases_lib.Phase:
  fields = {**config["training"]["last_layer"], "epochs": epochs}
  training = {**config["training"], "last_layer": fields}
  return phases_lib.make_phases(training, config["protocol"])[-1]


def _is_fixed(config: dict) -> bool:
  """Whether a copy's activations are the same in every pass: no coin for its compression, no
  adversarial images (they follow the last layer), no batch statistics that drift."""
  return config["protocol"] == "paper" and config["variant"] in ("standard", "jpeg")


def _activate_batch(model: ProtoPNet, variables: dict, batch: dict) -> dict:
  return {
    "activations": model.apply(variables, batch["image"]).activations,
    "label": batch["label"],
  }


def copies_activations(
  model: ProtoPNet, variables: dict, augmented: batches.AugmentedEpochs
) -> tuple[np.ndarray, np.ndarray]:
  """Activations [M, P] and labels [M] of all augmented copies, in the order of the first epoch."""
  found = parallel.gather_examples(
    _activate_batch,
    (model,),
    variables,
    augmented.epoch(0),
    parallel.round_up(augmented.batch_size),
    total=augmented.num_examples,
    title="activations",
  )
  return found["activations"], found["label"]


def tune_on_activations(
  model: ProtoPNet,
  variables: dict,
  activations: np.ndarray,
  label: np.ndarray,
  *,
  phase: phases_lib.Phase,
  l1: float,
  batch_size: int,
  seed: int,
) -> jax.Array:
  """The last layer [P, C] after the phase's passes over activations [M, P] with labels [M].

  The loss is the training step's, but for the costs of the prototypes, which do not depend on this
  layer: cross entropy + l1 * |weights to other classes|, its mean over each shuffled batch.
  """
  num_batches = -(-len(label) // batch_size)
  optimizer = phases_lib.make_optimizer(phase, num_batches, 0.0)
  prototype_class = jnp.array(model.prototype_class)
  trained = {"last_layer": jnp.asarray(variables["params"]["last_layer"])}

  def mean_loss(trained, activations, label, mask):
    params = {**variables["params"], **trained}
    logits = model.apply({**variables, "params": params}, activations, method="logits_of")
    cross_entropy = jnp.sum(jnp.where(mask, losses.cross_entropy(logits, label), 0.0))
    penalty = losses.incorrect_class_l1(trained["last_layer"], prototype_class)
    return cross_entropy / jnp.sum(mask) + l1 * penalty

  @jax.jit
  def one_pass(state, activations, label, rows, mask):
    def step(state, batch):
      (trained, opt_state), (rows, mask) = state, batch
      gradient = jax.grad(mean_loss)(trained, activations[rows], label[rows], mask)
      updates, opt_state = optimizer.update(gradient, opt_state, trained)
      return (optax.apply_updates(trained, updates), opt_state), None

    return jax.lax.scan(step, state, (rows, mask))[0]

  state = (trained, optimizer.init(trained))
  table = jax.device_put((activations, label))
  with _bar("last layer", phase.epochs, "pass") as bar:
    for epoch in range(phase.epochs):
      state = one_pass(state, *table, *_shuffled(len(label), batch_size, seed, epoch))
      bar.update()
  return state[0]["last_layer"]


def _shuffled(count: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
  """The rows of each batch of an epoch, int [B, n], and which of them count, boolean [B, n]."""
  order = np.random.default_rng([seed, 2, epoch]).permutation(count)
  missing = -count % batch_size
  rows = np.pad(order, (0, missing)).reshape(-1, batch_size)
  return rows, (np.arange(rows.size) < count).reshape(rows.shape)


def _tune_on_images(
  model: ProtoPNet,
  variables: dict,
  augmented: batches.AugmentedEpochs,
  config: dict,
  phase: phases_lib.Phase,
) -> dict:
  """The run's own last-layer phase: every pass goes through the whole network."""
  parallel.check_batch_size(augmented.batch_size, "training.batch_size")
  step = steps.step_of(config, model, phase, augmented.num_batches)
  weight_decay = config["training"]["weight_decay"]
  optimizer = phases_lib.make_optimizer(phase, augmented.num_batches, weight_decay)
  # A copy: the step takes over its state's memory, and the caller still needs these arrays.
  params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
  opt_state = optimizer.init({group: params[group] for group in phase.trained})
  state = parallel.replicate(steps.TrainState(params, batch_stats, opt_state))
  with _bar("last layer", phase.epochs * augmented.num_batches, "batch") as bar:
    for epoch in range(phase.epochs):
      for batch in augmented.epoch(epoch):
        batch = parallel.pad(batch, augmented.batch_size)
        state, _ = step(state, parallel.shard(batch))
        bar.update()
  return {"params": state.params, "batch_stats": state.batch_stats}


def _bar(title: str, total: int, unit: str) -> tqdm:
  return tqdm(total=total, desc=title, unit=unit, dynamic_ncols=True)
