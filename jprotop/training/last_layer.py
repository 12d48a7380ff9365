"""Tuning the last layer of a network that is trained already, as after pruning."""

import jax
import jax.numpy as jnp
from tqdm import tqdm

from jprotop import parallel
from jprotop.data.dataset import Split
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.training import activations, copies, passes, phases, steps, work


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
  phase = phases.make_phases(training, config["train"]["protocol"])[-1]
  augmented = copies.augmented(config, split)
  if not activations.is_stored(config, phase):
    parallel.check_batch_size(augmented.plan.batch_size, "--config.train.batch_size")
  optimizer = passes.optimizer_of(config, phase, augmented.plan)
  # A copy: a step takes over its state's memory, and the caller still needs these arrays.
  params, batch_stats = jax.tree.map(jnp.array, (variables["params"], variables["batch_stats"]))
  opt_state = optimizer.init(phase.part_of(params))
  state = steps.TrainState(params, batch_stats, opt_state)
  total = work.work_of(config, phase, augmented.plan)
  with tqdm(total=total, desc="last layer", unit="pass", dynamic_ncols=True) as bar:
    one_pass = passes.passes_of(config, model, phase, augmented, variables=variables, bar=bar)
    for epoch in range(epochs):
      bar.set_description(f"last layer {epoch + 1}/{epochs}")
      state, _ = one_pass(state, epoch)
  return {**variables, "params": state.params, "batch_stats": state.batch_stats}
