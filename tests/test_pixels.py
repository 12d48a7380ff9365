"""Pixel files: whole or not there, and what decode, crop and resize give."""

import concurrent.futures
import errno
import io
import os
import threading
import time

import miniature
import numpy as np
import pytest

from jprotop.data import pixels
from jprotop.errors import InputError

SIZE = 4


def render(i):
  return np.full((SIZE, SIZE, 3), i, np.uint8)


def make(cache, render=render, count=5):
  return pixels.pixel_file(cache, "train-0123", count, SIZE, render)


def test_pixels_are_what_render_gives_and_cannot_be_changed(tmp_path):
  found = make(tmp_path)
  np.testing.assert_array_equal(found, np.stack([render(i) for i in range(5)]))
  assert found.dtype == np.uint8
  with pytest.raises(ValueError, match="read-only"):
    found[0] = 1


def test_it_is_made_once(tmp_path):
  make(tmp_path)
  before = miniature.tree(tmp_path)
  assert len(before) == 1

  def never(i):
    raise AssertionError("rendered twice")

  np.testing.assert_array_equal(make(tmp_path, never)[3], render(3))
  assert miniature.tree(tmp_path) == before


def test_a_failure_half_way_leaves_nothing_and_the_next_call_starts_afresh(tmp_path):
  def fail(i):
    if i == 3:
      raise InputError("image 3 is bad")
    return np.full((SIZE, SIZE, 3), 99, np.uint8)

  with pytest.raises(InputError, match="image 3 is bad"):
    make(tmp_path, fail)
  assert not miniature.tree(tmp_path)
  np.testing.assert_array_equal(make(tmp_path)[:, 0, 0, 0], range(5))


def test_what_a_killed_program_left_is_never_used(tmp_path):
  """A kill leaves a temporary file, hidden beside the place it was meant for."""
  killed = threading.Event()

  def look(i):
    if not killed.is_set():
      killed.set()
      (half_written,) = (tmp_path / "pixels").glob("*.npy")
      left = half_written.with_name(half_written.name.replace("train-0123", "train-0123-left"))
      left.write_bytes(half_written.read_bytes())
    return render(i)

  np.testing.assert_array_equal(make(tmp_path, look)[:, 0, 0, 0], range(5))
  names = sorted(path.name for path in (tmp_path / "pixels").iterdir())
  assert names[0].startswith(".train-0123-left")
  assert names[1:] == ["train-0123.npy"]


def test_what_was_left_long_ago_is_removed_before_space_is_asked_for(tmp_path, monkeypatch):
  folder = tmp_path / "pixels"
  names = (".train-0123-0a1b2c3d.npy", ".train-0123-deadbeef.npy", ".test-0123-0a1b2c3d.npy")
  for name in names:
    miniature.write(folder / name, "half")
  for name in (names[0], names[2]):
    os.utime(folder / name, (0, time.time() - 3601))
  seen = []
  monkeypatch.setattr(pixels, "_check_space", lambda *_: seen.extend(folder.glob("*.npy")))
  make(tmp_path)
  assert sorted(path.name for path in seen) == sorted(names[1:]), (
    "a live writer's file and another file's stay"
  )
  make(tmp_path)
  assert sorted(miniature.tree(folder)) == sorted([*names[1:], "train-0123.npy"])


def test_of_two_at_once_one_makes_it_and_the_other_waits(tmp_path):
  together = threading.Barrier(2)
  rendered = []

  def both(_):
    together.wait(timeout=20)
    return make(tmp_path, lambda i: rendered.append(i) or render(i))

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    found = list(pool.map(both, range(2)))
  for array in found:
    np.testing.assert_array_equal(array[:, 0, 0, 0], range(5))
  assert sorted(rendered) == list(range(5))
  assert len(miniature.tree(tmp_path)) == 1


def damages(content, rng):
  """A pixel file's bytes in which something is wrong, by what it is."""
  middle = len(content) // 2
  flipped = bytearray(content)
  flipped[middle] ^= 1 << rng.integers(8)
  images = np.stack([render(i) for i in range(5)])
  former = io.BytesIO()
  np.save(former, images)
  return {
    "one bit": bytes(flipped),
    "a zeroed block": content[:middle] + bytes(40) + content[middle + 40 :],
    "all zero": content[:128] + bytes(len(content) - 128),
    "cut off": content[:-1],
    "empty": b"",
    "header": b"x" * 64 + content[64:],
    "the form without checksums": former.getvalue(),
    "another count": content.replace(b"(5,)", b"(4,)"),
  }


@pytest.mark.parametrize("kind", damages(bytes(200), np.random.default_rng(0)))
def test_a_damaged_file_is_made_anew_and_a_line_says_so(kind, tmp_path, caplog):
  make(tmp_path)
  (path,) = (tmp_path / "pixels").iterdir()
  whole = path.read_bytes()
  path.write_bytes(damages(whole, np.random.default_rng(1))[kind])
  np.testing.assert_array_equal(make(tmp_path), np.stack([render(i) for i in range(5)]))
  assert str(path) in caplog.text and "made anew" in caplog.text
  assert path.read_bytes() == whole


def test_every_bit_of_the_images_is_checked(tmp_path):
  make(tmp_path, count=1)
  (path,) = (tmp_path / "pixels").iterdir()
  whole = path.read_bytes()
  start = len(whole) - SIZE * SIZE * 3 - 4
  for place in range(start, len(whole)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    assert make(tmp_path, count=1)[0].tolist() == render(0).tolist()


def test_a_disk_that_runs_full_is_one_message_and_leaves_nothing(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "pwrite", full)
  with pytest.raises(InputError, match=r"cannot write .*No space left.*; free some space"):
    make(tmp_path)
  assert not miniature.tree(tmp_path)


def test_a_fingerprint_names_everything_given_and_the_code(monkeypatch):
  seen = {pixels.fingerprint("key", [1, 2], 8), pixels.fingerprint("key", [1, 3], 8)}
  seen |= {pixels.fingerprint("key", [1, 2], 9), pixels.fingerprint("other", [1, 2], 8)}
  assert pixels.fingerprint("key", [1, 2], 8) in seen
  monkeypatch.setattr(pixels, "_CODE", "other code")
  seen.add(pixels.fingerprint("key", [1, 2], 8))
  monkeypatch.setattr(pixels, "_DECODERS", ("another Pillow", "another libjpeg"))
  seen.add(pixels.fingerprint("key", [1, 2], 8))
  assert len(seen) == 6


def test_an_empty_set_and_a_cache_that_cannot_be_written(tmp_path):
  assert make(tmp_path, count=0).shape == (0, SIZE, SIZE, 3)
  place = miniature.write(tmp_path / "file", "not a folder")
  with pytest.raises(InputError, match=r"cannot write .*choose another place"):
    make(place)
