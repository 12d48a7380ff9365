"""Figures, tables and the report: what they draw, and what they must never let through."""

import dataclasses
import os
import re

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jprotop import similarity
from jprotop.errors import InputError
from jprotop.figures import canvas, curves, drawing, panels, report, run_report, tables
from jprotop.regions import Box

SHARE = {"value": 0.95, "count": 19, "total": 20, "interval": [0.764, 0.991]}
MEAN = {"value": 2.613, "total": 20, "interval": [2.1, 3.02]}


def _example(**changes) -> panels.HeadOnStomachExample:
  rng = np.random.default_rng(0)
  image = rng.uniform(0.2, 0.8, (16, 16, 3)).astype(np.float32)
  mask = np.zeros((16, 16), bool)
  mask[8:12, 4:8] = True
  example = panels.HeadOnStomachExample(
    source_image=image[::-1],
    source_box=Box(2, 8, 3, 9),
    image=image,
    attacked=image + np.where(mask[..., None], np.float32(8 / 255), 0),
    clean_map_up=rng.uniform(0, 2, (16, 16)),
    attacked_map_up=rng.uniform(0, 4, (16, 16)),
    clean_box=Box(0, 5, 10, 16),
    attacked_box=Box(7, 12, 4, 9),
    noise_mask=mask,
    clean_similarity=2.613,
    attacked_similarity=4.613,
    prototype_id=7,
    prototype_class="117.Clay_colored_Sparrow",
    true_class="117.Clay_colored_Sparrow",
    predicted_before="117.Clay_colored_Sparrow",
    predicted_after="117.Clay_colored_Sparrow",
    image_id=3,
  )
  return dataclasses.replace(example, **changes)


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
  source, prototype, clean, clean_heat, noisy, noisy_heat, *_ = panels.head_on_stomach(example).axes
  assert [box[:4] for box in _boxes(source)] == [example.source_box]
  assert prototype.images[0].get_array().shape == (6, 6, 3)
  yellow, green = to_rgb(canvas.BOX_YELLOW), to_rgb(canvas.NOISE_GREEN)
  for axes in (clean, clean_heat):
    assert [(b[:4], b[4][:3]) for b in _boxes(axes)] == [(example.clean_box, yellow)]
  for axes in (noisy, noisy_heat):
    expected = [((8, 12, 4, 8), green), (example.attacked_box, yellow)]
    assert [(b[:4], b[4][:3]) for b in _boxes(axes)] == expected


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
  text = _texts(panels.head_on_stomach(_example(predicted_after="161.Some_$x$_Warbler")))
  for words in ("similarity 2.61", "similarity 4.61", "now predicted", r"Some \$x\$ Warbler"):
    assert words in text
  assert "still predicted" in _texts(panels.head_on_stomach(_example()))


def test_both_heat_maps_share_one_scale():
  example = _example()
  figure = panels.head_on_stomach(example, noise_gain=None)
  maps = np.stack([example.clean_map_up, example.attacked_map_up])
  for axes, image, heat in [
    (figure.axes[3], example.image, example.clean_map_up),
    (figure.axes[5], example.attacked, example.attacked_map_up),
  ]:
    expected = drawing.heat_overlay(image, heat, low=maps.min(), high=maps.max())
    np.testing.assert_array_equal(axes.images[0].get_array(), expected)


def test_a_mask_that_is_no_rectangle_gets_its_outline():
  mask = ~_example().noise_mask
  noisy = panels.head_on_stomach(_example(noise_mask=mask)).axes[4]
  np.testing.assert_array_equal(noisy.collections[-1].get_segments(), drawing.mask_edges(mask))


@pytest.mark.parametrize("changes", [{"clean_box": Box(3, 3, 0, 2)}, {"source_box": (0, 17, 0, 2)}])
def test_figure_1_names_a_bad_box(changes):
  with pytest.raises(InputError, match=next(iter(changes))):
    panels.head_on_stomach(_example(**changes))


