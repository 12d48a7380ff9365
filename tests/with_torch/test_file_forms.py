"""What this version of PyTorch saves, and what it loads of older forms, against our reader."""

import pathlib

import numpy as np
import pytest
import torch
import twin
from hypothesis import given, settings
from hypothesis import strategies as st

from jprotop.torch_io import torch_files

FOLDER = pathlib.Path(__file__).parent.parent / "golden" / "torch_files"
NEW = pytest.mark.parametrize("new", [True, False], ids=["zip", "row"])
TYPES = [
  *(torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.bool),
  *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  return tmp_path_factory.mktemp("saved") / "file.pth"


def assert_same(found, wanted):
  """Arrays and tensors by name: the same types, shapes and bits."""
  assert list(found) == list(wanted)
  for name, tensor in wanted.items():
    kind, array = str(tensor.dtype).removeprefix("torch."), found[name]
    assert (array.dtype.name, array.shape) == (kind, tuple(tensor.shape)), name
    bits = tensor.detach().contiguous()
    bits = bits.view(torch.int16) if kind == "bfloat16" else bits
    assert array.tobytes() == bits.numpy().tobytes(), name


# --- tensors


@st.composite
def tensors(draw):
  """A tensor of any type, up to four dimensions, and often a part of another in another order."""
  shape = draw(st.lists(st.integers(0, 4), max_size=4))
  whole = torch.from_numpy(np.random.default_rng(len(shape)).normal(0, 50, shape))
  view = whole.to(draw(st.sampled_from(TYPES)))
  for axis, length in enumerate(shape):
    begin, step = draw(st.integers(0, max(0, length - 1))), draw(st.integers(1, 3))
    view = view[(slice(None),) * axis + (slice(begin, None, step),)]
  view = view.permute(draw(st.permutations(range(len(shape)))))
  if draw(st.booleans()):
    view = view.unsqueeze(0).expand(draw(st.integers(1, 3)), *view.shape)
  return torch.nn.Parameter(view) if view.is_floating_point() and draw(st.booleans()) else view


@NEW
@settings(max_examples=100, deadline=None)
@given(values=st.lists(tensors(), min_size=1, max_size=4))
def test_tensors_come_back(path, new, values):
  state = {f"t{number}": value for number, value in enumerate(values)}
  state |= {"again": values[0], "detached": values[-1].detach()}  # of the same storages
  torch.save(state, path, _use_new_zipfile_serialization=new)
  assert_same(torch_files.read(path).state, state)


# --- modules


def network(backbone):
  return twin.PPNet(backbone, 2, 1, 4, img_size=32)


MODULES = {
  "basic block": lambda: twin.BasicBlock(4, 6, 2),
  "bottleneck": lambda: twin.Bottleneck(4, 2),
  "ResNet": lambda: twin.ResNet_features(twin.BasicBlock, (1, 1, 1, 1)),
  "VGG": lambda: twin.VGG_features((1,), False),
  "VGG with norms": lambda: twin.VGG_features((1, 1), True),
  "DenseNet": lambda: twin.DenseNet_features(2, (1, 2), 4),
  "add-on": lambda: twin.add_on(9, 2, "bottleneck"),
  "ProtoPNet": lambda: network("vgg11_bn"),
  "in nn.DataParallel": lambda: torch.nn.DataParallel(network("densenet121")),
}


@NEW
@pytest.mark.parametrize("package", ["", "src.models"])
@pytest.mark.parametrize("name", MODULES)
def test_whole_modules_are_their_state_dicts(path, name, package, new):
  module = MODULES[name]()
  with twin.reference_modules(package):
    torch.save(module, path, _use_new_zipfile_serialization=new)
  found = torch_files.read(path)
  inner = module.module if name == "in nn.DataParallel" else module
  assert_same(found.state, inner.state_dict())
  assert found.form.startswith(f"a whole {type(inner).__name__} module, ")
  if isinstance(inner, twin.PPNet):
    identity = found.attributes["prototype_class_identity"]
    np.testing.assert_array_equal(identity, inner.prototype_class_identity)
    assert found.attributes["prototype_shape"] == inner.prototype_shape


# --- older forms


# The source text in these files is not that of the classes here.
@pytest.mark.filterwarnings("ignore::torch.serialization.SourceChangeWarning")
@pytest.mark.parametrize("file", sorted(path.name for path in FOLDER.glob("*.pth")))
def test_torch_loads_the_same_from_the_golden_files(file):
  package = "src.models" if file == "data_parallel.row.pth" else ""
  with twin.reference_modules(package):
    value = torch.load(FOLDER / file, "cpu", weights_only=False)
  state = value.state_dict() if isinstance(value, torch.nn.Module) else value
  state = state.get("state_dict", state)
  wanted = {name.removeprefix("module."): tensor for name, tensor in state.items()}
  assert_same(torch_files.read(FOLDER / file).state, wanted)
