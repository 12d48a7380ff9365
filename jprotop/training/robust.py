"""What adversarial training shows a network in place of a batch's images (App. F.1).

A method is one function and `register_method`; config.train.adversarial.method names it.
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
Method = Callable[..., Float[Array, "N S S 3"]]
METHODS: dict[str, Method] = {}


class Perturbation(NamedTuple):
  """A method of METHODS, and what it may do."""

  method: str
  budget: Budget


def register_method(name: str, method: Method) -> None:
  """Adds a method; it runs inside the training step, with batch norm in eval mode.

  Raises:
    InputError: there is one of that name.
  """
  if name in METHODS:
    raise InputError(f"there is a training method {name!r} already; choose another name")
  METHODS[name] = method


def perturbation_of(settings: dict) -> Perturbation:
  """What the section config.train.adversarial says; InputError where there is no such method."""
  name = settings["method"]
  if name not in METHODS:
    raise InputError(
      f"train.adversarial.method={name!r} is not known; it must be one of {', '.join(METHODS)}"
    )
  numbers = {key: settings[key] for key in ("eps", "step_size", "num_steps")}
  budget = Budget(**numbers)
  return Perturbation(name, budget)


def perturbed_images(model: ProtoPNet, perturbation: Perturbation) -> Callable:
  """What a step sees instead of a batch's images: (state, batch) -> images."""
  method = METHODS[perturbation.method]

  def perturb(state, batch):
    network = Network(model, {"params": state.params, "batch_stats": state.batch_stats})
    keys = jax.random.wrap_key_data(batch["key"])
    numbers = perturbation.budget.numbers()
    return method(network, batch["image"], batch["label"], keys, numbers)

  return perturb


register_method("fast_fgsm", class_pgd.fast_fgsm)
register_method("n_fgsm", class_pgd.n_fgsm)
register_method("pgd", class_pgd.pgd_to_train_on)
