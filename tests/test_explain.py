"""Local and global analysis, ensembles, and the command that writes them."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import split_of

from jprotop import regions, statistics
from jprotop.errors import InputError
from jprotop.experiments import explain as explain_command
from jprotop.prototypes import accuracy, explain
from jprotop.prototypes.push import Source
from jprotop.prototypes.see import Network
from jprotop.regions import Box
from jprotop.report import explanations
from jprotop.runs import run as runs
from jprotop.runs.records import check_record

SIZE = 64


@pytest.fixture(scope="module")
def pictures():
  """Seven pictures, of which the third and the sixth, and the first and the last, are equal."""
  pixels = np.random.default_rng(5).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)
  return split_of(pixels[[0, 1, 2, 3, 4, 2, 0]], np.array([0, 1, 2, 0, 1, 2, 0]))


@pytest.fixture(scope="module")
def said(tiny, pictures):
  """What one forward pass of the network says of them, by itself."""
  model, variables = tiny
  return jax.device_get(jax.jit(model.apply)(variables, pictures.pixels.astype(np.float32) / 255))


def test_local_analysis_is_what_the_network_says(tiny, pictures, said):
  images = pictures.pixels.astype(np.float32) / 255
  found = explain.local_analysis(Network(*tiny), images, num_prototypes=4, batch_size=4)
  for name in ("logits", "activations", "sq_dist", "similarity_map"):
    np.testing.assert_allclose(found[name], getattr(said, name), rtol=1e-4, atol=1e-5)
  assert found["boxes"].shape == (7, 4, 4)
  for i, top in enumerate(found["top_prototypes"]):
    by_activation = sorted(range(6), key=lambda p: -found["activations"][i, p])
    assert top.tolist() == by_activation[:4]
    for box, p in zip(found["boxes"][i], top):
      own = found["similarity_map"][i, :, :, p]
      assert tuple(box) == regions.high_activation_box(own, SIZE, SIZE)


def test_contributions_add_up_to_the_score(tiny, said):
  weights = np.asarray(tiny[1]["params"]["last_layer"])
  label = np.array([2, 0, 1, 1, 2, 0, 0])
  added = explain.contributions(said.activations, weights, label)
  assert added[0, 3] == said.activations[0, 3] * weights[3, 2]
  scores = said.logits[np.arange(7), label]
  np.testing.assert_allclose(added.sum(axis=1), scores, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_nearest_images_come_in_data_order_where_they_tie(seed, k):
  sq_dist = np.random.default_rng(seed).integers(0, 3, (6, 4)).astype(np.float32)
  wanted = [sorted(range(6), key=lambda n: (sq_dist[n, q], n))[:k] for q in range(4)]
  assert explain.nearest_images(-sq_dist, k).tolist() == wanted


@pytest.mark.parametrize("batch_size", [2, 8])
def test_nearest_patches_are_those_of_the_loop(tiny, pictures, said, batch_size):
  prototypes, k = [4, 0, 5], 5
  found = explain.nearest_in_split(Network(*tiny), pictures, prototypes, k=k, batch_size=batch_size)
  for q, p in enumerate(prototypes):
    nearest = []
    for n in range(len(pictures)):
      distances = said.sq_dist[n, ..., p]
      cell = np.unravel_index(distances.argmin(), distances.shape)
      # Rounded: equal pictures must tie whatever batch they stand in.
      nearest.append((round(float(distances[cell]), 4), n, cell))
    for rank, (distance, n, cell) in enumerate(sorted(nearest)[:k]):
      assert found["image"][q, rank] == n
      assert found["label"][q, rank] == pictures.label[n]
      assert tuple(found["cell"][q, rank]) == cell
      assert found["sq_dist"][q, rank] == pytest.approx(distance, abs=1e-3)
      box = regions.high_activation_box(said.similarity_map[n, ..., p], SIZE, SIZE)
      assert np.abs(np.subtract(found["box"][q, rank], box)).max() <= 1


def test_purity_is_a_mean_over_prototypes_as_is_its_interval():
  """Six of twelve patches, but three prototypes: the patches of one are alike."""
  label = np.array([[0, 0, 0, 0], [2, 2, 2, 2], [1, 1, 0, 0]])
  found = explain.purity(label, np.array([0, 1, 1]))
  assert (found["value"], found["total"]) == (0.5, 3)
  assert found["interval"] == statistics.mean([1, 0, 0.5])["interval"]


@pytest.mark.parametrize(
  "given, message",
  [
    ({"k": 0}, r"0 nearest patches, .* 7 images of the train split; ask for 1 to 7"),
    ({"k": 8}, "8 nearest patches"),
    ({"prototypes": [1, 6]}, "prototype 6 does not exist; this network has 0 to 5"),
    ({"prototypes": [-1]}, "prototype -1 does not exist"),
    ({"prototypes": []}, "no prototype is named"),
  ],
)
def test_patches_that_cannot_be_found(tiny, pictures, given, message):
  asked = {"prototypes": [0], "k": 1, **given}
  with pytest.raises(InputError, match=message):
    explain.nearest_in_split(
      Network(*tiny), pictures, asked["prototypes"], k=asked["k"], batch_size=4
    )


@pytest.mark.parametrize("number", [0, 7])
def test_a_number_of_prototypes_that_there_is_not(tiny, number):
  images = np.zeros((1, SIZE, SIZE, 3), np.float32)
  with pytest.raises(InputError, match=f"num_prototypes={number} must be 1 to 6"):
    explain.local_analysis(Network(*tiny), images, num_prototypes=number, batch_size=1)


def test_an_ensemble_adds_logits():
  a, b = np.array([[1.0, 5.0], [2.0, 0.0]]), np.array([[0.5, -4.0], [1.0, 7.0]])
  np.testing.assert_array_equal(accuracy.sum_logits([a, b]), [[1.5, 1.0], [3.0, 7.0]])
  # Together they decide otherwise than the first alone.
  assert accuracy.accuracy(accuracy.sum_logits([a, b]), np.array([0, 1]))["count"] == 2
  with pytest.raises(InputError, match="cannot be added"):
    accuracy.sum_logits([a, b[:, :1]])


# --- pages


def evidence(**changes):
  rng = np.random.default_rng(1)
  values = {
    "prototype_id": 3,
    "prototype_class": "001.Auk",
    "source": Source(
      image=rng.random((16, 16, 3)), box=Box(2, 8, 3, 9), image_id="a.jpg", class_name="001.Auk"
    ),
    "map_up": rng.random((16, 16)),
    "box": Box(0, 5, 10, 16),
    "peak": Box(0, 4, 12, 16),
    "similarity": 2.5,
    "weight": -0.5,
  }
  return explanations.Evidence(**{**values, **changes})


def texts(figure):
  inside = [text for axes in figure.axes for text in axes.texts]
  return [text.get_text() for text in [*figure.texts, *inside]]


def test_the_page_of_an_image_shows_each_sum_and_the_ensemble():
  example = explanations.Explanation(
    image=np.random.default_rng(0).random((16, 16, 3)),
    image_id="bird.jpg",
    true_class=None,
    scores=[("001.Auk", -0.1), ("002.Bittern", -3.0)],
    evidence=[evidence(), evidence(similarity=2.0, weight=1.1)],
    ensemble=[("002.Bittern", 4.25)],
  )
  shown = texts(explanations.explanation(example))
  assert {"2.50 × -0.50 =", "-1.25", "2.00 × 1.10 =", "2.20"} <= set(shown)
  assert "sum of these 0.95\nof all prototypes -0.10" in shown
  assert "Bittern  4.25" in shown and "Auk  -0.10" in shown

  def pictures(e):
    return sum(bool(a.images) for a in explanations.explanation(e).axes)

  unknown = dataclasses.replace(example, evidence=[evidence(source=None)] * 2)
  # The image itself; then four pictures a row, or two where sources are not known.
  assert (pictures(example), pictures(unknown)) == (9, 5)
  # The strongest cell is marked where the prototype is found, and in its map.
  crosses = [line for axes in explanations.explanation(example).axes for line in axes.lines]
  assert [line.get_xydata().tolist() for line in crosses] == [[[14, 2]]] * 4
  flat = dataclasses.replace(example, evidence=[evidence(map_up=np.ones((16, 16)))])
  assert pictures(flat) == 5


def test_images_of_other_classes_are_framed():
  image = np.random.default_rng(0).random((16, 16, 3))

  def patch(own):
    return explanations.NearPatch(
      image=image, box=Box(2, 8, 3, 9), peak=Box(4, 8, 4, 8), class_name="002.Bittern",
      own_class=own, sq_dist=0.25,
    )  # fmt: skip

  row = explanations.Neighbourhood(
    prototype_id=4,
    source=None,
    train=[patch(True), patch(False)],
    test=[patch(True)],
  )
  figure = explanations.nearest_patches("002.Bittern", [row])
  assert [len(axes.patches) for axes in figure.axes] == [1, 2, 1]
  assert [line.get_xydata().tolist() for axes in figure.axes for line in axes.lines] == [
    [[6, 6]]
  ] * 3
  assert texts(figure).count("Bittern\n0.250") == 3


# --- the command


@pytest.fixture(scope="module")
def opened(run):
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JPROTOP_CACHE", str(run[1]))
    yield runs.open_run(run[0])


def test_the_command_writes_arrays_texts_and_pages(opened, tmp_path):
  record = explain_command.measure(
    opened, tmp_path, images="4", num_prototypes=2, num_classes=2, nearest=3, prototypes=["5", "1"]
  )
  check_record(record, explain_command.Explain, "explain")
  printed = "\n".join(explain_command.tell(record, tmp_path))
  assert printed.count("most of all prototype") == 1
  assert "nearest test patches of the prototype's class" in printed
  with np.load(tmp_path / "explain.npz") as file:
    arrays = dict(file)
  pixels = opened.dataset.test.pixels[4:5] / np.float32(255)
  out = jax.jit(opened.model.apply)(opened.variables, pixels)
  for name in ("logits", "activations", "sq_dist", "similarity_map"):
    np.testing.assert_allclose(arrays[name], getattr(out, name), rtol=1e-3, atol=1e-4)
  assert arrays["boxes"].shape == (1, 2, 4) and arrays["image_id"].shape == (1,)

  (told,) = json.loads((tmp_path / "explain.json").read_text())["images"]
  first = told["top_classes"][0]
  assert first["class"] == told["predicted_class"] == opened.class_names[arrays["logits"].argmax()]
  assert len(first["prototypes"]) == 2 and len(told["top_prototypes"]) == 2
  for item in told["top_prototypes"]:
    assert item["contribution"] == pytest.approx(item["activation"] * item["weight"], rel=1e-5)
    assert item["source"]["class"] == item["class"]

  with np.load(tmp_path / "nearest.npz") as file:
    near = dict(file)
  assert near["prototypes"].tolist() == [5, 1] and near["train_box"].shape == (2, 3, 4)
  # The patch that a prototype was pushed onto is at distance 0.
  assert near["train_sq_dist"][:, 0].max() < 1e-3
  assert record["purity"]["test"]["total"] == 2
  names = {path.name for path in (tmp_path / "figures").iterdir()}
  assert names == {"explain_0.png", "nearest_0.png", "nearest_2.png"}


def test_an_ensemble_of_a_network_with_itself_doubles_the_scores(opened, tmp_path):
  members = [str(shutil.copytree(opened.workdir, tmp_path / "copy"))]
  record = explain_command.measure(opened, tmp_path, num_images=1, ensemble=members)
  check_record(record, explain_command.Explain, "explain")
  assert "  the ensemble: " in "\n".join(explain_command.tell(record, tmp_path))
  with np.load(tmp_path / "explain.npz") as file:
    np.testing.assert_allclose(file["ensemble_logits"], 2 * file["logits"], rtol=1e-5)
  (told,) = json.loads((tmp_path / "explain.json").read_text())["images"]
  assert told["ensemble"][0]["class"] == told["predicted_class"]
  assert not (tmp_path / "nearest.npz").exists()


def test_fewer_images_than_asked_for_are_said(opened, tmp_path, monkeypatch):
  monkeypatch.setattr(explain_command.explain_pages, "draw_images", lambda *_: None)
  count = len(opened.seen.test)
  record = explain_command.measure(opened, tmp_path, num_images=count + 2, num_prototypes=1)
  assert (record["num_images"], record["num_images_asked"]) == (count, count + 2)
  first = next(iter(explain_command.tell(record, tmp_path)))
  assert first == f"{count} test images, which are all that there are ({count + 2} asked for)"


def test_a_network_whose_sources_are_not_known(opened, tmp_path):
  bare = dataclasses.replace(opened, info={**opened.info, "provenance": None})
  explain_command.measure(bare, tmp_path, images="0", nearest=1, prototypes=["0"])
  (told,) = json.loads((tmp_path / "explain.json").read_text())["images"]
  assert [item["source"] for item in told["top_prototypes"]] == [None] * 6
  assert (tmp_path / "figures/nearest_0.png").exists()


@pytest.mark.parametrize(
  "given, message",
  [
    ({"num_prototypes": 7}, "num_prototypes=7 must be 1 to 6"),
    ({"num_classes": 4}, "num_classes=4 must be 1 to 3"),
    ({"nearest": 16}, "15 images of the train split"),
    ({"nearest": 1, "prototypes": ["6"]}, "prototype 6 does not exist"),
    ({"prototypes": ["a"]}, "--prototypes: 'a' is no number"),
    ({"images": "99"}, "index 99 is outside"),
  ],
)
def test_what_cannot_be_explained_is_said_before_anything_is_written(
  opened, tmp_path, given, message
):
  with pytest.raises(InputError, match=message):
    explain_command.measure(opened, tmp_path, **given)
  assert list(tmp_path.iterdir()) == []


def test_a_network_counts_once_in_an_ensemble(opened, tmp_path):
  with pytest.raises(InputError, match=r"--ensemble: .* would count twice"):
    explain_command.measure(opened, tmp_path, ensemble=[str(opened.workdir)])


def test_a_prototype_counts_once(opened):
  request = explain_command.Request.of(opened, {"prototypes": ["2", "0", "2"]})
  assert request.prototypes == (2, 0)


def test_an_ensemble_needs_the_same_data(opened, tmp_path, monkeypatch):
  other = dataclasses.replace(opened, info={**opened.info, "data": "another"})
  monkeypatch.setattr(runs, "open_run", lambda folder: {"elsewhere": other}[folder])
  with pytest.raises(InputError, match=r"--ensemble: .* other images or classes"):
    explain_command.measure(opened, tmp_path, ensemble=["elsewhere"])
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("given", "nearest", "prototypes"),
  [
    ({}, None, 6),
    ({"global": True}, 5, 6),
    ({"nearest": 2}, 2, 6),
    ({"prototypes": ["3"]}, 5, 1),
    ({"global": False, "prototypes": None}, None, 6),
  ],
)
def test_which_flags_ask_for_nearest_patches(opened, given, nearest, prototypes):
  request = explain_command.Request.of(opened, given)
  assert (request.nearest, len(request.prototypes)) == (nearest, prototypes)


def test_the_command_line(run, tmp_path):
  given = (
    f"--workdir={run[0]}",
    f"--out={tmp_path}",
    "--num_images=1",
    "--num_prototypes=1",
    "--nearest=2",
  )
  ensemble = shutil.copytree(run[0], tmp_path / "copy")
  done = command("explain", *given, "--prototypes=2", f"--ensemble={ensemble}", cache=run[1])
  assert done.returncode == 0, done.stderr[-2000:]
  assert "nearest test patches of the prototype's class" in done.stdout
  found = json.loads((tmp_path / "results.json").read_text())
  assert found["explain"]["standard"]["nearest"] == 2
