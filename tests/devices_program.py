"""What tests/test_devices.py runs on so many devices: a step, an evaluation, push, an attack.

python tests/devices_program.py RUN OUT.npz [HOST:PORT NUM_PROCESSES PROCESS_ID]
"""

import contextlib
import pathlib
import sys

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from tiny_network import TINY

from jprotop import parallel
from jprotop.attacks import perturb as attack
from jprotop.attacks.budget import Budget
from jprotop.cli.launch import greet
from jprotop.prototypes import protopnet, push, selectors
from jprotop.prototypes.see import Network, see
from jprotop.runs import config as base
from jprotop.runs.checkpoints import Checkpoints
from jprotop.training import phases, steps

SIZE, CLASSES = 32, 3
BATCH = 16  # Of which the last device of eight has padding alone: there are 13 images.
TRAINING = base.get_config().train.to_dict()


def images():
  rng = np.random.default_rng(0)
  image = rng.random((13, SIZE, SIZE, 3), np.float32)
  label = (np.arange(13) % CLASSES).astype(np.int32)
  return {"image": image, "label": label, "index": np.arange(13, dtype=np.int32)}


def joint_phase():
  return next(p for p in phases.make_phases(TRAINING, "paper") if p.name == "joint")


def take_steps(model, state, count):
  """States after some joint steps on the same images, and the last one's metrics."""
  optimizer = phases.make_optimizer(joint_phase(), 10, TRAINING["weight_decay"])
  network = steps.with_axis(model, parallel.AXIS)
  loss = steps.protopnet_losses(network, steps.LossWeights())
  step = steps.make_train_step(loss, joint_phase(), optimizer)
  batch = parallel.place(images(), BATCH)
  state = parallel.replicate(state)
  for _ in range(count):
    state, metrics = step(state, batch)
  return jax.device_get((state, metrics))


def start(run, variables):
  """Three steps from the variables on, saved as checkpoint 1 of a run."""
  model = protopnet.make_model(TINY, CLASSES)
  optimizer = phases.make_optimizer(joint_phase(), 10, TRAINING["weight_decay"])
  params = variables["params"]
  opt_state = optimizer.init({group: params[group] for group in joint_phase().trained})
  # Adam's first steps go by a gradient's sign alone, which rounding can turn.
  state, _ = take_steps(model, steps.TrainState(params, variables["batch_stats"], opt_state), 3)
  with contextlib.closing(Checkpoints(run)) as store:
    kept = {"params": state.params, "batch_stats": state.batch_stats}
    store.save(1, model=kept, optimizer={"state": state.opt_state}, info={"steps": 3})


def restored(run):
  """The model, and the state that `start` left, as every process gets it."""
  model = protopnet.make_model(TINY, CLASSES)
  optimizer = phases.make_optimizer(joint_phase(), 10, TRAINING["weight_decay"])
  with contextlib.closing(Checkpoints(run)) as store:
    kept, info = store.restore(store.latest())
    trained = {group: kept["params"][group] for group in joint_phase().trained}
    like = {"state": jax.eval_shape(optimizer.init, trained)}
    opt_state = store.restore_optimizer(store.latest(), like)["state"]
  assert info == {"steps": 3}
  return model, steps.TrainState(kept["params"], kept["batch_stats"], opt_state)


def _attacked(model, variables):
  rng = np.random.default_rng(1)
  data, (height, width) = images(), protopnet.grid_of(model, SIZE)
  cells = np.zeros((2, 13, height, width), bool)
  cells[0, :, 0, 0] = cells[1, :, 1, 1] = True
  batch = attack.AttackBatch(
    image=data["image"],
    pixels=rng.random((13, SIZE, SIZE)) < 0.5,
    prototype=np.arange(13) % len(model.prototype_class),
    key=parallel.key_array(0, data["index"]),
    source=cells[0],
    target=cells[1],
  )
  budget = Budget(num_steps=3)
  return attack.perturb(Network(model, variables), batch, budget, batch_size=BATCH)


def measure(run):
  """What a step, push, an evaluation and an attack find from a run's checkpoint, by name."""
  model, state = restored(run)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  data = images()
  network = Network(model, variables)
  logits = see(network, data["image"], selectors.logits, batch_size=BATCH)
  chunks = parallel.chunks(data, BATCH // 2)
  _, sources = push.find_sources(model, variables, chunks, image_size=SIZE, batch_size=BATCH // 2)
  attacked = _attacked(model, variables)
  state, metrics = take_steps(model, state, 1)
  return {
    "devices": np.array(parallel.num_devices()),
    "logits": logits,
    "attacked": attacked.image,
    "attacked_activations": attacked.activations,
    **{f"push/{name}": array for name, array in sources.as_arrays().items()},
    **{f"metrics/{name}": array for name, array in metrics.items()},
    **{f"params/{k}": a for k, a in flatten_dict(state.params, sep="/").items()},
    **{f"batch_stats/{k}": a for k, a in flatten_dict(state.batch_stats, sep="/").items()},
  }


def main(run, out, *launch):
  if launch:
    jax.distributed.initialize(launch[0], int(launch[1]), int(launch[2]))
    greet()
  np.savez(out, **measure(pathlib.Path(run)))


if __name__ == "__main__":
  main(*sys.argv[1:])
