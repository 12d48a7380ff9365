"""The stages that the benchmark times, each on the network and the batch of a `Subject`.

A stage is a function of the subject and of PyTorch's twin (`benchmark_torch.Apart`, or None where
it cannot be compared) to a `Timing`. What the figures mean is said in `experiments/benchmark.py`.
"""

import dataclasses
import functools
import io
import resource
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int
from PIL import Image

from jprotop import parallel, regions
from jprotop.attacks import perturb as attack
from jprotop.attacks.budget import Budget
from jprotop.benchmark.timing import timed
from jprotop.data import augment, decode, device_augment
from jprotop.data.batches import EpochPlan
from jprotop.prototypes import push
from jprotop.prototypes.protopnet import ProtoPNet, grid_of
from jprotop.prototypes.see import Network
from jprotop.runs import config as base
from jprotop.training import activations, phases, steps

_TOP_K, _NUM_STEPS = 5, 40


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


@dataclasses.dataclass(frozen=True)
class Subject:
  """The network, and what the stages are measured on.

  Attributes:
    images: a batch, in [0, 1].
    push_images: how many images the push sees.
    repeats: timed runs of a stage.
  """

  model: ProtoPNet
  variables: dict
  images: Float32[np.ndarray, "N S S 3"]
  labels: Int[np.ndarray, " N"]
  push_images: int
  repeats: int

  def random_images(self, count: int) -> Float32[np.ndarray, "{count} S S 3"]:
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
  found, compiling = timed(
    lambda: make(crops, jnp.arange(count) * 41 % (count * 40)), subject.repeats
  )
  return Timing("image", found / count, compiling=compiling, note="one device")


def time_forward(subject: Subject, reference) -> Timing:
  forward = parallel.map_devices(subject.model.apply, split=(False, True), split_outputs=True)
  batch = parallel.place({"image": subject.images}, len(subject.images))
  variables, images = parallel.replicate(subject.variables), batch["image"]
  found, compiling = timed(lambda: forward(variables, images), subject.repeats)
  torch_time = reference.seconds("forward") if reference else None
  return Timing("image", found / len(subject.images), 1, compiling, torch_time)


def time_joint_step(subject: Subject, reference) -> Timing:
  found, compiling = timed(joint_step(subject), subject.repeats)
  torch_time = reference.seconds("joint_step") if reference else None
  return Timing("image", found / len(subject.images), 3, compiling, torch_time)


def joint_step(subject: Subject) -> Callable[[], object]:
  training = base.get_config().to_dict()["train"]
  phase = next(p for p in phases.make_phases(training, "paper") if p.name == "joint")
  optimizer = phases.make_optimizer(phase, 100, training["weight_decay"])
  model = steps.with_axis(subject.model, parallel.AXIS)
  step = steps.make_train_step(steps.protopnet_losses(model, steps.LossWeights()), phase, optimizer)
  examples = {"image": subject.images, "label": subject.labels}
  batch = parallel.place(examples, len(subject.images))
  params = jax.tree.map(jnp.copy, subject.variables["params"])
  stats = jax.tree.map(jnp.copy, subject.variables.get("batch_stats", {}))
  opt_state = optimizer.init(phase.part_of(params))
  state = parallel.replicate(steps.TrainState(params, stats, opt_state))

  def run():
    nonlocal state
    state, metrics = step(state, batch)
    return state, metrics

  return run


def attack_on(subject: Subject, count: int, num_steps: int) -> Callable[[], object]:
  """An attack on `count` pairs of an image and a prototype, as the experiments make it."""
  grid, size = grid_of(subject.model, subject.images.shape[1]), subject.images.shape[1]
  target = np.zeros((count, *grid), bool)
  target[:, :2, :2] = True
  batch = attack.AttackBatch(
    image=subject.random_images(count),
    pixels=regions.cells_to_pixels(target, size, size),
    prototype=np.zeros(count, np.int32),
    key=parallel.key_array(0, np.arange(count)),
    source=~target,
    target=target,
  )
  budget = Budget(eps=8 / 255, step_size=2 / 255, num_steps=num_steps, random_start=True)
  batch_size = attack.rows_that_fit(subject.model, size)
  network = Network(subject.model, subject.variables)
  return lambda: attack.perturb(network, batch, budget, batch_size=batch_size)


def time_pgd_step(subject: Subject, reference) -> Timing:
  """One step on one image: an attack of eleven less one of one, by ten."""
  count = 10
  long, compiling = timed(attack_on(subject, count, 11), subject.repeats)
  found = (long - timed(attack_on(subject, count, 1), subject.repeats)[0]) / 10 / count
  torch_time = None
  if reference:
    torch_time = (reference.seconds("attack", 6) - reference.seconds("attack", 1)) / 5
  return Timing("image", found, 2, compiling, torch_time)


def time_success_rate(subject: Subject, reference) -> Timing:
  """Five prototypes of two images, 40 steps each."""
  images = 2
  run = attack_on(subject, images * _TOP_K, _NUM_STEPS)
  run()
  start = time.perf_counter()
  run()
  found = (time.perf_counter() - start) / images
  torch_time = reference.seconds("attack", _NUM_STEPS) * _TOP_K if reference else None
  note = f"{_TOP_K} prototypes, {_NUM_STEPS} steps"
  return Timing("image", found, 2 * _TOP_K * _NUM_STEPS, reference=torch_time, note=note)


def time_push(subject: Subject, reference) -> Timing:
  """Over all `push_images`; and by how much memory grows from a quarter of them to all."""
  classes = subject.model.num_classes
  total = max(subject.push_images, 4 * classes)  # Every class needs an image.
  images = subject.random_images(50)
  size = parallel.round_up(base.get_config().compute.push_batch_size)

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
  stored = activations.Stored(
    rng.random((1, count, prototypes), np.float32),
    np.zeros((1, count, 2), np.float32),
    rng.integers(0, subject.model.num_classes, count).astype(np.int32),
  )
  training = base.get_config().to_dict()["train"]
  phase = phases.make_phases(training, "paper")[-1]
  plan = EpochPlan(stored.label, copies=0, batch_size=training["batch_size"], seed=0)
  trained = {"last_layer": subject.variables["params"]["last_layer"]}
  opt_state = phases.make_optimizer(phase, plan.num_batches, 0.0).init(trained)
  state = steps.TrainState(trained, {}, opt_state)
  step = activations.group_step(subject.model, phase, steps.LossWeights(), plan.num_batches)

  def one_pass():
    return [step(state, group) for group in activations.groups(stored, plan, 0)]

  found, compiling = timed(one_pass, subject.repeats)
  return Timing("1,000 images", found, compiling=compiling, note="a pass, activations stored")


STAGES = {
  "augment": time_augment,
  "device_augment": time_device_augment,
  "forward": time_forward,
  "joint_step": time_joint_step,
  "pgd_step": time_pgd_step,
  "success_rate": time_success_rate,
  "push": time_push,
  "last_layer": time_last_layer,
}
