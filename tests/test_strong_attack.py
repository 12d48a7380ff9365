"""The strongest attack: its aims, its order of eps and masks, and what is said of it."""

import jax.numpy as jnp
import numpy as np
import pytest
import study_results
from study_results import strong_attack

from jprotop import regions
from jprotop.attacks import aims as aims_of
from jprotop.attacks import objectives, search, strong, strong_cases
from jprotop.attacks.aims import MASKS, Aims
from jprotop.attacks.budget import Budget
from jprotop.attacks.in_turn import Subjects
from jprotop.attacks.objectives import Cells
from jprotop.attacks.perturb import see_own
from jprotop.attacks.search_rows import Found
from jprotop.attacks.strong_cases import Reached
from jprotop.cli import reproduce
from jprotop.data import own_images
from jprotop.data.own_images import Images
from jprotop.data.parts import PARTS
from jprotop.errors import InputError
from jprotop.experiments import strong_attack_numbers as numbers_of
from jprotop.experiments import strong_attack_rounds as rounds
from jprotop.experiments import strong_attack_text
from jprotop.experiments.pages import all_claims
from jprotop.prototypes.see import Network
from jprotop.report import eps_curves
from jprotop.runs import config, config_checks, results
from jprotop.runs import run as runs

GRID, SIZE = (4, 4), 32  # cells of 8 pixels


def test_the_margin_is_positive_where_the_prototype_is_found_in_s_noisy():
  rng = np.random.default_rng(0)
  maps = rng.normal(size=(20, 3, 4)).astype(np.float32)
  target = rng.uniform(size=maps.shape) < 0.5
  target[0], target[1] = False, True  # Nowhere to go, and nowhere else: no margin.
  cells, numbers = Cells(None, jnp.asarray(target)), Budget().numbers()
  found = np.asarray(objectives.margin(jnp.asarray(maps), cells, numbers))
  assert (found[:2] == 0).all()
  for i in range(2, 20):
    assert found[i] == pytest.approx(maps[i][target[i]].max() - maps[i][~target[i]].max())
  inside = regions.peak_inside(maps[2:], target[2:])
  assert ((found[2:] > 0) == inside).all()


def hot(row, column):
  """A map whose box of high activation lies in one cell."""
  ys, xs = np.mgrid[: GRID[0], : GRID[1]]
  return (5 - np.hypot(ys - row, xs - column) - 0.01 * ys - 0.001 * xs).astype(np.float32)


def made_subjects(maps, parts=None):
  """Grey images with maps [N][K]; parts: {name: cell} of the visible ones of each image."""
  maps = np.array(maps)
  count, top_k = maps.shape[:2]
  points = np.zeros((count, len(PARTS), 3), np.float32)
  for i, visible in enumerate(parts or []):
    for name, (row, column) in visible.items():
      points[i, PARTS.index(name)] = (8 * column + 4, 8 * row + 4, 1)
  return Subjects(
    images=Images(
      image=np.full((count, SIZE, SIZE, 3), 0.5, np.float32),
      image_id=[f"bird {i}" for i in range(count)],
      label=np.zeros(count, int),
      points=points,
    ),
    index=np.arange(count) + 7,
    prediction=np.arange(count),
    prototypes=10 * np.arange(count)[:, None] + np.arange(top_k),
    maps=maps,
  )


COVERING = np.maximum(hot(0, 0), hot(3, 3))  # two peaks, so that the box spans the image


def test_off_s_is_all_but_s_and_the_masks_hold_each_other():
  subjects = made_subjects([[hot(0, 0), hot(1, 1)], [COVERING, hot(3, 3)]])
  rows, aims = aims_of.off_source(subjects, 0)
  assert rows.tolist() == [0] and aims.prototype.tolist() == [0] and aims.index.tolist() == [7]
  assert aims.source.sum() == 1 and (aims.target == ~aims.source).all()
  pixels = [aims.pixels(mask) for mask in MASKS]
  assert [int(mask.sum()) for mask in pixels] == [15 * 64, 16 * 64, 16 * 64]
  rows, aims = aims_of.off_source(subjects, 1)
  assert rows.tolist() == [0, 1] and aims.prototype.tolist() == [1, 11]
  assert np.argwhere(aims.source).tolist() == [[0, 1, 1], [1, 3, 3]]


