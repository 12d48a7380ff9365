"""One look at images: every one goes through a network once, and a selector says what is kept.

see(network, images, selectors.scores, batch_size=100)["logits"]
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jprotop import parallel
from jprotop.data import batches, device_jpeg
from jprotop.data.dataset import Split

# (what the network says, the batch) to a tree of arrays [N, ...]; of a module, so that its program
# is compiled once. The batch has `image`, and what `see` was given for each image and for all.
Select = Callable[[Any, dict], Any]


@flax.struct.dataclass
class Network:
  """A model with its arrays.

  Attributes:
    model: a ProtoPNet, or a BackboneClassifier.
    variables: its arrays.
    survive_jpeg: quality of JPEG files that images are saved to before the model sees them; None:
      there are no such files.
  """

  model: Any = flax.struct.field(pytree_node=False)
  variables: dict
  survive_jpeg: int | None = flax.struct.field(pytree_node=False, default=None)

  def __call__(self, images: Float[Array, "N S S 3"]) -> Any:
    """What the model says of images in [0, 1]: an Output, or a classifier's logits."""
    return self.model.apply(self.variables, self.as_saved(images))

  def as_saved(self, images: Float[Array, "N S S 3"]) -> Float[Array, "N S S 3"]:
    """Images as they come back from the files, if any. They are as the network takes them: unlike
    the files of Section 4, these hold what was resized already."""
    if self.survive_jpeg is None:
      return images
    return device_jpeg.round_trip(images, self.survive_jpeg)

  def in_files(self, quality: int | None) -> "Network":
    """The same network, of images in JPEG files of that quality; None: as it is."""
    return self if quality is None else dataclasses.replace(self, survive_jpeg=quality)


@flax.struct.dataclass
class Scene:
  """What is the same for all images of a look: the network, and the arrays given as `shared`."""

  network: Network
  shared: dict = flax.struct.field(default_factory=dict)


def _see_batch(select: Select, on_device: Callable, scene: Scene, batch: dict) -> Any:
  head = getattr(scene.network.model, "head", None)  # A plain classifier has none.
  images = on_device(scene.shared, batch)
  return select(scene.network(images), {"head": head, **scene.shared, **batch})


def look(
  select: Select, on_device: Callable = batches.images_that_came
) -> Callable[[Scene, dict], Any]:
  """What `see` does to a batch that is on the devices already: (scene, batch) to what is kept.

  `on_device` makes the images of what the scene shares and the batch (see `batches.Epochs`).
  """
  return parallel.per_example(_see_batch, select, on_device)


def see(
  network: Network,
  images: Split | Float32[np.ndarray, "N S S 3"],
  select: Select,
  *,
  batch_size: int,
  indices: Int[np.ndarray, " n"] | None = None,
  each: dict[str, np.ndarray] | None = None,
  shared: dict[str, np.ndarray] | None = None,
  title: str | None = None,
) -> Any:
  """What a network sees in N images, as a selector keeps it: a tree of host arrays [N, ...].

  Args:
    images: in [0, 1], or a split, whose crops are seen un-augmented.
    select: one of `selectors`, or a function like them.
    batch_size: every batch is padded to it, so that fewer images compile nothing anew. Rounding
      may differ between sizes.
    indices: which images of a split are seen, in this order; None: all.
    each: arrays [N, ...] that belong to the images, for the selector.
    shared: arrays that belong to all of them.
    title: of a progress bar; None: none is shown.
  """
  rows, scene = parallel.round_up(batch_size), Scene(network, shared or {})
  return parallel.gather_examples(
    look(select),
    scene,
    _examples(images, rows, indices, each),
    rows,
    total=len(images) if indices is None else len(indices),
    title=title,
  )


def see_in_batches(
  network: Network,
  images: Split | Float32[np.ndarray, "N S S 3"],
  select: Select,
  *,
  batch_size: int,
  indices: Int[np.ndarray, " n"] | None = None,
  each: dict[str, np.ndarray] | None = None,
  shared: dict[str, np.ndarray] | None = None,
) -> Iterator[Any]:
  """The same as `see`, a batch at a time, where all together would be too much to keep."""
  rows, scene = parallel.round_up(batch_size), Scene(network, shared or {})
  examples = _examples(images, rows, indices, each)
  return parallel.map_examples(look(select), scene, examples, rows)


def _examples(
  images: Split | np.ndarray,
  rows: int,
  indices: np.ndarray | None,
  each: dict[str, np.ndarray] | None,
) -> Iterator[dict]:
  if isinstance(images, np.ndarray | jax.Array):
    crops = parallel.chunks({"image": images if indices is None else images[indices]}, rows)
  else:
    found = batches.in_order(images, rows, indices)
    crops = ({"image": batch["image"]} for batch in found)
  if not each:
    return crops
  return ({**crop, **own} for crop, own in zip(crops, parallel.chunks(each, rows), strict=True))
