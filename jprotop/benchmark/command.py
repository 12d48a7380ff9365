"""What each stage costs on this machine, beside its ceiling and beside PyTorch the reference's way.

  jprotop benchmark
  jprotop benchmark --backbone=vgg19 --batch_size=8 --out=benchmark
  jprotop benchmark --stages=forward,push

Times are medians of several runs after one that compiles, on all devices; attacks run as the
experiments run them. `share` is the work of a stage, counted in forward passes (forward 1, attack
step 2, joint step 3), over what the machine's own matrix product does in the same time, measured in
the same run. Where the `torch` extra is installed, a PyTorch twin of the network (of an
EfficientNet-Lite, the package that its weights are of) does the same the reference's way: two
forward passes and one backward pass an attack step, one image at a time, a Python loop over
prototypes in the push, no pictures written. It has a process of its own, in which memory is managed
as PyTorch does by default. `ratio` is ours to its. Its success rate is timed on one prototype of
one image and scaled to five prototypes. `recipe` is what the standard recipe takes of each copy of
an image: its forward passes and joint steps, at the times measured. --profile adds the operations
that a joint step and an attack of two steps spend their time in, summed over all threads. --out
writes OUT.md and OUT.json.
"""

import contextlib
import importlib.util
import os
import pathlib
import platform
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jprotop import parallel
from jprotop.benchmark import profile as benchmark_profile
from jprotop.benchmark.stages import STAGES, Subject, Timing, attack_on, joint_step
from jprotop.benchmark.timing import bandwidth_ceiling, matrix_product_ceiling
from jprotop.errors import InputError
from jprotop.files import check_writable, user_path, write_json, write_text
from jprotop.networks.families import BACKBONES
from jprotop.networks.layers import LayerOptions
from jprotop.prototypes.protopnet import ProtoPNet, make_model
from jprotop.report import tables
from jprotop.runs import config as base
from jprotop.training import activations, phases

_PROFILE = ["operation", "share"]


def define_flags() -> None:
  flags.DEFINE_enum("backbone", "resnet18", sorted(BACKBONES), "Of the network.")
  flags.DEFINE_integer(
    "image_size", 224, "In pixels; PyTorch is compared at 224.", lower_bound=1, upper_bound=2048
  )
  flags.DEFINE_integer(
    "batch_size", 16, "Images a batch, on all devices together.", upper_bound=10_000
  )
  flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of the backbone's arithmetic.")
  flags.DEFINE_integer(
    "num_classes", 200, "Ten prototypes each.", lower_bound=1, upper_bound=10_000
  )
  flags.DEFINE_integer(
    "push_images",
    1000,
    "Images that the pushes are timed on.",
    lower_bound=1,
    upper_bound=1_000_000,
  )
  flags.DEFINE_integer("repeats", 5, "Timed runs of each stage.", lower_bound=1, upper_bound=10_000)
  flags.DEFINE_list("stages", list(STAGES), "Those to measure.")
  flags.DEFINE_boolean("profile", False, "Also say which operations two stages spend time in.")
  flags.DEFINE_string("out", None, "Files to write: OUT.md and OUT.json.")


def forward_flops(model: ProtoPNet, variables: dict, size: int) -> float:
  """Floating-point operations of one image's forward pass, as XLA counts the plain form."""
  plain = model.clone(options=LayerOptions(dtype=model.options.dtype, forms="plain"))
  lowered = jax.jit(plain.apply).lower(variables, jnp.zeros((1, size, size, 3)))
  analysis = lowered.compile().cost_analysis() or {}
  return float(analysis["flops"])


def _reference(subject: Subject) -> contextlib.AbstractContextManager:
  """The PyTorch twin, in a process of its own, where the two can be compared; None otherwise."""
  given = flags.FLAGS
  plain = given.image_size == 224 and given.dtype == "float32" and jax.default_backend() == "cpu"
  if importlib.util.find_spec("torch") is None or not plain:
    return contextlib.nullcontext()
  from jprotop.benchmark import reference as benchmark_torch  # PyTorch is an extra.
  from jprotop.benchmark import torch_twin

  if given.backbone not in torch_twin.BACKBONES:
    return contextlib.nullcontext()
  return benchmark_torch.apart(
    given.backbone, given.num_classes, 10, len(subject.images), given.repeats
  )


def _subject() -> Subject:
  given = flags.FLAGS
  fields = base.get_config().to_dict()["train"]["model"]
  fields |= {"backbone": given.backbone, "dtype": given.dtype}
  model = make_model(fields, given.num_classes)
  rng = np.random.default_rng(0)
  images = rng.random((given.batch_size, given.image_size, given.image_size, 3), np.float32)
  labels = rng.integers(0, given.num_classes, len(images)).astype(np.int32)
  variables = jax.jit(model.init)(jax.random.key(0), images[:1])
  return Subject(model, variables, images, labels, given.push_images, given.repeats)


class Recipe(NamedTuple):
  """What the standard recipe takes of a copy: forward passes, and steps that train the backbone."""

  forward: int
  joint: int

  @property
  def passes(self) -> int:
    """Forward passes; a step that trains the backbone costs three."""
    return self.forward + 3 * self.joint

  def seconds(self, forward: float, joint: float) -> float:
    return self.forward * forward + self.joint * joint