def test_random_rectangles_lie_off_s_and_are_drawn_from_the_seed():
  subjects = made_subjects([[hot(1, 2)]] * 30 + [[COVERING]])
  rows, aims = aims_of.random_rectangle(subjects, 0)
  assert rows.tolist() == list(range(30))  # Beside an S that covers the grid there is none.
  assert (aims.target.sum((1, 2)) == 1).all() and not (aims.target & aims.source).any()
  assert len(np.unique(aims.target, axis=0)) > 8  # of 15
  again, other = (aims_of.random_rectangle(subjects, seed)[1].target for seed in (0, 1))
  assert (again == aims.target).all() and (other != aims.target).any()


def test_head_to_stomach_takes_the_most_activated_prototype_on_the_head():
  head, stomach = {"beak": (0, 0)}, {"belly": (3, 3)}
  maps = [[hot(2, 2), hot(0, 0)], [hot(0, 0), hot(0, 0)], [hot(2, 2)] * 2, [hot(0, 0)] * 2]
  subjects = made_subjects(maps, [head | stomach, head | stomach, head | stomach, head])
  rows, aims = aims_of.head_to_stomach(subjects)
  # The third has none on the head, the fourth shows no stomach.
  assert rows.tolist() == [0, 1] and aims.prototype.tolist() == [1, 10]
  assert aims.target[:, 3, 3].all() and not (aims.target & aims.source).any()


def some_aims(count):
  subjects = made_subjects([[hot(0, 0)]] * count)
  return aims_of.off_source(subjects, 0)[1]


SETTING = strong.Setting(Network(None, {}), 8 / 255, seed=0, batch_size=2)
STRENGTH = strong.Strength(restarts=1, num_steps=2, masks=MASKS)


class Scripted:
  """An attack whose outcome is set: the level of each image (by its index) from which call on."""

  def __init__(self, monkeypatch, levels):
    self.levels, self.asked = np.array(levels), []
    monkeypatch.setattr(strong_cases, "worst_case", self)

  def __call__(self, setting, aims, strength, mask, title=None):
    self.asked.append((round(255 * setting.eps, 3), mask, (aims.index - 7).tolist()))
    level = self.levels[len(self.asked) - 1][aims.index - 7]
    image = np.full(aims.image.shape, len(self.asked) / 10, np.float32)
    return Found(level, np.zeros(len(aims), np.float32), image, np.zeros(len(aims), int))


def test_each_next_eps_takes_only_what_has_not_fully_succeeded(monkeypatch):
  failed, moved, kept = search.FAILED, search.MOVED, search.KEPT
  attack = Scripted(
    monkeypatch,
    [
      [failed, moved, kept, failed, moved],
      [failed, moved, failed, moved, failed],
      [failed, kept, failed, failed, failed],
    ],
  )
  levels = strong_cases.levels_of("4,2", 8 / 255)
  found = strong_cases.curve(SETTING, some_aims(5), STRENGTH, MASKS[0], levels)
  asked = [(eps, rows) for eps, _, rows in attack.asked]
  assert asked == [(2, [0, 1, 2, 3, 4]), (4, [0, 1, 3, 4]), (8, [0, 1, 3, 4])]
  assert found.moved_at.tolist() == [3, 0, 0, 1, 0]
  assert found.kept_at.tolist() == [3, 2, 0, 3, 3]
  assert found.reached(0).moved.tolist() == [False, True, True, False, True]
  assert found.reached().kept.tolist() == [False, True, True, False, False]
  # The picture is that of the smallest eps that counts for the image.
  pictures = found.image[:, 0, 0, 0]
  np.testing.assert_allclose(pictures, [0.3, 0.3, 0.1, 0.2, 0.1], atol=1e-6)


