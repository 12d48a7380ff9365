"""Figures, tables and the report: what they draw, and what they must never let through."""

import dataclasses
import os
import re
import shutil

import numpy as np
import pytest
import study_results
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jprotop.errors import InputError
from jprotop.experiments import pages
from jprotop.prototypes import similarity
from jprotop.prototypes.push import Source
from jprotop.regions import Box
from jprotop.report import canvas, curves, drawing, panels, tables
from jprotop.report import html as report
from jprotop.report.page import View
from jprotop.runs import outputs

SHARE = {"value": 0.95, "count": 19, "total": 20, "interval": [0.764, 0.991]}
MEAN = {"value": 2.613, "total": 20, "interval": [2.1, 3.02]}


def _source(image, box, image_id="a.jpg") -> Source:
  return Source(image=image, box=box, image_id=image_id, class_name="117.Clay_colored_Sparrow")


def _example(**changes) -> panels.AttackedExample:
  rng = np.random.default_rng(0)
  image = rng.uniform(0.2, 0.8, (16, 16, 3)).astype(np.float32)
  mask = np.zeros((16, 16), bool)
  mask[8:12, 4:8] = True
  sparrow = "117.Clay_colored_Sparrow"
  example = panels.AttackedExample(
    prototype=panels.Prototype(
      prototype_id=7, prototype_class=sparrow, source=_source(image[::-1], Box(2, 8, 3, 9))
    ),
    clean=View(
      image=image,
      map_up=rng.uniform(0, 2, (16, 16)),
      box=Box(0, 5, 10, 16),
      peak=Box(0, 4, 12, 16),
      similarity=2.613,
      predicted=sparrow,
    ),
    attacked=View(
      image=image + np.where(mask[..., None], np.float32(8 / 255), 0),
      map_up=rng.uniform(0, 4, (16, 16)),
      box=Box(7, 12, 4, 9),
      peak=Box(8, 12, 4, 8),
      similarity=4.613,
      predicted=sparrow,
    ),
    noise_mask=mask,
    true_class=sparrow,
    image_id=3,
  )
  return dataclasses.replace(example, **changes)


def _with(part: str, **changes) -> panels.AttackedExample:
  """The example with a changed prototype, clean or attacked view."""
  return _example(**{part: dataclasses.replace(getattr(_example(), part), **changes)})


def _slow_overlay(image, heat, low, high):
  out = np.zeros(image.shape)
  for y, x in np.ndindex(heat.shape):
    scaled = min(max((heat[y, x] - low) / (high - low), 0.0), 1.0)
    color = colormaps["jet"](int(255 * scaled))
    for channel in range(3):
      out[y, x, channel] = 0.5 * image[y, x, channel] + 0.3 * color[channel]
  return out


def _boxes(axes) -> list[tuple]:
  return [
    (p.get_y(), p.get_y() + p.get_height(), p.get_x(), p.get_x() + p.get_width(), p.get_edgecolor())
    for p in axes.patches
    if isinstance(p, Rectangle)
  ]


def _texts(figure) -> str:
  return "\n".join(text.get_text() for text in figure.texts)


@pytest.mark.parametrize("scale", [(None, None), (0.5, 2.0)])
def test_heat_overlay_equals_its_slow_twin(scale):
  rng = np.random.default_rng(1)
  image = rng.uniform(size=(5, 4, 3)).astype(np.float32)
  heat = rng.uniform(-1, 3, (5, 4)).astype(np.float32)
  low, high = scale if scale[0] is not None else (heat.min(), heat.max())
  result = drawing.heat_overlay(image, heat, low=scale[0], high=scale[1])
  assert result.dtype == np.float32
  np.testing.assert_allclose(result, _slow_overlay(image, heat, low, high), atol=1e-6)


def test_values_off_a_shared_scale_take_its_end_colours_and_do_not_wrap_around():
  image = np.zeros((1, 4, 3), np.float32)
  result = drawing.heat_overlay(image, np.array([[-5.0, 0.0, 1.0, 1.2]]), low=0.0, high=1.0)
  np.testing.assert_array_equal(result[0, 0], result[0, 1])
  np.testing.assert_array_equal(result[0, 3], result[0, 2])
  assert result[0, 0, 2] > result[0, 0, 0], "the coldest value is blue, not red"


