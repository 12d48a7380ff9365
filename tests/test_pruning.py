"""Pruning: which prototypes go, what the network says without them, and the run that is written."""

import dataclasses

import jax
import numpy as np
import pytest
from commands import command

import jprotop
from jprotop.errors import InputError
from jprotop.experiments import prune
from jprotop.prototypes import push
from jprotop.runs import config as base
from jprotop.runs import run as runs
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.records import check_record
from jprotop.training import activations, copies, last_layer, phases, pruning

CLASSES = (0, 0, 1, 1, 2, 2)
# Classes of the nearest images of six prototypes; those of prototypes 1 and 4 are mostly others'.
LABELS = np.array(
  [[0, 0, 0, 1], [0, 1, 2, 1], [1, 1, 1, 1], [1, 0, 1, 2], [0, 1, 2, 0], [2, 2, 2, 2]]
)
KEPT = np.array([True, False, True, True, False, True])


@pytest.fixture(scope="module")
def opened(run):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JPROTOP_CACHE", str(run[1]))
    yield runs.open_run(run[0])


def test_a_prototype_stays_if_enough_neighbours_are_of_its_class():
  np.testing.assert_array_equal(pruning.choose(LABELS, CLASSES, threshold=2), KEPT)
  np.testing.assert_array_equal(
    pruning.choose(LABELS, CLASSES, threshold=4), [False, False, True, False, False, True]
  )


@pytest.mark.parametrize("threshold", [0, 5])
def test_a_threshold_that_cannot_be(threshold):
  with pytest.raises(InputError, match=f"threshold={threshold} must be 1 to 4"):
    pruning.choose(LABELS, CLASSES, threshold=threshold)


def test_something_must_be_left():
  with pytest.raises(InputError, match=r"none would be left; lower the threshold to 3"):
    pruning.choose(LABELS[[0, 1, 4]], (0, 0, 2), threshold=4)


def without_rows(variables, rows):
  weights = np.array(variables["params"]["last_layer"])
  weights[rows] = 0
  return {**variables, "params": {**variables["params"], "last_layer": weights}}


def test_the_kept_network_says_what_the_whole_one_says_with_rows_of_zeros(tiny):
  model, variables = tiny
  images = np.random.default_rng(0).random((4, 64, 64, 3)).astype(np.float32)
  origin = push.Provenance(
    image=np.arange(6),
    cell=np.zeros((6, 2), int),
    box=np.arange(24).reshape(6, 4),
    sq_dist=np.zeros(6),
  )
  smaller, fewer, origin = pruning.keep(model, variables, origin, KEPT)
  assert smaller.prototype_class == (0, 1, 1, 2)
  assert origin.image.tolist() == [0, 2, 3, 5] and origin.box[1].tolist() == [8, 9, 10, 11]
  found = jax.jit(smaller.apply)(fewer, images)
  wanted = jax.jit(model.apply)(without_rows(variables, [1, 4]), images)
  np.testing.assert_allclose(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)
  assert found.activations.shape == (4, 4)


def test_neighbours_are_the_nearest_training_images_of_any_class(opened):
  train = opened.seen.train
  out = jax.jit(opened.model.apply)(opened.variables, train.pixels / np.float32(255))
  nearest = np.asarray(out.sq_dist).min(axis=(1, 2))
  labels = pruning.neighbour_labels(opened, neighbours=4)
  for p, found in enumerate(labels):
    order = sorted(range(len(train)), key=lambda n: nearest[n, p])
    assert found.tolist() == [train.label[n] for n in order[:4]]
  assert (labels[:, 0] == np.array(CLASSES)).all()  # each was pushed onto its own class


# --- tuning


def tuned(opened, config, epochs):
  train = opened.seen.train
  return last_layer.tune(opened.model, opened.variables, train, config, epochs=epochs)


