"""What torch.save wrote in all of its forms, without PyTorch; tests/with_torch writes the files."""

import io
import pathlib
import pickle
import struct
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_archives import (
  call,
  dictionary,
  finished,
  items,
  layer,
  named,
  plain,
  row_file,
  tar_file,
  tensor,
  zip_file,
)

from jprotop.errors import InputError
from jprotop.torch_io import torch_files

FOLDER = pathlib.Path(__file__).parent / "golden" / "torch_files"
FILES = sorted(path.name for path in FOLDER.glob("*.pth"))
NUMBERS = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def expected():
  """{fixture: {name: array}}"""
  found = {}
  with np.load(FOLDER / "expected.npz") as arrays:
    for name, array in arrays.items():
      fixture, _, key = name.partition("/")
      if key.endswith(":bfloat16"):
        key, array = key.removesuffix(":bfloat16"), array.view(ml_dtypes.bfloat16)
      found.setdefault(fixture, {})[key] = array
  return found


def read(tmp_path, content):
  path = tmp_path / "file.pth"
  path.write_bytes(content)
  return torch_files.read(path)


def error_of(tmp_path, content):
  with pytest.raises(InputError) as caught:
    read(tmp_path, content)
  message = str(caught.value)
  assert message.startswith(f"{tmp_path / 'file.pth'} ") and "\n" not in message
  return message


def both(*pieces):
  """Files of both forms with a pickle of these pieces, and storage "0", four numbers, if needed."""
  content, data = finished(*pieces), NUMBERS.tobytes()
  if b"Storage" not in content:
    return zip_file(content), row_file(content)
  return zip_file(content, {"0": data}), row_file(content, {"0": (4, data)})


def assert_same(found, wanted):
  assert list(found) == list(wanted)
  for name, array in wanted.items():
    assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
    assert found[name].tobytes() == array.tobytes(), name


# --- what torch wrote


@pytest.mark.parametrize("file", FILES)
def test_files_of_every_form_give_their_arrays(expected, file):
  found = torch_files.read(FOLDER / file)
  assert_same(found.state, expected[file.partition(".")[0]])
  forms = {"zip": "zip", "row": "before torch 1.6", "tar": "tar"}
  assert forms[file.split(".")[1]] in found.form


def test_every_kind_of_file_is_there(expected):
  assert expected.keys() == {file.partition(".")[0] for file in FILES}
  assert {f"{name}.{form}.pth" for name in ("types", "network") for form in ("zip", "row")} <= {
    *FILES
  }
  assert "early.tar.pth" in FILES


@pytest.mark.parametrize("form", ["zip", "row"])
def test_a_whole_module_has_its_own_plain_attributes(form):
  found = torch_files.read(FOLDER / f"network.{form}.pth")
  assert found.form.startswith("a whole PPNet module, ")
  plain_ones = {
    "img_size": 32,
    "num_classes": 3,
    "num_prototypes": 6,
    "prototype_shape": (6, 2, 1, 1),
    "epsilon": 1e-4,
    "prototype_activation_function": "log",
  }
  assert {name: found.attributes[name] for name in plain_ones} == plain_ones
  np.testing.assert_array_equal(
    found.attributes["prototype_class_identity"], np.repeat(np.eye(3), 2, axis=0)
  )
  assert not {"features", "_modules", "block"} & found.attributes.keys()


def test_the_path_may_begin_with_the_home_folder(monkeypatch):
  monkeypatch.setenv("HOME", str(FOLDER))
  assert list(torch_files.read("~/cuda.zip.pth").state) == ["weight"]


# --- what else is a checkpoint


def test_prefixes_go_where_all_names_have_them(tmp_path):
  weight = tensor()
  for names, wanted in [
    (["module.a", "module.b"], ["a", "b"]),
    (["module.module.a", "module.module.b"], ["a", "b"]),
    (["module.module.a", "module.b"], ["module.a", "b"]),
    (["module.a", "b"], ["module.a", "b"]),
    (["modules.a"], ["modules.a"]),
  ]:
    for content in both(dictionary(**dict.fromkeys(names, weight))):
      assert list(read(tmp_path, content).state) == wanted


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_a_network_may_lie_in_a_checkpoint(tmp_path, key):
  epoch, best = plain(3), tensor(size=(), stride=())
  for inner in (dictionary(a=tensor()), layer(parameters=dictionary(a=tensor()))):
    for content in both(dictionary(epoch=epoch, best=best, **{key: inner})):
      assert_same(read(tmp_path, content).state, {"a": NUMBERS.reshape(2, 2)})


