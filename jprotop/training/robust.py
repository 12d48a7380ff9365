"""What training does to be robust (App. F.1): images in place of a batch's, or a loss beside it.

A method is one file that ends in `register_method`; config.train.adversarial.method names it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from jprotop.attacks import class_pgd
from jprotop.attacks.budget import Budget
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.see import Network

# (network, images in [0, 1], label [N], keys [N], budget.Numbers) to images.
Images = Callable[..., Float[Array, "N S S 3"]]
# Of the same, to what `weight` times is added to the loss of each image; it is differentiated.
Penalty = Callable[..., Float[Array, " N"]]


class Method(NamedTuple):
  """What a step trains on in place of a batch's images, and what it adds to the loss; None: as it
  is."""

  images: Images | None = None
  penalty: Penalty | None = None


METHODS: dict[str, Method] = {}


class Perturbation(NamedTuple):
  """A method of METHODS, what it may do, and the weight of its penalty."""

  method: str
  budget: Budget
  weight: float = 1.0


def register_method(
  name: str, images: Images | None = None, *, penalty: Penalty | None = None
) -> None:
  """Adds a method; it runs inside the training step, with batch norm in eval mode.

  Raises:
    InputError: there is one of that name.
  """
  if name in METHODS:
    raise InputError(f"there is a training method {name!r} already; choose another name")
  METHODS[name] = Method(images, penalty)


def perturbation_of(settings: dict) -> Perturbation:
  """What the section config.train.adversarial says; InputError where there is no such method."""
  name = settings["method"]
  if name not in METHODS:
    raise InputError(
      f"train.adversarial.method={name!r} is not known; it must be one of {', '.join(METHODS)}"
    )
  numbers = {key: settings[key] for key in ("eps", "step_size", "num_steps")}
  return Perturbation(name, Budget(**numbers), settings["weight"])


def perturbed_images(model: ProtoPNet, perturbation: Perturbation) -> Callable | None:
  """What a step sees instead of a batch's images: (state, batch) -> images; None: themselves."""
  images = METHODS[perturbation.method].images
  if images is None:
    return None

  def perturb(state, batch):
    return images(*_arguments(model, state.params, state.batch_stats, batch, perturbation))

  return perturb


def _arguments(
  model: ProtoPNet, params: dict, batch_stats: dict, batch: dict, perturbation: Perturbation
) -> tuple:
  """What the functions of a method take, of a training step's batch."""
  network = Network(model, {"params": params, "batch_stats": batch_stats})
  keys = jax.random.wrap_key_data(batch["key"])
  return network, batch["image"], batch["label"], keys, perturbation.budget.numbers()


def penalised(loss: Callable, model: ProtoPNet, perturbation: Perturbation) -> Callable:
  """A loss function of the training step with the method's penalty added, if it has one.

  It is one of the values an image, too, before its weight.
  """
  penalty = METHODS[perturbation.method].penalty
  if penalty is None:
    return loss

  def with_penalty(params, batch_stats, batch, train):
    values, updates = loss(params, batch_stats, batch, train)
    added = penalty(*_arguments(model, params, batch_stats, batch, perturbation))
    total = values["loss"] + perturbation.weight * added
    return {**values, "penalty": added, "loss": total}, updates

  return with_penalty


register_method("fast_fgsm", class_pgd.fast_fgsm)
register_method("n_fgsm", class_pgd.n_fgsm)
register_method("pgd", class_pgd.pgd_to_train_on)