def test_a_larger_mask_takes_only_what_is_left_and_loses_nothing(monkeypatch):
  kept, failed = search.KEPT, search.FAILED
  aims = some_aims(3)
  aims = Aims(**{**vars(aims), "target": aims.target & ~np.eye(4, dtype=bool)})
  attack = Scripted(monkeypatch, [[kept, failed, search.MOVED], [0, kept, 0], [0, 0, failed]])
  found = strong_cases.by_mask(SETTING, aims, STRENGTH)
  assert [(mask, rows) for _, mask, rows in attack.asked] == [
    (MASKS[0], [0, 1, 2]), (MASKS[1], [1, 2]), (MASKS[2], [2])
  ]  # fmt: skip
  assert [found[mask].kept.sum() for mask in MASKS] == [1, 2, 2]
  assert [found[mask].moved.sum() for mask in MASKS] == [2, 3, 3]
  # Off S, S with S_noisy is the whole image; what is known of a mask is not attacked again.
  attack = Scripted(monkeypatch, [[0, 0, kept]])
  known = Reached(np.array([True, False, False]), np.array([True, False, False]))
  found = strong_cases.by_mask(SETTING, some_aims(3), STRENGTH, known)
  assert [(mask, rows) for _, mask, rows in attack.asked] == [(MASKS[1], [1, 2])]
  assert found.keys() == set(MASKS[:2]) and found[MASKS[1]].kept.tolist() == [True, False, True]


def test_prototypes_in_turn_until_the_class_is_kept():
  subjects = made_subjects([[hot(0, 0)] * 3, [COVERING, hot(1, 1), hot(1, 1)], [hot(0, 0)] * 3])
  asked = []

  def attack(rank, aims):
    asked.append((rank, (aims.index - 7).tolist()))
    moved = aims.index == 7  # The first moves at once, and keeps its class with the second one;
    kept = moved if rank == 1 else np.zeros(len(aims), bool)
    return Reached(moved | (rank == 2), kept | (rank == 2))  # the others move with the third.

  found = rounds.in_ranks(subjects, attack)
  assert asked == [(0, [0, 2]), (1, [0, 1, 2]), (2, [1, 2])]
  at = found.rates_at()
  assert [at[k]["moved"]["count"] for k in "123"] == [1, 1, 3]
  assert [at[k]["moved_and_prediction_kept"]["count"] for k in "123"] == [0, 1, 3]
  assert [at[k]["moved"]["total"] for k in "123"] == [2, 3, 3]


@pytest.mark.parametrize("text", ["a", "0", "-1", "300", "1;2"])
def test_levels_must_be_positive_numbers(text):
  with pytest.raises(InputError, match=r"strong_attack\.curve"):
    strong_cases.levels_of(text, 8 / 255)


def test_levels_end_with_the_eps_of_the_attack():
  assert strong_cases.levels_of("", 8 / 255) == (8 / 255,)
  assert strong_cases.levels_of("2, 1,16,8", 8 / 255) == pytest.approx((1 / 255, 2 / 255, 8 / 255))


@pytest.mark.parametrize(
  ("key", "value", "said"),
  [
    ("attack.strength", "strongest", "must be one of paper, strong-small, strong"),
    ("strong_attack.targets", "tail", "'tail' is not known; it must be some of head to stomach"),
    ("strong_attack.curve", "x", "strong_attack.curve='x'"),
  ],
)
def test_names_in_configs_are_checked(key, value, said):
  changed = config.get_config()
  with changed.unlocked():
    changed.measure.update_from_flattened_dict({key: value})
  with pytest.raises(InputError, match=said):
    config_checks.check_measuring(changed.to_dict())


def test_a_study_has_it_where_its_config_says_so_or_it_is_named():
  def names(strength, only=()):
    changed = config.get_config()
    changed.measure.attack.strength = strength
    return {stage.name for stage in reproduce.chosen_stages(changed.to_dict(), list(only))}

  assert names("strong-small") - names("paper") == {"strong_attack"}
  assert names("paper", ["strong_attack"]) == {"strong_attack"}


def by_claim(study):
  return {row["claim"]: row for row in all_claims(study)}


MOVES = "Noise moves where a prototype is found, and the prediction stays (strong attack)"
HALVED = "Adversarial training reduces the success rate by more than half (strong attack)"
LEFT = "It does not alleviate the problem entirely (strong attack)"


