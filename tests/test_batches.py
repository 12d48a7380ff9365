"""Batches: every picture once, in order or shuffled by seed and epoch."""

import time

import jax
import jax.numpy as jnp
import miniature
import numpy as np
import pytest

from jprotop.data import batches, device_augment
from jprotop.data import dataset as dataset_lib
from jprotop.data.alterations import Scheme
from jprotop.data.dataset import load_dataset


@pytest.fixture(scope="module")
def split(tmp_path_factory):
  """Seven training images in two classes."""
  base = tmp_path_factory.mktemp("batches")
  root = miniature.make_folder(base / "images", train=(4, 3))
  data = load_dataset(
    "folder", directory=str(root), image_size=6, cache=base / "cache", validation_share=0
  )
  return data.train


def joined(epoch):
  """All batches of an epoch, one after the other."""
  parts = list(epoch)
  return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def epochs(split, **fields):
  return batches.host_epochs(split, **{"copies": 4, "batch_size": 6, "seed": 0, **fields})


def which(split, batch, copies, seed):
  """(image, copy) of every picture of a batch, found by its pixels."""
  known = {
    split.augmented(i, copy, seed).tobytes(): (i, copy)
    for i in range(len(split))
    for copy in range(copies)
  }
  assert len(known) == len(split) * copies
  return [known[picture.tobytes()] for picture in batch["image"]]


def test_in_order_gives_every_crop_once(split):
  found = list(batches.in_order(split, 3))
  assert [len(batch["label"]) for batch in found] == [3, 3, 1]
  whole = joined(found)
  assert whole["index"].tolist() == list(range(7))
  assert whole["label"].tolist() == split.label.tolist()
  assert whole["image"].dtype == np.uint8
  np.testing.assert_array_equal(whole["image"], split.pixels)


def test_in_order_of_indices(split):
  whole = joined(batches.in_order(split, 2, np.array([5, 0, 5])))
  assert whole["index"].tolist() == [5, 0, 5]
  assert whole["label"].tolist() == split.label[[5, 0, 5]].tolist()
  np.testing.assert_array_equal(whole["image"], split.pixels[[5, 0, 5]])


def test_to_float_spans_zero_to_one():
  found = batches.to_float(np.array([0, 51, 255], np.uint8))
  np.testing.assert_array_equal(found, np.float32([0, 0.2, 1]))


def test_an_epoch_holds_every_copy_of_every_image_once(split):
  whole = joined(epochs(split).epoch(0))
  pairs = which(split, whole, 4, 0)
  assert sorted(pairs) == [(i, copy) for i in range(7) for copy in range(4)]
  assert whole["index"].tolist() == [i for i, _ in pairs]
  assert whole["label"].tolist() == split.label[whole["index"]].tolist()


def test_the_last_batch_is_kept(split):
  sizes = [len(batch["label"]) for batch in epochs(split).epoch(0)]
  assert sizes == [6, 6, 6, 6, 4]
  assert epochs(split).plan.num_batches == 5
  assert epochs(split).plan.num_examples == 28


def test_the_order_is_a_function_of_seed_and_epoch(split):
  def order(seed, epoch):
    return which(split, joined(epochs(split, seed=seed).epoch(epoch)), 4, seed)

  assert order(0, 1) == order(0, 1)
  assert order(0, 0) != order(0, 1)
  assert order(0, 0) != order(1, 0)
  assert order(0, 0) != sorted(order(0, 0))
  # Epochs may be asked for in any order, as a continued run does.
  later = epochs(split)
  joined(later.epoch(5))
  assert which(split, joined(later.epoch(1)), 4, 0) == order(0, 1)


def test_made_anew_or_kept_the_pictures_are_the_same(split, monkeypatch):
  kept = joined(epochs(split).epoch(2))
  monkeypatch.setattr(dataset_lib, "MAX_STORED_COPIES_BYTES", 0)
  made_anew = joined(epochs(split).epoch(2))
  for key in kept:
    np.testing.assert_array_equal(kept[key], made_anew[key])


def test_no_copies_means_each_image_as_it_is(split):
  plain = epochs(split, copies=0)
  whole = joined(plain.epoch(0))
  assert plain.plan.num_examples == 7
  assert sorted(whole["index"]) == list(range(7))
  np.testing.assert_array_equal(whole["image"], split.pixels[whole["index"]])