def recipes() -> tuple[Recipe, Recipe]:
  """The standard recipe, and the reference's way to it."""
  config = base.get_config().to_dict()
  ours, theirs = [0, 0], [0, 0]
  for phase in phases.make_phases(config["train"], "paper"):
    if phase.name == "push":  # Of originals, not of copies.
      continue
    kind = int("features" in phase.trained)
    theirs[kind] += phase.epochs
    ours[kind] += 1 if activations.is_stored(config, phase) else phase.epochs
  return Recipe(*ours), Recipe(*theirs)


def _of_recipe(timings: dict[str, Timing]) -> dict[str, Timing]:
  """The time that the recipe takes of a copy, where what it is made of was measured."""
  forward, joint = timings.get("forward"), timings.get("joint_step")
  if forward is None or joint is None:
    return {}
  ours, theirs = recipes()
  reference = None
  if forward.reference and joint.reference:
    reference = theirs.seconds(forward.reference, joint.reference)
  seconds = ours.seconds(forward.seconds, joint.seconds)
  note = f"{ours.forward} forward, {ours.joint} joint; theirs {theirs.forward} and {theirs.joint}"
  return {"recipe": Timing("copy", seconds, ours.passes, reference=reference, note=note)}


def _shown(value: float | None, digits: int) -> float | None:
  return None if value is None else round(value, digits)


def _row(name: str, timing: Timing, work: float, ceiling: float) -> dict:
  passes = timing.passes * work if timing.passes else None
  return {
    "stage": name,
    "of": timing.unit,
    "ms": _shown(1e3 * timing.seconds, 2),
    "share": _shown(passes and passes / timing.seconds / ceiling, 2),
    "reference ms": _shown(timing.reference and 1e3 * timing.reference, 2),
    "ratio": _shown(timing.reference and timing.seconds / timing.reference, 2),
    "compile s": _shown(timing.compiling, 1),
    "note": timing.note,
  }


def _measured_on(subject: Subject, work: float, ceiling: float, bandwidth: float) -> str:
  """What the figures are of: network, machine, its ceilings, and what the recipe costs."""
  given, device = flags.FLAGS, jax.devices()[0].device_kind
  ours, theirs = recipes()
  return (
    f"{given.backbone}, {given.image_size} px, {given.dtype}, batch {given.batch_size}, "
    f"{len(subject.model.prototype_class)} prototypes; {parallel.num_devices()} x {device} "
    f"({platform.machine()}, {os.cpu_count()} cores), jax {jax.__version__}. Ceilings: "
    f"{ceiling / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s; a forward pass is "
    f"{work / 1e9:.2f} GFLOP. The standard recipe costs {ours.passes} forward passes a copy; "
    f"the reference's way, {theirs.passes}."
  )


def _profiles(subject: Subject) -> dict[str, list[dict]]:
  print("profiling ...", flush=True)
  runs = {"a joint step": joint_step(subject), "an attack of two steps": attack_on(subject, 10, 2)}
  return {name: benchmark_profile.profile(run) for name, run in runs.items()}


def _check_flags() -> None:
  given = flags.FLAGS
  if unknown := [name for name in given.stages or [""] if name not in STAGES]:
    raise InputError(f"--stages={unknown[0]} is not known; take some of {', '.join(STAGES)}")
  parallel.check_batch_size(given.batch_size, "--batch_size")
  if given.out:
    check_writable(user_path(given.out).parent)


def main() -> None:
  given = flags.FLAGS
  _check_flags()
  jax.config.update("jax_enable_compilation_cache", False)  # What compiling costs is measured.
  subject = _subject()
  timings = {}
  with _reference(subject) as reference:
    print("measuring the ceilings ...", flush=True)
    ceiling = matrix_product_ceiling(given.dtype, given.repeats)
    bandwidth = bandwidth_ceiling(given.repeats)
    work = forward_flops(subject.model, subject.variables, given.image_size)
    for name in given.stages:
      print(f"measuring {name} ...", flush=True)
      timings[name] = STAGES[name](subject, reference)
  timings |= _of_recipe(timings)
  rows = [_row(name.replace("_", " "), found, work, ceiling) for name, found in timings.items()]
  measured = _measured_on(subject, work, ceiling, bandwidth)
  parts = [measured, tables.markdown_table(rows, list(rows[0]))]
  profiles = _profiles(subject) if given.profile else {}
  for name, operations in profiles.items():
    parts += [f"Where the time of {name} goes:", tables.markdown_table(operations, _PROFILE)]
  text = "\n\n".join(part.strip() for part in parts)
  print(f"\n{text}")
  if given.out:
    place = pathlib.Path(given.out)
    write_text(place.with_suffix(".md"), f"{text}\n")
    numbers = {"ceiling_gflops": ceiling / 1e9, "bandwidth_gb": bandwidth / 1e9, "rows": rows}
    write_json(place.with_suffix(".json"), {"measured": measured, **numbers, "profiles": profiles})