@pytest.mark.parametrize(
  ("network", "augment"),
  [("standard", "host"), ("altered", "host"), ("remedied", "host"), ("standard", "device")],
)
def test_tuning_on_activations_is_the_training_step_on_images(
  opened, monkeypatch, network, augment
):
  """The same batches in the same order, the last one short, the same coins, many groups."""
  changes = {
    "train.batch_size": 8,
    "train.last_layer": {"epochs": 1, "learning_rate": {"last_layer": 0.03}},
    "train.loss.l1": 0.05,  # so large that its absence would show
    "train.network": network,
    "train.data.augment": augment,
  }
  config = apply_changes(opened.config, changes)
  assert len(opened.seen.train) * config["train"]["data"]["copies"] == 30
  monkeypatch.setattr(activations, "_GROUP_BYTES", 500)
  fast = tuned(opened, config, 3)
  monkeypatch.setattr(copies, "MAX_MEMORY_BYTES", 0)  # a file, not memory
  filed = tuned(opened, config, 3)
  monkeypatch.setattr(activations, "is_stored", lambda *_: False)
  slow = tuned(opened, config, 3)
  before = np.asarray(opened.variables["params"]["last_layer"])
  after = np.asarray(slow["params"]["last_layer"])
  assert np.abs(after - before).max() > 0.05
  np.testing.assert_allclose(fast["params"]["last_layer"], after, atol=2e-4)
  np.testing.assert_array_equal(filed["params"]["last_layer"], fast["params"]["last_layer"])
  for found in (fast, slow):
    assert found["params"].keys() == opened.variables["params"].keys()
    rest = {**found, "params": {**found["params"], "last_layer": before}}
    jax.tree.map(np.testing.assert_array_equal, rest, {**opened.variables})


@pytest.mark.parametrize(
  "protocol, network, once",
  [
    ("paper", "standard", True),
    ("paper", "altered", True),
    ("paper", "remedied", True),
    ("paper", "adversarial", False),
    ("authors", "standard", False),
    ("authors", "remedied", False),
  ],
)
def test_activations_are_kept_only_where_no_pass_changes_them(protocol, network, once):
  plan = phases.make_phases(base.get_config().to_dict()["train"], protocol)
  config = {"train": {"protocol": protocol, "network": network}}
  stored = [activations.is_stored(config, phase) for phase in plan]
  assert stored == [False] * (len(plan) - 1) + [once]


# --- the command


def test_the_pruned_run_opens_and_says_what_it_should(opened, tmp_path, monkeypatch):
  monkeypatch.setattr(pruning, "neighbour_labels", lambda *_, **__: LABELS)
  numbers = prune.measure(opened, tmp_path / "new", threshold=2, neighbours=4, epochs=0)
  check_record(numbers, prune.Prune, "prune")
  assert numbers["pruned_from"] == str(opened.workdir)
  assert (numbers["num_pruned"], numbers["pruned"]) == (2, [1, 4])
  assert numbers["accuracy_pruned"] == numbers["accuracy_after"]
  purity = numbers["purity"]
  assert (purity["value"], purity["total"]) == ((3 + 4 + 2 + 4) / 16, 4)
  model, variables, info = jprotop.load(str(tmp_path / "new"))
  assert model.prototype_class == (0, 1, 1, 2) and info["finished"]
  for name, array in info["provenance"].as_arrays().items():
    np.testing.assert_array_equal(array, getattr(opened.provenance, name)[KEPT])
  images = opened.dataset.test.pixels[:4] / np.float32(255)
  found = jax.jit(model.apply)(variables, images).logits
  whole = without_rows(opened.variables, [1, 4])
  wanted = jax.jit(opened.model.apply)(whole, images).logits
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  assert runs.open_run(tmp_path / "new", opened.dataset).config == opened.config

  with pytest.raises(InputError, match="holds a run already"):
    prune.measure(opened, tmp_path / "new", epochs=0)


def test_a_class_may_lose_all_its_prototypes(opened, tmp_path, monkeypatch):
  labels = np.where(np.array(CLASSES)[:, None] == 2, 0, LABELS)
  monkeypatch.setattr(pruning, "neighbour_labels", lambda *_, **__: labels)
  numbers = prune.measure(opened, tmp_path, threshold=2, neighbours=4, epochs=2)
  told = "\n".join(prune.tell(numbers, tmp_path))
  assert f"classes left without a prototype: {opened.class_names[2]}" in told
  assert numbers["classes_without_prototypes"] == [opened.class_names[2]]
  assert numbers["accuracy_after"]["total"] == len(opened.dataset.test)


def test_what_cannot_be_pruned(opened, tmp_path):
  unfinished = dataclasses.replace(opened, info={**opened.info, "finished": False})
  with pytest.raises(InputError, match="has not finished its training"):
    prune.measure(unfinished, tmp_path / "new")
  with pytest.raises(InputError, match=r"16 nearest patches, .* 15 images"):
    prune.measure(opened, tmp_path / "new", neighbours=16)


def test_the_command_line(run, tmp_path):
  done = command("prune", f"--workdir={run[0]}", cache=run[1])
  assert done.returncode == 1 and "--out is missing" in done.stderr
  given = (f"--workdir={run[0]}", f"--out={tmp_path / 'new'}", "--threshold=1", "--epochs=3")
  done = command("prune", *given, cache=run[1])
  assert done.returncode == 0, done.stderr[-2000:]
  assert "Pruned 0 of 6 prototypes" in done.stdout
  assert (tmp_path / "new/results.json").exists()
