"""What tests/test_attack.py runs: an attack of many steps, on the devices that commands take."""

import jax
import numpy as np
from single_device import one_device

from jprotop import parallel
from jprotop.attacks import perturb as attack
from jprotop.attacks.budget import Budget
from jprotop.prototypes.protopnet import grid_of, make_model
from jprotop.prototypes.see import Network
from jprotop.runs import config as base

SIZE, STEPS = 112, 80


def main():
  parallel.use_cpu_cores(240)
  network = base.get_config().to_dict()["train"]["model"] | {"backbone": "resnet_small"}
  model, count = make_model(network, num_classes=3), 2 * parallel.num_devices()
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))
  network = Network(model, variables)
  target = np.zeros((count, *grid_of(model, SIZE)), bool)
  target[:, :2, :2] = True
  images = np.random.default_rng(0).random((count, SIZE, SIZE, 3), np.float32)

  def attacked(start, stop):
    rows = slice(start, stop)
    batch = attack.AttackBatch(
      image=images[rows],
      pixels=np.ones((stop - start, SIZE, SIZE), bool),
      prototype=np.zeros(stop - start, int),
      key=parallel.key_array(0, np.arange(start, stop)),
      source=~target[rows],
      target=target[rows],
    )
    budget = Budget(num_steps=STEPS)
    found = attack.perturb(network, batch, budget, batch_size=stop - start)
    return found.image

  together = attacked(0, count)
  parallel.loop_slices = lambda num_steps: [num_steps]
  with one_device():
    alone = np.concatenate([attacked(i, i + 2) for i in range(0, count, 2)])
  differ = (together != alone).reshape(count, -1).any(axis=1)
  print("images that differ:", np.flatnonzero(differ).tolist())


if __name__ == "__main__":
  main()
