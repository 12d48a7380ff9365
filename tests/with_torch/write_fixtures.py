"""Writes tests/golden/torch_files: small files of torch.save in all its forms, and what is in them.

By hand, where the reader is to know something new:

    pip install -c constraints.txt -e '.[test,torch]'
    PYTHONPATH=.:tests python tests/with_torch/write_fixtures.py

NAME.zip.pth, NAME.row.pth and NAME.tar.pth hold the same arrays, which expected.npz has as
`NAME/array`; bfloat16, which .npz does not know, as int16 of the same bits, `NAME/array:bfloat16`.
"""

import collections
import pathlib
from unittest import mock

import early
import numpy as np
import torch
import twin
from torch import nn

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "torch_files"


def drawn(*shape, dtype=torch.float32, seed=0):
  values = np.random.default_rng([seed, *shape]).normal(0, 3, shape)
  return torch.from_numpy(np.asarray(values)).to(dtype)


def filled(module):
  """A module with weights that are drawn by their place in it, so that each is another."""
  for seed, (_, tensor) in enumerate(module.state_dict().items()):
    tensor.copy_(drawn(*tensor.shape, dtype=tensor.dtype, seed=seed))
  return module


# --- what is saved


def types():
  """A tensor of each type, without dimensions, and without numbers."""
  kinds = ("float16", "float32", "float64", "bfloat16", "int64", "int32", "int16", "int8")
  state = {kind: drawn(2, 3, dtype=getattr(torch, kind)) for kind in kinds}
  state["uint8"] = torch.tensor([0, 7, 255], dtype=torch.uint8)
  state["bool"] = torch.tensor([True, False, True])
  state["scalar"] = torch.tensor(2.5)
  state["counter"] = torch.tensor(7)
  return state | {"empty": torch.zeros(0), "empty_side": torch.zeros(3, 0, 2)}


def strides():
  """Tensors that are not simply a row of numbers, and parameters."""
  row, image = drawn(24), drawn(2, 3, 4, 5)
  marked = nn.Parameter(drawn(3))
  marked.note = "a parameter with an attribute"
  return {
    "whole": row,
    "part": row[4:16].view(3, 4),
    "every_third": row[1::3],
    "transposed": drawn(3, 4).T,
    "permuted": image.permute(2, 0, 3, 1),
    "channels_last": image.contiguous(memory_format=torch.channels_last),
    "expanded": drawn(3, 1).expand(3, 5),
    "parameter": nn.Parameter(drawn(4, 2).T),
    "marked": marked,
  }


def checkpoint():
  """A state dict among what training needs, all of a module in nn.DataParallel."""
  module = nn.DataParallel(filled(twin._Transition(2)))
  optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
  module.module(torch.ones(2, 2, 4, 4)).sum().backward()
  optimizer.step()
  return {
    "epoch": 3,
    "arch": "block",
    "best_acc1": torch.tensor(71.5),
    "state_dict": module.state_dict(),
    "optimizer": optimizer.state_dict(),
    "betas": (0.9, 0.999),
  }


def network():
  """A whole ProtoPNet, too small to be of use."""
  backbone = twin.BasicBlock(3, 4, 2)
  backbone.channels, backbone.block = 4, twin.Bottleneck  # a class as an attribute
  with mock.patch.dict(twin.BACKBONES, tiny=lambda: backbone):
    return filled(twin.PPNet("tiny", 3, 2, 2, img_size=32))


def data_parallel():
  """A whole module in nn.DataParallel, with buffers that are not in its state dict."""
  layers = nn.Sequential(twin._Transition(2), nn.Linear(1, 2))
  layers[0].register_buffer("scratch", torch.ones(3), persistent=False)
  layers[1].register_buffer("kept", torch.ones(2))
  layers[1].register_buffer("nothing", None)
  return nn.DataParallel(filled(layers))


def parameters(kind):
  """A state dict as Python 2 and early versions of torch wrote it: parts of one storage."""
  root = early.Storage(drawn(24), 2101)
  part = root.part(2202, 6, 12)
  counts = early.Storage(torch.arange(3), 2303)
  return {
    "conv.weight": kind(early.Tensor(root, 4, (2, 3), (3, 1))),
    "conv.bias": kind(early.Tensor(part, 3, (2, 2), (1, 4))),
    "bn.running_mean": early.Tensor(part, 0, (12,), (1,)),
    "counts": early.Tensor(counts, 1, (2,), (1,)),
  }


def early_layers():
  """A whole module of layers that have `_backend`, as those of torch 1.1."""
  weight = early.Tensor(early.Storage(drawn(6), 2404), 0, (2, 3), (3, 1))
  layer, layers = nn.Linear(1, 1), nn.Sequential()
  vars(layer).update(_backend=early.Backend(), in_features=3, out_features=2)
  layer._parameters = collections.OrderedDict(weight=early.Parameter(weight), bias=None)
  vars(layers).update(_backend=early.Backend())
  layers._modules = collections.OrderedDict({"0": layer})
  return layers, {"0.weight": weight.value()}


# --- writing


def kept(state):
  """What expected.npz has of a state dict."""
  arrays = {}
  for name, tensor in state.items():
    if tensor.dtype == torch.bfloat16:
      name, tensor = f"{name}:bfloat16", tensor.contiguous().view(torch.int16)
    arrays[name] = tensor.detach().numpy()
  return arrays


def save(name, value, forms=("zip", "row")):
  """Files of some forms. The older has the source of classes in it, of which a line is enough."""
  lines = mock.patch("torch.serialization.get_source_lines_and_file")
  with lines as source:
    source.return_value = ["class Layer(nn.Module):\n"], 1, "layers.py"
    for form in forms:
      path, new = FOLDER / f"{name}.{form}.pth", form == "zip"
      torch.save(value, path, _use_new_zipfile_serialization=new)


def main():
  FOLDER.mkdir(exist_ok=True)
  expected = {"types": types(), "strides": strides(), "cuda": {"weight": drawn(2, 2)}}
  for name in ("types", "strides"):
    save(name, collections.OrderedDict(expected[name]))
  with mock.patch("torch.serialization.location_tag", return_value="cuda:0"):
    save("cuda", expected["cuda"])

  value = checkpoint()
  save("checkpoint", value)
  state = value["state_dict"].items()
  expected["checkpoint"] = {name.removeprefix("module."): tensor for name, tensor in state}

  module = network()
  expected["network"] = module.state_dict()
  with twin.reference_modules():
    save("network", module)
  module = data_parallel()
  expected["data_parallel"] = module.module.state_dict()
  for form, package in {"zip": "", "row": "src.models"}.items():
    with twin.reference_modules(package):
      save("data_parallel", module, [form])

  state = parameters(early.Parameter)
  expected["early"] = {key: item.value() for key, item in state.items()}
  (FOLDER / "early.row.pth").write_bytes(early.row_file(early.Pairs(state), cuda=True))
  state = parameters(early.LateParameter)
  (FOLDER / "early.tar.pth").write_bytes(early.tar_file(early.Pairs(state)))
  layers, expected["early_layers"] = early_layers()
  (FOLDER / "early_layers.row.pth").write_bytes(early.row_file(layers))

  arrays = {f"{n}/{key}": array for n, s in expected.items() for key, array in kept(s).items()}
  np.savez_compressed(FOLDER / "expected.npz", **arrays)


if __name__ == "__main__":
  main()
