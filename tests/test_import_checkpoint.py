"""Checkpoints as runs: what is read and written, what every command makes of it, and errors."""

import json
import shutil
from pathlib import Path

import conftest
import jax
import miniature
import numpy as np
import pytest
from commands import command
from PIL import Image

import jprotop
from configs import base, tiny
from jprotop import regions
from jprotop.cli import study
from jprotop.errors import InputError
from jprotop.experiments import (
  EXPERIMENTS,
  accuracy,
  alteration,
  ensemble,
  explain,
  head_on_stomach,
  metrics,
  prune,
  success_rate,
  training,
  vanishing_head,
)
from jprotop.prototypes.protopnet import ProtoPNet
from jprotop.runs import run as runs
from jprotop.runs.records import check_record
from jprotop.torch_io import export, names
from jprotop.training import importing

SIZE = 64


def make_config(**changes):
  config = base.get_config()
  with config.unlocked():
    config.update_from_flattened_dict({"train.data.image_size": SIZE, **changes})
  return config.to_dict()


def write_network(path, model):
  """A .pth file of a network that is drawn; returns its variables."""
  variables = conftest.drawn_variables(model, SIZE)
  export.write_state_dict(path, names.state_dict_of(model, variables))
  return variables


def assert_equal_trees(a, b):
  jax.tree.map(np.testing.assert_array_equal, dict(a), dict(b))


# --- without data


@pytest.fixture(scope="module")
def pruned():
  """A network of three classes whose six prototypes are not equally many."""
  return ProtoPNet("resnet_small", 3, (0, 0, 0, 1, 2, 2), 16, "bottleneck")


@pytest.fixture(scope="module")
def checkpoint(pruned, tmp_path_factory):
  """(file, variables) of it."""
  path = tmp_path_factory.mktemp("torch") / "10push0.7596.pth"
  return path, write_network(path, pruned)


@pytest.fixture(scope="module")
def bare(checkpoint, tmp_path_factory):
  """The run of that file."""
  workdir = tmp_path_factory.mktemp("runs") / "bare"
  importing.import_checkpoint(checkpoint[0], workdir, make_config())
  return runs.open_run(workdir)


def test_a_checkpoint_becomes_a_run(checkpoint, bare, pruned):
  model, variables, info = jprotop.load(bare.workdir)
  assert model == pruned
  assert_equal_trees(variables, checkpoint[1])
  assert info["finished"] and info["provenance"] is None and info["data"] is None
  assert info["class_names"] == ["class 0", "class 1", "class 2"]
  found = info["imported"]
  assert (found["file"], found["form"]) == ("10push0.7596.pth", "a state dict, zip form")
  assert len(found["sha256"]) == 64
  assert found["classes_from"].startswith("the last layer's weights")
  assert found["sources"] == "not known: no data were given"
  saved = json.loads((bare.workdir / "config.json").read_text())
  assert saved["train"]["model"]["prototypes_per_class"] == 3
  assert saved["train"]["model"]["addon"] == "bottleneck"
  assert saved["train"]["data"]["image_size"] == SIZE


@pytest.fixture
def own_images(tmp_path):
  """(--images, pixels) of an array, and of image files."""
  rng = np.random.default_rng(0)
  array = rng.random((3, SIZE, SIZE, 3), np.float32)
  np.save(tmp_path / "x.npy", array)
  pixels = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
  for name, image in zip("ab", pixels):
    Image.fromarray(image).save(tmp_path / f"{name}.png")
  files = f"{tmp_path / 'a.png'},{tmp_path / 'b.png'}"
  return (str(tmp_path / "x.npy"), array), (files, pixels / np.float32(255))


@pytest.mark.parametrize("kind", [0, 1], ids=["array", "files"])
def test_an_imported_network_explains_images(bare, own_images, tmp_path, kind):
  images, pixels = own_images[kind]
  explain.measure(bare, tmp_path, images=images, num_prototypes=4)
  with np.load(tmp_path / "explain.npz") as file:
    record = dict(file)
  out = jax.jit(bare.model.apply)(bare.variables, pixels)
  for name in ("logits", "activations", "sq_dist", "similarity_map"):
    np.testing.assert_allclose(record[name], getattr(out, name), rtol=1e-4, atol=1e-5)
  assert len(record["image_id"]) == len(pixels)
  for i, top in enumerate(record["top_prototypes"]):
    by_activation = np.argsort(-record["activations"][i], kind="stable")
    assert top.tolist() == by_activation[:4].tolist()
    for box, p in zip(record["boxes"][i], top):
      own = record["similarity_map"][i, :, :, p]
      assert tuple(box) == regions.high_activation_box(own, SIZE, SIZE)
  told = json.loads((tmp_path / "explain.json").read_text())["images"][0]
  assert told["predicted_class"] == f"class {record['logits'][0].argmax()}"
  assert [item["source"] for item in told["top_prototypes"]] == [None] * 4
  assert (tmp_path / "figures/explain_0.png").exists()


