"""Push: every prototype becomes the nearest latent patch of its own class (Section 2.1).

A vmapped nearest-neighbour search whose result is a value that merges: over batches, devices and
hosts the same function keeps, for each prototype, the nearest patch seen so far. Memory does not
grow with the number of images.
"""

import dataclasses
import functools
from collections.abc import Iterable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jprotop import parallel, regions
from jprotop.errors import InputError
from jprotop.prototypes.protopnet import ProtoPNet, grid_of
from jprotop.prototypes.see import Network


@flax.struct.dataclass
class Nearest:
  """The nearest patch found so far for each prototype.

  Attributes:
    nearness: by the network's head; minus infinity where no allowed patch was seen.
    image: index of the image in the data set.
    cell: row and column on the latent grid.
    patch: the latent patch itself.
    similarity_map: of that image, from which the box comes.
  """

  nearness: Float[Array, " P"]
  image: Int[Array, " P"]
  cell: Int[Array, "P 2"]
  patch: Float[Array, "P D"]
  similarity_map: Float[Array, "P h w"]


@dataclasses.dataclass(frozen=True)
class Provenance:
  """Where each prototype came from; kept in every checkpoint.

  Attributes:
    image: index into the training split.
    cell: (row, column).
    box: the source's box of high activation in its resized crop (y0, y1, x0, x1).
    sq_dist: how far the push moved the prototype, squared L2 by direct subtraction.
  """

  image: Int[np.ndarray, " P"]
  cell: Int[np.ndarray, "P 2"]
  box: Int[np.ndarray, "P 4"]
  sq_dist: Float[np.ndarray, " P"]

  @property
  def num_distinct(self) -> int:
    """Prototypes that do not share their patch with an earlier one."""
    return len(np.unique(np.column_stack([self.image, self.cell]), axis=0))

  def of(self, prototypes: Int[np.ndarray, " Q"]) -> "Provenance":
    """That of some prototypes alone."""
    return Provenance(**{name: array[prototypes] for name, array in self.as_arrays().items()})

  def as_arrays(self) -> dict[str, np.ndarray]:
    """As a checkpoint holds it."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  @classmethod
  def of_arrays(cls, arrays: dict[str, np.ndarray] | None) -> "Provenance | None":
    """That of a checkpoint; None: it holds none."""
    return None if arrays is None else cls(**arrays)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """The training patch that one prototype is: `Provenance` of it, with its picture and names.

  Attributes:
    image: in [0, 1], as the network saw it.
    box: the patch's region of high activation in it.
    image_id, class_name: of the image.
  """

  image: Float[np.ndarray, "S S 3"]
  box: regions.Box
  image_id: str
  class_name: str


def nearest_in_batch(
  latent: Float[Array, "N h w D"],
  nearness: Float[Array, "N h w P"],
  similarity_map: Float[Array, "N h w P"],
  prototype_class: Int[Array, " P"],
  label: Int[Array, " N"],
  image: Int[Array, " N"],
  mask: Float[Array, " N"],
) -> Nearest:
  """For every prototype the nearest patch among a batch's images of its class.

  Equally near: the first image of the batch, then the first cell in row-major order.

  Args:
    label, image: class and index of each image.
    mask: 0 for padding.
  """
  n, h, w, depth = latent.shape

  def search(near, maps, own_class):
    allowed = (label == own_class) & (mask > 0)
    near = jnp.where(allowed[:, None, None], near, -jnp.inf).reshape(-1)
    first = jnp.argmax(near)
    place = first // (h * w)
    cell = jnp.stack([first % (h * w) // w, first % w])
    patch = latent.reshape(n * h * w, depth)[first]
    return Nearest(near[first], image[place], cell, patch, maps[place])

  return jax.vmap(search, in_axes=(-1, -1, 0))(nearness, similarity_map, prototype_class)


def merge(a: Nearest, b: Nearest) -> Nearest:
  """The nearer of two for each prototype; of equals the earlier image, then the earlier cell."""

  def before(x, y):  # lexicographic over columns
    decided, result = jnp.zeros(x[0].shape, bool), jnp.zeros(x[0].shape, bool)
    for left, right in zip(x, y):
      result = jnp.where(~decided & (left < right), True, result)
      decided |= left != right
    return result

  def rank(found):
    return -found.nearness, found.image, found.cell[:, 0], found.cell[:, 1]

  take_b = before(rank(b), rank(a))
  return jax.tree.map(lambda x, y: jnp.where(take_b.reshape(-1, *[1] * (x.ndim - 1)), y, x), a, b)


def nothing_found(num_prototypes: int, grid: tuple[int, int], depth: int) -> Nearest:
  """The start of every search."""
  return Nearest(
    nearness=jnp.full(num_prototypes, -jnp.inf),
    image=jnp.full(num_prototypes, -1),
    cell=jnp.zeros((num_prototypes, 2), int),
    patch=jnp.zeros((num_prototypes, depth)),
    similarity_map=jnp.zeros((num_prototypes, *grid)),
  )


@functools.lru_cache(maxsize=8)
def _search_step(model: ProtoPNet):
  """One batch on all devices: forward, search, merge over devices, merge with what was found."""
  prototype_class = jnp.array(model.prototype_class)

  def step(variables, batch, found):
    out = Network(model, variables)(batch["image"])
    near = nearest_in_batch(
      out.latent,
      model.head.nearness(out),
      out.similarity_map,
      prototype_class,
      batch["label"],
      batch["index"],
      batch["mask"],
    )
    shares = parallel.all_gather(near)
    for device in range(shares.nearness.shape[0]):
      found = merge(found, jax.tree.map(lambda x, d=device: x[d], shares))
    return found

  return parallel.map_devices(step, split=(False, True, False), split_outputs=False)


def search(
  model: ProtoPNet, variables: dict, batches: Iterable, *, image_size: int, batch_size: int
) -> Nearest:
  """One pass over batches {image, label, index} of un-augmented crops; host arrays."""
  found = nothing_found(
    len(model.prototype_class), grid_of(model, image_size), model.prototype_depth
  )
  step, (variables, found) = _search_step(model), parallel.replicate((variables, found))
  for batch in batches:
    before = found
    found = step(variables, parallel.place(batch, batch_size), before)
    jax.block_until_ready(before)  # So that batches do not queue up where the host is faster.
  return jax.device_get(found)


def push(
  model: ProtoPNet, variables: dict, batches: Iterable, *, image_size: int, batch_size: int
) -> tuple[dict, Provenance]:
  """Replaces every prototype by the nearest patch of its class.

  Args:
    model, variables: the network; it runs in eval mode.
    batches: dictionaries of image [n, S, S, 3] (uint8, or float32 in [0, 1]), label [n] and
      index [n], in data order.
    image_size: S, in pixels.
    batch_size: rows that every batch is padded to.

  Returns:
    The variables with the new prototypes, and where each came from.

  Raises:
    InputError: a class that has prototypes has no image.
  """
  found, provenance = find_sources(
    model, variables, batches, image_size=image_size, batch_size=batch_size
  )
  params = {**variables["params"], "prototypes": model.head.pushed(jnp.asarray(found.patch))}
  return {**variables, "params": params}, provenance


def find_sources(
  model: ProtoPNet, variables: dict, batches: Iterable, *, image_size: int, batch_size: int
) -> tuple[Nearest, Provenance]:
  """The nearest patch of its class to every prototype, and where it is; arguments as of `push`."""
  found = search(model, variables, batches, image_size=image_size, batch_size=batch_size)
  empty = np.flatnonzero(~np.isfinite(found.nearness))
  if empty.size:
    classes = sorted({model.prototype_class[i] for i in empty})
    raise InputError(
      f"classes {classes} have prototypes but no training image to push them onto; add images "
      "or leave the classes out"
    )
  old = variables["params"]["prototypes"]
  boxes = [regions.high_activation_box(m, image_size, image_size) for m in found.similarity_map]
  provenance = Provenance(
    image=np.asarray(found.image, np.int32),
    cell=np.asarray(found.cell, np.int32),
    box=np.asarray(boxes, np.int32),
    sq_dist=np.asarray(model.head.moved(found.patch, old)),
  )
  return found, provenance
