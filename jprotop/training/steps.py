"""One training step, a pure function (state, batch) -> (state, metrics), run on all devices."""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jprotop import parallel
from jprotop.data.batches import Epochs, images_that_came
from jprotop.networks.backbone import BackboneClassifier
from jprotop.prototypes import losses
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.training import fronts, keep_maps, masking  # noqa: F401 (two register themselves)
from jprotop.training.phases import Phase, make_optimizer
from jprotop.training.robust import (
  Perturbation,
  penalised,
  perturbation_of,
  perturbed_images,
)


@flax.struct.dataclass
class TrainState:
  """What a step changes.

  Attributes:
    params: {group: parameters} of the whole network.
    batch_stats: running statistics of batch norm.
    opt_state: of the current phase's optimiser, over its trained groups only.
  """

  params: dict
  batch_stats: dict
  opt_state: optax.OptState


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the loss (App. B): CE + cluster * cc + separation * sc + l1 * |W|."""

  cluster: float = 0.8
  separation: float = -0.08
  l1: float = 1e-4
  cap_at_depth: bool = False  # protocol `authors`; see losses.cluster_cost


def with_axis(module, axis_name: str | None):
  """The same network, its train-mode batch norm averaged over a mapped axis (None: not)."""
  options = dataclasses.replace(module.options, axis_name=axis_name)
  return module.clone(options=options)


def weighted(
  weights: LossWeights,
  logits: Float[Array, "N C"],
  label: Int[Array, " N"],
  *,
  cluster: Float[Array, " N"],
  separation: Float[Array, " N"],
  penalty: Float[Array, ""],
) -> dict[str, Float[Array, " N"]]:
  """The loss and its parts, from logits, labels, costs and |W|."""
  cross_entropy = losses.cross_entropy(logits, label)
  loss = cross_entropy + weights.cluster * cluster + weights.separation * separation
  return {
    "cross_entropy": cross_entropy,
    "cluster_cost": cluster,
    "separation_cost": separation,
    "accuracy": (jnp.argmax(logits, -1) == label).astype(jnp.float32),
    "loss": loss + weights.l1 * penalty,
  }


def protopnet_losses(
  model: ProtoPNet, weights: LossWeights, *, frozen: int = 0, stored: bool = False
) -> Callable:
  """Loss function of the network: (params, batch_stats, batch, train) -> values an image.

  The batch norm of the backbone's first `frozen` parts stays in eval mode. Where `stored`, a
  batch's `image` is what those parts made of it.
  """
  method = ProtoPNet.from_front if stored else ProtoPNet.__call__
  prototype_class = jnp.array(model.prototype_class)
  cap = float(model.prototype_depth) if weights.cap_at_depth else None

  def loss(params, batch_stats, batch, train):
    variables = {"params": params, "batch_stats": batch_stats}
    out, updates = model.apply(
      variables,
      batch["image"],
      train,
      batch["mask"],
      frozen,
      method=method,
      mutable=["batch_stats"],
    )
    label = batch["label"]
    cluster, separation = model.head.costs(out, label, prototype_class, cap=cap)
    values = weighted(
      weights,
      out.logits,
      label,
      cluster=cluster,
      separation=separation,
      penalty=losses.incorrect_class_l1(params["last_layer"], prototype_class),
    )
    return values, updates.get("batch_stats", batch_stats)

  return loss


def classifier_losses(model: BackboneClassifier) -> Callable:
  """Loss function of the plain classifier: cross entropy alone."""

  def loss(params, batch_stats, batch, train):
    params = {group: params[group] for group in ("features", "classifier")}
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updates = model.apply(
      variables, batch["image"], train, batch["mask"], mutable=["batch_stats"]
    )
    cross_entropy = losses.cross_entropy(logits, batch["label"])
    correct = (jnp.argmax(logits, -1) == batch["label"]).astype(jnp.float32)
    values = {"loss": cross_entropy, "cross_entropy": cross_entropy, "accuracy": correct}
    return values, updates.get("batch_stats", batch_stats)

  return loss


def train_step(
  loss: Callable,
  phase: Phase,
  optimizer: optax.GradientTransformation,
  perturb: Callable | None,
  state: TrainState,
  batch: dict,
) -> tuple[TrainState, dict]:
  """One step on one device's share of a batch {image, label, mask, key}.

  The loss is the mean over the real images of all devices, so that neither padding nor the number
  of devices changes it. Metrics are sums, with `count` beside them.
  """
  if perturb is not None:
    batch = {**batch, "image": perturb(state, batch)}
  trained = phase.part_of(state.params)
  count = parallel.psum(jnp.sum(batch["mask"]))

  def mean_loss(trained):
    params = phase.merged(state.params, trained)
    values, batch_stats = loss(params, state.batch_stats, batch, phase.train_batch_stats)
    sums = jax.tree.map(lambda value: jnp.sum(jnp.where(batch["mask"] > 0, value, 0.0)), values)
    return sums["loss"] / count, (sums, batch_stats)

  gradient, (sums, batch_stats) = jax.grad(mean_loss, has_aux=True)(trained)
  gradient = parallel.psum(gradient)
  updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
  params = phase.merged(state.params, jax.tree.map(optax.apply_updates, trained, updates))
  if phase.train_batch_stats:
    # By images, so that a share of padding alone has no say where batch norm is not synchronised.
    weight = jnp.sum(batch["mask"]) / count
    batch_stats = parallel.psum(jax.tree.map(lambda x: x * weight, batch_stats))
  metrics = {**parallel.psum(sums), "count": count}
  return TrainState(params, batch_stats, opt_state), metrics


def make_train_step(
  loss: Callable,
  phase: Phase,
  optimizer: optax.GradientTransformation,
  perturb: Callable | None = None,
  *,
  on_device: Callable = images_that_came,
) -> Callable:
  """`train_step` on all devices: (state, placed batch, shared) -> (state, metrics).

  The state is donated. `on_device` makes a batch's images of it and of what is `shared`; both are a
  renderer's of `data.batches`.
  """

  def step(state, batch, shared):
    batch = {**batch, "image": on_device(shared, batch)}
    return train_step(loss, phase, optimizer, perturb, state, batch)

  mapped = parallel.map_devices(step, split=(False, True, False), split_outputs=False, donate=(0,))
  return lambda state, batch, shared=None: mapped(state, batch, shared or {})


def step_of(
  config: dict, network: ProtoPNet | BackboneClassifier, phase: Phase, epochs: Epochs
) -> Callable:
  """The train step of a config's phase over its epochs, with its protocol's batch norm and loss."""
  authors, adversarial = config["train"]["protocol"] == "authors", is_adversarial(config, phase)
  settings = config["train"]["adversarial"]
  return phase_step(
    with_axis(network, None if authors else parallel.AXIS),
    phase,
    weights=loss_weights(config),
    steps_per_epoch=epochs.plan.num_batches,
    weight_decay=config["train"]["weight_decay"],
    perturbation=perturbation_of(settings) if adversarial else None,
    on_device=epochs.renderer.on_device,
    stored=isinstance(epochs.renderer, fronts.StoredRenderer),
  )


def loss_weights(config: dict) -> LossWeights:
  return LossWeights(
    **config["train"]["loss"], cap_at_depth=config["train"]["protocol"] == "authors"
  )


def check_method(config: dict) -> None:
  """InputError where the adversarial network's method is not known."""
  if config["train"]["network"] == "adversarial":
    perturbation_of(config["train"]["adversarial"])