def test_an_imported_network_is_attacked_on_images(bare, own_images, tmp_path):
  opened = runs.open_run(bare.workdir, changes={"measure.attack.num_steps": 1})
  attacked = head_on_stomach.measure(opened, tmp_path, images=own_images[0][0])
  assert attacked["num_images"] + len(attacked["not_attacked"]) == 3
  assert attacked["num_images"] and (tmp_path / "attack.npz").exists()
  assert (tmp_path / "figures/head_on_stomach_0.png").exists()


@pytest.mark.parametrize(
  "module, given",
  [
    (accuracy, {}),
    (ensemble, {"members": []}),
    (explain, {}),
    (explain, {"images": "3"}),
    (explain, {"images": "x.npy", "nearest": 1}),
    (head_on_stomach, {}),
    (vanishing_head, {}),
    (metrics, {}),
    (success_rate, {}),
    (alteration, {}),
    (prune, {}),
  ],
)
def test_what_needs_images_says_so(bare, tmp_path, module, given):
  match = r"imported without its images; import it again, .* --config.data.dir=DIR"
  with pytest.raises(InputError, match=match):
    module.measure(bare, tmp_path / "out", **given)
  assert not list(tmp_path.rglob("*.npz"))


# --- with a folder of images, as ProtoPNet's code leaves it


@pytest.fixture(scope="module")
def cropped(tmp_path_factory):
  """A folder of train_cropped/ and test_cropped/; four and three images to train on."""
  root = miniature.make_folder(tmp_path_factory.mktemp("images"), train=(4, 3), test=(2, 1))
  for name in ("train", "test"):
    (root / name).rename(root / f"{name}_cropped")
  return root


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
  """(file, model, variables) of a network for it."""
  model = ProtoPNet("resnet_small", 2, (0, 0, 1, 1), 8)
  path = tmp_path_factory.mktemp("torch") / "two.pth"
  return path, model, write_network(path, model)


@pytest.fixture(scope="module")
def folder_config(cropped, tmp_path_factory):
  cache = str(tmp_path_factory.mktemp("cache"))
  data = {"train.data.name": "folder", "data.dir": str(cropped), "data.cache": cache}
  return make_config(**data, **{"compute.push_batch_size": 3})


@pytest.fixture(scope="module")
def searched(two_classes, folder_config, tmp_path_factory):
  """The run of that network with those images."""
  workdir = tmp_path_factory.mktemp("runs") / "searched"
  importing.import_checkpoint(two_classes[0], workdir, folder_config)
  return runs.open_run(workdir)


def test_sources_are_searched_for_where_nothing_tells_them(searched, two_classes):
  _, model, variables = two_classes
  train = searched.dataset.train
  assert searched.class_names == ["ape", "bee"] and len(searched.dataset.test) == 3
  assert train.image_id[3:5] == ["train_cropped/ape/ape_3.jpg", "train_cropped/bee/bee_0.jpg"]
  out = jax.jit(model.apply)(variables, train.pixels / np.float32(255))
  for p, label in enumerate(model.prototype_class):
    own = np.where(train.label[:, None, None] == label, out.sq_dist[..., p], np.inf)
    image, *cell = np.unravel_index(own.argmin(), own.shape)
    assert searched.provenance.image[p] == image
    assert searched.provenance.cell[p].tolist() == cell
    box = regions.high_activation_box(np.asarray(out.similarity_map)[image, ..., p], SIZE, SIZE)
    assert np.abs(np.subtract(searched.provenance.box[p], box)).max() <= 1
    assert searched.provenance.sq_dist[p] == pytest.approx(own.min(), rel=1e-3)
  sources = searched.info["imported"]["sources"]
  assert sources == "the nearest training patches of their classes; 0 of 4 lie on them"


