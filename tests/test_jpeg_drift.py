"""The JPEG experiment: which images count, which prototype is followed, and the command."""

import json

import numpy as np
import pytest

from experiments import jpeg as jpeg_command
from jprotop.data import batches
from jprotop.errors import InputError
from jprotop.evaluation import jpeg_drift
from jprotop.evaluation.jpeg_drift import Seen
from jprotop.training import runs


class _Split:
  """As much of a Split as batches need."""

  def __init__(self, count):
    rng = np.random.default_rng(0)
    self.pixels = rng.integers(0, 256, (count, 64, 64, 3), np.uint8)
    self.label = rng.integers(0, 3, count)

  def __len__(self):
    return len(self.pixels)


def _seen(seed, *, levels=5):
  """30 images with made activations, many of them equal, and cells on a 3 x 4 grid."""
  count, prototypes, classes = 30, 6, 3
  rng = np.random.default_rng(seed)
  cell = np.stack(
    [rng.integers(0, 3, (count, prototypes)), rng.integers(0, 4, (count, prototypes))], axis=-1
  )
  activations = rng.integers(0, levels, (count, prototypes)).astype(np.float32)
  return Seen(rng.random((count, classes)), activations, cell.astype(np.int16))


def _slow_row(compressed, clean, i, k):
  """One image of `per_image`, as the paper says it."""
  order = lambda seen: sorted(range(len(seen)), key=lambda p: (-seen[p], p))  # noqa: E731
  a, b = compressed.activations[i], clean.activations[i]
  ours, theirs = order(a)[:k], order(b)[:k]
  top, other = ours[0], theirs[0]
  (y0, x0), (y1, x1) = compressed.cell[i, top].tolist(), clean.cell[i, top].tolist()
  return {
    "prototype": top,
    "similarity_compressed": a[top],
    "similarity_clean": b[top],
    "similarity_drop": a[top] - b[top],
    "similarity_drop_reverse": b[other] - a[other],
    "top_k_overlap": len(set(ours) & set(theirs)) / len(ours),
    "top_k_order_kept": ours == theirs,
    "top_prototype_kept": top == other,
    "cell_moved": (y0, x0) != (y1, x1),
    "cell_shift": ((y0 - y1) ** 2 + (x0 - x1) ** 2) ** 0.5,
  }


def test_one_pass_sees_what_the_network_says(tiny):
  model, variables = tiny
  split = _Split(5)
  seen = jpeg_drift.look(model, variables, split, batch_size=4, title="images")
  out = model.apply(variables, batches.to_float(split.pixels))
  np.testing.assert_allclose(seen.logits, out.logits, atol=1e-4)
  np.testing.assert_allclose(seen.activations, out.activations, atol=1e-4)
  maps = np.asarray(out.similarity_map)
  assert maps.shape[1:3] == (4, 4) and len(np.unique(seen.cell[..., 0] * 4 + seen.cell[..., 1])) > 1
  for i, p in np.ndindex(seen.activations.shape):
    place = np.unravel_index(maps[i, :, :, p].argmax(), (4, 4))
    assert tuple(seen.cell[i, p]) == place


@pytest.mark.parametrize("top_k", [1, 3, 9])
def test_every_image_equals_its_slow_twin(top_k):
  compressed, clean = _seen(1), _seen(2)
  rows = jpeg_drift.per_image(compressed, clean, top_k=top_k)
  for i in range(30):
    for name, value in _slow_row(compressed, clean, i, top_k).items():
      assert rows[name][i] == pytest.approx(value), name


def test_the_paper_counts_compressed_classes_whose_compressed_version_is_right():
  label, prediction = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
  groups = jpeg_drift.selections(label, prediction, (0, 2))
  assert groups["paper"].tolist() == [True, False, False, False, False]
  assert groups["compressed_classes"].tolist() == [True, True, False, False, True]
  assert groups["uncompressed_classes"].tolist() == [False, False, True, True, False]
  assert groups["all"].all()


def test_what_decides_is_the_prediction_on_the_compressed_version():
  label = np.zeros(1, int)
  right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
  seen = lambda logits: Seen(logits, np.ones((1, 2)), np.zeros((1, 2, 2), int))  # noqa: E731
  numbers = jpeg_drift.drift(seen(right), seen(wrong), label, (0,))
  assert numbers["paper"]["num_images"] == 1
  assert jpeg_drift.drift(seen(wrong), seen(right), label, (0,))["paper"]["num_images"] == 0


def test_an_artefact_that_one_class_is_told_by_shows_in_its_drop_and_not_in_the_control():
  rng = np.random.default_rng(3)
  label = np.repeat([0, 1], 20)
  activations = rng.uniform(0, 1, (40, 4)).astype(np.float32)
  artefact = activations.copy()
  artefact[label == 0, 2] += 3  # prototype 2 answers to the artefacts
  logits, cell = np.eye(2)[label], np.zeros((40, 4, 2), np.int16)
  compressed, clean = Seen(logits, artefact, cell), Seen(logits, activations, cell)
  numbers = jpeg_drift.drift(compressed, clean, label, (0,), top_k=2)
  drop, control = numbers["paper"]["similarity_drop"], numbers["uncompressed_classes"]
  assert drop["value"] == pytest.approx(3) and drop["total"] == 20
  assert drop["interval"] == pytest.approx([3, 3])
  assert control["similarity_drop"]["value"] == 0
  assert control["top_k_order_kept"]["value"] == control["top_prototype_kept"]["value"] == 1
  assert control["rank_correlation"]["value"] == pytest.approx(1)
  assert numbers["paper"]["rank_correlation"]["value"] < 1
  assert numbers["all"]["cell_moved"]["count"] == 0