def test_texts_of_python_2(tmp_path):
  keys = [b"U\x01a", b"T\x01\x00\x00\x00b"]  # SHORT_BINSTRING, BINSTRING
  pairs = b"](" + b"".join(b"](" + key + tensor() + b"e" for key in keys) + b"e"
  for content in both(call("collections.OrderedDict", pairs)):
    assert list(read(tmp_path, content).state) == ["a", "b"]


@pytest.mark.parametrize(
  "kind", ["torch.nn.parameter.Parameter", "torch.autograd.variable.Variable"]
)
def test_parameters_that_were_called_with_their_tensor(tmp_path, kind):
  """Of torch 0.1.10 to 0.4.0, whose state is (requires_grad, volatile, hooks)."""
  state = items(plain(True), plain(False), call("collections.OrderedDict"))
  for content in both(dictionary(a=call(kind, tensor()) + state + b"b")):
    assert_same(read(tmp_path, content).state, {"a": NUMBERS.reshape(2, 2)})


def test_sizes_of_torch_may_be_sizes(tmp_path):
  size = named("torch.Size") + items(plain((2, 2))) + b"\x81"
  head = tensor().partition(b"K\x00")[0]
  for content in both(dictionary(a=head + plain(0) + size + plain((2, 1)) + b"tR")):
    assert read(tmp_path, content).state["a"].shape == (2, 2)


def test_bytes_of_another_order(tmp_path):
  content = finished(dictionary(a=tensor()))
  found = read(tmp_path, zip_file(content, {"0": NUMBERS.astype(">f4").tobytes()}, order="big"))
  assert_same(found.state, {"a": NUMBERS.reshape(2, 2)})


def test_a_part_of_a_storage_is_a_storage_of_old_files(tmp_path):
  view = items(plain("7"), plain(2), plain(2))
  content = finished(
    dictionary(a=tensor(size=(2,), stride=(1,), view=view), b=tensor(view=plain(None)))
  )
  found = read(tmp_path, row_file(content, {"0": (4, NUMBERS.tobytes())})).state
  assert found["a"].tolist() == [2, 3]
  assert np.shares_memory(found["a"], found["b"])


# --- what is none


def npz():
  out = io.BytesIO()
  np.savez(out, a=NUMBERS)
  return out.getvalue()


def other_tar():
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w:") as tar:
    tar.addfile(tarfile.TarInfo("image.jpg"))
  return out.getvalue()


NO_TORCH_FILES = {
  "empty": (b"", "it is empty"),
  "text": (b"weights: 1, 2, 3\n" * 100, "none of the forms"),
  "numbers": (b"0" * 1000, "none of the forms"),
  "markup": (b"<!DOCTYPE html><html>404</html>", "none of the forms"),
  "safetensors": (
    b"\x3c\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32"}}' + bytes(99),
    "none of the forms",
  ),
  "pickle": (pickle.dumps({"a": [1.0]}), "none of the forms"),
  "pickle of an array": (pickle.dumps(NUMBERS), "none of the forms"),
  "npz": (npz(), "not one data.pkl"),
  "tar": (other_tar(), "no pickle"),
  "TorchScript": (
    zip_file(finished(dictionary(a=tensor())), extra={"archive/constants.pkl": b"\x80\x02)."}),
    "TorchScript",
  ),
  "two archives": (zip_file(b"", extra={"other/data.pkl": b"\x80\x02)."}), "not one data.pkl"),
}


@pytest.mark.parametrize("name", NO_TORCH_FILES)
def test_other_files_are_refused(tmp_path, name):
  content, reason = NO_TORCH_FILES[name]
  assert reason in error_of(tmp_path, content)


def test_what_is_no_file_is_refused(tmp_path):
  for path, reason in {tmp_path: "is a folder", tmp_path / "none.pth": "does not exist"}.items():
    with pytest.raises(InputError, match=reason):
      torch_files.read(path)


