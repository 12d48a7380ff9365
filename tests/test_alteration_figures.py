"""Pictures of altered images: what they show, and that nothing is drawn off its scale."""

import dataclasses

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jprotop.errors import InputError
from jprotop.prototypes.push import Source
from jprotop.regions import Box
from jprotop.report import alteration_charts, alteration_panels, canvas, drawing
from jprotop.report.page import Prototype, View


def _example(**changes) -> alteration_panels.AlteredExample:
  rng = np.random.default_rng(0)
  image = rng.uniform(0.2, 0.8, (16, 16, 3)).astype(np.float32)
  altered = View(
    image=image, map_up=rng.uniform(1, 5, (16, 16)), box=Box(0, 5, 10, 16), similarity=4.587,
    peak=Box(0, 4, 12, 16),
    predicted="025.Pelagic_Cormorant",
  )  # fmt: skip
  clean = View(
    image=image[::-1], map_up=rng.uniform(0, 2, (16, 16)), box=Box(7, 12, 4, 9), similarity=2.04,
    peak=Box(8, 12, 4, 8),
    predicted="117.Clay_colored_Sparrow",
  )  # fmt: skip
  example = alteration_panels.AlteredExample(
    prototype=Prototype(
      prototype_id=7,
      prototype_class="025.Pelagic_Cormorant",
      source=Source(
        image=image[:, ::-1], box=Box(2, 8, 3, 9), image_id="a.jpg", class_name="025.Cormorant"
      ),
    ),
    altered=altered,
    clean=clean,
    title="JPEG quality 20",
    true_class="161.Blue_winged_Warbler",
    image_id=3,
  )
  return dataclasses.replace(example, **changes)


def _texts(figure) -> str:
  return "\n".join(text.get_text() for text in figure.texts)


def _outlines(axes) -> list[tuple]:
  """(y0, y1, x0, x1) of every box, all of them yellow."""
  assert all(p.get_edgecolor()[:3] == to_rgb(canvas.BOX_YELLOW) for p in axes.patches)
  corners = [(p.get_xy(), p.get_width(), p.get_height()) for p in axes.patches]
  return [(y, y + height, x, x + width) for (x, y), width, height in corners]


def test_figure_2_has_the_altered_image_above_the_original_each_with_its_own_box():
  example = _example()
  source, prototype, *rows, _ = alteration_panels.altered_image(example).axes
  assert _outlines(source) == [example.prototype.source.box]
  assert prototype.images[0].get_array().shape == (6, 6, 3)
  for image, heat, view in zip(rows[0::2], rows[1::2], (example.altered, example.clean)):
    np.testing.assert_array_equal(image.images[0].get_array(), view.image)
    assert _outlines(image) == _outlines(heat) == [view.box]
    middle = ((view.peak.x0 + view.peak.x1) / 2, (view.peak.y0 + view.peak.y1) / 2)
    for axes in (image, heat):
      assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [middle]


def test_figure_2_has_one_scale_for_both_maps():
  example = _example()
  views = (example.altered, example.clean)
  low, high = min(v.map_up.min() for v in views), max(v.map_up.max() for v in views)
  axes = alteration_panels.altered_image(example).axes
  for heat, view in zip((axes[3], axes[5]), views):
    expected = drawing.heat_overlay(view.image, view.map_up, low=low, high=high)
    np.testing.assert_array_equal(heat.images[0].get_array(), expected)


def test_figure_2_says_similarities_predictions_and_the_true_class():
  text = _texts(alteration_panels.altered_image(_example()))
  for words in (
    "JPEG quality 20, predicted", "similarity 4.59", "Original, now predicted", "similarity 2.04",
    "Prototype 7 of", "Pelagic Cormorant", "Clay colored Sparrow", "Image 3: Blue winged Warbler",
  ):  # fmt: skip
    assert words in text
  kept = _example(clean=dataclasses.replace(_example().clean, predicted="025.Pelagic_Cormorant"))
  assert "Original, still predicted" in _texts(alteration_panels.altered_image(kept))


def test_figure_2_without_a_source_leaves_its_place_empty():
  unknown = dataclasses.replace(_example().prototype, source=None)
  figure = alteration_panels.altered_image(_example(prototype=unknown))
  assert [len(axes.images) for axes in figure.axes[:2]] == [0, 0]
  assert len(figure.axes) == len(alteration_panels.altered_image(_example()).axes)


def test_figure_2_names_a_bad_box():
  bad = dataclasses.replace(_example().clean, box=Box(3, 3, 0, 2))
  with pytest.raises(InputError, match="clean box"):
    alteration_panels.altered_image(_example(clean=bad))


