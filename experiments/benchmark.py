"""What each stage costs on this machine, beside its ceiling and beside PyTorch the reference's way.

  python -m experiments.benchmark
  python -m experiments.benchmark --backbone=vgg19 --batch_size=8 --out=benchmark
  python -m experiments.benchmark --stages=forward,push

Times are medians of several runs after one that compiles, on all devices; attacks run as the
experiments run them. `share` is the work of a stage, counted in forward passes (forward 1, attack
step 2, joint step 3), over what the machine's own matrix product does in the same time, measured in
the same run. Where the `torch` extra is installed, a PyTorch twin of the network does the same the
reference's way: two forward passes and one backward pass an attack step, one image at a time, a
Python loop over prototypes in the push, no pictures written. It has a process of its own, in which
memory is managed as PyTorch does by default. `ratio` is ours to its. Its success rate is timed on
one prototype of one image and scaled to five prototypes. --profile adds the operations that a joint
step and an attack of two steps spend their time in, summed over all threads. --out writes OUT.md
and OUT.json.
"""

import dataclasses
import functools
import importlib.util
import io
import os
import pathlib
import platform
import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from configs import base
from experiments import benchmark_profile, cli
from experiments.benchmark_timing import bandwidth_ceiling, matrix_product_ceiling, timed
from jprotop import parallel, push, regions
from jprotop.data import augment, decode, device_augment
from jprotop.errors import InputError
from jprotop.evaluation import attack
from jprotop.figures import tables
from jprotop.files import write_json, write_text
from jprotop.models.layers import LayerOptions
from jprotop.models.protopnet import ProtoPNet, grid_of, make_model
from jprotop.training import last_layer, phases, steps

_STAGES = (
  *("augment", "device_augment", "forward", "joint_step", "pgd_step", "success_rate", "push"),
  "last_layer",
)
_TOP_K, _NUM_STEPS = 5, 40


def define_flags() -> None:
  flags.DEFINE_string("backbone", "resnet18", "A backbone's name.")
  flags.DEFINE_integer("image_size", 224, "In pixels; PyTorch is compared at 224 only.")
  flags.DEFINE_integer("batch_size", 16, "Images a batch, on all devices together.")
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the backbone's arithmetic.")
  flags.DEFINE_integer("num_classes", 200, "Ten prototypes each.")
  flags.DEFINE_integer("push_images", 1000, "Images that the pushes are timed on.", lower_bound=1)
  flags.DEFINE_integer("repeats", 5, "Timed runs of each stage.", lower_bound=1)
  flags.DEFINE_list("stages", list(_STAGES), "Those to measure.")
  flags.DEFINE_boolean("profile", False, "Also say which operations two stages spend time in.")
  flags.DEFINE_string("out", None, "Files to write: OUT.md and OUT.json.")


@dataclasses.dataclass
class Timing:
  """Seconds of one unit of work, of compiling it, and of the reference's way; None: not measured.

  Attributes:
    passes: its work in forward passes of the network; None: it is not made of them.
    note: what the reader should know about the figure.
  """

  unit: str
  seconds: float
  passes: float | None = None
  compiling: float | None = None
  reference: float | None = None
  note: str = ""


def _timed(function: Callable[[], object]) -> tuple[float, float]:
  return timed(function, flags.FLAGS.repeats)


def forward_flops(model: ProtoPNet, variables: dict, size: int) -> float:
  """Floating-point operations of one image's forward pass, as XLA counts the plain form."""
  plain = model.clone(options=LayerOptions(dtype=model.options.dtype, forms="plain"))
  lowered = jax.jit(plain.apply).lower(variables, jnp.zeros((1, size, size, 3)))
  return float(lowered.compile().cost_analysis()["flops"])


# --- stages


@dataclasses.dataclass(frozen=True)
class Subject:
  """The network, and a batch that stages are measured on: images [N, S, S, 3], labels [N]."""

  model: ProtoPNet
  variables: dict
  images: np.ndarray
  labels: np.ndarray

  def random_images(self, count: int) -> np.ndarray:
    return np.random.default_rng(1).random((count, *self.images.shape[1:]), np.float32)


