"""The one attack of every experiment: noise on some pixels that acts on one prototype's map."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jprotop import parallel
from jprotop.attacks import objectives, pgd
from jprotop.data import batches, device_jpeg, jpeg
from jprotop.data.dataset import Split
from jprotop.evaluation.attack_cases import RULES, Rules
from jprotop.models.protopnet import ProtoPNet

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


@dataclasses.dataclass(frozen=True)
class Budget:
  """The attack's numbers, in units of [0, 1] (Section 3: 8/255, 2/255, 40 iterations).

  Attributes:
    eps, step_size, num_steps, random_start: of `pgd.masked_pgd`.
    survive_jpeg: quality of a JPEG file that every picture is saved to before the network sees it:
      the noise is made for what is left of it there. None: there is no such file.

  Raises:
    InputError: a number that makes no sense.
  """

  eps: float = 8 / 255
  step_size: float = 2 / 255
  num_steps: int = 40
  random_start: bool = True
  survive_jpeg: int | None = None

  def __post_init__(self):
    if self.survive_jpeg is not None:
      jpeg.check_quality(self.survive_jpeg)
    pgd.check_budget(eps=self.eps, step_size=self.step_size, num_steps=self.num_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
  """What is to be attacked, a row an image.

  Attributes:
    image: float32 [N, S, S, 3] in [0, 1].
    pixels: boolean [N, S, S], where noise may be.
    prototype: int [N], whose map the noise acts on.
    key: uint32 [N, 2], raw random keys.
    source, target: boolean [N, h, w], the cells S and S_noisy; only to move a prototype.
  """

  image: np.ndarray
  pixels: np.ndarray
  prototype: np.ndarray
  key: np.ndarray
  source: np.ndarray | None = None
  target: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Seen:
  """What the network sees in N images.

  Attributes:
    image: float32 [N, S, S, 3].
    similarity_map: [N, h, w] of the image's own prototype.
    activations: [N, P] of all prototypes.
    logits: [N, C].
  """

  image: np.ndarray
  similarity_map: np.ndarray
  activations: np.ndarray
  logits: np.ndarray


def as_saved(images: jax.Array, quality: int | None) -> jax.Array:
  """Images [N, S, S, 3] as they come back from JPEG files, if any. They are as the network takes
  them: unlike the files of Section 4, these hold what was resized already."""
  return images if quality is None else device_jpeg.round_trip(images, quality)


def _look_batch(model: ProtoPNet, quality: int | None, variables: dict, batch: dict) -> dict:
  """The maps of each image's own prototypes, int [N, K], as [N, K, h, w]; all scores."""
  out = model.apply(variables, as_saved(batch["image"], quality))
  own = jnp.take_along_axis(out.similarity_map, batch["prototypes"][:, None, None, :], axis=-1)
  maps = jnp.moveaxis(own, -1, 1)
  return {"similarity_maps": maps, "activations": out.activations, "logits": out.logits}


def _begin_batch(kind: str, random_start: bool, shared: tuple, batch: dict) -> jax.Array:
  """The images [N, S, S, 3] that the steps start from, or the whole of the control."""
  eps, start_off_mask = shared
  images, pixels = batch["image"], batch["pixels"]
  keys = jax.random.wrap_key_data(batch["key"])
  if kind == "random":
    # The control: as large a change of every pixel, its signs tossed.
    signs = jnp.sign(pgd.uniform_noise(keys, images.shape[1:], 1.0))
    return pgd.project(images + eps * signs, images, pixels[..., None], eps)
  if random_start:
    return pgd.random_start(images, pixels, keys, eps=eps, start_off_mask=start_off_mask)
  return images


def _climb_batch(
  model: ProtoPNet, kind: str, quality: int | None, shared: tuple, batch: dict
) -> jax.Array:
  """Images [N, S, S, 3] some steps further. Rules are traced: one compilation."""
  variables, eps, step_size, num_steps, drop_shared_cells = shared

  def objective(x):
    x = as_saved(x, quality)
    maps = objectives.prototype_maps(model, variables, x, batch["prototypes"][:, 0])
    if kind == "vanish":
      return objectives.vanish(maps)
    return objectives.move_similarity(
      maps, batch["target"], batch["source"], drop_shared_cells=drop_shared_cells
    )

  return pgd.masked_pgd(
    objective,
    batch["image"],
    batch["pixels"],
    eps=eps,
    step_size=step_size,
    num_steps=num_steps,
    start=batch["attacked"],
  )


