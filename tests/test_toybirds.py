"""ToyBirds: deterministic pictures whose boxes and parts say where the drawn parts are."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jprotop.data import toybirds
from jprotop.data.parts import PARTS
from jprotop.errors import InputError

PART_ATTRIBUTES = {
  "crown": ("crown", "crest"),
  "beak": ("beak", "beak_shape"),
  "belly": ("belly", "belly_pattern"),
  "bars": ("bar", "bars"),
  "tail": ("tail", "tail_length", "tail_fork"),
}
# A bird of which no two parts share a colour.
PLAIN = dataclasses.replace(
  toybirds.species(2)[0], crown="red", beak="black", belly="white", tail="sky", body="brown"
)


def draw(kind, seed, size=128):
  return toybirds.draw(kind, np.random.default_rng(seed), size)


def pixels(bird):
  return np.asarray(bird.image, float)


def around(image, point):
  """Mean over the 3 x 3 pixels about `point` (x, y), inside the picture."""
  x, y = int(point[0]), int(point[1])
  return image[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].mean((0, 1))


def changes(seed, **attributes):
  """The plain bird, and how much each pixel changes [H, W] when its species' attributes do."""
  bird = draw(PLAIN, seed)
  other = draw(dataclasses.replace(PLAIN, **attributes), seed)
  return bird, np.abs(pixels(bird) - pixels(other)).mean(-1)


def visible(bird):
  return {name: row[:2] for name, row in zip(PARTS, bird.parts) if row[2]}


def test_species_differ_in_at_least_two_parts_and_in_name():
  kinds = toybirds.species(200)
  assert len({kind.name for kind in kinds}) == 200
  for a, b in itertools.combinations(kinds, 2):
    differing = [
      part
      for part, names in PART_ATTRIBUTES.items()
      if any(getattr(a, name) != getattr(b, name) for name in names)
    ]
    assert len(differing) >= 2, (a, b)


def test_body_colour_does_not_name_the_species():
  for count in (2, 3, 8, 20, 200):
    bodies = [kind.body for kind in toybirds.species(count)]
    assert len(set(bodies)) < count


def test_species_do_not_depend_on_their_number():
  assert toybirds.species(20) == toybirds.species(200)[:20]


@pytest.mark.parametrize("count", [-1, 0, 1, 201])
def test_species_out_of_range(count):
  with pytest.raises(InputError, match=r"2\.\.200"):
    toybirds.species(count)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 199), st.integers(0, 10**6), st.sampled_from([64, 97, 128]))
def test_annotations_are_well_formed(index, seed, size):
  bird = draw(toybirds.species(200)[index], seed, size)
  width, height = bird.image.size
  assert bird.image.mode == "RGB"
  assert max(width, height) == size
  assert min(width, height) >= 0.7 * size
  assert bird.parts.dtype == np.float32
  assert bird.parts.shape == (15, 3)
  assert set(np.unique(bird.parts[:, 2])) <= {0.0, 1.0}
  assert not bird.parts[bird.parts[:, 2] == 0].any()
  x, y, w, h = bird.box
  assert 0 <= x < x + w <= width
  assert 0 <= y < y + h <= height
  for name, (px, py) in visible(bird).items():
    assert x <= px < x + w, name
    assert y <= py < y + h, name
  assert bird.parts[:, 2].sum() >= 6


def test_box_is_tight():
  """Recoloured all over, a bird changes up to its box's sides and nothing changes outside."""
  for seed in range(20):
    bird = draw(PLAIN, seed)
    colours = dict.fromkeys(("crown", "beak", "belly", "tail", "body"), "violet")
    other = draw(dataclasses.replace(PLAIN, **colours), seed)
    rows, columns = np.nonzero(np.abs(pixels(bird) - pixels(other)).max(-1) > 8)
    x, y, w, h = bird.box
    found = np.array([columns.min(), rows.min(), columns.max() + 1])
    # Foot and front leaf do not change colour: below, only the extent is bounded.
    np.testing.assert_allclose(found, [x, y, x + w], atol=6)
    assert rows.max() + 1 <= y + h + 1


def test_near_side_follows_the_bird():
  """A bird that faces right in the picture, its beak right of its tail, shows its right side."""
  seen = set()
  for seed in range(30):
    points = visible(draw(PLAIN, seed))
    sides = {name.split()[0] for name in points if name.startswith(("left", "right"))}
    assert len(sides) <= 1
    if sides and {"beak", "tail"} <= set(points):
      faces_right = points["beak"][0] > points["tail"][0]
      assert sides == {"right" if faces_right else "left"}
      seen |= sides
  assert seen == {"left", "right"}


