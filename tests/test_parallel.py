"""Two devices give what one would: padding, sharding, and maps over examples."""

import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jprotop import parallel
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.networks.backbone import normalise


def batch_of(count):
  return {
    "image": np.arange(1.0, 3 * count + 1, dtype=np.float32).reshape(count, 3),
    "label": np.arange(1, count + 1, dtype=np.int32),
  }


def test_there_are_two_devices():
  assert parallel.num_devices() == 2


@given(count=st.integers(1, 9), missing=st.integers(0, 5))
def test_padding_keeps_the_rows_and_marks_what_it_adds(count, missing):
  batch = batch_of(count)
  padded = parallel.pad(batch, count + missing)
  assert padded["mask"].tolist() == [1] * count + [0] * missing
  assert padded["mask"].dtype == np.float32
  for key, value in batch.items():
    assert padded[key].dtype == value.dtype
    np.testing.assert_array_equal(padded[key][:count], value)
    assert not padded[key][count:].any()
    assert len(padded[key]) == count + missing
  assert "mask" not in batch


def test_padding_respects_a_mask_that_is_there():
  batch = {**batch_of(3), "mask": np.float32([1, 0, 1])}
  assert parallel.pad(batch, 4)["mask"].tolist() == [1, 0, 1, 0]


@given(share=st.integers(1, 5))
def test_unshard_undoes_shard_in_order(share):
  batch = batch_of(2 * share)
  sharded = parallel.shard(batch)
  assert sharded["image"].shape == (2, share, 3)
  np.testing.assert_array_equal(sharded["label"][0], batch["label"][:share])
  for key, value in parallel.unshard(sharded).items():
    np.testing.assert_array_equal(value, batch[key])


def test_a_placed_batch_is_padded_and_split():
  placed = parallel.place(batch_of(3), 6)
  assert placed["mask"].tolist() == [[1, 1, 1], [0, 0, 0]]
  assert placed["image"].shape == (2, 3, 3) and placed["label"].tolist() == [[1, 2, 3], [0, 0, 0]]
  for array in placed.values():
    assert len(array.sharding.device_set) == 2


def test_all_256_values_of_a_pixel_are_the_hosts_floats_on_the_device_and_after_it():
  """Also through a compiled program that normalises: it must not make a division of its own."""
  pixels = np.arange(256, dtype=np.uint8).reshape(2, 128, 1, 1).repeat(3, -1)
  floats = batches.to_float(pixels)
  placed = {
    name: parallel.place({"image": a}, 2)["image"]
    for name, a in (("uint8", pixels), ("float32", floats))
  }
  assert placed["uint8"].dtype == placed["float32"].dtype == np.float32
  np.testing.assert_array_equal(parallel.unshard(placed["uint8"]), floats)
  for backbone in ("resnet18", "efficientnet_lite0"):
    network = functools.partial(normalise, backbone=backbone)
    network = parallel.map_devices(network, split=(True,), split_outputs=True)
    found, wanted = (parallel.unshard(network(image)) for image in placed.values())
    np.testing.assert_array_equal(found, wanted)


def test_a_map_over_pixels_is_a_map_over_their_floats():
  """What is uint8 goes to the device as such; own and attacked images come as floats."""
  pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
  mapped = parallel.per_example(scaled, 2)
  found, wanted = (
    list(parallel.map_examples(mapped, {"factor": np.float32(3)}, iter([batch]), 6))
    for batch in ({**batch_of(5), "image": a} for a in (pixels, batches.to_float(pixels)))
  )
  np.testing.assert_array_equal(found[0]["sum"], wanted[0]["sum"])


@given(size=st.integers(1, 100))
def test_round_up_is_the_next_multiple(size):
  multiples = [n for n in range(0, 200, parallel.num_devices()) if n >= size]
  assert parallel.round_up(size) == multiples[0]


@pytest.mark.parametrize("size", [-2, 0, 1, 3, 81])
def test_a_batch_that_devices_do_not_divide(size):
  message = f"--config.training.batch_size={size} must be a positive multiple of the 2 devices"
  with pytest.raises(InputError, match=message):
    parallel.check_batch_size(size, "--config.training.batch_size")