@pytest.mark.parametrize(
  ("piece", "reason"),
  [
    (plain({}), "neither a state dict nor a module"),
    (plain([1, 2]), "neither a state dict nor a module"),
    (tensor(), "neither a state dict nor a module"),
    (layer(), "neither a state dict nor a module"),
    (dictionary(state_dict=plain({}), best=tensor()), "neither a state dict nor a module"),
    (dictionary(a=tensor(), epoch=plain(3)), "epoch are no tensors"),
    (b"}" + plain(3) + tensor() + b"s", "3 are no tensors"),
    (dictionary(a=tensor(kind="torch.ComplexFloatStorage")), "torch.ComplexFloatStorage"),
    (dictionary(a=call("torch._utils._rebuild_qtensor")), "torch._utils._rebuild_qtensor"),
  ],
)
def test_other_contents_are_refused(tmp_path, piece, reason):
  for content in both(piece):
    assert reason in error_of(tmp_path, content)


@pytest.mark.parametrize(
  ("piece", "name"),
  [
    (named("argparse.Namespace") + b")\x81", "argparse.Namespace"),
    (call("numpy.core.multiarray.scalar"), "numpy.core.multiarray.scalar"),
    (call("numpy._core.multiarray._reconstruct"), "numpy._core.multiarray._reconstruct"),
    (named("torch.optim.adam.Adam") + b")\x81", "torch.optim.adam.Adam"),
  ],
)
def test_what_lies_beside_a_state_dict_is_refused_with_a_way_out(tmp_path, piece, name):
  for content in both(dictionary(args=piece, state_dict=dictionary(a=tensor()))):
    message = error_of(tmp_path, content)
    assert f"asks for {name}," in message
    assert "save only the network's state_dict() with torch.save" in message


def test_storages_must_be_what_tensors_say(tmp_path):
  data, content = NUMBERS.tobytes(), finished(dictionary(a=tensor()))
  short = finished(dictionary(a=tensor(numel=3, size=(3,), stride=(1,))))
  other = finished(dictionary(a=tensor(), b=tensor(kind="torch.IntStorage")))
  longer = finished(dictionary(a=tensor(), b=tensor(numel=5)))
  for file, reason in [
    (zip_file(content), "storage 0 should have 16 bytes"),
    (zip_file(content, {"0": data[:15]}), "storage 0 should have 16 bytes"),
    (row_file(content), "storage 0 is not there"),
    (row_file(content, {"0": (4, data[:15])}), "claims 4 numbers, but the file has 15 bytes"),
    (row_file(short, {"0": (4, data)}), "has 4 numbers instead of 3"),
    (row_file(content, {"1": (4, data)}), "a storage 1 that no tensor is of"),
    (row_file(other, {"0": (4, data)}), "two types or two sizes"),
    (zip_file(longer, {"0": data + data}), "two types or two sizes"),
    (tar_file(finished(plain("7"), b"Q")), "a tensor that is not there"),
  ]:
    assert reason in error_of(tmp_path, file)


def test_numbers_of_an_unknown_kind_are_refused(tmp_path):
  named_so = finished(items(plain("7"), plain("0"), named("torch.device")))
  one = pickle.dumps(1, 2)
  tensors = one + named_so + struct.pack("<i4x3q", 1, 2, 1, 0)
  storages = one + finished(items(plain("0"), plain("cpu"), named("torch.device")))
  storages += struct.pack("<q2d", 2, 0.5, 0.25) + pickle.dumps([], 2)
  file = tar_file(finished(dictionary(a=plain("7") + b"Q")), tensors, storages)
  assert "numbers of an unknown kind" in error_of(tmp_path, file)


def test_a_zip_file_says_which_part_is_wrong(tmp_path):
  content = zip_file(finished(dictionary(a=tensor())), {"0": NUMBERS.tobytes()})
  with zipfile.ZipFile(io.BytesIO(content)) as archive:
    place = archive.getinfo("archive/data/0").header_offset
  place += 30 + len("archive/data/0")
  assert content[place : place + 16] == NUMBERS.tobytes()
  flipped = content[:place] + b"\xff" + content[place + 1 :]
  assert "Bad CRC-32 for file 'archive/data/0'" in error_of(tmp_path, flipped)
