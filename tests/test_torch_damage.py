"""Files of PyTorch that are damaged or tampered with: an error, or what is left of the arrays."""

import io
import pathlib
import struct
import zipfile

import numpy as np
import pytest
from hostile import (
  DATA,
  GOOD_STORAGES,
  GOOD_TENSORS,
  TAR_PICKLE,
  WIDE,
  deep,
  error_of,
  in_all_forms,
  keys_in_files,
  read,
  row_with_keys,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_archives import (
  dictionary,
  finished,
  plain,
  tar_file,
  tensor,
)

from jprotop.errors import InputError

FOLDER = pathlib.Path(__file__).parent / "golden" / "torch_files"


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """The current folder, in which afterwards nothing may be but the file itself."""
  (tmp_path / "current").mkdir()
  monkeypatch.chdir(tmp_path / "current")
  yield tmp_path / "current"
  assert [path.name for path in tmp_path.rglob("*")] == ["current", "file.pth"]


# --- zip files


def written(entries, kind=zipfile.ZIP_STORED):
  """A zip file of [name or info, bytes], as zipfile writes it, whatever their names are."""
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w", kind) as archive:
    for name, data in entries:
      archive.writestr(name, data)
  return out.getvalue()


GOOD = [("archive/data.pkl", finished(dictionary(a=tensor()))), ("archive/data/0", DATA)]


def info(name, mode):
  found = zipfile.ZipInfo(name)
  found.external_attr = mode << 16
  return found


@pytest.mark.parametrize(
  "name", ["../evil", "/etc/evil", "archive/../../evil", "C:/evil", "C:evil"]
)
@pytest.mark.parametrize("place", [0, 2])
def test_paths_that_lead_elsewhere(folder, name, place):
  entries = [*GOOD[:place], (name, b"x"), *GOOD[place:]]
  assert f"'{name}', which would lie elsewhere" in error_of(folder, written(entries))


def test_paths_with_backslashes(folder):
  file = written([*GOOD, ("archive/..#evil", b"x")]).replace(b"..#evil", b"..\\evil")
  assert "which would lie elsewhere" in error_of(folder, file)


def test_names_that_come_twice(folder):
  file = written([*GOOD, ("archive/data/1", DATA)]).replace(b"data/1", b"data/0")
  assert "'archive/data/0', which would lie elsewhere, or twice" in error_of(folder, file)


def test_links_are_not_followed(folder):
  for name in ("archive/link", "archive/data/0"):
    link = info(name, 0o120777), b"/etc/hostname".ljust(16)
    entries = [entry for entry in GOOD if entry[0] != name]
    found = read(folder, written([*entries, link]))
    data = link[1] if name == "archive/data/0" else DATA
    assert found.state["a"].tobytes() == data


def test_compressed_entries(folder):
  for kind, size in {
    zipfile.ZIP_DEFLATED: 2**26,
    zipfile.ZIP_BZIP2: 9,
    zipfile.ZIP_LZMA: 9,
  }.items():
    bomb = ("archive/bomb", bytes(size))
    assert "is compressed" in error_of(folder, written([bomb, *GOOD], kind))


def patched(file, name, **fields):
  """A zip file whose list of entries says something else of one of them."""
  places = {
    "flags": (8, "<H"),
    "method": (10, "<H"),
    "packed": (20, "<I"),
    "size": (24, "<I"),
    "offset": (42, "<I"),
  }
  start = file.index(name.encode(), file.index(b"PK\x01\x02")) - 46
  changed = bytearray(file)
  for field, value in fields.items():
    place, kind = places[field]
    struct.pack_into(kind, changed, start + place, value)
  return bytes(changed)


@pytest.mark.parametrize(
  "fields",
  [
    {"size": 2**31},
    {"packed": 2**31},
    {"size": 2**31, "packed": 2**31},
    {"size": 2**32 - 1, "packed": 2**32 - 1},
    {"offset": 2**31},
    {"offset": 1},
    {"flags": 1},
    {"flags": 64},
    {"method": 8},
    {"method": 99},
  ],
)
def test_entries_that_claim_what_is_not_there(folder, fields):
  for name in ("archive/data.pkl", "archive/data/0"):
    error_of(folder, patched(written(GOOD), name, **fields))


def test_entries_that_lie_on_each_other(folder):
  """A file of a megabyte that would be a gigabyte of storages."""
  count, data = 1000, bytes(2**20)
  tensors = {f"t{n}": tensor(numel=2**18, key=str(n)) for n in range(count)}
  out = io.BytesIO()
  with zipfile.ZipFile(out, "w") as archive:
    archive.writestr("archive/data.pkl", finished(dictionary(**tensors)))
    archive.writestr("archive/data/0", data)
    one = archive.filelist[-1]
    for number in range(1, count):
      other = zipfile.ZipInfo(f"archive/data/{number}")
      other.header_offset, other.CRC = one.header_offset, one.CRC
      other.file_size = other.compress_size = one.file_size
      archive.filelist.append(other)
  assert "its entries claim" in error_of(folder, out.getvalue())


def test_the_list_of_entries_may_lie(folder):
  file = written(GOOD)
  end = file.rindex(b"PK\x05\x06")
  for place, kind, values in [
    (8, "<HH", [(0, 0), (2**16 - 1, 2**16 - 1)]),
    (12, "<I", [(0,), (1,), (2**31,), (2**32 - 1,)]),
    (16, "<I", [(0,), (2**31,), (2**32 - 1,), (end + 1,)]),
  ]:
    for value in values:
      changed = bytearray(file)
      struct.pack_into(kind, changed, end + place, *value)
      try:
        read(folder, bytes(changed))
      except InputError:
        continue


# --- damage

SAMPLES = ["types.row", "types.zip", "early.tar", "strides.row", "early_layers.row"]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
  return tmp_path_factory.mktemp("damaged")


@pytest.mark.parametrize("sample", SAMPLES)
def test_files_that_end_too_early(sandbox, sample):
  content = (FOLDER / f"{sample}.pth").read_bytes()
  whole = read(sandbox, content).state
  for length in range(0, len(content), 1 + len(content) // 400):
    try:
      found = read(sandbox, content[:length]).state
    except InputError:
      continue
    assert sample.endswith("tar")  # it ends with blocks of zeros
    assert {name: array.tobytes() for name, array in found.items()} == {
      name: array.tobytes() for name, array in whole.items()
    }


@pytest.mark.parametrize("sample", [*SAMPLES, "network.row", "data_parallel.zip"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_flipped_bits(sandbox, sample, data):
  content = bytearray((FOLDER / f"{sample}.pth").read_bytes())
  place = data.draw(st.integers(0, len(content) - 1), label="place")
  content[place] ^= data.draw(st.integers(1, 255), label="bits")
  try:
    found = read(sandbox, bytes(content)).state
  except InputError as error:
    assert str(error).isprintable()
  else:
    assert all(isinstance(array, np.ndarray) for array in found.values())


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_noise(sandbox, content, start):
  for file in (start + content, *in_all_forms(start + content).values()):
    with pytest.raises(InputError):
      read(sandbox, file)


# --- keys, which are hashed


def test_the_files_that_keys_are_put_into_are_good(folder):
  found = read(folder, tar_file(TAR_PICKLE, tensors=GOOD_TENSORS, storages=GOOD_STORAGES))
  assert found.state["a"].tobytes() == DATA
  with pytest.raises(InputError, match="storage 0 is not there"):
    read(folder, row_with_keys(b"]"))


@pytest.mark.parametrize("where", keys_in_files(b""))
def test_what_is_no_key_is_neither_hashed_nor_written_out(folder, where):
  for key in (deep(1000), WIDE, b"]" + b"\x85" * 20, b"}"):
    message = error_of(folder, keys_in_files(key)[where])
    assert (
      "neither texts nor numbers" in message  # refused
      or "claims to have a value of type" in message  # told of by its type
      or ("damaged" in message and "((" not in message)  # of no use as a number
    )


def test_to_hash_a_key_may_take_more_stack_than_there_is(folder):
  """It ended the process."""
  with pytest.raises(InputError, match="neither texts nor numbers"):
    read(folder, keys_in_files(deep(150_000))["row, storages"])


def test_names_without_end_are_quoted_in_part(folder):
  long = "x" * 2**20
  names = b"".join(plain(f"{long}{n}") + plain(0) for n in range(8))
  message = error_of(folder, in_all_forms(finished(b"}(" + names + b"u"))["zip"])
  assert "are no tensors" in message