def perturb(
  model: ProtoPNet,
  variables: dict,
  order: Order,
  budget: Budget,
  *,
  kind: str,
  rules: Rules = RULES["paper"],
  batch_size: int,
  title: str = "attacking",
) -> Seen:
  """Images with noise of at most eps on the ordered pixels, and what the network sees in them.

  Args:
    kind: what the noise does: "move" raises Eq. (2) by Eq. (3), "vanish" lowers the prototype's
      activation, "random" has signs of size eps that are drawn, the control of both.
    rules: of these count `drop_shared_cells` and `start_off_mask`.
    batch_size: every batch is padded to it, so that fewer images compile nothing anew.
    title: of the progress bar.
  """
  rows = parallel.round_up(batch_size)
  fields = {f.name: getattr(order, f.name) for f in dataclasses.fields(order)}
  examples = {name: value for name, value in fields.items() if value is not None}
  examples["prototypes"] = examples.pop("prototype").astype(np.int32)[:, None]
  begin = parallel.per_example(_begin_batch, kind, budget.random_start)
  climb = parallel.per_example(_climb_batch, model, kind, budget.survive_jpeg)
  look = parallel.per_example(_look_batch, model, budget.survive_jpeg)
  slices = [] if kind == "random" else parallel.loop_slices(budget.num_steps)

  def attack(variables: dict, batch: dict) -> dict:
    x = begin((budget.eps, rules.start_off_mask), batch)
    for num_steps in slices:
      shared = (variables, budget.eps, budget.step_size, num_steps, rules.drop_shared_cells)
      x = climb(shared, {**batch, "attacked": x})
    # What `find` gives it, so that nothing is compiled for the attacked images.
    own = {"image": x, "prototypes": batch["prototypes"], "mask": batch["mask"]}
    return {"image": x, **look(variables, own)}

  chunks = parallel.chunks(examples, rows)
  arrays = parallel.gather_examples(
    attack, variables, chunks, rows, total=len(order.image), title=title
  )
  return _seen(arrays["image"], arrays)


def find(
  model: ProtoPNet,
  variables: dict,
  images: np.ndarray,
  prototypes: np.ndarray,
  *,
  batch_size: int,
  survive_jpeg: int | None = None,
) -> dict[str, np.ndarray]:
  """What the network sees in images [N, S, S, 3] as they are.

  Args:
    survive_jpeg: quality of JPEG files that they are saved to first, as in `Budget`.

  Returns:
    similarity_maps [N, K, h, w] of each image's prototypes, int [N, K]; activations [N, P] of all
    prototypes; logits [N, C].
  """
  rows = parallel.round_up(batch_size)
  examples = {"image": images, "prototypes": prototypes.astype(np.int32)}
  chunks = parallel.chunks(examples, rows)
  look = parallel.per_example(_look_batch, model, survive_jpeg)
  return parallel.gather_examples(look, variables, chunks, rows)


def with_control(
  model: ProtoPNet,
  variables: dict,
  order: Order,
  budget: Budget,
  *,
  kind: str,
  rules: Rules = RULES["paper"],
  batch_size: int,
) -> dict[str, Seen]:
  """The images clean, attacked, and as a control with random noise on the same pixels."""
  batch_size = min(batch_size, len(order.image))
  arguments = {"rules": rules, "batch_size": batch_size}
  clean = find(
    model, variables, order.image, order.prototype[:, None],
    batch_size=batch_size, survive_jpeg=budget.survive_jpeg,
  )  # fmt: skip
  return {
    "clean": _seen(order.image, clean),
    "attacked": perturb(model, variables, order, budget, kind=kind, **arguments),
    "control": perturb(
      model, variables, order, budget, kind="random", title="random noise", **arguments
    ),
  }


def as_record(order: Order, seen: dict[str, Seen]) -> dict[str, np.ndarray]:
  """What `with_control` found as plain arrays: `images`, `attacked`, `mask`, `prototype`,
  and `NAME_similarity_map` and `NAME_logits` of clean, attacked and control."""
  record = {
    "images": order.image,
    "attacked": seen["attacked"].image,
    "mask": order.pixels,
    "prototype": order.prototype,
  }
  for name, what in seen.items():
    record[f"{name}_similarity_map"] = what.similarity_map
    record[f"{name}_logits"] = what.logits
  return record


def _seen(image: np.ndarray, arrays: dict[str, np.ndarray]) -> Seen:
  maps = arrays["similarity_maps"][:, 0]
  return Seen(image, maps, arrays["activations"], arrays["logits"])


def _score_batch(model: ProtoPNet, variables: dict, batch: dict) -> dict:
  out = model.apply(variables, batch["image"])
  return {"logits": out.logits, "activations": out.activations}


def scores(model: ProtoPNet, variables: dict, split: Split, *, batch_size: int) -> dict:
  """logits [N, C] and activations [N, P] of every image of a split, in one pass."""
  rows = parallel.round_up(batch_size)
  images = ({"image": batch["image"]} for batch in batches.in_order(split, rows))
  score_batch = parallel.per_example(_score_batch, model)
  return parallel.gather_examples(
    score_batch, variables, images, rows, total=len(split), title="clean images"
  )