def time_augment(subject: Subject, _) -> Timing:
  """The host's way: a 300 x 250 crop as a JPEG file, decoded, augmented and resized."""
  rng = np.random.default_rng(0)
  crop = Image.fromarray(rng.integers(0, 256, (25, 30, 3), dtype=np.uint8)).resize((300, 250))
  crop.save(encoded := io.BytesIO(), "JPEG", quality=95)
  copies, size = range(40), subject.images.shape[1]
  start = time.perf_counter()
  for copy in copies:
    image = decode.decode(encoded.getvalue(), "crop")
    decode.resize(augment.augment_copy(image, seed=0, index=0, copy=copy), size)
  return Timing("image", (time.perf_counter() - start) / len(copies), note="one core")


def time_device_augment(subject: Subject, _) -> Timing:
  count = len(subject.images)
  crops = device_augment.Crops(
    jnp.asarray((subject.images * 255).astype(np.uint8)),
    jnp.broadcast_to(jnp.array([300, 250]), (count, 2)),
    jnp.uint32(0),
  )
  make = jax.jit(functools.partial(device_augment.copies_of, copies=40))
  found, compiling = _timed(lambda: make(crops, jnp.arange(count) * 41 % (count * 40)))
  return Timing("image", found / count, compiling=compiling, note="one device")


def time_forward(subject: Subject, reference) -> Timing:
  forward = parallel.map_devices(subject.model.apply, split=(False, True), split_outputs=True)
  variables, images = parallel.replicate(subject.variables), parallel.shard(subject.images)
  found, compiling = _timed(lambda: forward(variables, images))
  torch_time = reference.seconds("forward") if reference else None
  return Timing("image", found / len(subject.images), 1, compiling, torch_time)


def time_joint_step(subject: Subject, reference) -> Timing:
  found, compiling = _timed(_joint_step(subject))
  torch_time = reference.seconds("joint_step") if reference else None
  return Timing("image", found / len(subject.images), 3, compiling, torch_time)


def _joint_step(subject: Subject) -> Callable[[], object]:
  training = base.get_config().to_dict()["training"]
  phase = next(p for p in phases.make_phases(training, "paper") if p.name == "joint")
  optimizer = phases.make_optimizer(phase, 100, training["weight_decay"])
  model = steps.with_axis(subject.model, parallel.AXIS)
  step = steps.make_train_step(steps.protopnet_losses(model, steps.LossWeights()), phase, optimizer)
  examples = {"image": subject.images, "label": subject.labels}
  batch = parallel.shard(parallel.pad(examples, len(subject.images)))
  params = jax.tree.map(jnp.copy, subject.variables["params"])
  stats = jax.tree.map(jnp.copy, subject.variables.get("batch_stats", {}))
  opt_state = optimizer.init({group: params[group] for group in phase.trained})
  state = parallel.replicate(steps.TrainState(params, stats, opt_state))

  def run():
    nonlocal state
    state, metrics = step(state, batch)
    return state, metrics

  return run


def _attack(subject: Subject, count: int, num_steps: int) -> Callable[[], object]:
  """An attack on `count` pairs of an image and a prototype, as the experiments make it."""
  grid, size = grid_of(subject.model, subject.images.shape[1]), subject.images.shape[1]
  target = np.zeros((count, *grid), bool)
  target[:, :2, :2] = True
  order = attack.Order(
    image=subject.random_images(count),
    pixels=regions.cells_to_pixels(target, size, size),
    prototype=np.zeros(count, np.int32),
    key=parallel.key_array(0, np.arange(count)),
    source=~target,
    target=target,
  )
  budget = attack.Budget(eps=8 / 255, step_size=2 / 255, num_steps=num_steps, random_start=True)
  batch_size = attack.rows_that_fit(subject.model, size)
  return lambda: attack.perturb(
    subject.model, subject.variables, order, budget, kind="move", batch_size=batch_size
  )


def time_pgd_step(subject: Subject, reference) -> Timing:
  """One step on one image: an attack of eleven less one of one, by ten."""
  count = 10
  long, compiling = _timed(_attack(subject, count, 11))
  found = (long - _timed(_attack(subject, count, 1))[0]) / 10 / count
  torch_time = None
  if reference:
    torch_time = (reference.seconds("attack", 6) - reference.seconds("attack", 1)) / 5
  return Timing("image", found, 2, compiling, torch_time)


