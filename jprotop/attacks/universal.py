"""Universal noise (Moosavi-Dezfooli et al. 2017): one pattern for many images.

The pattern rises by signed steps up the mean of the objective over a batch of images, and stays
within eps (the stochastic gradient method of Shafahi et al., AAAI 2020). Each image has its own
most activated prototype, and the place S that it is to leave.
"""

import functools
from collections.abc import Callable, Iterator

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped
from tqdm import tqdm

from jprotop import parallel
from jprotop.attacks.budget import Budget, Numbers
from jprotop.prototypes.see import Network

# (network, images, batch, numbers) to values to be raised; hashable, so that it is compiled once.
OfImages = Callable[[Network, Float[Array, "B S S 3"], dict, Numbers], Float[Array, " B"]]


def add(
  images: Float32[np.ndarray, "N S S 3"], pattern: Float32[np.ndarray, "S S 3"]
) -> Float32[np.ndarray, "N S S 3"]:
  """The images with the pattern, in [0, 1]."""
  return np.clip(images + pattern, 0, 1)


def random_pattern(size: int, eps: float, seed: int) -> Float32[np.ndarray, "{size} {size} 3"]:
  """The control: a pattern of random signs, as large as one that was fitted may be."""
  signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (size, size, 3))
  return signs * np.float32(eps)


@flax.struct.dataclass
class _Shared:
  """What the images of a step have in common."""

  network: Network
  numbers: Numbers
  pattern: Float[Array, "S S 3"]


def _step(objective: OfImages, shared: _Shared, batch: dict) -> Float[Array, "S S 3"]:
  """The next pattern, from the images of all devices."""
  numbers = shared.numbers

  def total(pattern):
    images = jnp.clip(batch["image"] + pattern[None], 0.0, 1.0)
    return jnp.sum(objective(shared.network, images, batch, numbers) * batch["mask"])

  gradient = parallel.psum(jax.grad(total)(shared.pattern))
  moved = shared.pattern + numbers.step_size * jnp.sign(gradient)
  return jnp.clip(moved, -numbers.eps, numbers.eps)


@functools.lru_cache(maxsize=8)
def _program(objective: OfImages) -> Callable:
  def step(shared, batch):
    return _step(objective, shared, batch)

  return parallel.map_devices(step, split=(False, True), split_outputs=False)


def fit(
  network: Network,
  examples: dict[str, Shaped[np.ndarray, "N ..."]],
  budget: Budget,
  *,
  objective: OfImages,
  seed: int,
  batch_size: int,
  title: str | None,
) -> Float32[np.ndarray, "S S 3"]:
  """One pattern of at most eps for all of some images, after `budget.num_steps` steps from zero.

  Args:
    examples: `image` in [0, 1], and what the objective reads of each.
    objective: its mean over images is raised; see `perturb.OnMaps`.
    seed: of the order of images; each is seen once before one is seen again.
    batch_size: images in a step, on all devices together.
    title: of the progress bar; None: there is none.
  """
  count, rows = len(examples["image"]), parallel.round_up(batch_size)
  program, numbers = _program(objective), budget.numbers()
  network = parallel.replicate(network.in_files(budget.survive_jpeg))
  pattern = parallel.replicate(jnp.zeros(examples["image"].shape[1:], jnp.float32))
  steps = _drawn(count, min(rows, count), budget.num_steps, seed)
  for chosen in tqdm(steps, desc=title, total=budget.num_steps, disable=title is None, unit="step"):
    batch = parallel.place({name: array[chosen] for name, array in examples.items()}, rows)
    pattern = program(_Shared(network, numbers, pattern), batch)
  return np.asarray(jax.device_get(pattern))


def _drawn(count: int, rows: int, steps: int, seed: int) -> Iterator[Int[np.ndarray, " rows"]]:
  """Rows of each step: one shuffled pass over all after another."""
  rng, left = np.random.default_rng(seed), np.zeros(0, int)
  for _ in range(steps):
    if len(left) < rows:
      left = np.concatenate([left, rng.permutation(count)])
    yield left[:rows]
    left = left[rows:]