@pytest.mark.parametrize(
  ("standard", "adversarial", "wanted"),
  [
    (strong_attack(26), strong_attack(7), ("holds", "holds", "holds")),
    # Noise that is drawn at random does as well.
    (
      strong_attack(26, control=26),
      strong_attack(7, control=7),
      ("undecided", "holds", "undecided"),
    ),
    (strong_attack(26), strong_attack(26), ("holds", "reversed", "holds")),
    (strong_attack(26), strong_attack(0), ("holds", "holds", "undecided")),
    (strong_attack(12), strong_attack(6), ("holds", "undecided", "holds")),
  ],
)
def test_claims_rest_on_the_strong_attack_and_its_control(standard, adversarial, wanted):
  study = study_results.study()
  study["strong_attack"] = {"standard": standard, "adversarial": adversarial}
  rows = by_claim(study)
  assert tuple(rows[claim]["verdict"] for claim in (MOVES, HALVED, LEFT)) == wanted
  assert rows[MOVES]["p"] is not None


def test_where_square_attack_finds_more_the_text_says_that_gradients_are_masked():
  said = strong_attack_text.masked(strong_attack(26, solved=3)["without_gradients"]["solved"])
  assert "solves 3 of the 4 images" in said and "gradients are masked" in said
  said = strong_attack_text.masked(strong_attack(26)["without_gradients"]["solved"])
  assert "solves none of the 4" in said and "masked" not in said
  said = strong_attack_text.masked(strong_attack(30)["without_gradients"]["solved"])
  assert "missed no image" in said


def test_what_without_gradients_counts():
  white_box = Reached(np.array([1, 1, 0, 0], bool), np.array([1, 0, 0, 0], bool))
  square = Reached(np.array([1, 1, 1, 0], bool), np.array([1, 1, 0, 0], bool))
  found = numbers_of.without_gradients(9, white_box, square)
  assert (found["solved"]["count"], found["solved"]["total"]) == (1, 3)
  assert found["square"]["moved"]["count"] == 3


def test_the_most_looks_that_are_told_beforehand():
  budget, levels = Budget(), (1 / 255, 8 / 255)
  plan = rounds.Plan("strong-small", levels, 100, ("random rectangle",), 1, budget)
  # Two eps off S and the rectangle, 204 looks each; the paper's 40 steps for both targets.
  assert plan.most_looks(10) == (10 * (3 * 204 + 2 * 40), 10 * (2 * 204 + 100))


def test_curves_of_networks_are_drawn_with_their_counts():
  curves = {name: strong_attack(n)["curve"] for name, n in (("standard", 26), ("adversarial", 7))}
  (axes,) = eps_curves.eps_curves(curves).axes
  labels = axes.get_legend_handles_labels()[1]
  assert labels[0] == "standard, class kept, n = 30" and len(labels) == 4
  assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "8"]


def test_pictures_that_it_keeps_do_what_its_numbers_say(run):
  """On the network of the study: they are within eps, noise is off S, and prototypes move."""
  workdir, cache, _ = run
  record = results.read_results(workdir)["strong_attack"]["standard"]
  opened = runs.open_run(workdir, changes={"data.cache": str(cache)})
  kept = np.load(workdir / "strong_attack.npz")
  split = opened.seen.test
  place = np.array([split.image_id.index(name) for name in kept["image_id"]])
  clean = own_images.from_split(split, place).image
  source, attacked, found = kept["source"], kept["attacked"], np.isfinite(kept["eps"])
  noise = regions.cells_to_pixels(~source, *clean.shape[1:3])
  change = np.abs(attacked - clean).max(axis=-1)
  assert (change <= np.where(found, kept["eps"], 1)[:, None, None] + 1e-5).all()
  assert not change[~noise].any()
  seen = see_own(opened.network, attacked, kept["prototype"], batch_size=4)
  outside, inside = (
    regions.max_over_cells(seen.similarity_map, cells) for cells in (~source, source)
  )
  assert ((outside > inside) == found).all()
  assert found.sum() == record["curve"][-1]["strong"]["moved"]["count"]
  rows = [row for row in record["images"] if (row["target"], row["mask"]) == ("off S", "S_noisy")]
  assert [row["strong_moved"] for row in rows] == found.tolist()
  assert {row["target"] for row in record["by_target"]} == {"off S", "random rectangle"}
  for name in ("strong", "paper", "control"):
    assert record[f"{name}_at"]["1"] == record["by_target"][0][name]
