"""The whole pipeline on six small birds a class: what a run leaves, and that it can be killed."""

import dataclasses
import functools
import json
import logging
import re
import shutil

import jax
import numpy as np
import pytest
from tiny_network import TINY

import jprotop
from configs import cub_resnet18, cub_resnet34
from jprotop.attacks.budget import Budget
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.prototypes import accuracy, selectors
from jprotop.prototypes.see import Network, see
from jprotop.runs import checkpoints, config_checks, results
from jprotop.runs import config as base
from jprotop.runs import run as runs
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.history import read_history
from jprotop.runs.workdir import claim_workdir
from jprotop.training import activations, loop, phases, pretrained, steps
from jprotop.training.robust import Perturbation

PHASES = ("pretrain", "warm", "joint", "push", "last_layer")
EPOCHS = {"pretrain": 1, "warm": 1, "joint": 2, "push": 1, "last_layer": 2}


class Killed(BaseException):
  """Stands for a kill: nothing in the library catches it."""


def make_config(cache, **changes):
  """Three classes of six birds (two for validation), two prototypes a class, copies of two."""
  config = base.get_config()
  with config.unlocked():
    config.data.cache = str(cache)
    train, data = config.train, config.train.data
    data.update({"name": "toybirds", "image_size": 32, "validation_share": 1 / 3, "copies": 2})
    data.toy.update({"num_classes": 3, "images_per_class": 6, "size": 48})
    train.model.backbone = TINY["backbone"]
    train.model.prototypes_per_class = 2
    train.model.prototype_depth = 8
    train.batch_size = 10
    # The two devices of the tests do not divide these; they are rounded up.
    config.compute.update({"push_batch_size": 7, "evaluation_batch_size": 5})
    for phase, epochs in EPOCHS.items():
      if phase != "push":
        train[phase].epochs = epochs
    train.last_layer.learning_rate.last_layer = 1e-2
    for key, value in changes.items():
      config.update_from_flattened_dict({key: value})
  return config.to_dict()


