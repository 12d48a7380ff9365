"""The one attack of every experiment: noise on some pixels that acts on one prototype's map."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, UInt32

from jprotop import parallel
from jprotop.attacks import pgd
from jprotop.attacks.budget import Budget, Numbers
from jprotop.attacks.cases import RULES, Rules
from jprotop.attacks.drive import Attack, drive
from jprotop.attacks.objectives import Cells, Objective, objective_of, prototype_maps
from jprotop.attacks.pgd import Method, Room, State
from jprotop.errors import InputError
from jprotop.prototypes import selectors
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.prototypes.see import Network, Scene, look, see

# More rows a device are not faster: 5 keep a CPU busy, and 64 (not measured) a GPU.
_MOST_ROWS_OF_CPU, _MOST_ROWS = 5, 64


@functools.lru_cache
def rows_that_fit(model: ProtoPNet, image_size: int) -> int:
  """Images [S, S, 3] to attack at once, on all devices together; at least one a device.

  Half of a device's memory holds what the backward pass keeps of its images. That is counted by
  shapes alone, nothing is compiled: 1.3 to 1.9 times what compiled programs keep.
  """

  def kept(count: int) -> int:
    images = jax.ShapeDtypeStruct((count, image_size, image_size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def backward(variables, images):
      latent = functools.partial(model.apply, variables, method=ProtoPNet.latent)
      return jax.vjp(latent, images)[1]

    leaves = jax.tree.leaves(jax.eval_shape(backward, variables, images))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

  per_image = kept(2) - kept(1)  # Without the weights.
  most = _MOST_ROWS_OF_CPU if jax.default_backend() == "cpu" else _MOST_ROWS
  rows = max(1, min(parallel.device_bytes() // 2 // per_image, most))
  return rows * parallel.num_devices()


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackBatch:
  """What is to be attacked, a row an image.

  Attributes:
    image: in [0, 1].
    pixels: where noise may be.
    prototype: whose map the noise acts on.
    key: raw random keys.
    source, target: the cells S and S_noisy, for objectives that read them.
  """

  image: Float32[np.ndarray, "N S S 3"]
  pixels: Bool[np.ndarray, "N S S"]
  prototype: Int[np.ndarray, " N"]
  key: UInt32[np.ndarray, "N 2"]
  source: Bool[np.ndarray, "N h w"] | None = None
  target: Bool[np.ndarray, "N h w"] | None = None

  def __len__(self) -> int:
    return len(self.image)

  @property
  def arrays(self) -> dict[str, np.ndarray]:
    """By name; the prototype as the `prototypes` [N, 1] of `selectors.own_maps`."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    given = {name: value for name, value in fields.items() if value is not None}
    return {**given, "prototypes": given.pop("prototype").astype(np.int32)[:, None]}


@dataclasses.dataclass(frozen=True)
class Views:
  """What the network sees in N images.

  Attributes:
    similarity_map: of the image's own prototype.
    activations: of all prototypes.
  """

  image: Float32[np.ndarray, "N S S 3"]
  similarity_map: Float[np.ndarray, "N h w"]
  activations: Float[np.ndarray, "N P"]
  logits: Float[np.ndarray, "N C"]


@dataclasses.dataclass(frozen=True)
class OnMaps:
  """An objective of maps as one of images: of the map of each image's own prototype."""

  objective: Objective

  def __call__(
    self, network: Network, images: Float[Array, "B S S 3"], batch: dict, numbers: Numbers
  ) -> Float[Array, " B"]:
    seen, own = network.as_saved(images), batch["prototypes"][:, 0]
    maps = prototype_maps(network.model, network.variables, seen, own)
    cells = Cells(batch.get("source"), batch.get("target"))
    values = self.objective(maps, cells, numbers)
    if jnp.shape(values) != maps.shape[:1]:
      raise InputError(
        f"the objective {self.objective.__name__} gives values of shape {jnp.shape(values)} for "
        f"maps {maps.shape}; it must give one value an image, {maps.shape[:1]}"
      )
    return values