def time_success_rate(subject: Subject, reference) -> Timing:
  """Five prototypes of two images, 40 steps each."""
  images = 2
  run = _attack(subject, images * _TOP_K, _NUM_STEPS)
  run()
  start = time.perf_counter()
  run()
  found = (time.perf_counter() - start) / images
  torch_time = reference.seconds("attack", _NUM_STEPS) * _TOP_K if reference else None
  note = f"{_TOP_K} prototypes, {_NUM_STEPS} steps"
  return Timing("image", found, 2 * _TOP_K * _NUM_STEPS, reference=torch_time, note=note)


def time_push(subject: Subject, reference) -> Timing:
  """Over --push_images; and by how much memory grows from a quarter of them to all."""
  classes = subject.model.num_classes
  total = max(flags.FLAGS.push_images, 4 * classes)  # Every class needs an image.
  images = subject.random_images(50)
  size = parallel.round_up(base.get_config().training.push_batch_size)

  def run(count: int) -> None:
    chunks = np.split(np.arange(count, dtype=np.int32), range(size, count, size))
    batches = (
      {"image": images[rows % len(images)], "label": rows % classes, "index": rows}
      for rows in chunks
    )
    push.push(
      subject.model, subject.variables, batches, image_size=images.shape[1], batch_size=size
    )

  run(total // 4)
  peak = _peak_bytes()
  start = time.perf_counter()
  run(total)
  found = (time.perf_counter() - start) / total * 1000
  grown = (_peak_bytes() - peak) / 2**20
  torch_time = None
  if reference:
    torch_time = reference.seconds("push", np.arange(total) % classes) / total * 1000
  note = f"of {total}, which take {grown:.0f} MiB more than {total // 4}"
  return Timing("1,000 images", found, 1000, reference=torch_time, note=note)


def _peak_bytes() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_last_layer(subject: Subject, _) -> Timing:
  """One pass over 1,000 copies from stored activations."""
  count, prototypes = 1000, len(subject.model.prototype_class)
  rng = np.random.default_rng(0)
  stored = last_layer.Stored(
    rng.random((1, count, prototypes), np.float32),
    np.zeros((1, count, 2), np.float32),
    rng.integers(0, subject.model.num_classes, count).astype(np.int32),
  )
  training = base.get_config().to_dict()["training"]
  phase = phases.make_phases(training, "paper")[-1]
  epochs = _Epochs(count, training["batch_size"])
  trained = {"last_layer": subject.variables["params"]["last_layer"]}
  state = (trained, phases.make_optimizer(phase, epochs.num_batches, 0.0).init(trained))
  one = functools.partial(last_layer.one_pass, subject.model, stored, epochs, 0, state)
  found, compiling = _timed(lambda: one(phase=phase, weights=steps.LossWeights()))
  return Timing("1,000 images", found, compiling=compiling, note="a pass, activations stored")


class _Epochs:
  """The part of `batches.AugmentedEpochs` that a pass over stored activations needs."""

  def __init__(self, count: int, batch_size: int):
    self.count, self.batch_size = count, batch_size
    self.num_batches = -(-count // batch_size)

  def plan(self, _):
    return np.arange(self.count), np.zeros(self.count, int), None


# --- the table


def _reference(subject: Subject):
  """The PyTorch twin, where it can be compared; None otherwise."""
  given = flags.FLAGS
  plain = given.image_size == 224 and given.dtype == "float32" and jax.default_backend() == "cpu"
  if importlib.util.find_spec("torch") is None or not plain:
    return None
  from experiments import benchmark_torch  # PyTorch is an extra.

  return benchmark_torch.Apart(
    given.backbone, given.num_classes, 10, len(subject.images), given.repeats
  )


def _subject() -> Subject:
  given = flags.FLAGS
  fields = base.get_config().to_dict()["model"]
  fields |= {"backbone": given.backbone, "dtype": given.dtype}
  model = make_model(fields, given.num_classes)
  rng = np.random.default_rng(0)
  images = rng.random((given.batch_size, given.image_size, given.image_size, 3), np.float32)
  labels = rng.integers(0, given.num_classes, len(images)).astype(np.int32)
  return Subject(model, jax.jit(model.init)(jax.random.key(0), images[:1]), images, labels)


def recipe_passes() -> tuple[int, int]:
  """Forward passes that the standard recipe takes of a copy, and those of the reference's way."""
  config = base.get_config().to_dict()
  ours = theirs = 0
  for phase in phases.make_phases(config["training"], "paper"):
    if phase.name == "push":  # Of originals, not of copies.
      continue
    theirs += phase.epochs * phase.passes
    ours += 1 if last_layer.is_stored(config, phase) else phase.epochs * phase.passes
  return ours, theirs


def _row(name: str, timing: Timing, work: float, ceiling: float) -> dict:
  work = timing.passes * work if timing.passes else None
  shown = lambda value, digits: None if value is None else round(value, digits)  # noqa: E731
  return {
    "stage": name,
    "of": timing.unit,
    "ms": shown(1e3 * timing.seconds, 2),
    "share": shown(work and work / timing.seconds / ceiling, 2),
    "reference ms": shown(timing.reference and 1e3 * timing.reference, 2),
    "ratio": shown(timing.reference and timing.seconds / timing.reference, 2),
    "compile s": shown(timing.compiling, 1),
    "note": timing.note,
  }


def main() -> None:
  given = flags.FLAGS
  if unknown := [name for name in given.stages if name not in _STAGES]:
    raise InputError(f"--stages={unknown[0]} is not known; take some of {', '.join(_STAGES)}")
  jax.config.update("jax_enable_compilation_cache", False)  # What compiling costs is measured.
  parallel.check_batch_size(given.batch_size, "batch_size")
  subject = _subject()
  reference = _reference(subject)
  measure = {name: globals()[f"time_{name}"] for name in given.stages}
  print("measuring the ceilings ...", flush=True)
  ceiling = matrix_product_ceiling(given.dtype, given.repeats)
  bandwidth = bandwidth_ceiling(given.repeats)
  work = forward_flops(subject.model, subject.variables, given.image_size)
  rows = []
  for name, time_stage in measure.items():
    print(f"measuring {name} ...", flush=True)
    rows.append(_row(name.replace("_", " "), time_stage(subject, reference), work, ceiling))
  device = jax.devices()[0].device_kind
  head = (
    f"{given.backbone}, {given.image_size} px, {given.dtype}, batch {given.batch_size}, "
    f"{len(subject.model.prototype_class)} prototypes; {parallel.num_devices()} x {device} "
    f"({platform.machine()}, {os.cpu_count()} cores), jax {jax.__version__}. Ceilings: "
    f"{ceiling / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s; a forward pass is "
    f"{work / 1e9:.2f} GFLOP."
  )
  ours, theirs = recipe_passes()
  head += f" The standard recipe costs {ours} forward passes a copy; the reference's way, {theirs}."
  parts = [head, tables.markdown_table(rows, list(rows[0]))]
  profiles = _profiles(subject) if given.profile else {}
  for name, operations in profiles.items():
    parts += [f"Where the time of {name} goes:", tables.markdown_table(operations, _PROFILE)]
  text = "\n\n".join(part.strip() for part in parts)
  print(f"\n{text}")
  if given.out:
    place = pathlib.Path(given.out)
    write_text(place.with_suffix(".md"), f"{text}\n")
    numbers = {"ceiling_gflops": ceiling / 1e9, "bandwidth_gb": bandwidth / 1e9, "rows": rows}
    write_json(place.with_suffix(".json"), {"measured": head, **numbers, "profiles": profiles})


_PROFILE = ["operation", "share"]


def _profiles(subject: Subject) -> dict[str, list[dict]]:
  print("profiling ...", flush=True)
  runs = {"a joint step": _joint_step(subject), "an attack of two steps": _attack(subject, 10, 2)}
  return {name: benchmark_profile.profile(run) for name, run in runs.items()}


if __name__ == "__main__":
  define_flags()
  cli.run(main)