# Index of the image (the fourth is the first bee), y0, y1, x0, x1, and the label.
BOXES = np.array(
  [[2, 0, 9, 3, 40, 0], [0, 5, 6, 0, 1, 0], [4, 0, 64, 0, 64, 1], [6, 1, 2, 3, 4, 1]]
)


def with_boxes(rows, tmp_path, two_classes, folder_config):
  np.save(tmp_path / "bb10.npy", rows)
  given = {"boxes": tmp_path / "bb10.npy"}
  importing.import_checkpoint(two_classes[0], tmp_path / "run", folder_config, **given)
  return jprotop.load(tmp_path / "run")[2]


@pytest.mark.parametrize("columns, kind", [(6, np.float64), (5, np.int32)])
def test_boxes_tell_where_prototypes_come_from(
  columns, kind, tmp_path, two_classes, folder_config, searched
):
  info = with_boxes(BOXES[:, :columns].astype(kind), tmp_path, two_classes, folder_config)
  origin = info["provenance"]
  np.testing.assert_array_equal(origin.image, BOXES[:, 0])
  np.testing.assert_array_equal(origin.box, BOXES[:, 1:5])
  _, model, variables = two_classes
  pixels = searched.dataset.train.pixels[BOXES[:, 0]] / np.float32(255)
  sq_dist = np.asarray(jax.jit(model.apply)(variables, pixels).sq_dist)
  for p in range(4):
    own = sq_dist[p, ..., p]
    assert origin.cell[p].tolist() == list(np.unravel_index(own.argmin(), own.shape))
    assert origin.sq_dist[p] == pytest.approx(own.min(), rel=1e-3)
  assert info["imported"]["sources"].startswith("bb10.npy; 0 of 4 lie on")


def changed(row, column, value):
  rows = BOXES.astype(float)
  rows[row, column] = value
  return rows


@pytest.mark.parametrize(
  "rows, message",
  [
    (BOXES[:3], r"shape \(3, 6\); it must be \[4, 6\]"),
    (BOXES[:, :4], r"shape \(4, 4\)"),
    (BOXES.ravel(), r"shape \(24,\)"),
    (changed(1, 2, 5.5), "holds what are no whole numbers"),
    (changed(1, 2, np.nan), "holds what are no whole numbers"),
    (BOXES.astype(str), "holds what are no whole numbers"),
    (changed(3, 0, 7), "images 0 to 7, but there are 7; give the images that"),
    (changed(1, 0, -1), "images -1 to 6"),
    (changed(1, 2, 5), "boxes that lie outside of 64 x 64 pixels"),
    (changed(2, 4, 65), "boxes that lie outside"),
    (changed(2, 1, -1), "boxes that lie outside"),
    (changed(2, 5, 0), r"sources of 1 prototypes, the first is 2, are not of their class"),
    (changed(0, 0, 5), r"sources of 1 prototypes, the first is 0, are not of their class"),
    (BOXES[[2, 3, 0, 1]], r"sources of 4 prototypes, the first is 0"),
  ],
)
def test_boxes_that_do_not_belong_to_it(rows, message, tmp_path, two_classes, folder_config):
  with pytest.raises(InputError, match=rf"bb10.npy.* {message}"):
    with_boxes(rows, tmp_path, two_classes, folder_config)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"some text", "several arrays"])
def test_boxes_that_are_no_array(content, tmp_path, two_classes, folder_config):
  path = tmp_path / "bb10.npy"
  if content == "several arrays":
    with open(path, "wb") as file:
      np.savez(file, a=BOXES, b=BOXES)
  else:
    path.write_bytes(content)
  with pytest.raises(InputError, match=r"bb10.npy is not a readable .npy file"):
    importing.import_checkpoint(two_classes[0], tmp_path / "run", folder_config, boxes=path)


# --- what cannot be imported


@pytest.mark.parametrize(
  "changes, given, message",
  [
    ({}, {"similarity": "cosine"}, "--similarity='cosine'; jprotop knows linear, log"),
    ({}, {"prototype_class": np.zeros(3, int)}, r"10push0.7596.pth: .*whole numbers \[6\]"),
    (
      {},
      {"boxes": Path("bb10.npy")},
      r"bb10.npy numbers training images, .*--config.data.dir",
    ),
    ({"train.data.image_size": 16}, {}, "image_size=16 leaves resnet_small less than 2 x 2 cells"),
    ({"data.dir": "/nowhere"}, {}, "/nowhere' does not exist"),
    ({"train.data.name": "folder", "data.dir": "THERE"}, {}, "has 3 classes, but the data have 2"),
  ],
)
def test_what_does_not_go_together(changes, given, message, checkpoint, cropped, tmp_path):
  if changes.get("data.dir") == "THERE":
    changes = {**changes, "data.dir": str(cropped)}
  config = make_config(**changes, **{"data.cache": str(tmp_path / "cache")})
  with pytest.raises(InputError, match=message):
    importing.import_checkpoint(checkpoint[0], tmp_path / "run", config, **given)
  assert not (tmp_path / "run").exists()