@pytest.mark.parametrize(
  ("attributes", "on", "off"),
  [
    ({"crown": "sky"}, ["crown"], ["beak", "belly", "breast", "throat", "tail", "back"]),
    ({"beak": "gold"}, ["beak"], ["crown", "belly", "breast", "tail", "back", "nape"]),
    ({"belly": "red"}, ["belly", "breast", "throat"], ["crown", "beak", "tail", "back", "nape"]),
    ({"tail": "gold"}, ["tail"], ["crown", "beak", "belly", "breast", "throat", "nape"]),
    ({"body": "slate"}, ["back", "nape"], ["beak", "belly", "breast", "tail"]),
  ],
)
def test_part_points_lie_on_their_parts(attributes, on, off):
  for seed in range(25):
    bird, change = changes(seed, **attributes)
    points = visible(bird)
    for name in points.keys() & set(on):
      assert around(change[..., None], points[name])[0] > 12, (seed, name)
    for name in points.keys() & set(off):
      x, y = points[name].astype(int)
      assert change[y, x] < 4, (seed, name)


@pytest.mark.parametrize("part", ["crown", "beak", "belly", "tail"])
def test_part_points_lie_on_the_parts_of_every_variant(part):
  for seed, kind in enumerate(toybirds.species(7) * 3):
    bird = draw(kind, seed)
    other = draw(dataclasses.replace(kind, **{part: "violet"}), seed)
    third = draw(dataclasses.replace(kind, **{part: "olive"}), seed)
    change = np.abs(pixels(other) - pixels(third)).mean(-1, keepdims=True)
    if part in visible(bird):
      assert around(change, visible(bird)[part])[0] > 6, kind.name


def test_wing_leg_and_eye_are_where_they_are_said_to_be():
  for seed in range(25):
    bird, change = changes(seed, body="slate")
    image = pixels(bird)
    for name, point in visible(bird).items():
      x, y = point.astype(int)
      if name.endswith("wing"):
        assert change[y, x] > 5
      if name.endswith("leg"):
        assert around(image, point).mean() < 120
      if name.endswith("eye"):
        assert around(image, point).mean() < 150


def test_leaf_hides_parts_now_and_then():
  counts = [int(draw(PLAIN, seed, 64).parts[:, 2].sum()) for seed in range(120)]
  assert max(counts) == 12
  assert 0.02 < np.mean(np.array(counts) < 12) < 0.4


def test_examples_are_in_order_and_independent_of_their_number():
  few = list(toybirds.examples("test", num_classes=2, images_per_class=2, size=64, seed=3))
  many = list(toybirds.examples("test", num_classes=3, images_per_class=4, size=64, seed=3))
  kept = {example["image_id"]: example for example in many}
  assert [example["label"] for example in few] == [0, 0, 1, 1]
  name = toybirds.species(2)[1].name
  assert few[2]["image_id"] == f"002.{name}/{name}_test_0000.png"
  for example in few:
    twin = kept[example["image_id"]]
    assert example["image"] == twin["image"]
    assert example["box"] == twin["box"]
    np.testing.assert_array_equal(example["parts"], twin["parts"])
  bird = toybirds.draw(toybirds.species(2)[1], np.random.default_rng([3, 1, 1, 0]), 64)
  np.testing.assert_array_equal(Image.open(io.BytesIO(few[2]["image"])), bird.image)


def test_splits_and_seeds_give_other_pictures():
  arguments = {"num_classes": 2, "images_per_class": 1, "size": 64}
  images = [
    next(toybirds.examples(split, seed=seed, **arguments))["image"]
    for split in ("train", "test")
    for seed in (0, 1)
  ]
  assert len(set(images)) == 4


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"split": "val"}, "train"),
    ({"images_per_class": 0}, "at least 1"),
    ({"size": 8}, "at least 32"),
    ({"seed": -1}, "negative"),
    ({"num_classes": 1}, "200"),
  ],
)
def test_wrong_arguments_are_told_at_the_call(change, message):
  arguments = {"split": "train", "num_classes": 2, "images_per_class": 1, "size": 64, "seed": 0}
  with pytest.raises(InputError, match=message):
    toybirds.examples(**(arguments | change))


def test_mean_colour_alone_does_not_tell_species_apart():
  """Nearest class mean of the mean colour, 8 classes: far from what the parts would allow."""

  def features(split, count):
    rows = toybirds.examples(split, num_classes=8, images_per_class=count, size=64, seed=0)
    pairs = [(np.asarray(Image.open(io.BytesIO(row["image"]))), row["label"]) for row in rows]
    return np.array([image.mean((0, 1)) for image, _ in pairs]), np.array([y for _, y in pairs])

  (train, label), (test, expected) = features("train", 15), features("test", 10)
  means = np.array([train[label == k].mean(0) for k in range(8)])
  nearest = ((test[:, None] - means[None]) ** 2).sum(-1).argmin(1)
  assert (nearest == expected).mean() < 0.5
