"""Tuning the last layer alone: with everything below it fixed, from activations that are computed
once, else with the training step of the last-layer phase."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jprotop import losses, parallel
from jprotop.data import batches, jpeg
from jprotop.data.dataset import Split
from jprotop.models.protopnet import ProtoPNet
from jprotop.training import phases as phases_lib
from jprotop.training import steps

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
  settings, training = config["jpeg"], config["training"]
  augmented = batches.AugmentedEpochs(
    split,
    copies=config["data"]["copies"],
    batch_size=training["batch_size"],
    seed=config["seed"],
    compression=jpeg.Scheme(settings["quality"]) if config["variant"] == "jpeg_augmented" else None,
    probability=settings["probability"],
  )
  size = augmented.num_examples * len(model.prototype_class) * 4
  if not _is_fixed(config) or size > MAX_ACTIVATION_BYTES:
    return _tune_on_images(model, variables, augmented, config, phase)
  activations, label = copies_activations(model, variables, augmented)
  last_layer = tune_on_activations(
    variables["params"]["last_layer"],
    activations,
    label,
    prototype_class=model.prototype_class,
    phase=phase,
    l1=config["loss"]["l1"],
    batch_size=training["batch_size"],
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
  activations = model.apply(variables, batch["image"]).activations
  return {"activations": activations, "example": batch["example"]}