def test_prefetched_keeps_the_order_and_passes_errors_on():
  def make(item, pool):
    time.sleep(0.01 * (item % 3))
    if item == 5:
      raise OSError("unplugged")
    return sum(pool.map(int, [item, 1]))

  found = []
  with pytest.raises(OSError, match="unplugged"):
    found.extend(batches.prefetched(make, list(range(9))))
  assert list(batches.prefetched(make, [3, 1, 2])) == [4, 2, 3]


def test_prefetched_is_only_a_little_ahead_and_stops_with_its_consumer():
  made = []
  source = batches.prefetched(
    lambda item, pool: made.append(item) or item, list(range(100)), ahead=2
  )
  assert next(source) == 0
  source.close()
  assert len(made) <= 4


# --- The remedy of App. F.2.


def coins(split, number, probability):
  """Of every example of an epoch: what it shows, and whether it was compressed."""
  scheme = Scheme("jpeg", 20)
  made = epochs(split, alteration=scheme, probability=probability, copies=2)
  batch = joined(made.epoch(number))
  plain, squeezed = split, split.altered(scheme)
  known = {}
  for i in range(len(split)):
    for copy in range(2):
      known[plain.augmented(i, copy, 0).tobytes()] = (i, copy), False
      known[squeezed.augmented(i, copy, 0).tobytes()] = (i, copy), True
  return dict(known[picture.tobytes()] for picture in batch["image"])


def test_every_copy_is_compressed_by_a_coin_that_is_tossed_in_every_epoch(split):
  first, again, second = (coins(split, number, 0.5) for number in (0, 0, 1))
  assert len(first) == 2 * len(split)
  assert first == again and first != second
  assert 2 <= sum(first.values()) <= 12  # Of 14, at even odds.


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_coin_has_its_probability(split, probability):
  assert set(coins(split, 0, probability).values()) == {bool(probability)}


def test_the_coin_changes_neither_order_nor_keys(split):
  plain = joined(epochs(split).epoch(3))
  tossed = joined(epochs(split, alteration=Scheme("jpeg", 20), probability=0.5).epoch(3))
  np.testing.assert_array_equal(plain["index"], tossed["index"])
  np.testing.assert_array_equal(plain["key"], tossed["key"])


def test_keys_are_new_for_every_image_and_epoch(split):
  made = epochs(split)
  keys = np.concatenate([joined(made.epoch(number))["key"] for number in (0, 1)])
  assert len(np.unique(keys, axis=0)) == len(keys)


def test_copies_made_on_the_device_are_those_of_device_augment(split):
  """Four of each crop, one of each kind, in the order of the host's epochs, the same every time."""
  made = batches.device_epochs(split, copies=4, batch_size=6, seed=0)
  crops = jax.device_put(made.renderer.shared)
  host, device = joined(epochs(split).epoch(3)), joined(made.epoch(3))
  for name in ("label", "index", "key"):
    np.testing.assert_array_equal(device[name], host[name])
  look = jax.jit(lambda batch: made.renderer.on_device(crops, batch))
  images = look({"example": device["example"]})
  assert images.shape == (28, 6, 6, 3) and images.min() >= 0 and images.max() <= 1
  augment = jax.jit(device_augment.augment)
  for row in (0, 5, 17):
    example = int(device["example"][row])
    key = jax.random.fold_in(jax.random.key(0), example)
    image, size = split.pixels[example // 4], split.box[example // 4, 2:].astype(np.int32)
    crop, kind = (jnp.asarray(image), jnp.asarray(size)), jnp.asarray(example % 4)
    wanted = augment(*crop, key, kind=kind)
    np.testing.assert_allclose(images[row], wanted, atol=1e-5)
  again = look({"example": np.sort(device["example"])})
  np.testing.assert_allclose(again, np.asarray(images)[np.argsort(device["example"])], atol=1e-6)


def test_images_that_come_with_a_batch_are_taken_as_they_are(split):
  batch = {"image": jnp.ones((2, 4, 4, 3))}
  renderer = epochs(split).renderer
  assert renderer.on_device(renderer.shared, batch) is batch["image"]