@pytest.mark.parametrize("size", [2, 80])
def test_a_batch_that_devices_divide(size):
  parallel.check_batch_size(size, "--config.training.batch_size")


def scaled(power, shared, batch):
  """A function of single examples, with a static and a shared argument and two outputs."""
  return {
    "sum": shared["factor"] * (batch["image"] ** power).sum(axis=1),
    "label": batch["label"],
  }


@settings(deadline=None, max_examples=20)
@given(
  cuts=st.lists(st.integers(1, 4), min_size=1, max_size=5),
  size=st.sampled_from([4, 6]),
  power=st.just(2),
)
def test_a_map_over_examples_does_not_depend_on_batches(cuts, size, power):
  whole = batch_of(sum(cuts))
  ends = np.cumsum(cuts)[:-1]
  pieces = [dict(zip(whole, rows)) for rows in zip(*(np.split(v, ends) for v in whole.values()))]
  shared, mapped = {"factor": np.float32(3)}, parallel.per_example(scaled, power)
  found = list(parallel.map_examples(mapped, shared, iter(pieces), size))
  assert [len(piece["sum"]) for piece in found] == cuts
  np.testing.assert_array_equal(np.concatenate([p["label"] for p in found]), whole["label"])
  expected = 3 * (whole["image"].astype(np.float64) ** power).sum(axis=1)
  np.testing.assert_allclose(np.concatenate([p["sum"] for p in found]), expected, rtol=1e-6)


def test_a_second_map_of_the_same_function_traces_nothing():
  traces = []

  def counted(shared, batch):
    traces.append(1)
    return batch["label"] + shared

  for _ in range(3):
    mapped = parallel.per_example(counted)
    (found,) = parallel.map_examples(mapped, np.int32(1), iter([batch_of(3)]), 4)
    assert found.tolist() == [2, 3, 4]
  assert len(traces) == 1


def test_collectives_reach_all_devices():
  def gather(share, whole):
    total = parallel.psum(share.sum())
    return share * whole, (total, parallel.all_gather(share))

  mapped = parallel.map_devices(gather, split=(True, False), split_outputs=(True, False))
  own, (total, gathered) = mapped(parallel.shard(np.arange(4.0)), np.float32(10))
  np.testing.assert_array_equal(parallel.unshard(own), [0, 10, 20, 30])
  assert float(total) == 6
  np.testing.assert_array_equal(gathered, [[0, 1], [2, 3]])


def test_random_keys_belong_to_an_index_not_to_a_place():
  keys = parallel.key_array(0, np.array([5, 2, 9]))
  assert keys.dtype == np.uint32
  np.testing.assert_array_equal(parallel.key_array(0, np.array([9]))[0], keys[2])
  assert len({tuple(key) for key in parallel.key_array(0, np.arange(50))}) == 50
  assert not np.array_equal(parallel.key_array(1, np.array([5])), keys[:1])
  expected = jax.random.key_data(jax.random.fold_in(jax.random.key(0), 2))
  np.testing.assert_array_equal(keys[1], expected)


# --- The cores of a CPU as devices.


def devices_for(batch_size, **environment):
  program = (
    "from jprotop import parallel\n"
    f"parallel.use_cpu_cores({batch_size})\n"
    "print(parallel.num_devices())"
  )
  known = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
  done = subprocess.run(
    [sys.executable, "-c", program], env={**known, **environment}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  return int(done.stdout)


def test_cores_become_devices_that_divide_the_batch_and_have_enough_to_do():
  cores = len(os.sched_getaffinity(0))
  assert devices_for(240) == max(n for n in range(1, cores + 1) if 240 % n == 0 and n <= 30)
  assert devices_for(15) == 1  # Two devices do not divide it, three would have five each.


def test_whoever_chooses_the_devices_has_them():
  assert devices_for(240, JAX_NUM_CPU_DEVICES="3") == 3
  assert devices_for(240, XLA_FLAGS="--xla_force_host_platform_device_count=5") == 5