def is_adversarial(config: dict, phase: Phase) -> bool:
  """Whether a phase sees adversarial images: those of App. B, but not what comes before them."""
  return config["train"]["network"] == "adversarial" and phase.name not in ("pretrain", "push")


@functools.lru_cache(maxsize=16)
def phase_step(
  network: ProtoPNet | BackboneClassifier,
  phase: Phase,
  *,
  weights: LossWeights,
  steps_per_epoch: int,
  weight_decay: float,
  perturbation: Perturbation | None = None,
  on_device: Callable = images_that_came,
  stored: bool = False,
) -> Callable:
  """The train step of a phase, made once: networks that differ in their images alone share it.

  Args:
    network: with the axis of its batch norm set (`with_axis`).
    weights: of the loss; the plain classifier has none.
    perturbation: of adversarial training; None: the images as they come.
    on_device: as of `make_train_step`.
    stored: whether that returns what the phase's frozen layers made of images.
  """
  perturb = None
  if isinstance(network, BackboneClassifier):
    loss = classifier_losses(network)
  else:
    loss = protopnet_losses(network, weights, frozen=len(phase.frozen), stored=stored)
    if perturbation:
      perturb = perturbed_images(network, perturbation)
      # Of the last layer alone no map depends.
      learns_maps = phase.trained != ("last_layer",)
      loss = penalised(loss, network, perturbation) if learns_maps else loss
  optimizer = make_optimizer(phase, steps_per_epoch, weight_decay)
  return make_train_step(loss, phase, optimizer, perturb, on_device=on_device)