def test_a_constant_map_is_cold_everywhere():
  result = drawing.heat_overlay(np.zeros((2, 2, 3), np.float32), np.full((2, 2), 3.0))
  np.testing.assert_allclose(result, 0.3 * np.array(colormaps["jet"](0)[:3]) * np.ones((2, 2, 1)))


@pytest.mark.parametrize(
  "image", [np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 2.0), np.zeros((2, 2))]
)
def test_heat_overlay_refuses_what_is_no_unit_image(image):
  with pytest.raises(InputError, match=r"\[0, 1\]"):
    drawing.heat_overlay(image, np.zeros((2, 2)))


def test_mask_edges_are_the_pixel_edges_between_inside_and_outside():
  mask = np.random.default_rng(2).uniform(size=(6, 7)) < 0.5
  padded = np.pad(mask, 1)
  unit = set()
  for y, x in np.ndindex(7, 8):
    if padded[y, x + 1] != padded[y + 1, x + 1] and x < 7:
      unit.add(((x, y), (x + 1, y)))
    if padded[y + 1, x] != padded[y + 1, x + 1] and y < 6:
      unit.add(((x, y), (x, y + 1)))
  split = set()
  for (x0, y0), (x1, y1) in drawing.mask_edges(mask):
    assert (x0 == x1) != (y0 == y1)
    count = max(x1 - x0, y1 - y0)
    step = ((x1 - x0) // count, (y1 - y0) // count)
    for i in range(count):
      start = (int(x0 + i * step[0]), int(y0 + i * step[1]))
      split.add((start, (int(start[0] + step[0]), int(start[1] + step[1]))))
  assert split == unit


def test_figure_1_draws_every_box_where_it_is():
  example = _example()
  source, prototype, clean, clean_heat, noisy, noisy_heat, *_ = panels.attacked_image(example).axes
  assert [box[:4] for box in _boxes(source)] == [example.prototype.source.box]
  assert prototype.images[0].get_array().shape == (6, 6, 3)
  yellow, green = to_rgb(canvas.BOX_YELLOW), to_rgb(canvas.NOISE_GREEN)
  for axes in (clean, clean_heat):
    assert [(b[:4], b[4][:3]) for b in _boxes(axes)] == [(example.clean.box, yellow)]
  for axes in (noisy, noisy_heat):
    expected = [((8, 12, 4, 8), green), (example.attacked.box, yellow)]
    assert [(b[:4], b[4][:3]) for b in _boxes(axes)] == expected


def test_figure_1_marks_the_strongest_cell_of_every_map_and_says_that_it_decides():
  example = _example()
  figure = panels.attacked_image(example)
  _, _, *rows = figure.axes
  for axes, view in zip(rows, (example.clean, example.clean, example.attacked, example.attacked)):
    middle = ((view.peak.x0 + view.peak.x1) / 2, (view.peak.y0 + view.peak.y1) / 2)
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [middle]
  assert "strongest cell" in "\n".join(t.get_text() for t in figure.legends[0].get_texts())
  for moved in (True, False):
    assert "strongest cell" in _texts(panels.attacked_image(_example(moved=moved)))


def test_a_box_is_painted_on_the_pixels_of_its_border():
  figure = Figure(figsize=(1, 1), dpi=100, facecolor="white")
  axes = figure.add_axes((0, 0, 1, 1))
  drawing.show_image(axes, np.full((10, 10, 3), 0.5, np.float32))
  drawing.draw_box(axes, Box(2, 8, 3, 9))
  pixels = np.asarray(canvas._rasterise(figure, 100)).astype(int)
  yellow = np.abs(pixels - [255, 225, 0]).max(-1) < 40
  rows, columns = yellow.any(1).nonzero()[0], yellow.any(0).nonzero()[0]
  for found, expected in zip([rows[0], rows[-1], columns[0], columns[-1]], [20, 80, 30, 90]):
    assert abs(found - expected) <= 2
  assert not yellow[30:70, 40:80].any()


def test_figure_1_says_the_similarities_and_the_predictions():
  text = _texts(panels.attacked_image(_with("attacked", predicted="161.Some_$x$_Warbler")))
  for words in ("similarity 2.61", "similarity 4.61", "now predicted", r"Some \$x\$ Warbler"):
    assert words in text
  assert "still predicted" in _texts(panels.attacked_image(_example()))


def test_both_heat_maps_share_one_scale():
  example = _example()
  figure = panels.attacked_image(example, noise_gain=None)
  views = (example.clean, example.attacked)
  maps = np.stack([view.map_up for view in views])
  for axes, view in zip((figure.axes[3], figure.axes[5]), views):
    expected = drawing.heat_overlay(view.image, view.map_up, low=maps.min(), high=maps.max())
    np.testing.assert_array_equal(axes.images[0].get_array(), expected)


def test_a_mask_that_is_no_rectangle_gets_its_outline():
  mask = ~_example().noise_mask
  noisy = panels.attacked_image(_example(noise_mask=mask)).axes[4]
  np.testing.assert_array_equal(noisy.collections[-1].get_segments(), drawing.mask_edges(mask))


def test_figure_1_says_whether_the_prototype_moved_where_that_is_known():
  titles = [_texts(panels.attacked_image(_example(moved=m))) for m in (True, False, None)]
  assert ["moved" in title.lower() for title in titles] == [True, True, False]
  assert ["Not moved" in title for title in titles] == [False, True, False]


def test_figure_1_without_a_source_leaves_its_place_empty():
  unknown = panels.attacked_image(_with("prototype", source=None))
  assert [len(axes.images) for axes in unknown.axes[:2]] == [0, 0]
  assert len(unknown.axes) == len(panels.attacked_image(_example()).axes)


@pytest.mark.parametrize(
  ("part", "changes", "words"),
  [
    ("clean", {"box": Box(3, 3, 0, 2)}, "clean box"),
    ("attacked", {"box": Box(0, 17, 0, 2)}, "attacked box"),
    ("attacked", {"peak": Box(0, 4, 14, 18)}, "attacked peak"),
    ("prototype", {"source": _source(np.zeros((16, 16, 3)), Box(0, 17, 0, 2))}, "source box"),
    ("attacked", {"map_up": np.zeros((8, 8))}, "the map_up of attacked is .* use one size"),
    ("attacked", {"image": np.zeros((8, 8, 3), np.float32)}, "the image of attacked is"),
  ],
)
def test_figure_1_names_a_bad_box_and_another_size(part, changes, words):
  with pytest.raises(InputError, match=words):
    panels.attacked_image(_with(part, **changes))


def test_figure_1_names_a_mask_of_another_size():
  with pytest.raises(InputError, match=r"noise_mask is .* use one size"):
    panels.attacked_image(_example(noise_mask=np.zeros((8, 8), bool)))


def test_the_gallery_shows_every_prototype_once_and_turns_pages():
  image = np.zeros((8, 8, 3), np.float32)
  prototypes = [
    panels.Prototype(
      prototype_id=i, prototype_class=f"c{i // 2}",
      source=_source(image, Box(0, 4, 4, 8), str(i)),
    )
    for i in range(10)
  ]  # fmt: skip
  figures = list(panels.prototype_gallery(prototypes, max_classes=2))
  assert [len(figure.axes) for figure in figures] == [8, 8, 4]
  text = "\n".join(map(_texts, figures))
  assert all(f"prototype {i}\nimage {i}" in text for i in range(10))
  assert list(panels.prototype_gallery([])) == []
  by_count = panels.prototype_gallery(prototypes, max_prototypes=7)
  assert [len(figure.axes) for figure in by_count] == [12, 8]


def test_the_gallery_holds_one_page_at_a_time():
  image, read = np.zeros((8, 8, 3), np.float32), []

  def prototypes():
    for i in range(40):
      read.append(i)
      yield panels.Prototype(
        prototype_id=i, prototype_class=f"c{i // 2}",
        source=_source(image, Box(0, 4, 4, 8), str(i)),
      )  # fmt: skip

  pages = panels.prototype_gallery(prototypes(), max_classes=2)
  assert not read
  next(pages)
  assert len(read) <= 4 + 2 + 1, "a page, the class that did not fit, and where that ends"


def _history() -> list[dict]:
  rows: list[dict] = []
  for epoch, phase in enumerate(["warm", "warm", "joint", "last_layer"]):
    rows.append({"phase": phase, "epoch": epoch, "split": "train", "loss": 1.0, "accuracy": 0.5})
    rows.append({"phase": phase, "epoch": epoch, "split": "validation", "accuracy": 0.25})
  return [*rows, {"phase": "push", "epoch": 2, "moved": 4, "distinct": 3}]


def test_training_curves_keep_to_the_columns_that_are_there():
  figure = curves.training_curves(_history())
  accuracy, loss = figure.axes
  assert [line.get_label() for line in accuracy.lines[:2]] == [
    "training images",
    "validation images",
  ]
  np.testing.assert_allclose(accuracy.lines[1].get_ydata(), 25.0)
  assert accuracy.lines[2].get_xdata()[0] == 2.5, "the push comes after the epoch it names"
  assert {"warm", "joint", "push", "last layer"} == {text.get_text() for text in loss.texts}
  with pytest.raises(InputError, match="no accuracy"):
    curves.training_curves([{"phase": "push", "epoch": 0}])


@pytest.mark.parametrize(("num_classes", "printed"), [(3, 9), (50, 0)])
def test_confusion_prints_counts_only_where_they_fit(num_classes, printed):
  figure = curves.confusion(np.eye(num_classes, dtype=int), [f"c{i}" for i in range(num_classes)])
  assert len(figure.axes[0].texts) == printed
  assert len(figure.axes[0].get_xticks()) <= 40
  with pytest.raises(InputError, match="class names"):
    curves.confusion(np.eye(2, dtype=int), ["a"])


def test_similarity_shift_marks_the_means():
  before, after = {"source": [2.0, 4.0], "target": [1.0, 1.0]}, {"source": [1, 1], "target": [4, 6]}
  figure = curves.similarity_shift(before, after, clean_maximum=[3.0, 5.0])
  assert [text.get_text() for axes in figure.axes for text in axes.texts] == [
    "3.00", "1.00", "1.00", "5.00",
  ]  # fmt: skip
  with pytest.raises(InputError, match="four similarities"):
    curves.similarity_shift(before, {"source": [1], "target": [1]})


def test_similarity_shift_of_one_image_has_no_interval_and_says_so():
  one = {"source": [2.0], "target": [1.0]}
  figure = curves.similarity_shift(one, one)
  labels = [text.get_text() for text in figure.legends[0].get_texts()]
  assert "mean (n = 1, no interval)" in labels and not any("95%" in label for label in labels)


def test_save_is_small_and_atomic(tmp_path, monkeypatch):
  noise = np.random.default_rng(0).uniform(size=(300, 300, 3)).astype(np.float32)
  figure = Figure(figsize=(3, 3))
  drawing.show_image(figure.add_axes((0, 0, 1, 1)), noise)
  path = canvas.save(figure, tmp_path / "new" / "a.png", max_bytes=60_000)
  assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size <= 60_000
  before = path.read_bytes()

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(os, "replace", fail)
  with pytest.raises(InputError, match=r"cannot write .*a\.png: disk full"):
    canvas.save(figure, path, max_bytes=30_000)
  assert path.read_bytes() == before
  assert os.listdir(path.parent) == ["a.png"]


def test_tables_format_numbers_with_count_and_interval():
  assert tables.format_share(SHARE) == "95.0% (19/20; 95% CI 76.4-99.1%)"
  assert tables.format_share({"count": 1, "total": 4}) == "25.0% (1/4)"
  assert tables.format_share({"value": None, "count": 0, "total": 0}) == "n/a (0/0)"
  assert tables.format_mean(MEAN) == "2.61 (n = 20; 95% CI 2.10 to 3.02)"
  assert tables.format_mean({"value": None, "total": 0, "interval": None}) == "n/a (n = 0)"
  assert tables.format_mean({"value": 0.5}) == "0.50"
  # A bootstrap of one value has no width: that is no interval. Wilson's of one image is one.
  one = {"value": 2.613, "total": 1, "interval": [2.613, 2.613]}
  assert tables.format_mean(one) == "2.61 (n = 1, no interval)"
  assert tables.csv_table([{"a": one}], ["a"]).splitlines()[1] == "2.613,,1,,"
  share = {"value": 1.0, "count": 1, "total": 1, "interval": [0.207, 1.0]}
  assert tables.format_share(share) == "100.0% (1/1; 95% CI 20.7-100.0%)"
  assert tables.flatten({"a": {"b": 1}, "c": {}}) == {"a.b": 1, "c": {}}


def test_markdown_table():
  rows = [{"name": "a|b\nc", "share": SHARE}, {"name": "d"}]
  assert tables.markdown_table(rows, {"name": "Name", "share": "Share"}).splitlines() == [
    "| Name | Share |",
    "| --- | --- |",
    r"| a\|b c | 95.0% (19/20; 95% CI 76.4-99.1%) |",
    "| d |  |",
  ]


EVIL = "<script>alert('x')</script>"


def _plain(page: str) -> str:
  """A page with its cells as text."""
  return re.sub(r"</?span>", "", re.sub(r'<td class="\w+" data-heading="[^"]*">', "<td>", page))


def _config(**train) -> dict:
  return {"train": {"network": "standard", "protocol": "paper", "seed": 0, **train}}


def _page(tmp_path) -> str:
  """A page made of one section, with names that would run where they are not escaped."""
  section = report.Section(
    heading=f"Class {EVIL}",
    caption="What to see.",
    pictures=[report.Picture(Figure(figsize=(1, 1)), f'"{EVIL}')],
    rows=[{"class": EVIL, "accuracy": SHARE, "similarity": MEAN}],
    columns={"class": "Class", "accuracy": "Accuracy", "similarity": "Similarity"},
  )
  path = report.write_page(
    tmp_path / "report.html",
    title=EVIL,
    summary=EVIL,
    sections=[section],
    results={
      "jprotop": "0.2",
      "config": _config(data={"name": EVIL}),
      "environment": {"train": {"python": "3.11"}},
    },
  )
  return path.read_text("utf-8")


def _run_results(**changes) -> dict:
  """What a run's results.json holds after its commands, with one thing of each kind changed."""
  found = study_results.study()
  measured = ("head_on_stomach", "success_rate", "accuracy", "training")
  results = {name: {"standard": found[name]["standard"]} for name in measured}
  attack = {**results["head_on_stomach"]["standard"], **changes}
  return {
    **{name: found[name] for name in ("form", "jprotop", "config", "environment", "data")},
    **results,
    "head_on_stomach": {"standard": attack},
  }


def test_the_report_needs_nothing_but_itself_and_escapes_names(tmp_path):
  page = _page(tmp_path)
  assert "<script" not in page and "&lt;script&gt;" in page
  sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
  assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
  assert not re.search(r"url\(|@import|https?://", page)
  assert os.listdir(tmp_path) == ["report.html"]
  for words in ("95.0% (19/20; 95% CI 76.4-99.1%)", "2.61 (n = 20; 95% CI 2.10 to 3.02)", "9.21"):
    assert words in _plain(page)
  assert page.count("<details") == 3 and 'alt="&#34;' in page


def test_a_run_s_report_escapes_what_it_was_given(tmp_path):
  page = pages.write_run_report(tmp_path, _run_results(unreadable=[EVIL])).read_text("utf-8")
  assert "<script" not in page and "&lt;script&gt;" in page


def test_the_report_gives_every_number_with_its_count(tmp_path):
  results = _run_results()
  page = _plain(pages.write_run_report(tmp_path, results).read_text("utf-8"))
  attack, push = (results[name]["standard"] for name in ("head_on_stomach", "training"))
  rates = results["success_rate"]["standard"]["authors"]
  test = results["accuracy"]["standard"]["test"]
  numbers = [
    *attack["metrics"].values(),
    *(movement["moved_to_target"] for movement in attack["movements"]),
    *(movement["control_moved"] for movement in attack["movements"]),
    *(metric for metric in test.values() if isinstance(metric, dict) and "value" in metric),
    *test["altered_classes"].values(),
    *push["push"].values(),
    rates["rate_at"]["1"],
    rates["rate_at"]["5"],
    rates["control"]["rate_at"]["5"],
    rates["prediction_kept"],
  ]
  assert len(numbers) > 25
  for number in numbers:
    assert f"<td>{tables.format_metric(number)}</td>" in page
  for what in ("eps 8/255, step 2/255", "40, random start: True", "paper, 0"):
    assert f"<td>{what}</td>" in page


@pytest.mark.parametrize(
  ("config", "said", "unsaid"),
  [
    ({}, "equal patches is 9.21", "minus their distance"),
    (_config(), "equal patches is 9.21", "minus their distance"),
    (_config(model={"similarity": "log"}), "equal patches is 9.21", "minus their distance"),
    (_config(model={"similarity": "linear"}), "minus their distance", "9.21"),
  ],
)
def test_the_report_explains_the_similarity_of_the_run(config, said, unsaid, tmp_path):
  page = report.write_page(
    tmp_path / "r.html", title="", summary="", sections=[], results={"config": config}
  )
  assert said in page.read_text("utf-8") and unsaid not in page.read_text("utf-8")
  assert report.SIMILARITY.keys() == similarity.SIMILARITIES.keys()
  np.testing.assert_allclose(report.MAX_LOG_SIMILARITY, -np.log(similarity.EPSILON))


def test_a_higher_score_is_told_of_the_successes_and_named_where_it_is_of_all(tmp_path):
  attack = study_results.head_on_stomach(
    exceeds_clean_maximum=study_results.share(15, 20), success_exceeds_clean_maximum=SHARE
  )
  results = {"config": _config(), "head_on_stomach": {"standard": attack}}
  page = _plain(pages.write_run_report(tmp_path, results).read_text("utf-8"))
  for first, counts in (("Of the successes: the", "19/20"), ("Over all attacked images,", "15/20")):
    assert re.search(rf"<td>{first}[^<]*scores higher in S_noisy[^<]*</td><td>[^<]*{counts}", page)
  summary = pages.run_summary(results, "standard")
  assert "(19/20; 95% CI 76.4-99.1%) of these successes it scored higher" in summary


def test_an_empty_run_still_makes_a_report(tmp_path):
  path = pages.write_run_report(tmp_path, {"config": _config()})
  assert "no headline numbers" in path.read_text("utf-8")


def _gallery(folder, count) -> dict:
  """A run of so many pictures of its gallery, as its results.json knows them."""
  for number in range(count):
    canvas.save(Figure(figsize=(1, 1)), folder / f"new/figures/gallery_{number:03d}.png")
  files = outputs.move(folder / "new", folder)
  return {
    "config": _config(),
    "training": {"standard": {"push": None}},
    "files": {"training": {"standard": files}},
  }


@pytest.mark.parametrize(("count", "left_out"), [(6, False), (8, True)])
def test_pages_of_the_gallery_that_are_left_out_are_said(tmp_path, count, left_out):
  page = pages.write_run_report(tmp_path, _gallery(tmp_path, count)).read_text("utf-8")
  assert page.count("data:image/png;base64,") == 6
  assert ("The first 6 of 8; the others are in figures/" in page) == left_out


def test_pictures_that_are_not_of_the_numbers_are_not_shown_and_that_is_said(tmp_path):
  results = _gallery(tmp_path, 4)
  (tmp_path / "figures/gallery_001.png").unlink()
  shutil.copy(tmp_path / "figures/gallery_000.png", tmp_path / "figures/gallery_009.png")
  canvas.save(Figure(figsize=(2, 2)), tmp_path / "figures/gallery_003.png")
  page = pages.write_run_report(tmp_path, results).read_text("utf-8")
  assert page.count("data:image/png;base64,") == 2
  assert "2 pictures are left out" in page and "gallery 10" not in page


def test_a_picture_needs_an_alt_text_and_must_be_a_png(tmp_path):
  for picture, reason in [
    (report.Picture(b"\x89PNG\r\n\x1a\n", " "), "alt text"),
    (report.Picture(b"GIF89a", "a bird"), "no PNG"),
  ]:
    section = report.Section(heading="a", caption="b", pictures=[picture])
    with pytest.raises(InputError, match=reason):
      report.write_page(tmp_path / "r.html", title="", summary="", sections=[section], results={})
  assert os.listdir(tmp_path) == []