def test_files_that_are_no_checkpoint_are_named(tmp_path, checkpoint, bare):
  (tmp_path / "a.pth").write_bytes(checkpoint[0].read_bytes()[:5000])
  export.write_state_dict(tmp_path / "b.pth", {"fc.weight": np.zeros((2, 2), np.float32)})
  for name, message in (
    ("a.pth", "a.pth was not read"),
    ("b.pth", "b.pth: this is no ProtoPNet"),
    ("c.pth", "c.pth does not exist"),
  ):
    with pytest.raises(InputError, match=message):
      importing.import_checkpoint(tmp_path / name, tmp_path / "run", make_config())
  assert not (tmp_path / "run").exists()
  with pytest.raises(InputError, match=r"bare holds a run already; choose another --workdir"):
    importing.import_checkpoint(checkpoint[0], bare.workdir, make_config())


# --- a run of ours, out and in again


@pytest.fixture(scope="module")
def round_trip(run, tmp_path_factory):
  """(run, its import): exported and imported by the commands, with boxes of its own push."""
  place = tmp_path_factory.mktemp("round trip")
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JPROTOP_CACHE", str(run[1]))
    ours = runs.open_run(run[0])
    given = (f"--workdir={run[0]}", f"--export_torch={place / 'ours.pth'}")
    done = command("import_checkpoint", *given, cache=run[1])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "entries of a resnet_small ProtoPNet" in done.stdout
    # It held some images out for validation; a run of the reference counts all of them.
    images = ours.dataset.train.image_id
    config = tiny.get_config().to_dict()
    config["train"]["data"]["validation_share"] = 0.0
    every = runs.open_dataset(config).train
    own = ours.provenance
    index = [every.image_id.index(images[image]) for image in own.image]
    labels = every.label[index]
    np.save(place / "bb.npy", np.column_stack([index, own.box, labels]).astype(np.float64))
    given = (
      f"--workdir={place / 'run'}",
      f"--torch_checkpoint={place / 'ours.pth'}",
      "--config=configs/tiny.py",
      f"--boxes={place / 'bb.npy'}",
    )
    done = command("import_checkpoint", *given, cache=run[1])
    assert done.returncode == 0, done.stderr[-2000:]
    yield ours, runs.open_run(place / "run"), done.stdout


def test_the_command_says_what_it_has_read(round_trip):
  said = round_trip[2]
  for line in (
    "ours.pth (a state dict, zip form), sha256 ",
    "resnet_small, regular add-on, log similarity",
    "6 of depth 16",
    "3, with 2 prototypes each",
    "bb.npy; 6 of 6 lie on the patches that it names",
    "64 pixels",
  ):
    assert line in said


def test_a_run_comes_back_bit_for_bit(round_trip):
  ours, back, _ = round_trip
  assert back.model == ours.model
  assert_equal_trees(back.variables, ours.variables)
  assert back.class_names == ours.class_names
  for name in ("cell", "box"):
    np.testing.assert_array_equal(getattr(back.provenance, name), getattr(ours.provenance, name))
  for theirs, own in zip(back.provenance.image, ours.provenance.image):
    assert back.dataset.train.image_id[theirs] == ours.dataset.train.image_id[own]


def test_it_is_measured_as_before(round_trip, tmp_path):
  first, second = (accuracy.measure(run, tmp_path) for run in round_trip[:2])
  assert first == second
  told = []
  for run in round_trip[:2]:
    explain.measure(run, tmp_path, images="0,4")
    with np.load(tmp_path / "explain.npz") as file:
      told.append((json.loads((tmp_path / "explain.json").read_text()), dict(file)))
  assert told[0][0] == told[1][0]  # The source of each prototype is in it.
  for name, array in told[0][1].items():
    np.testing.assert_array_equal(array, told[1][1][name])