def of_network(config, network):
  return {**config, "train": {**config["train"], "network": network}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
  """(workdir, dataset) of a finished run; tests must not change it."""
  workdir = tmp_path_factory.mktemp("finished") / "run"
  return workdir, loop.train(make_config(cache), str(workdir))


@pytest.fixture
def copy(run, tmp_path):
  """A workdir that a test may damage."""
  shutil.copytree(run[0], tmp_path / "run")
  return tmp_path / "run"


@pytest.fixture
def kill(monkeypatch):
  """kill(after): the program dies in the middle of the epoch that follows `after` whole ones."""
  original, original_groups = batches.Epochs.epoch, activations.groups

  def arrange(after):
    def groups(stored, plan, number):
      if number == after:
        raise Killed
      return original_groups(stored, plan, number)

    def epoch(self, number):
      for batch_number, batch in enumerate(original(self, number)):
        if number == after and batch_number == 2:
          raise Killed
        yield batch

    monkeypatch.setattr(batches.Epochs, "epoch", original if after is None else epoch)
    monkeypatch.setattr(activations, "groups", original_groups if after is None else groups)

  return arrange


def saved(workdir):
  """The latest checkpoint's arrays and info."""
  store = checkpoints.Checkpoints(workdir)
  found = store.restore(store.latest())
  store.close()
  return found


def assert_equal_trees(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def rows_of(workdir, **wanted):
  rows = read_history(workdir, jprotop.load(workdir)[2]["position"])
  return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


# --- What a run leaves.


def test_history_has_a_row_for_every_epoch(run):
  workdir, _ = run
  expected = [phase for phase in PHASES for _ in range(EPOCHS[phase])]
  first_of_epoch = {row["epoch"]: row["phase"] for row in rows_of(workdir)}
  assert first_of_epoch == dict(enumerate(expected))
  train = rows_of(workdir, split="train")
  assert [row["phase"] for row in train] == [phase for phase in expected if phase != "push"]
  for row in train:
    assert row["count"] == 3 * 4 * 2  # classes, images that are left, copies
    assert 0 <= row["accuracy"] <= 1
    assert row["loss"] > 0
  validation = rows_of(workdir, split="validation")
  assert [row["phase"] for row in validation] == expected
  assert all(row["count"] == 6 for row in validation)
  assert [row["phase"] for row in rows_of(workdir, split="test")] == ["push"]


def test_the_loss_is_the_sum_of_its_parts(run):
  (row,) = rows_of(run[0], phase="warm", split="train")
  # The last layer is as it starts: -0.5 from each of 6 prototypes to its two wrong classes.
  penalty = 1e-4 * 6 * 2 * 0.5
  costs = 0.8 * row["cluster_cost"] - 0.08 * row["separation_cost"]
  assert row["loss"] == pytest.approx(row["cross_entropy"] + costs + penalty, rel=1e-5)


def test_the_files_of_a_run(run, cache):
  workdir, _ = run
  assert json.loads((workdir / "config.json").read_text()) == make_config(cache)
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  assert steps == [6, 7]
  names = {path.name for path in workdir.iterdir()}
  made = {"checkpoints", "config.json", "history.jsonl", "pretrained.npz", "results.json"}
  assert names == made


def test_load_gives_the_network_of_the_best_last_layer_epoch(run):
  workdir, dataset = run
  model, variables, info = jprotop.load(str(workdir))
  assert info["class_names"] == dataset.class_names
  assert info["finished"] is True
  assert info["config"]["train"]["data"]["image_size"] == 32
  assert model.prototype_class == (0, 0, 1, 1, 2, 2)
  assert set(variables["params"]) == {"features", "add_on", "prototypes", "last_layer"}
  network = Network(model, variables)
  scores = see(network, dataset.validation, selectors.logits, batch_size=4)
  best = max(row["accuracy"] for row in rows_of(workdir, phase="last_layer", split="validation"))
  assert accuracy.accuracy(scores, dataset.validation.label)["value"] == best
  crop = batches.to_float(dataset.validation.pixels[:1])
  np.testing.assert_allclose(model.apply(variables, crop).logits, scores[:1], rtol=1e-4, atol=1e-4)


def test_prototypes_are_the_nearest_latent_patches_of_their_class(run):
  workdir, dataset = run
  model, variables, info = jprotop.load(str(workdir))
  train, provenance = dataset.train, info["provenance"]
  out = jax.jit(model.apply)(variables, batches.to_float(np.asarray(train.pixels)))
  latent, prototypes = np.asarray(out.latent), np.asarray(variables["params"]["prototypes"])
  for j, (image, (row, column)) in enumerate(zip(provenance.image, provenance.cell)):
    assert train.label[image] == model.prototype_class[j]
    np.testing.assert_allclose(prototypes[j], latent[image, row, column], rtol=1e-4, atol=1e-5)
    # Exactly there, and nowhere better: the highest similarity on an image that it came from.
    assert out.activations[image, j] == pytest.approx(np.log(1 / 1e-4), abs=0.2)
  y0, y1, x0, x1 = provenance.box.T
  assert np.all((y0 >= 0) & (y0 < y1) & (y1 <= 32) & (x0 >= 0) & (x0 < x1) & (x1 <= 32))
  push = next(row for row in rows_of(workdir, phase="push") if "num_prototypes" in row)
  assert push["num_prototypes"] == 6
  places = np.column_stack([provenance.image, provenance.cell]).tolist()
  assert push["distinct"] == len(set(map(tuple, places)))
  assert push["mean_sq_dist"] == pytest.approx(provenance.sq_dist.mean())


def test_results_that_a_killed_training_did_not_come_to_write_are_written(copy, cache):
  """It was killed after its last checkpoint; another command may have measured it since."""
  whole = results.read_results(copy)
  (copy / "results.json").unlink()
  loop.train(make_config(cache), str(copy))
  assert results.read_results(copy)["data"] == whole["data"]
  (copy / "results.json").unlink()
  results.update_results(copy, make_config(cache), "accuracy", {})
  loop.train(make_config(cache), str(copy))
  assert results.read_results(copy)["environment"].keys() == {"accuracy", "train"}


def test_a_finished_run_is_left_as_it_is(copy, cache):
  before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
  loop.train(make_config(cache), str(copy))
  assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before


# --- Killed and continued.


def test_a_run_killed_again_and_again_ends_bit_for_bit_the_same(run, cache, tmp_path, kill):
  """In the middle of joint (Adam's state is needed), right after push, within the last layer."""
  workdir, config = tmp_path / "killed", make_config(cache)
  for after in (3, 5, 6):
    kill(after)
    with pytest.raises(Killed):
      loop.train(config, str(workdir))
    assert saved(workdir)[1]["position"]["epochs_done"] == after
    assert not jprotop.load(str(workdir))[2]["finished"]
  kill(None)
  loop.train(config, str(workdir))
  (arrays, info), (expected_arrays, expected_info) = saved(workdir), saved(run[0])
  assert_equal_trees(arrays, expected_arrays)
  assert info == expected_info
  assert (workdir / "history.jsonl").read_text() == (run[0] / "history.jsonl").read_text()


def test_rows_of_an_epoch_that_was_not_saved_are_dropped(copy, cache):
  """A kill between a row of history and its checkpoint leaves a row, perhaps half of one."""
  whole = (copy / "history.jsonl").read_text()
  with open(copy / "history.jsonl", "a") as file:
    file.write('{"phase": "last_layer", "ep')
  loop.train(make_config(cache), str(copy))
  assert (copy / "history.jsonl").read_text() == whole


# --- Errors.


def test_other_images_under_the_same_config_are_refused(run, copy, cache, monkeypatch):
  """A class renamed, or an image added, must not be taken for the data the run knows."""
  _, dataset = run
  other = dataclasses.replace(dataset, class_names=["a", "b", "c"])
  monkeypatch.setattr(runs, "load_dataset", lambda *_, **__: other)
  with pytest.raises(InputError, match="does not hold the images"):
    loop.train(make_config(cache), str(copy))
  with pytest.raises(InputError, match="does not hold the images"):
    runs.dataset_of(jprotop.load(str(copy))[2])


@pytest.mark.parametrize("changes", [{}, {"measure.attack.eps": 0.1}, {"train.seed": 1}])
def test_two_trainings_do_not_share_a_workdir(copy, cache, changes):
  """The one that is refused changes nothing of the other's."""
  text = (copy / "config.json").read_text()
  holds = claim_workdir(copy, json.loads(text))
  with holds:
    held = (copy / "config.json").read_text()
    with pytest.raises(InputError, match="another training is writing"):
      loop.train(make_config(cache, **changes), str(copy))
    assert (copy / "config.json").read_text() == held


@pytest.mark.parametrize(
  "key, value",
  [
    ("train.model.backbone", "resnet81"),
    ("train.seed", -1),
    ("train.data.copies", -1),
    ("train.data.image_size", 16),
    ("measure.attack.eps", 2.0),
    ("measure.seed", -1),
    ("measure.alteration.parameter", 0.0),
    ("compute.attack_batch_size", -1),
    ("compute.push_batch_size", 0),
    ("train.batch_size", 7),
    ("train.joint.decay_every", 0),
    ("train.remedy.probability", 1.5),
  ],
)
def test_bad_values_are_refused_before_anything_is_written(cache, tmp_path, key, value):
  named = "quality" if key.endswith("parameter") else key.rpartition(".")[2]
  with pytest.raises(InputError, match=named):
    loop.train(make_config(cache, **{key: value}), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_another_config_in_the_same_workdir_names_the_differing_keys(copy, cache):
  before = (copy / "history.jsonl").read_text()
  config = make_config(cache, **{"train.warm.epochs": 4, "train.seed": 1})
  with pytest.raises(InputError) as caught:
    loop.train(config, str(copy))
  lines = str(caught.value).splitlines()
  assert "choose another --workdir" in lines[0]
  assert [line.strip() for line in lines[1:]] == [
    "train.seed: there 0, given 1",
    "train.warm.epochs: there 1, given 4",
  ]
  assert (copy / "history.jsonl").read_text() == before


def test_a_training_batch_that_the_devices_do_not_divide(cache, tmp_path):
  config = make_config(cache, **{"train.batch_size": 7})
  match = r"--config\.train\.batch_size=7 must be .*multiple of the 2 devices"
  with pytest.raises(InputError, match=match):
    loop.train(config, str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


@pytest.fixture
def any_rate(monkeypatch):
  """Rates that are refused as too large: they diverge at once."""
  monkeypatch.setattr(config_checks, "_problems", lambda config: {})


def test_training_that_diverges_stops_and_the_last_checkpoint_still_loads(
  cache, tmp_path, any_rate
):
  rate = {
    "train.warm.learning_rate.add_on": 1e38,
    "train.warm.learning_rate.prototypes": 1e38,
  }
  with pytest.raises(
    InputError, match=r"no longer finite in phase warm, epoch 1; .*Lower train\.warm"
  ):
    loop.train(make_config(cache, **rate), str(tmp_path / "run"))
  model, variables, info = jprotop.load(str(tmp_path / "run"))
  assert info["position"]["epochs_done"] == 1
  assert info["provenance"] is None
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
  assert model.num_classes == 3


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_network_that_the_last_step_ruined_is_not_saved(cache, tmp_path, any_rate):
  """With one batch an epoch the loss is still finite when the parameters no longer are."""
  changes = {
    "train.pretrain.epochs": 0,
    "train.warm.learning_rate.add_on": 1e39,
    "train.data.copies": 0,
    "train.data.validation_share": 0.5,
  }
  with pytest.raises(InputError, match="no longer finite in phase warm, epoch 1"):
    loop.train(make_config(cache, **changes), str(tmp_path / "run"))
  with pytest.raises(InputError, match="holds no finished epoch yet"):
    jprotop.load(str(tmp_path / "run"))


def test_what_a_killed_training_was_writing_is_removed_by_the_next(copy, cache):
  (copy / "checkpoints" / "7.orbax-checkpoint-tmp" / "model").mkdir(parents=True)
  for name in (".config-0123abcd.json", ".pretrained-0123abcd.npz", ".history-0123abcd.jsonl"):
    (copy / name).write_text("half")
  loop.train(make_config(cache), str(copy))
  left = [path.name for path in copy.rglob("*") if "0123abcd" in path.name or "-tmp" in path.name]
  assert left == []


@pytest.mark.parametrize("item", ["model", "info"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_still_loads(item, copy, cache):
  for path in (copy / "checkpoints" / "7" / item).rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
  for attempt in (
    lambda: jprotop.load(str(copy)),
    lambda: loop.train(make_config(cache), str(copy)),
  ):
    with pytest.raises(InputError, match=r"checkpoint 7 in .* cannot be read .*delete its folder"):
      attempt()
  shutil.rmtree(copy / "checkpoints" / "7")
  assert jprotop.load(str(copy))[2]["position"]["epochs_done"] == 6


def test_folders_that_hold_no_run(tmp_path, copy):
  with pytest.raises(InputError, match=r"holds no run \(no config.json\)"):
    jprotop.load(str(tmp_path / "nowhere"))
  (copy / "config.json").write_text("{")
  with pytest.raises(InputError, match=r"config.json is not JSON"):
    jprotop.load(str(copy))
  (copy / "config.json").write_text(json.dumps({"variant": "standard", "seed": 0, "data": {}}))
  with pytest.raises(InputError, match=r"holds a run of jprotop 0\.1, .* train it again"):
    jprotop.load(str(copy))
  (copy / "config.json").unlink()
  with pytest.raises(InputError, match=r"holds checkpoints but no config.json"):
    claim_workdir(copy, {"data": {}}).__enter__()


def edit_config(copy, **changes):
  """Changes a run's config.json as a text editor does."""
  config = apply_changes(json.loads((copy / "config.json").read_text()), changes)
  (copy / "config.json").write_text(json.dumps(config))
  return config


@pytest.mark.parametrize(
  ("key", "there", "value"),
  [
    ("train.model.similarity", "log", "linear"),
    ("train.model.prototypes_per_class", 2, 5),
    ("train.data.image_size", 32, 64),
    ("train.protocol", "paper", "authors"),
    ("train.seed", 0, 1),
  ],
)
def test_a_config_that_is_not_the_weights_own_is_not_believed(copy, key, there, value):
  config = edit_config(copy, **{key: value})
  for attempt in (lambda: jprotop.load(str(copy)), lambda: loop.train(config, str(copy))):
    with pytest.raises(InputError, match=rf"{re.escape(key)}: there {there!r}, given {value!r}"):
      attempt()
  edit_config(copy, **{key: there})
  assert "trained" not in jprotop.load(str(copy))[2]


def test_what_is_only_measured_may_be_edited(copy):
  edit_config(copy, **{"measure.attack.eps": 0.25, "train.alteration.parameter": 50.0})
  assert jprotop.load(str(copy))[2]["config"]["measure"]["attack"]["eps"] == 0.25


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"train.seed": "0"}, r"train\.seed=0 must be a whole number"),
    ({"train.loss.l1": float("nan")}, r"train\.loss\.l1=nan must be a number"),
    ({"measure.attack.num_steps": 10**400}, r"measure\.attack\.num_steps=1000.* must be"),
    ({"train.model": {}}, r"the config has no train\.model\.addon"),
    ({"train": []}, "the config has no train"),
    ({"data.dir": None}, r"data\.dir=a value of type NoneType must be a text"),
  ],
)
def test_a_config_that_is_damaged_names_the_file_and_what_is_wrong(copy, changes, words):
  edit_config(copy, **changes)
  with pytest.raises(InputError, match=r"config\.json is damaged.*; bring it back, or") as caught:
    jprotop.load(str(copy))
  assert re.search(words, str(caught.value))


def test_a_run_from_before_a_key_came_did_what_its_default_does(copy):
  config = json.loads((copy / "config.json").read_text())
  del config["train"]["frozen"], config["train"]["init"]["add_on"]
  (copy / "config.json").write_text(json.dumps(config))
  found = jprotop.load(str(copy))[2]["config"]["train"]
  assert found["frozen"] == {"parts": 0, "batch_norm": False}
  assert found["init"]["add_on"] == "fan_out"


def test_a_checkpoint_of_another_network_lists_what_does_not_fit(copy, monkeypatch):
  edit_config(copy, **{"train.model.prototypes_per_class": 5})
  monkeypatch.setattr(runs, "check_trained", lambda *_: None)  # as of an earlier version
  with pytest.raises(InputError, match=r"params/prototypes: shape \(6, 8\) where \(15, 8\)"):
    jprotop.load(str(copy))


# --- The other networks of the paper.


@pytest.fixture(scope="module")
def adversarial(cache, tmp_path_factory):
  """(workdir, the perturbations that its steps were made with) of an adversarial training."""
  workdir, made, original = tmp_path_factory.mktemp("alone") / "run", [], steps.perturbed_images
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(steps, "perturbed_images", lambda *a: (made.append(a[1]), original(*a))[1])
    steps.phase_step.cache_clear()
    loop.train(of_network(make_config(cache), "adversarial"), workdir)
  return workdir, made


@pytest.mark.parametrize("network", ["remedied", "adversarial"])
def test_a_shared_pretraining_changes_nothing_but_the_time(
  run, cache, tmp_path, network, request, caplog
):
  config = of_network(make_config(cache), network)
  alone, sharing = tmp_path / "alone", tmp_path / "sharing"
  if network == "adversarial":
    alone, _ = request.getfixturevalue("adversarial")
  else:
    loop.train(config, alone)
  with caplog.at_level(logging.INFO, "jprotop"):
    loop.train(config, sharing, dataset=run[1], siblings=[tmp_path / "nothing", run[0]])
  assert "pretrained already" in caplog.text
  for (model, info), (other, other_info) in [(saved(alone), saved(sharing))]:
    assert_equal_trees(model, other)
    assert info == other_info
  assert (alone / "history.jsonl").read_text() == (sharing / "history.jsonl").read_text()
  standard, _ = saved(run[0])
  assert not np.array_equal(standard["params"]["prototypes"], model["params"]["prototypes"])


@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_a_damaged_pretrained_backbone_is_named_and_not_used(copy, cache, tmp_path, where):
  path = copy / "pretrained.npz"
  content = bytearray(path.read_bytes())
  content[int(where * len(content))] ^= 16
  path.write_bytes(content)
  config = of_network(make_config(cache), "remedied")
  with pytest.raises(InputError, match=r"pretrained\.npz .*; delete it, and the backbone is"):
    loop.train(config, tmp_path / "sharing", siblings=[copy])


def test_weights_that_were_put_into_a_pretrained_backbone_are_not_used(copy, cache, run):
  path = copy / "pretrained.npz"
  with np.load(path) as file:
    arrays = dict(file)
  key = next(key for key in arrays if key.startswith("params/"))
  np.savez(path, **{**arrays, key: arrays[key] + 1})
  name = pretrained.fingerprint(make_config(cache), run[1].identity)
  with pytest.raises(InputError, match=r"pretrained\.npz is damaged"):
    pretrained.find_pretrained([copy], name)


def test_another_pretraining_is_not_shared(run, cache, tmp_path):
  name = pretrained.fingerprint(make_config(cache), run[1].identity)
  assert pretrained.find_pretrained([run[0]], name) is not None
  for change in ({"train.seed": 1}, {"train.data.copies": 3}, {"train.pretrain.epochs": 2}):
    other = pretrained.fingerprint(make_config(cache, **change), run[1].identity)
    assert pretrained.find_pretrained([run[0]], other) is None
  changes = {"train.alteration.parameter": 50.0, "train.loss.cluster": 0.5, "data.dir": "elsewhere"}
  same = make_config(cache, **changes)
  for network in ("standard", "remedied", "adversarial"):
    assert pretrained.fingerprint(of_network(same, network), run[1].identity) == name
  # It would have learnt its classes without the artefacts that it is to be misled by.
  assert pretrained.fingerprint(of_network(same, "altered"), run[1].identity) != name


def test_an_altered_network_is_trained_pushed_and_opened_on_its_own_kind_of_images(
  cache, tmp_path, monkeypatch
):
  seen = []
  original = batches.HostRenderer.__init__

  def noted(self, plan, versions):
    seen.extend(versions)
    original(self, plan, versions)

  monkeypatch.setattr(batches.HostRenderer, "__init__", noted)
  loop.train(of_network(make_config(cache), "altered"), tmp_path / "run")
  opened = runs.open_run(tmp_path / "run")
  assert opened.scheme.parameter == 20 and len(opened.scheme.classes) == 1  # Half of three.
  assert opened.dataset.train.scheme is None and opened.seen.train.scheme == opened.scheme
  assert {split.scheme for split in seen} == {opened.scheme}  # In the pretraining too.
  nearest = opened.provenance.image
  latent = jax.jit(functools.partial(opened.model.apply, method="latent"))(
    opened.variables, batches.to_float(opened.seen.train.pixels[nearest])
  )
  rows, columns = opened.provenance.cell.T
  patches = np.asarray(latent)[np.arange(len(nearest)), rows, columns]
  np.testing.assert_allclose(patches, opened.variables["params"]["prototypes"], atol=1e-4)


def test_adversarial_training_sees_no_clean_image(adversarial):
  # One step each of warm, joint and last layer; the pretraining sees the images as they are.
  budget = Budget(eps=8 / 255, step_size=10 / 255, num_steps=1)
  workdir, made = adversarial
  assert made == [Perturbation("fast_fgsm", budget)] * 3
  rows = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
  attacked = [row["phase"] for row in rows if "pgd_accuracy" in row]
  assert attacked == ["warm", "joint", "joint", "last_layer"], "after each adversarial epoch"


def test_the_adversarial_network_has_last_layer_passes_of_its_own(cache):
  config = make_config(cache, **{"train.adversarial.last_layer_epochs": 1})

  def epochs(network):
    return {p.name: p.epochs for p in phases.phases_of(of_network(config, network))}

  assert epochs("standard") == EPOCHS
  assert epochs("adversarial") == {**EPOCHS, "last_layer": 1}
  config = make_config(cache, **{"train.adversarial.joint_epochs": 7})
  assert epochs("standard") == EPOCHS
  assert epochs("adversarial") == {**EPOCHS, "last_layer": 1, "joint": 7}


@pytest.mark.parametrize("config", [cub_resnet18, cub_resnet34])
def test_adversarial_training_takes_the_paper_s_ten_epochs(config):
  """App. F.1: the networks of Table 3."""
  plan = phases.phases_of(config.get_config("adversarial").to_dict())
  epochs = {phase.name: phase.epochs for phase in plan}
  assert epochs["warm"] + epochs["joint"] == 10


def test_a_training_goes_on_under_settings_that_it_does_not_depend_on(run, cache, copy):
  settings = {
    "train.alteration.parameter": 50.0,
    "train.remedy.probability": 0.25,
    "train.adversarial.eps": 0.1,
    "measure.attack.eps": 0.1,
    "measure.seed": 7,
    "compute.push_batch_size": 3,
  }
  config = make_config(cache, **settings)
  loop.train(config, copy)
  # For the network that sees those images it does matter.
  (copy / "config.json").write_text(json.dumps(of_network(make_config(cache), "altered")))
  with (
    pytest.raises(InputError, match=r"train\.alteration\.parameter: there 20\.0, given 50\.0"),
    claim_workdir(copy, of_network(config, "altered")),
  ):
    pass


def test_a_data_set_opened_at_another_size_is_taken_at_the_run_s_own(run):
  opened = runs.open_run(run[0], run[1].at_size(16))
  assert opened.dataset.train.image_size == 32
  assert opened.dataset.identity == run[1].identity


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train.data.augment": "gpu"}, "train.data.augment='gpu' must be host or device"),
    (
      {"train.data.augment": "device", "train.network": "altered"},
      "train.data.augment=device cannot make the images of the altered network",
    ),
    (
      {"train.data.augment": "device", "train.network": "remedied"},
      "train.data.augment=device cannot make the images of the remedied network",
    ),
  ],
)
def test_copies_that_cannot_be_made_are_refused(cache, tmp_path, changes, message):
  with pytest.raises(InputError, match=message):
    loop.train(make_config(cache, **changes), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_an_unknown_network_is_refused(cache, tmp_path):
  with pytest.raises(InputError, match=r"network='robust' is not known; .* standard, altered, rem"):
    loop.train(of_network(make_config(cache), "robust"), tmp_path / "run")


def test_a_config_that_the_data_do_not_fit_leaves_no_run(cache, tmp_path):
  config = make_config(cache, **{"train.network": "altered", "train.alteration.classes": "0,7"})
  with pytest.raises(InputError, match="label 7 does not exist; there are 3 classes"):
    loop.train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_where_the_images_of_a_run_should_be_is_said(run, tmp_path):
  info = jprotop.load(run[0])[2]
  changes = {"train.data.name": "folder", "data.dir": str(tmp_path / "gone")}
  moved = {**info, "config": apply_changes(info["config"], changes)}
  with pytest.raises(InputError, match=r"(?s)gone' is not a folder.*If they were moved, give the"):
    runs.dataset_of(moved)
