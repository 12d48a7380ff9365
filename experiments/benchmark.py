"""What each stage costs on this machine, beside the machine's own ceiling.

  python -m experiments.benchmark
  python -m experiments.benchmark --backbone=vgg19 --batch_size=8 --json=benchmark.json

Times are medians of several runs after a warm-up, an image. A share is of the matrix-product
ceiling, which is measured in the same run; the work of a stage is counted in forward passes of the
network: forward 1, attack step 2 (forward and the gradient to the pixels), joint step 3.
"""

import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from configs import base
from experiments import cli
from jprotop import parallel
from jprotop.attacks import objectives, pgd
from jprotop.data import augment, decode
from jprotop.figures import tables
from jprotop.files import write_json
from jprotop.models.layers import LayerOptions
from jprotop.models.protopnet import ProtoPNet, grid_of, make_model
from jprotop.training import phases, steps

_BACKBONE = flags.DEFINE_string("backbone", "resnet18", "A backbone's name.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 224, "In pixels.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Images a batch, on all devices together.")
_CLASSES = flags.DEFINE_integer("num_classes", 200, "Ten prototypes each.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed runs of each stage.")
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")


def seconds(function: Callable, *args) -> float:
  """Median wall time of a call, after one that compiles."""
  jax.block_until_ready(function(*args))
  times = []
  for _ in range(_REPEATS.value):
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    times.append(time.perf_counter() - start)
  return statistics.median(times)


def matrix_product_ceiling(size: int = 4096) -> float:
  """FLOP a second of a plain float32 matrix product on all local devices."""
  a = jnp.ones((parallel.num_devices(), size, size))
  product = parallel.map_devices(lambda x: x @ x, split=(True,), split_outputs=True)
  return parallel.num_devices() * 2 * size**3 / seconds(product, a)


def forward_flops(model: ProtoPNet, variables: dict, size: int) -> float:
  """Floating-point operations of one image's forward pass, as XLA counts the plain form."""
  plain = model.clone(options=LayerOptions(dtype=model.options.dtype, forms="plain"))
  lowered = jax.jit(plain.apply).lower(variables, jnp.zeros((1, size, size, 3)))
  return float(lowered.compile().cost_analysis()["flops"])


def time_forward(model: ProtoPNet, variables: dict, images: np.ndarray) -> float:
  forward = parallel.map_devices(model.apply, split=(False, True), split_outputs=True)
  return seconds(forward, parallel.replicate(variables), parallel.shard(images))


def time_joint_step(model: ProtoPNet, variables: dict, images: np.ndarray, labels) -> float:
  training = base.get_config().to_dict()["training"]
  phase = next(p for p in phases.make_phases(training, "paper") if p.name == "joint")
  optimizer = phases.make_optimizer(phase, 100, training["weight_decay"])
  loss = steps.protopnet_losses(steps.with_axis(model, parallel.AXIS), steps.LossWeights())
  step = steps.make_train_step(loss, phase, optimizer)
  batch = parallel.shard(parallel.pad({"image": images, "label": labels}, len(images)))
  params = jax.tree.map(jnp.copy, variables["params"])
  stats = jax.tree.map(jnp.copy, variables.get("batch_stats", {}))
  opt_state = optimizer.init({group: params[group] for group in phase.trained})
  state = parallel.replicate(steps.TrainState(params, stats, opt_state))

  def run():
    nonlocal state
    state, metrics = step(state, batch)
    return state, metrics

  return seconds(run)


def time_attack_step(model: ProtoPNet, variables: dict, images: np.ndarray) -> float:
  """Seconds of one step inside `masked_pgd`: that of eleven less that of one, by ten."""
  grid = grid_of(model, images.shape[1])
  count = len(images)
  target = np.zeros((count, *grid), bool)
  target[:, :2, :2] = True

  def attack(variables, images, target, prototype, num_steps):
    def objective(x):
      maps = objectives.prototype_maps(model, variables, x, prototype)
      return objectives.move_similarity(maps, target, ~target)

    mask = jnp.ones(images.shape[:3], bool)
    return pgd.masked_pgd(
      objective, images, mask, eps=8 / 255, step_size=2 / 255, num_steps=num_steps
    )

  split = (False, True, True, True, False)
  mapped = parallel.map_devices(attack, split=split, split_outputs=True)
  shards = parallel.shard((images, target, np.zeros(count, np.int32)))
  run = functools.partial(mapped, parallel.replicate(variables), *shards)
  return (seconds(run, 11) - seconds(run, 1)) / 10


def time_augmentation(size: int) -> float:
  """Seconds to augment and resize one 300 x 250 crop, on one core."""
  rng = np.random.default_rng(0)
  crop = Image.fromarray(rng.integers(0, 256, (250, 300, 3), dtype=np.uint8))
  copies = range(40)
  start = time.perf_counter()
  for copy in copies:
    decode.resize(augment.augment_copy(crop, seed=0, index=0, copy=copy), size)
  return (time.perf_counter() - start) / len(copies)


def main() -> None:
  size, count = _IMAGE_SIZE.value, _BATCH_SIZE.value
  parallel.check_batch_size(count, "batch_size")
  fields = base.get_config().to_dict()["model"] | {"backbone": _BACKBONE.value}
  model = make_model(fields, _CLASSES.value)
  rng = np.random.default_rng(0)
  images = rng.random((count, size, size, 3), np.float32)
  labels = rng.integers(0, _CLASSES.value, count).astype(np.int32)
  variables = jax.jit(model.init)(jax.random.key(0), images[:1])
  print("measuring: ceiling, forward, joint step, attack step, augmentation ...", flush=True)
  ceiling = matrix_product_ceiling()
  work = forward_flops(model, variables, size)
  stages = {
    "forward": (time_forward(model, variables, images) / count, 1),
    "joint training step": (time_joint_step(model, variables, images, labels) / count, 3),
    "PGD step inside masked_pgd": (time_attack_step(model, variables, images) / count, 2),
    "augment and resize, one core": (time_augmentation(size), None),
  }
  rows = [
    {
      "stage": name,
      "ms_per_image": round(1e3 * duration, 2),
      "gflop_per_image": round(passes * work / 1e9, 2) if passes else None,
      "share_of_ceiling": round(passes * work / duration / ceiling, 3) if passes else None,
    }
    for name, (duration, passes) in stages.items()
  ]
  device = jax.devices()[0].device_kind
  print(
    f"\n{_BACKBONE.value}, {size} px, batch {count}, {len(model.prototype_class)} prototypes, "
    f"{parallel.num_devices()} x {device}, jax {jax.__version__}\n"
    f"matrix-product ceiling: {ceiling / 1e9:.0f} GFLOP/s\n"
  )
  print(tables.markdown_table(rows, list(rows[0])))
  if _JSON.value:
    write_json(_JSON.value, {"ceiling_gflops": ceiling / 1e9, "device": device, "rows": rows})


if __name__ == "__main__":
  cli.run(main)
