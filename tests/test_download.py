"""Downloads against a local server with every fault: what is asked for, kept, said and left."""

import hashlib
import itertools
import logging
import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import file_server
import miniature
import pytest
from file_server import CONTENT

from jprotop import download
from jprotop.errors import InputError
from jprotop.networks import families
from jprotop.torch_io import torchvision

MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GOOD = download.Hash("md5", MD5)
WRONG = download.Hash("md5", "0" * 32)
PAUSES = download.PAUSES


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
  """Nor a proxy in between."""
  monkeypatch.setattr(download, "PAUSES", (0, 0, 0))
  monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
  with file_server.serve() as running:
    yield running


@pytest.fixture
def target(tmp_path):
  return tmp_path / "new" / "file.bin"


@pytest.fixture
def partial(target):
  """Where an earlier download has left what it had."""
  return target.with_name(".file.bin.partial")


def fetch(server, target, check=GOOD, name="file.bin"):
  return download.fetch(server.url(name), target, check=check, remedy="or knit one")


def assert_only(target):
  assert target.read_bytes() == CONTENT
  assert list(target.parent.iterdir()) == [target]


# --- As it should be.


@pytest.mark.parametrize(
  "check",
  [GOOD, download.Hash("sha256", SHA256), download.Hash("sha256", SHA256[:8])],
  ids=["md5", "sha256", "its beginning"],
)
def test_a_good_download(check, server, target, capsys):
  assert fetch(server, target, check) == target
  assert_only(target)
  assert server.requests == [None]
  assert re.search(r"downloading file.bin: 100%.*5\.12k/5\.12k", capsys.readouterr().err)


def test_a_file_that_is_there_is_not_asked_for(server, target):
  miniature.write(target, CONTENT)
  assert fetch(server, target) == target
  assert not server.requests
  assert_only(target)


def test_a_file_with_another_hash_is_replaced(server, target):
  miniature.write(target, CONTENT[:-1])
  fetch(server, target)
  assert_only(target)


# --- Broken connections.


def test_a_download_that_breaks_off_goes_on_from_there(server, target):
  server.faults = ["cut"]
  fetch(server, target)
  assert_only(target)
  assert server.requests == [None, "bytes=2560-"]
  assert server.sent == len(CONTENT)


@pytest.mark.parametrize("fault", ["drop", 500, 503, 429])
def test_a_fault_that_passes_is_waited_for(fault, server, target):
  server.faults = [fault] * 3
  fetch(server, target)
  assert_only(target)
  assert server.requests == [None] * 4


def test_a_server_that_falls_silent_is_asked_again(server, target, monkeypatch):
  monkeypatch.setattr(download, "TIMEOUT", 0.1)
  server.faults = ["wait"]
  fetch(server, target)
  assert_only(target)
  assert len(server.requests) == 2


def test_pauses_grow_and_end(server, target, monkeypatch):
  monkeypatch.setattr(download, "PAUSES", PAUSES)
  slept = []
  monkeypatch.setattr(time, "sleep", slept.append)
  server.faults = [503] * 100
  with pytest.raises(InputError, match=r"cannot download http.*file.bin: .*503.*; or knit one$"):
    fetch(server, target)
  assert len(slept) >= 2
  assert all(before < after for before, after in itertools.pairwise(slept))
  assert not list(target.parent.iterdir())


def test_a_download_that_always_breaks_off_keeps_what_it_has(server, target, partial):
  server.faults = ["cut"] * 4
  with pytest.raises(InputError, match=r"ended at byte 4,800 of 5,120; .*the 4,800 bytes .*knit"):
    fetch(server, target)
  assert len(server.requests) == 4
  assert partial.read_bytes() == CONTENT[:4800]
  assert not target.exists()
  fetch(server, target)
  assert_only(target)
  assert server.requests[4:] == ["bytes=4800-"]
  assert server.sent == len(CONTENT)


def test_a_failed_download_keeps_the_file_that_is_there(server, target):
  miniature.write(target, "an older one")
  server.faults = ["cut"] * 4
  with pytest.raises(InputError):
    fetch(server, target)
  assert target.read_text() == "an older one"


# --- What an earlier program left.


def test_what_a_killed_program_left_is_used(server, target, partial):
  miniature.write(partial, CONTENT[:1000])
  fetch(server, target)
  assert_only(target)
  assert server.requests == ["bytes=1000-"]
  assert server.sent == len(CONTENT) - 1000


def test_a_program_that_was_killed_just_before_the_end(server, target, partial):
  miniature.write(partial, CONTENT)
  fetch(server, target)
  assert_only(target)
  assert server.sent == 0


@pytest.mark.parametrize("size", [1000, 9000], ids=["shorter", "longer"])
def test_leftovers_of_another_file_lead_to_a_fresh_start(size, server, target, partial):
  miniature.write(partial, b"x" * size)
  fetch(server, target)
  assert_only(target)
  assert server.requests == [f"bytes={size}-", None]


def test_a_fresh_start_is_made_once(server, target, partial):
  miniature.write(partial, b"x" * 1000)
  with pytest.raises(InputError, match=f"has MD5 {MD5}, not 0000"):
    fetch(server, target, WRONG)
  assert server.requests == ["bytes=1000-", None]
  assert not list(target.parent.iterdir())


def test_a_server_that_cannot_resume(server, target, partial):
  miniature.write(partial, CONTENT[:1000])
  server.ranges = False
  server.faults = ["cut"]
  fetch(server, target)
  assert_only(target)
  assert server.requests == ["bytes=1000-", "bytes=2560-"]