def perturb(
  network: Network,
  batch: AttackBatch,
  budget: Budget,
  *,
  objective: str | Objective = "move",
  method: Method = pgd.PGD,
  rules: Rules = RULES["paper"],
  batch_size: int,
  title: str = "attacking",
) -> Views:
  """Images with noise of at most eps on the batch's pixels, and what the network sees in them.

  Args:
    objective: what the noise raises: "move" Eq. (2) by Eq. (3), "vanish" minus the prototype's
      activation, another name in `objectives.OBJECTIVES`, or a function like them.
    method: how it is found.
    rules: of these count `drop_shared_cells` and `start_off_mask`.
    batch_size: every batch is padded to it, so that fewer images compile nothing anew.
    title: of the progress bar.
  """
  attack = Attack(OnMaps(objective_of(objective)), method)
  files = network.in_files(budget.survive_jpeg)
  return _attacked(attack, files, batch, budget.numbers(rules), batch_size, title)


def random_signs(
  network: Network,
  batch: AttackBatch,
  budget: Budget,
  *,
  batch_size: int,
  title: str = "random noise",
) -> Views:
  """The control of every attack: as large a change of every pixel, its signs tossed."""
  attack, files = Attack(None, _RANDOM_SIGNS), network.in_files(budget.survive_jpeg)
  return _attacked(attack, files, batch, budget.numbers(), batch_size, title)


def _signs(room: Room, numbers: Numbers, keys: Key[Array, " B"]) -> State:
  signs = jnp.sign(pgd.uniform_noise(keys, room.image.shape[1:], 1.0))
  moved = room.image + numbers.eps * signs
  return State(pgd.project(moved, room.image, room.pixels, numbers.eps))


_RANDOM_SIGNS = Method(_signs, run=None)


def _attacked(
  attack: Attack,
  network: Network,
  batch: AttackBatch,
  numbers: Numbers,
  batch_size: int,
  title: str,
) -> Views:
  rows = parallel.round_up(batch_size)
  chunks = parallel.chunks(batch.arrays, rows)
  found = drive(attack, network, chunks, numbers, _look, rows=rows, total=len(batch), title=title)
  return _views(found["image"], found)


def _look(network: Network, images: Float[Array, "devices share S S 3"], batch: dict) -> dict:
  # What `see` gives it, so that nothing is compiled for the attacked images.
  own = {"image": images, "prototypes": batch["prototypes"], "mask": batch["mask"]}
  return {"image": images, **look(selectors.own_maps)(Scene(network), own)}


def see_own(
  network: Network,
  images: Float32[np.ndarray, "N S S 3"],
  prototype: Int[np.ndarray, " N"],
  *,
  batch_size: int,
) -> Views:
  """What a network sees in images as they are, each with its prototype."""
  each = {"prototypes": prototype[:, None]}
  found = see(network, images, selectors.own_maps, batch_size=batch_size, each=each)
  return _views(images, found)


def _views(image: Float32[np.ndarray, "N S S 3"], found: dict[str, np.ndarray]) -> Views:
  return Views(image, found["similarity_maps"][:, 0], found["activations"], found["logits"])


def with_control(
  network: Network,
  batch: AttackBatch,
  budget: Budget,
  *,
  objective: str | Objective = "move",
  rules: Rules = RULES["paper"],
  batch_size: int,
  clean: Views | None = None,
) -> dict[str, Views]:
  """The images clean, attacked, and as a control with random noise on the same pixels.

  Args:
    objective, rules: as in `perturb`.
    clean: what the network sees in the clean images, in files of `budget.survive_jpeg`, where that
      is known already.
  """
  size = min(batch_size, len(batch))
  if clean is None:
    files = network.in_files(budget.survive_jpeg)
    clean = see_own(files, batch.image, batch.prototype, batch_size=size)
  return {
    "clean": clean,
    "attacked": perturb(network, batch, budget, objective=objective, rules=rules, batch_size=size),
    "control": random_signs(network, batch, budget, batch_size=size),
  }


def as_record(batch: AttackBatch, views: dict[str, Views]) -> dict[str, np.ndarray]:
  """What `with_control` found as plain arrays: `images`, `attacked`, `mask`, `prototype`,
  and `NAME_similarity_map` and `NAME_logits` of clean, attacked and control."""
  record = {
    "images": batch.image,
    "attacked": views["attacked"].image,
    "mask": batch.pixels,
    "prototype": batch.prototype,
  }
  for name, what in views.items():
    record[f"{name}_similarity_map"] = what.similarity_map
    record[f"{name}_logits"] = what.logits
  return record