FEW = {
  "measure.attack.num_images": 2,
  "measure.attack.num_steps": 1,
  "measure.success_rate.num_images": 2,
  "measure.success_rate.top_k": 1,
}
FLAGS = {
  "alteration": {"num_figures": 1},
  "explain": {"num_images": 1, "nearest": 2, "num_pages": 1},
  "prune": {"threshold": 1, "epochs": 1},
}


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "twins"])
def test_every_experiment_takes_it(round_trip, tmp_path, name):
  imported = round_trip[1]
  opened = runs.open_run(imported.workdir, imported.dataset, changes=FEW)
  given = dict(FLAGS.get(name, {}))
  if name == "ensemble":  # A run on the same images, without those of a validation split: itself.
    shutil.copytree(imported.workdir, tmp_path / "member")
    given["members"] = [str(tmp_path / "member")]
  record = EXPERIMENTS[name].measure(opened, tmp_path / "out", **given)
  assert record
  check_record(record, EXPERIMENTS[name].record, name)


def test_the_report_takes_it(round_trip, bare, tmp_path):
  """Its prototypes' sources are drawn, where they are known; a training it has not had."""
  for run, drawn in ((round_trip[1], ["gallery_000.png"]), (bare, [])):
    place = tmp_path / run.workdir.name
    (place / "figures").mkdir(parents=True)
    assert training.measure(run, place) == {"push": None, "robustness": None}
    assert [path.name for path in (place / "figures").iterdir()] == drawn


def test_a_study_takes_it(round_trip, tmp_path):
  imported = round_trip[1].workdir
  config = tiny.get_config().to_dict()
  given = {"standard": imported}
  with pytest.raises(
    InputError, match=r"(?s)make these equal .*train\.data\.validation_share: there 0\.0"
  ):
    study.Study(config, tmp_path, given)
  config["train"]["data"]["validation_share"] = 0.0
  network = study.Study(config, tmp_path, given).network("standard")
  assert_equal_trees(network.variables, round_trip[0].variables)


# --- the command


def test_an_import_into_a_run_that_was_killed_half_way(checkpoint, tmp_path):
  """Without its config.json it is no run; nobody takes it for one."""
  importing.import_checkpoint(checkpoint[0], tmp_path / "run", make_config())
  (tmp_path / "run/config.json").unlink()
  with pytest.raises(InputError, match=r"holds a run already; .* or delete it"):
    importing.import_checkpoint(checkpoint[0], tmp_path / "run", make_config())
  with pytest.raises(InputError, match="holds no run"):
    jprotop.load(tmp_path / "run")
  shutil.rmtree(tmp_path / "run")
  importing.import_checkpoint(checkpoint[0], tmp_path / "run", make_config())
  assert jprotop.load(tmp_path / "run")[2]["finished"]


def test_the_command_line(checkpoint, bare, tmp_path):
  """Each mistake is one message; what cannot be exported is said."""
  labels = tmp_path / "labels.npy"
  np.save(labels, [0, 1, 2, 0, 1, 2])
  file, workdir = f"--torch_checkpoint={checkpoint[0]}", f"--workdir={tmp_path / 'run'}"
  target = f"--export_torch={tmp_path / 'out.pth'}"
  mistakes = (
    ((workdir, file, target), "give either --torch_checkpoint=FILE to read or --export_torch="),
    ((workdir, file, "--config.train.data.imge_size=64"), "nearest is train.data.image_size"),
    ((f"--workdir={bare.workdir}", target, "--similarity=log"), "--similarity is for an import"),
  )
  for given, message in mistakes:
    done = command("import_checkpoint", *given, cache=tmp_path)
    assert done.returncode == 1 and message in done.stderr, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
  given = (workdir, file, f"--prototype_class={labels}", "--similarity=linear")
  done = command("import_checkpoint", *given, "--config.train.data.image_size=64", cache=tmp_path)
  assert done.returncode == 0, done.stderr[-2000:]
  assert "linear similarity" in done.stdout and "their classes  as given" in done.stdout
  model, _, _ = jprotop.load(tmp_path / "run")
  assert model.prototype_class == (0, 1, 2, 0, 1, 2) and model.similarity == "linear"
  done = command("import_checkpoint", workdir, target, cache=tmp_path)
  assert "does not hold which prototype is of which class" in done.stdout
  assert "does not hold that similarity is linear" in done.stdout