def test_a_leftover_beside_the_finished_file_changes_nothing(server, target, partial):
  miniature.write(partial, b"x" * 1000)
  miniature.write(target, CONTENT)
  assert fetch(server, target) == target
  assert not server.requests


# --- Errors.


@pytest.mark.parametrize(
  ("check", "wanted"),
  [(WRONG, f"MD5 {MD5}, not {'0' * 32}:"), (download.Hash("sha256", "0" * 8), "not 00000000...:")],
  ids=["whole", "its beginning"],
)
def test_a_wrong_hash_is_told_and_nothing_is_left(check, wanted, server, target):
  with pytest.raises(InputError) as caught:
    fetch(server, target, check)
  assert wanted in str(caught.value)
  assert server.url() in str(caught.value)
  assert server.requests == [None]
  assert not list(target.parent.iterdir())


@pytest.mark.parametrize("status", [403, 404])
def test_what_the_server_refuses_is_not_asked_for_again(status, server, target):
  server.faults = [status]
  with pytest.raises(InputError, match=rf"cannot download http.*: .*{status}.*; or knit one$"):
    fetch(server, target)
  assert server.requests == [None]
  assert not list(target.parent.iterdir())


def test_an_unreachable_server_is_told_at_once(target, monkeypatch):
  monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
  with socket.socket() as free:  # Bound, but nobody listens.
    free.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{free.getsockname()[1]}/file.bin"
    with pytest.raises(InputError, match=rf"cannot download {url}: .*refused; or knit one$"):
      download.fetch(url, target, check=GOOD, remedy="or knit one")
  assert not list(target.parent.iterdir())


def test_a_place_that_cannot_be_written(server, tmp_path):
  place = miniature.write(tmp_path / "file", "not a folder")
  with pytest.raises(InputError, match=r"cannot write .*file.bin: .*; choose another place"):
    fetch(server, place / "file.bin")
  assert not server.requests


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk that is full")
def test_a_full_disk(server, target, partial):
  target.parent.mkdir()
  partial.symlink_to("/dev/full")
  with pytest.raises(InputError, match=r"cannot write .*file.bin: No space.*; free some space"):
    fetch(server, target)
  assert not target.exists()


# --- Two programs at once.


def wait_until(condition):
  end = time.monotonic() + 10
  while not condition():
    assert time.monotonic() < end, "it did not happen"
    time.sleep(0.005)


@pytest.mark.parametrize("check", [GOOD, WRONG], ids=["good", "wrong"])
def test_a_second_program_waits_for_the_first(check, server, target, partial, caplog):
  caplog.set_level(logging.INFO, "jprotop")
  server.faults = ["wait"]
  with ThreadPoolExecutor() as pool:
    first = pool.submit(fetch, server, target, check)
    wait_until(lambda: server.sent)
    second = pool.submit(fetch, server, target)
    wait_until(lambda: "waiting for another program" in caplog.text)
    server.go.set()
    if check is WRONG:
      with pytest.raises(InputError, match="has MD5"):
        first.result(10)
    else:
      assert first.result(10) == target
    assert second.result(10) == target
  assert_only(target)
  # The second finds it finished, or downloads it where the first has failed.
  assert server.requests == ([None] if check is GOOD else [None, None])


# --- torchvision's weights.


@pytest.fixture
def known_file(server, monkeypatch):
  """A small file that torchvision would have under resnet18's name."""
  name = f"resnet18-{SHA256[:8]}.pth"
  file = families.WeightFile(server.url(name), SHA256[:8])
  monkeypatch.setitem(families.family_of("resnet18").weights, "resnet18", file)
  return name


def test_weights_are_kept_in_the_cache(known_file, server, tmp_path, monkeypatch):
  monkeypatch.setenv("JPROTOP_CACHE", str(tmp_path / "default"))
  for cache, place in ((tmp_path / "given", "given"), (None, "default")):
    path = torchvision.weights_file("resnet18", cache)
    assert path == tmp_path / place / "weights" / known_file
    assert path.read_bytes() == CONTENT
    assert torchvision.weights_file("resnet18", cache) == path
  assert len(server.requests) == 2


def test_a_machine_without_network_is_told_where_weights_go(known_file, server, tmp_path):
  server.faults = [404]
  with pytest.raises(InputError) as caught:
    torchvision.weights_file("resnet18", tmp_path)
  message = str(caught.value)
  assert f"download {server.url(known_file)} elsewhere" in message
  assert f"put it at {tmp_path / 'weights' / known_file}" in message
  assert "--config.train.init.backbone=PATH" in message
  assert "--config.train.init.backbone= " in message
  assert "--config.train.pretrain.epochs=N" in message
  # As told:
  path = miniature.write(tmp_path / "weights" / known_file, CONTENT)
  assert torchvision.weights_file("resnet18", tmp_path) == path
  assert len(server.requests) == 1


def test_a_backbone_without_weights(tmp_path):
  with pytest.raises(
    InputError, match=r"'resnet_small', only for resnet18, .*densenet201;"
  ) as told:
    torchvision.weights_file("resnet_small", tmp_path)
  assert "--config.train.init.backbone= " in str(told.value)
  assert "--config.train.pretrain.epochs=N" in str(told.value)


def test_every_file_is_named_after_its_backbone_and_hash():
  files = families.published_weights()
  assert len(files) == 17
  for backbone, (url, digits) in files.items():
    assert re.fullmatch(rf"https://download.pytorch.org/models/{backbone}-{digits}\.pth", url)
    assert re.fullmatch("[0-9a-f]{8}", digits)
