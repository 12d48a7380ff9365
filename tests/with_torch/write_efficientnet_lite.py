"""Writes tests/golden/efficientnet_lite0.npz: what the PyTorch package computes from drawn weights.

By hand, once:

    pip install -c constraints.txt -e '.[test,torch]'
    PYTHONPATH=.:tests python tests/with_torch/write_efficientnet_lite.py

Weights and images are those of golden/weights.py. Images are 224 x 97, so that rows are padded as
even and columns as odd numbers are. Of latents [N, h, w, 1280] every 16th channel is kept.
"""

import json
import pathlib

import numpy as np
import torch
import twin
from golden import weights

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
SEED, EVERY = 5, 16


def figures():
  """Latents in eval and in train mode, and running statistics after the latter."""
  network = twin.BACKBONES["efficientnet_lite0"]()
  shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
  drawn = {name: np.asarray(weights.weight(name, shape, SEED)) for name, shape in shapes.items()}
  network.load_state_dict({name: torch.from_numpy(array) for name, array in drawn.items()})
  images = (255 * weights.images(2, SEED)[:, :, :97] - 127) / 128
  images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
  found = {"seed": np.array(SEED), "every": np.array(EVERY)}
  with torch.no_grad():
    for mode in ("eval", "train"):
      latent = network.train(mode == "train")(images).numpy().transpose(0, 2, 3, 1)
      found[mode] = latent[..., ::EVERY]
  state = network.state_dict()
  names = [f"{norm}.running_{kind}" for norm in NORMS for kind in ("mean", "var")]
  return found | {name: state[name].numpy() for name in names}, shapes


NORMS = ("_bn0", "_blocks.0._bn1", "_blocks.9._bn2", "_bn1")


if __name__ == "__main__":
  arrays, shapes = figures()
  np.savez_compressed(GOLDEN / "efficientnet_lite0.npz", **arrays)
  (GOLDEN / "state_dict_efficientnet_lite0.json").write_text(json.dumps(shapes))
  for name in ("eval", "train"):
    print(name, arrays[name].shape, arrays[name].mean(), arrays[name].std(axis=(0, 1, 2)).mean())