def test_figure_6_enlarges_where_the_artefacts_are_and_shows_the_difference_amplified():
  clean = np.full((40, 60, 3), 0.5, np.float32)
  altered = clean.copy()
  altered[20:30, 41:51] += 0.02
  figure = alteration_panels.artefacts(clean, altered, title="JPEG quality 20", gain=8)
  original, altered, difference, *details = figure.axes
  for axes in (original, altered, difference):
    assert _outlines(axes) == [(20, 30, 41, 51)]
  assert altered.get_title("left") == "JPEG quality 20"
  assert [axes.images[0].get_array().shape for axes in details] == [(10, 10, 3)] * 3
  np.testing.assert_allclose(details[2].images[0].get_array(), 0.16, atol=1e-6)
  assert difference.images[0].get_array()[0, 0].tolist() == [0, 0, 0]
  strong = alteration_panels.artefacts(clean, np.ones_like(clean), title="JPEG quality 20", gain=8)
  assert strong.axes[2].images[0].get_array().max() == 1, "clipped, not wrapped around"


def test_the_strongest_square_equals_its_slow_twin():
  strength = np.random.default_rng(0).random((9, 12))
  places = [(strength[y : y + 4, x : x + 4].sum(), y, x) for y in range(6) for x in range(9)]
  _, y, x = max(places)
  assert alteration_panels.strongest_square(strength, 4) == (y, y + 4, x, x + 4)
  assert alteration_panels.strongest_square(strength, 50) == (0, 9, 0, 12)


def test_two_sizes_do_not_make_one_figure_6():
  with pytest.raises(InputError, match="use one size"):
    alteration_panels.artefacts(np.zeros((8, 8, 3)), np.zeros((8, 9, 3)), title="JPEG quality 20")


@pytest.mark.parametrize("num_prototypes, shown", [(200, 75), (6, 6)])
def test_figures_10_to_15_rank_one_version_and_mark_the_same_prototypes_of_the_other(
  num_prototypes, shown
):
  rng = np.random.default_rng(0)
  altered, clean = rng.random((2, num_prototypes))
  panels = alteration_charts.top_similarities(altered, clean).axes
  for axes, ranked, other in zip(panels, (altered, clean), (clean, altered)):
    order = sorted(range(num_prototypes), key=lambda p: -ranked[p])[:shown]
    heights = [bar.get_height() for bar in axes.patches]
    np.testing.assert_allclose(heights, ranked[order])
    places = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    np.testing.assert_allclose(places, np.arange(1, shown + 1), err_msg="ranks start at 1")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), other[order])
  assert panels[0].get_ylim() == panels[1].get_ylim()


def test_a_version_has_one_colour_in_both_panels():
  left, right = alteration_charts.top_similarities(np.ones(3), np.zeros(3)).axes
  left_bar, right_bar = (axes.patches[0].get_facecolor()[:3] for axes in (left, right))
  left_mark, right_mark = (to_rgb(axes.lines[0].get_color()) for axes in (left, right))
  assert left_bar == right_mark != right_bar == left_mark


def test_activations_of_two_networks_are_refused():
  with pytest.raises(InputError, match=r"vectors \[P\]"):
    alteration_charts.top_similarities(np.ones(3), np.ones(4))


def test_the_drop_has_a_row_a_group_with_its_interval_and_none_where_nothing_was_measured():
  mean = {"value": 1.5, "total": 9, "interval": [1.0, 2.5]}
  none = {"value": None, "total": 0, "interval": None}
  group = {"num_images": 9, "similarity_drop": mean, "similarity_drop_reverse": mean}
  empty = {"num_images": 0, "similarity_drop": none, "similarity_drop_reverse": none}
  figure = alteration_charts.similarity_drop({"paper": group, "other_classes": empty, "all": group})
  (axes,) = figure.axes
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert [label.rpartition(", ")[2] for label in labels] == ["n = 9", "n = 0"]
  for container in axes.containers:
    (bar,) = container[2][0].get_segments()
    assert bar[:, 0].tolist() == [1.0, 2.5]
  assert [text.get_text() for text in axes.texts] == ["1.50", "1.50"]
  with pytest.raises(InputError, match="paper"):
    alteration_charts.similarity_drop({})


def test_the_drop_of_one_image_has_no_interval_and_says_so():
  one = {"value": 1.5, "total": 1, "interval": [1.5, 1.5]}
  group = {"num_images": 1, "similarity_drop": one, "similarity_drop_reverse": one}
  (axes,) = alteration_charts.similarity_drop({"paper": group}).axes
  assert [text.get_text() for text in axes.texts] == ["1.50 (n = 1, no interval)"] * 2