def test_the_gallery_shows_every_prototype_once_and_turns_pages():
  image = np.zeros((8, 8, 3), np.float32)
  prototypes = [
    panels.Prototype(
      prototype_id=i, prototype_class=f"c{i // 2}", source_image=image, source_box=Box(0, 4, 4, 8),
      image_id=i,
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
        prototype_id=i, prototype_class=f"c{i // 2}", source_image=image,
        source_box=Box(0, 4, 4, 8), image_id=i,
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
    curves.confusion(np.eye(2), ["a"])


def test_similarity_shift_marks_the_means():
  before, after = {"source": [2.0, 4.0], "target": [1.0, 1.0]}, {"source": [1, 1], "target": [4, 6]}
  figure = curves.similarity_shift(before, after, clean_maximum=[3.0, 5.0])
  assert [text.get_text() for axes in figure.axes for text in axes.texts] == [
    "3.00", "1.00", "1.00", "5.00",
  ]  # fmt: skip
  with pytest.raises(InputError, match="four similarities"):
    curves.similarity_shift(before, {"source": [1], "target": [1]})


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
  assert tables.flatten({"a": {"b": 1}, "c": {}}) == {"a.b": 1, "c": {}}


def test_markdown_table():
  rows = [{"name": "a|b\nc", "share": SHARE}, {"name": "d"}]
  assert tables.markdown_table(rows, {"name": "Name", "share": "Share"}).splitlines() == [
    "| Name | Share |",
    "| --- | --- |",
    r"| a\|b c | 95.0% (19/20; 95% CI 76.4-99.1%) |",
    "| d |  |",
  ]


def _report(tmp_path) -> str:
  evil = "<script>alert('x')</script>"
  section = report.Section(
    heading=f"Class {evil}",
    caption="What to see.",
    pictures=[report.Picture(Figure(figsize=(1, 1)), f'"{evil}')],
    rows=[{"class": evil, "accuracy": SHARE}],
    columns={"class": "Class", "accuracy": "Accuracy"},
  )
  results = {
    "protocol": "paper",
    "seed": 0,
    "head_on_stomach": {"metrics": {"moved_to_target": SHARE, "similarity_source_before": MEAN}},
    "evaluate": {"test": {"accuracy": SHARE, "confusion": [[1]]}},
    "push": {"num_prototypes": 24, "accuracy_before": SHARE},
    "config": {"data": {"name": evil}},
    "environment": {"python": "3.11"},
  }
  path = run_report.write_report(tmp_path / "report.html", results=results, figures=[section])
  return path.read_text("utf-8")


def test_the_report_needs_nothing_but_itself_and_escapes_names(tmp_path):
  page = _report(tmp_path)
  assert "<script" not in page and "&lt;script&gt;" in page
  sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
  assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
  assert not re.search(r"url\(|@import|https?://", page)
  assert os.listdir(tmp_path) == ["report.html"]


def test_the_report_gives_every_number_with_its_count(tmp_path):
  page = _report(tmp_path)
  for words in ("95.0% (19/20; 95% CI 76.4-99.1%)", "2.61 (n = 20; 95% CI 2.10 to 3.02)", "9.21"):
    assert words in page
  assert page.count("<details") == 3 and 'alt="&#34;' in page


@pytest.mark.parametrize(
  ("config", "said", "unsaid"),
  [
    ({}, "equal patches is 9.21", "minus their distance"),
    ({"model": {"similarity": "log"}}, "equal patches is 9.21", "minus their distance"),
    ({"model": {"similarity": "linear"}}, "minus their distance", "9.21"),
  ],
)
def test_the_report_explains_the_similarity_of_the_run(config, said, unsaid, tmp_path):
  results = {"config": config}
  page = run_report.write_report(tmp_path / "r.html", results=results, figures=[]).read_text(
    "utf-8"
  )
  assert said in page and unsaid not in page
  assert report.SIMILARITY.keys() == similarity.SIMILARITIES.keys()
  np.testing.assert_allclose(report.MAX_LOG_SIMILARITY, -np.log(similarity.EPSILON))


def test_a_higher_score_is_counted_over_all_attacked_images():
  """Not over those on which the prototype moved."""
  results = {"head_on_stomach": {"metrics": {"exceeds_clean_maximum": SHARE}}}
  ((name, _),) = run_report.number_tables(results)[0]["rows"]
  assert name.startswith("Attacked images on which")
  assert "(19/20; 95% CI 76.4-99.1%) of the attacked images" in run_report.summary(results)


def test_an_empty_run_still_makes_a_report(tmp_path):
  path = run_report.write_report(tmp_path / "report.html", results={}, figures=[])
  assert "no headline numbers" in path.read_text("utf-8")


def test_a_picture_needs_an_alt_text_and_must_be_a_png(tmp_path):
  for picture, reason in [
    (report.Picture(b"\x89PNG\r\n\x1a\n", " "), "alt text"),
    (report.Picture(b"GIF89a", "a bird"), "no PNG"),
  ]:
    section = report.Section(heading="a", caption="b", pictures=[picture])
    with pytest.raises(InputError, match=reason):
      run_report.write_report(tmp_path / "r.html", results={}, figures=[section])
  assert os.listdir(tmp_path) == []
