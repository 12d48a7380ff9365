"""Attacks on the classification: some to train on, PGD to measure robustness (App. F.1)."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key

from jprotop import parallel
from jprotop.attacks import pgd
from jprotop.attacks.budget import Budget, Numbers
from jprotop.attacks.drive import Attack, drive
from jprotop.data import batches
from jprotop.data.dataset import Split
from jprotop.prototypes import losses, selectors
from jprotop.prototypes.see import Network, Scene, look

# Images to losses, and whether each is still classified correctly.
Loss = Callable[[Float[Array, "B H W 3"]], tuple[Float[Array, " B"], Bool[Array, " B"]]]


def fast_fgsm(
  network: Network,
  images: Float[Array, "B H W 3"],
  label: Int[Array, " B"],
  keys: Key[Array, " B"],
  numbers: Numbers,
) -> Float[Array, "B H W 3"]:
  """Images of Wong et al. (2020): noise U(-eps, eps), then one signed step up the cross entropy.

  Batch norm is in eval mode; the other costs of the training loss play no part.

  Args:
    images: in [0, 1].
    numbers: as `Budget.numbers` makes them; the paper takes eps 8/255 and a step of 10/255.
  """
  return pgd_to_train_on(network, images, label, keys, dataclasses.replace(numbers, num_steps=1))


def pgd_to_train_on(
  network: Network,
  images: Float[Array, "B H W 3"],
  label: Int[Array, " B"],
  keys: Key[Array, " B"],
  numbers: Numbers,
) -> Float[Array, "B H W 3"]:
  """Images of Madry et al. (2018): noise U(-eps, eps), then signed steps up the cross entropy.

  Unlike `class_pgd` it goes on where an image is misled. Arguments as of `fast_fgsm`.
  """
  room = pgd.everywhere(images)
  start = pgd.init(room, numbers, keys)
  return pgd.run(start, _against(network, label), room, numbers).found


def n_fgsm(
  network: Network,
  images: Float[Array, "B H W 3"],
  label: Int[Array, " B"],
  keys: Key[Array, " B"],
  numbers: Numbers,
) -> Float[Array, "B H W 3"]:
  """Images of de Jorge et al. (2022), N-FGSM: noise U(-2 eps, 2 eps), then one signed step.

  The step starts from the noisy image and is not projected back to within eps of the clean one;
  pixels stay in [0, 1]. The paper takes eps as its step. Arguments as of `fast_fgsm`.
  """
  room = pgd.everywhere(images)
  start = pgd.init(room, dataclasses.replace(numbers, eps=2 * numbers.eps), keys)
  anywhere = dataclasses.replace(numbers, eps=1.0, num_steps=1)
  return pgd.run(start, _against(network, label), room, anywhere).found


def _against(network: Network, label: Int[Array, " B"]) -> pgd.Objective:
  """What attacks to train on raise: the cross entropy of images [B, ...]."""
  return lambda x: losses.cross_entropy(network(x).logits, label)


@flax.struct.dataclass
class State(pgd.State):
  """Where PGD against the class stands.

  Attributes:
    correct: whether an image was classified correctly so far; the others stay.
  """

  correct: Bool[Array, " B"]


def init(room: pgd.Room, numbers: Numbers, keys: Key[Array, " B"] | None = None) -> State:
  """As `pgd.init`; which images are classified correctly, the first step sees."""
  begun = pgd.init(room, numbers, keys)
  return State(begun.x, jnp.ones(len(begun.x), bool))


def step(state: State, loss: Loss, room: pgd.Room, numbers: Numbers) -> State:
  """One step of PGD for those images that are still classified correctly where it is taken."""

  def total(x):
    values, right = loss(x)
    return jnp.sum(values), right

  gradient, right = jax.grad(total, has_aux=True)(state.x)
  correct = state.correct & right
  moved = pgd.climb(state.x, gradient, room, numbers)
  return State(jnp.where(correct[:, None, None, None], moved, state.x), correct)


def run(state: State, loss: Loss, room: pgd.Room, numbers: Numbers) -> State:
  """The state `numbers.num_steps` steps on, or fewer: it ends when no image is left to move."""

  def keep_on(carry):
    state, done = carry
    return (done < numbers.num_steps) & state.correct.any()

  def once(carry):
    state, done = carry
    return step(state, loss, room, numbers), done + 1

  return jax.lax.while_loop(keep_on, once, (state, 0))[0]


METHOD = pgd.Method(init, run)


def _cross_entropy(
  network: Network, images: Float[Array, "B H W 3"], batch: dict, numbers: Numbers
) -> tuple[Float[Array, " B"], Bool[Array, " B"]]:
  logits = network(images).logits
  return losses.cross_entropy(logits, batch["label"]), logits.argmax(-1) == batch["label"]


def class_pgd(
  network: Network,
  images: Float[Array, "B H W 3"],
  label: Int[Array, " B"],
  keys: Key[Array, " B"] | None,
  numbers: Numbers,
) -> Float[Array, "B H W 3"]:
  """Images of PGD against the class (Madry et al. 2018); App. F.1 takes 10 steps.

  One random start. As in the reference only images that are still classified correctly are moved
  on, and the loop ends when there is none: an image once misled stays as it is.

  Args:
    images: in [0, 1].
    keys: None starts at the image.
    numbers: as `Budget.numbers` makes them.
  """
  room = pgd.everywhere(images)

  def loss(x):
    return _cross_entropy(network, x, {"label": label}, numbers)

  return run(init(room, numbers, keys), loss, room, numbers).found


def _look(network: Network, images: Float[Array, "devices share S S 3"], batch: dict) -> jax.Array:
  return look(selectors.logits)(Scene(network), {"image": images, "mask": batch["mask"]})


def attacked_logits(
  network: Network,
  split: Split,
  indices: Int[np.ndarray, " N"],
  budget: Budget,
  *,
  seed: int,
  batch_size: int,
  title: str | None = "robust accuracy",
) -> Float32[np.ndarray, "N C"]:
  """Logits of images of a split after PGD on the whole image against their class.

  Args:
    indices: which images: those classified correctly; the others need no attack.
    seed: of the random start, one draw an image.
    title: of a progress bar; None: none is shown.
  """
  if not len(indices):
    return np.zeros((0, network.model.num_classes), np.float32)
  rows = parallel.round_up(min(batch_size, len(indices)))

  def examples():
    for batch in batches.in_order(split, rows, indices):
      yield {**batch, "key": parallel.key_array(seed, batch["index"])}

  return drive(
    Attack(_cross_entropy, METHOD),
    network.in_files(budget.survive_jpeg),
    examples(),
    budget.numbers(),
    _look,
    rows=rows,
    total=len(indices),
    title=title,
  )