def test_a_group_without_images_has_no_numbers():
  label = np.zeros(30, int)
  numbers = jpeg_drift.drift(_seen(1), _seen(2), label, (0,))["uncompressed_classes"]
  assert numbers.pop("num_images") == 0
  assert all(n["value"] is None and n["total"] == 0 for n in numbers.values())


def test_undefined_rank_correlations_are_left_out_and_the_count_says_so():
  compressed, clean = _seen(1, levels=1000), _seen(2, levels=1000)
  compressed.activations[:4] = 1.0
  numbers = jpeg_drift.drift(compressed, clean, np.zeros(30, int), (0,))["all"]
  assert (numbers["num_images"], numbers["rank_correlation"]["total"]) == (30, 26)
  json.dumps(numbers, allow_nan=False)


def test_images_are_drawn_from_the_papers_group_or_the_next_that_has_any():
  groups = {"paper": np.arange(20) >= 15, "compressed_classes": np.arange(20) >= 10}
  groups["all"] = np.ones(20, bool)
  drawn = jpeg_command.draw_images(groups, 3, 0)
  assert len(set(drawn)) == 3 and min(drawn) >= 15
  assert drawn == jpeg_command.draw_images(groups, 3, 0)
  assert any(drawn != jpeg_command.draw_images(groups, 3, seed) for seed in range(1, 6))
  groups["paper"] = np.zeros(20, bool)
  assert min(jpeg_command.draw_images(groups, 20, 0)) == 10


@pytest.fixture(scope="module")
def opened(run):
  """The standard network of the tiny run, opened."""
  workdir = run[0] / "standard" if (run[0] / "standard").is_dir() else run[0]
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JPROTOP_CACHE", str(run[1]))
    yield runs.open_run(workdir)


def test_the_command_writes_numbers_arrays_and_pictures(opened, tmp_path, capsys):
  section = jpeg_command.measure(opened, tmp_path, num_figures=2)["jpeg_drift"]
  assert "not trained on compressed images" in capsys.readouterr().out
  test, classes = opened.dataset.test, opened.scheme.classes
  assert section["classes"] == [opened.class_names[c] for c in classes]
  assert (section["quality"], section["top_k"], section["num_prototypes"]) == (20, 5, 6)
  with np.load(tmp_path / "jpeg.npz") as file:
    arrays = dict(file)
  covered = np.isin(arrays["labels"], classes)
  right = covered & (arrays["predictions_compressed"] == arrays["labels"])
  found = section["selections"]
  assert found["paper"]["num_images"] == right.sum()
  assert found["compressed_classes"]["num_images"] == covered.sum()
  assert found["all"]["num_images"] == len(test)
  compressed, clean = arrays["activations_compressed"], arrays["activations_clean"]
  top = compressed.argmax(axis=1)
  drop = [compressed[i, p] - clean[i, p] for i, p in enumerate(top)]
  assert found["all"]["similarity_drop"]["value"] == pytest.approx(np.mean(drop), abs=1e-5)
  assert set(section["shown"]) <= set(np.flatnonzero(right if right.any() else covered))
  names = {path.name for path in (tmp_path / "figures").iterdir()}
  assert {"jpeg_drop.png", "jpeg_artefacts.png", "jpeg_example_0.png"} <= names
  assert {f"jpeg_top_similarities_{i}.png" for i in range(len(section["shown"]))} <= names
  json.dumps(section, allow_nan=False)


def test_images_quality_and_classes_as_told_and_no_picture_of_an_earlier_run(opened, tmp_path):
  jpeg_command.measure(opened, tmp_path, images=[4, 0])
  section = jpeg_command.measure(opened, tmp_path, images=[7], quality=5, classes="2")["jpeg_drift"]
  assert (section["shown"], section["quality"]) == ([7], 5)
  assert section["classes"] == [opened.class_names[2]]
  examples = sorted(path.name for path in (tmp_path / "figures").glob("jpeg_example_*"))
  assert examples == ["jpeg_example_0.png"]


def test_a_network_whose_prototypes_come_from_nowhere_is_measured_all_the_same(opened, tmp_path):
  info = {**opened.info, "provenance": None}
  imported = runs.Run(opened.workdir, opened.model, opened.variables, info, opened.dataset)
  jpeg_command.measure(imported, tmp_path, images=[0])
  assert (tmp_path / "figures/jpeg_example_0.png").stat().st_size > 0


@pytest.mark.parametrize(
  "given, message",
  [
    ({"quality": 96}, "quality=96"),
    ({"quality": 0}, "quality=0"),
    ({"classes": ""}, "at least one and not all"),
    ({"classes": "0,1,2"}, "at least one and not all"),
    ({"classes": "9"}, "label 9 does not exist"),
    ({"images": [99]}, "index 99 is outside"),
  ],
)
def test_what_cannot_be_measured_is_said_before_anything_is_written(
  opened, tmp_path, given, message
):
  with pytest.raises(InputError, match=message):
    jpeg_command.measure(opened, tmp_path, **given)
  assert list(tmp_path.iterdir()) == []
