"""Files of PyTorch that claim to be larger than they are: nothing large is allocated for them."""

import pickle
import struct

import pytest
from hostile import DATA, error_of, in_all_forms, read
from torch_archives import (
  dictionary,
  finished,
  items,
  layer,
  named,
  plain,
  row_file,
  tar_file,
  tensor,
)


def huge_tensor(**options):
  return dictionary(a=tensor(**options))


HUGE = {
  "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**40),
  "BINBYTES": b"B" + struct.pack("<I", 2**32 - 1),
  "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62),
  "BINUNICODE": b"X" + struct.pack("<I", 2**31),
  "BINSTRING": b"T" + struct.pack("<i", 2**31 - 1),
  "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40),
  "LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1),
  "a long number": b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20,
  "a long number in digits": b"L" + b"9" * 4000 + b"L\n",
  "too many digits": b"L" + b"9" * 2**20 + b"L\n",
  "a long line": b"V" + b"a" * 2**20 + b"\n",
  "a line without an end": b"V" + b"a" * 2**20,
  "FRAME": b"\x95" + struct.pack("<Q", 2**62),
  "a huge storage": huge_tensor(numel=2**60),
  "a storage of more than bytes can count": huge_tensor(numel=2**79),
  "a large storage": huge_tensor(numel=2**34),
  "a negative storage": huge_tensor(numel=-4),
  "outside": huge_tensor(size=(5,), stride=(1,)),
  "outside by its offset": huge_tensor(offset=1),
  "outside by a huge offset": huge_tensor(offset=2**70),
  "outside by its stride": huge_tensor(size=(2,), stride=(4,)),
  "outside by a huge stride": huge_tensor(size=(2, 2), stride=(2**62, 2**62)),
  "outside by what a stride is in bytes": huge_tensor(size=(2,), stride=(2**62,)),
  "a negative size": huge_tensor(size=(-2, 2)),
  "two negative sizes": huge_tensor(size=(-2, -2)),
  "a negative stride": huge_tensor(stride=(-2, 1)),
  "a negative offset": huge_tensor(offset=-1),
  "a repeated number": huge_tensor(size=(2**40,), stride=(0,)),
  "often repeated numbers": huge_tensor(size=(2**20,) * 8, stride=(0,) * 8),
  "repeated beyond a word": huge_tensor(size=(2**62, 2**62), stride=(0, 0)),
  "nothing, very often": huge_tensor(size=(0, 2**62, 2**62), stride=(1, 1, 1)),
  "a size that is no number": huge_tensor(size=("2", 2)),
  "a size that is true": huge_tensor(size=(True, 2)),
  "a size of fractions": huge_tensor(size=(2.0, 2)),
  "no size": huge_tensor(size=None),
  "fewer strides": huge_tensor(stride=(1,)),
  "many dimensions": huge_tensor(size=(1,) * 9, stride=(1,) * 9),
}


@pytest.mark.parametrize("claim", HUGE)
def test_claims_of_size_allocate_nothing(tmp_path, claim):
  for form in ("zip", "row"):
    error_of(tmp_path, in_all_forms(finished(HUGE[claim]))[form])


def test_numbers_of_a_million_digits(tmp_path):
  """Their products take minutes, and Python makes no text of them for a message."""
  number = b"\x8b" + struct.pack("<i", 2**20) + b"\x7f" * 2**20
  for piece in (tensor().replace(plain((2, 2)), items(number, number)), layer(width=number)):
    for form in ("zip", "row"):
      file = in_all_forms(finished(dictionary(model=piece)))[form]
      assert "a number of 8388607 bits" in error_of(tmp_path, file)


@pytest.mark.parametrize("numel", [5, 2**34, 2**60, 2**62, -1, -(2**63)])
def test_storages_that_agree_in_a_lie(tmp_path, numel):
  content = finished(huge_tensor(numel=max(numel, 4)))
  error_of(tmp_path, row_file(content, {"0": (numel, DATA)}))


def test_places_in_the_memo_are_names(tmp_path):
  far = b"r" + struct.pack("<I", 2**31) + b"0j" + struct.pack("<I", 2**31)
  content = finished(dictionary(a=tensor()), far)
  for form in ("zip", "row"):
    assert list(read(tmp_path, in_all_forms(content)[form]).state) == ["a"]


def test_what_the_sides_of_1_have_as_strides_is_of_no_meaning(tmp_path):
  content = finished(dictionary(a=tensor(size=(1, 4, 1), stride=(2**70, 1, 2**62))))
  for form in ("zip", "row"):
    assert read(tmp_path, in_all_forms(content)[form]).state["a"].shape == (1, 4, 1)


@pytest.mark.parametrize("begin", [-1, -4, 5, 2**62, "1", None, 1.0])
def test_parts_of_storages_lie_inside(tmp_path, begin):
  """A part that begins before its storage would read memory that belongs to others."""
  view = items(plain("7"), plain(begin), plain(4))
  content = finished(dictionary(a=tensor(view=view)))
  error_of(tmp_path, row_file(content, {"0": (4, DATA)}))


TAR_TENSOR = b"\x80\x02K\x01." + finished(b"K\x07K\x08", named("torch.FloatTensor"), b"\x87")
TAR_STORAGE = b"\x80\x02K\x01." + finished(
  b"K\x08X\x03\0\0\0cpu", named("torch.FloatStorage"), b"\x87"
)
TAR_STORAGE += struct.pack("<q", 4) + DATA


@pytest.mark.parametrize(
  ("tensors", "storages", "reason"),
  [
    (finished(plain(2**62)), b"", "claims to have"),
    (finished(plain(-1)), b"", "claims to have"),
    (finished(plain(9)), b"", "cut off"),
    (TAR_TENSOR + struct.pack("<iI", 2**30, 0), b"", "dimensions"),
    (TAR_TENSOR + struct.pack("<iI", -1, 0), b"", "dimensions"),
    (TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 5, 1, 0), TAR_STORAGE, "outside"),
    (TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 2**62, 0, 0), TAR_STORAGE, "larger"),
    (TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 4, 1, -1), TAR_STORAGE, "at least 0"),
    (TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 4, 1, 0), finished(plain(0)), "is not there"),
    (TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 4, 1, 0), TAR_STORAGE[:-24] + b"\xff" * 24, "claims"),
  ],
)
def test_claims_of_size_in_a_tar(tmp_path, tensors, storages, reason):
  content = finished(dictionary(a=plain("7") + b"Q"))
  file = tar_file(content, tensors, storages + pickle.dumps([], 2))
  assert reason in error_of(tmp_path, file)


@pytest.mark.parametrize("view", [(9, 8, -1, 4), (9, 8, 2, 3), (9, 8, 2, -1), (9, 7, 0, 1), (9, 8)])
def test_parts_of_storages_in_a_tar(tmp_path, view):
  content = finished(dictionary(a=plain("7") + b"Q"))
  tensors = TAR_TENSOR + struct.pack("<iIqqq", 1, 0, 4, 1, 0)
  error_of(tmp_path, tar_file(content, tensors, TAR_STORAGE + pickle.dumps([view], 2)))
  found = read(tmp_path, tar_file(content, tensors, TAR_STORAGE + pickle.dumps([], 2)))
  assert found.state["a"].tolist() == [0, 1, 2, 3]


def test_headers_of_a_tar(tmp_path):
  file = bytearray(tar_file(finished(b"}")))
  for length in (b"77777777777\0", b"-7777777777\0", b"\x80\0\0\0\0\0\0\0\0\0\0\x01", b"\0" * 12):
    file[124:136] = length
    error_of(tmp_path, bytes(file))
