"""The top prototypes of an image, attacked in turn: who is attacked, where, and what counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop import regions
from jprotop.attacks import in_turn as attack_rounds
from jprotop.attacks import pgd
from jprotop.attacks.budget import Budget
from jprotop.attacks.cases import RULES, Rules, source_cells
from jprotop.attacks.in_turn import Subjects, attack_in_turn
from jprotop.attacks.perturb import Views, see_own
from jprotop.data.own_images import Images
from jprotop.data.parts import PARTS
from jprotop.errors import InputError
from jprotop.experiments import success_numbers
from jprotop.prototypes import selectors
from jprotop.prototypes.see import Network, see

GRID, SIZE = (4, 4), 32  # cells of 8 pixels
PAPER, AUTHORS = RULES["paper"], RULES["authors"]


def cells(*places):
  found = np.zeros(GRID, bool)
  for place in places:
    found[place] = True
  return found


def hot(row, column):
  """A map whose box of high activation lies in one corner cell: all values differ."""
  ys, xs = np.mgrid[: GRID[0], : GRID[1]]
  return (5 - np.hypot(ys - row, xs - column) - 0.01 * ys - 0.001 * xs).astype(np.float32)


COVERING = np.maximum(hot(0, 0), hot(3, 3))  # two peaks, so that the box spans the image


def made_subjects(maps):
  """Grey images whose prototypes are 10 i, 10 i + 1, ... with the given clean maps [N][K]."""
  maps = np.array(maps)
  count, top_k = maps.shape[:2]
  images = Images(
    image=np.full((count, SIZE, SIZE, 3), 0.5, np.float32),
    image_id=[f"bird {i}" for i in range(count)],
    label=np.zeros(count, int),
    points=np.zeros((count, len(PARTS), 3), np.float32),
  )
  return Subjects(
    images=images,
    index=np.arange(count),
    prediction=np.zeros(count, int),
    prototypes=10 * np.arange(count)[:, None] + np.arange(top_k),
    maps=maps,
  )


class Scripted:
  """An attack whose outcome is set beforehand; it keeps what it was asked.

  `after[i][rank]` is the map on the attacked image, whose pixels all are 100 i + rank; `chained`
  what `find` says of it for the next prototype; `classes[i][rank]` the class seen there, by default
  0, which is that of the clean image.
  """

  def __init__(self, after, chained=None, classes=None):
    self.after, self.chained = np.array(after), chained
    self.classes = np.zeros(self.after.shape[:2], int) if classes is None else np.array(classes)
    self.attacks, self.finds = [], []

  def attack(self, rows, rank, source, target):
    self.attacks.append((rows.tolist(), rank, source, target))
    names = (100 * rows + rank).astype(np.float32)
    image = np.broadcast_to(names[:, None, None, None], (len(rows), SIZE, SIZE, 3))
    logits = np.eye(2)[self.classes[rows, rank]]
    return Views(image, self.after[rows, rank], np.zeros((len(rows), 1)), logits)

  def find(self, images, prototype):
    self.finds.append((images[:, 0, 0, 0].tolist(), prototype.tolist()))
    return np.stack([self.chained] * len(images))

  def run(self, subjects, rules):
    return self.run_both(subjects, rules).moved

  def run_both(self, subjects, rules):
    return attack_in_turn(subjects, rules, self.attack, self.find)


STAYS, MOVES = hot(0, 0), hot(3, 3)  # of a prototype whose S is the cell (0, 0)


def test_s_of_the_made_maps():
  assert (source_cells(hot(0, 0), SIZE, PAPER) == cells((0, 0))).all()
  assert source_cells(COVERING, SIZE, PAPER).all()


def test_an_image_leaves_with_its_success_and_its_result_stays():
  subjects = made_subjects([[hot(0, 0)] * 3] * 4)
  network = Scripted([[MOVES, STAYS, STAYS], [STAYS] * 3, [STAYS, MOVES, STAYS], [STAYS] * 3])
  outcome, kept = network.run_both(subjects, PAPER)
  assert [(rows, rank) for rows, rank, *_ in network.attacks] == [
    ([0, 1, 2, 3], 0), ([1, 2, 3], 1), ([1, 3], 2)
  ]  # fmt: skip
  assert outcome.rank.tolist() == [0, -1, 1, -1]
  assert outcome.num_tried.tolist() == [1, 3, 2, 3]
  assert outcome.attackable.all()
  assert outcome.prediction.tolist() == [0, -1, 0, -1]
  assert (outcome.map[[0, 2]] == MOVES).all() and (outcome.map[[1, 3]] == 0).all()
  # Higher at (3, 3) than anywhere in S, which is the cell (0, 0).
  assert outcome.margin == pytest.approx(
    [MOVES[3, 3] - MOVES[0, 0], 0, MOVES[3, 3] - MOVES[0, 0], 0]
  )
  assert all((getattr(kept, name) == value).all() for name, value in vars(outcome).items())


def test_an_attack_goes_on_until_the_class_is_kept_and_the_first_success_stays():
  subjects = made_subjects([[hot(0, 0)] * 3] * 4)
  after = [[MOVES, MOVES, MOVES], [MOVES, STAYS, MOVES], [MOVES] * 3, [STAYS, MOVES, STAYS]]
  classes = [[1, 0, 0], [1, 0, 1], [0, 1, 1], [0, 0, 0]]
  network = Scripted(after, classes=classes)
  moved, kept = network.run_both(subjects, PAPER)
  assert [rows for rows, *_ in network.attacks] == [[0, 1, 2, 3], [0, 1, 3], [1]]
  assert moved.rank.tolist() == [0, 0, 0, 1] and moved.num_tried.tolist() == [1, 1, 1, 2]
  assert moved.prediction.tolist() == [1, 1, 0, 0]
  assert kept.rank.tolist() == [1, -1, 0, 1] and kept.num_tried.tolist() == [2, 3, 1, 2]
  assert kept.prediction.tolist() == [0, -1, 0, 0]


def test_an_image_that_is_dropped_after_its_first_success_keeps_that():
  subjects = made_subjects([[hot(0, 0), COVERING]] * 2)
  network = Scripted([[MOVES, MOVES]] * 2, classes=[[1, 0], [0, 0]])
  moved, kept = network.run_both(subjects, Rules(drop_covered=True))
  assert moved.rank.tolist() == [0, 0] and moved.attackable.all()
  assert kept.rank.tolist() == [-1, 0]
  assert kept.attackable_within.tolist() == [[True, False], [True, True]]


def test_when_all_have_succeeded_nothing_more_is_attacked():
  network = Scripted([[MOVES] * 3] * 2)
  network.run(made_subjects([[hot(0, 0)] * 3] * 2), PAPER)
  assert len(network.attacks) == 1


@pytest.mark.parametrize(("outside", "rank"), [(1.0, -1), (np.nextafter(1, 2), 0)])
def test_success_is_strict(outside, rank):
  tie = np.zeros(GRID)
  tie[0, 0], tie[2, 1] = 1.0, outside
  outcome = Scripted([[tie]]).run(made_subjects([[hot(0, 0)]]), PAPER)
  assert outcome.rank.tolist() == [rank]


def test_paper_takes_s_of_the_clean_image_and_its_exact_complement():
  subjects = made_subjects([[hot(0, 0), hot(0, 3)]])
  network = Scripted([[STAYS, hot(0, 3)]])
  network.run(subjects, PAPER)
  for (_, _, source, target), corner in zip(network.attacks, [(0, 0), (0, 3)]):
    assert (source == cells(corner)).all() and (target == ~cells(corner)).all()
  assert not network.finds


def test_authors_take_the_test_s_from_the_image_attacked_before():
  # On the clean image every prototype sits at (0, 0); on the attacked ones the next is at (3, 3),
  # so being found at (0, 0) is a success there.
  subjects = made_subjects([[hot(0, 0)] * 3])
  network = Scripted([[STAYS, STAYS, STAYS]], chained=hot(3, 3))
  outcome = network.run(subjects, Rules(chained_source=True))
  assert network.finds == [([0.0], [1])]
  assert outcome.rank.tolist() == [1]
  (_, _, *first), (_, _, source, target) = network.attacks
  assert (first[0] == cells((0, 0))).all() and (first[1] == ~cells((0, 0))).all()
  # The objective's own S is the clean one; S_noisy follows the success test.
  assert (source == cells((0, 0))).all() and (target == ~cells((3, 3))).all()


def test_the_chain_goes_on_from_the_last_attacked_image():
  subjects = made_subjects([[hot(0, 0)] * 3, [hot(0, 0), COVERING, hot(0, 0)]])
  network = Scripted([[STAYS] * 3] * 2, chained=hot(0, 0))
  network.run(subjects, Rules(chained_source=True))
  # Image 1 is attacked in every round too: what counts is the chained S, not the clean one.
  assert network.finds == [([0.0, 100.0], [1, 11]), ([1.0, 101.0], [2, 12])]


def test_authors_make_rectangles_and_take_the_border_cell(monkeypatch):
  # A box that ends exactly on the border of cell (1, 1), in the middle of the grid.
  monkeypatch.setattr(regions, "high_activation_box", lambda *_: regions.Box(8, 16, 8, 16))
  network = Scripted([[STAYS]], chained=STAYS)
  network.run(made_subjects([[hot(1, 1)]]), AUTHORS)
  (_, _, source, target), = network.attacks  # fmt: skip
  assert (source == cells((1, 1), (1, 2), (2, 1), (2, 2))).all()
  assert target.all()


def test_paper_tries_the_next_prototype_where_s_covers_the_grid():
  subjects = made_subjects([[COVERING, hot(0, 0)], [COVERING, COVERING], [hot(0, 0), COVERING]])
  network = Scripted([[MOVES, MOVES], [MOVES, MOVES], [STAYS, MOVES]])
  outcome = network.run(subjects, PAPER)
  assert [(rows, rank) for rows, rank, *_ in network.attacks] == [([2], 0), ([0], 1)]
  assert outcome.rank.tolist() == [1, -1, -1]
  assert outcome.attackable.tolist() == [True, False, True]
  assert outcome.num_tried.tolist() == [1, 0, 1]


def test_authors_drop_the_image_where_s_covers_the_grid():
  subjects = made_subjects(
    [[COVERING, hot(0, 0)], [hot(0, 0), COVERING], [hot(0, 0), COVERING], [hot(0, 0)] * 2]
  )
  network = Scripted([[MOVES, MOVES], [STAYS, MOVES], [MOVES, MOVES], [STAYS, MOVES]])
  outcome = network.run(subjects, Rules(drop_covered=True))
  # Image 1 is met only after a failure, image 2 succeeds before.
  assert outcome.attackable.tolist() == [False, False, True, True]
  assert outcome.rank.tolist() == [-1, -1, 0, 1]


@pytest.mark.parametrize("rules", [PAPER, AUTHORS, Rules(drop_covered=True)], ids=str)
def test_the_rate_at_k_is_that_of_a_run_with_k_prototypes(rules):
  rng = np.random.default_rng(0)
  corners = np.stack([hot(0, 0), hot(3, 3)])
  covered = rng.random((60, 5, 1, 1)) < 0.3
  maps = np.where(covered, COVERING, hot(0, 0))
  after = corners[(rng.random((60, 5)) < 0.2).astype(int)]
  # On the attacked image before, some prototypes cover the grid too, and some lie elsewhere.
  chained = np.stack([hot(0, 0), hot(3, 3), COVERING])[rng.integers(0, 3, (60, 5))]

  def rates(top_k):
    network = Scripted(after)

    def find(_, prototype):
      return chained[prototype // 10, prototype % 10]

    outcome = attack_in_turn(made_subjects(maps[:, :top_k]), rules, network.attack, find).moved
    return success_numbers.rates(outcome, top_k), outcome.attackable

  all_rates, attackable = rates(5)
  totals = set()
  for k in range(1, 6):
    fewer, _ = rates(k)
    assert all_rates[str(k)] == fewer[str(k)]
    totals.add(fewer[str(k)]["total"])
  assert all_rates["5"]["total"] == attackable.sum()
  assert len(totals) > 2  # who can be attacked depends on k
  # By `paper` later prototypes make images attackable, by `authors` they drop some.
  assert (all_rates["1"]["total"] < all_rates["5"]["total"]) == (not rules.drop_covered)


def test_nothing_is_left_to_attack():
  network = Scripted([[MOVES]])
  for rules in (PAPER, AUTHORS):
    assert network.run(made_subjects([[COVERING]]), rules).attackable.tolist() == [False]
  assert network.attacks == []


@pytest.mark.parametrize("top_k", [0, 7])
def test_top_k_must_be_a_number_of_prototypes(top_k):
  with pytest.raises(InputError, match=f"top_k={top_k} must lie between 1 and 6"):
    attack_rounds.check_top_k(top_k, 6)
  attack_rounds.check_top_k(6, 6)


# --- with a network


@pytest.fixture(scope="module")
def subjects(tiny):
  """Five random pictures of 64 pixels, 4 x 4 cells, and their three most activated prototypes."""
  rng = np.random.default_rng(3)
  images = Images(
    image=rng.random((5, 64, 64, 3)).astype(np.float32),
    image_id=list("abcde"),
    label=np.zeros(5, int),
    points=np.zeros((5, len(PARTS), 3), np.float32),
  )
  every = np.tile(np.arange(6), (5, 1))
  each = {"prototypes": every}
  seen = see(Network(*tiny), images.image, selectors.own_maps, batch_size=4, each=each)
  prototypes = np.argsort(-seen["activations"], axis=1)[:, :3]
  return Subjects(
    images=images,
    index=np.array([3, 4, 11, 12, 30]),
    prediction=seen["logits"].argmax(axis=1),
    prototypes=prototypes,
    maps=np.take_along_axis(seen["similarity_maps"], prototypes[..., None, None], axis=1),
  )


BUDGET = Budget(eps=4 / 255, num_steps=3)


def attack_all(tiny, subjects, rules, *, batch_size=4, objective="move"):
  functions = attack_rounds.attacker(
    Network(*tiny),
    subjects,
    BUDGET,
    rules,
    objective=objective,
    seed=1,
    batch_size=batch_size,
    title="",
  )
  return attack_in_turn(subjects, rules, *functions).moved


def slow_attack(tiny, subjects, rules):
  """The procedure of App. F.1, and of the reference code, image by image."""
  model, variables = tiny

  @jax.jit
  def map_of(image, prototype):
    return model.apply(variables, image[None]).similarity_map[0, ..., prototype]

  @jax.jit
  def perturbed(image, pixels, prototype, source, noisy, key):
    def objective(x):
      similarity = map_of(x[0], prototype)
      lowered = jnp.where(source & ~noisy if rules.drop_shared_cells else source, similarity, 0)
      mean = jnp.where(noisy, similarity, 0).sum() / noisy.sum()
      return (mean - lowered.sum() / source.sum())[None]

    return pgd.masked_pgd(
      objective, image[None], pixels[None], keys=key[None], start_off_mask=rules.start_off_mask,
      eps=BUDGET.eps, step_size=BUDGET.step_size, num_steps=BUDGET.num_steps,
    )[0]  # fmt: skip

  ranks, tried, maps = [], [], np.zeros_like(subjects.maps[:, 0])
  for i, image in enumerate(subjects.images.image):
    found, attempts, before = -1, 0, None
    for rank, prototype in enumerate(subjects.prototypes[i]):
      source = tested = source_cells(np.asarray(map_of(image, prototype)), 64, rules)
      if rules.chained_source and before is not None:
        tested = source_cells(np.asarray(map_of(before, prototype)), 64, rules)
      if tested.all():
        if rules.drop_covered:
          break
        continue
      noisy = regions.cells_bounding_box(~tested) if rules.rectangular_target else ~tested
      pixels = regions.cells_to_pixels(noisy, 64, 64)
      key = jax.random.fold_in(jax.random.key(1), rank * 2**20 + int(subjects.index[i]))
      before = np.asarray(perturbed(image, pixels, prototype, source, noisy, key))
      attempts += 1
      similarity = np.asarray(map_of(before, prototype))
      if similarity[~tested].max() > similarity[tested].max():
        found, maps[i] = rank, similarity
        break
    ranks.append(found)
    tried.append(attempts)
  return ranks, tried, maps


@pytest.mark.parametrize("protocol", RULES)
def test_the_same_as_one_image_at_a_time(tiny, subjects, protocol):
  outcome = attack_all(tiny, subjects, RULES[protocol])
  ranks, tried, maps = slow_attack(tiny, subjects, RULES[protocol])
  assert outcome.rank.tolist() == ranks and outcome.num_tried.tolist() == tried
  # Rounding may turn the sign of a gradient that is next to nothing.
  np.testing.assert_allclose(outcome.map, maps, atol=1e-3)
  assert len(set(ranks)) > 1  # else this would show little


def test_paper_touches_no_pixel_off_its_mask(tiny, subjects):
  network = Network(*tiny)
  attack, _ = attack_rounds.attacker(
    network, subjects, BUDGET, PAPER, objective="move", seed=1, batch_size=4, title=""
  )
  rows = np.array([1, 4])
  source = np.stack([source_cells(subjects.maps[i, 0], 64, PAPER) for i in rows])
  seen = attack(rows, 0, source, ~source)
  change = np.abs(seen.image - subjects.images.image[rows]).max(axis=-1)
  pixels = regions.cells_to_pixels(source, 64, 64)
  assert (change[pixels] == 0).all() and (change[~pixels] > 0).mean() > 0.9
  assert change.max() <= BUDGET.eps + 1e-6
  # What it reports is what the network sees in these images.
  prototype = subjects.prototypes[rows, 0]
  again = see_own(network, seen.image, prototype, batch_size=2)
  np.testing.assert_allclose(seen.similarity_map, again.similarity_map, atol=1e-4)


def test_the_control_has_rounds_of_its_own(tiny, subjects):
  control = attack_all(tiny, subjects, PAPER, objective=None)
  attacked = attack_all(tiny, subjects, PAPER)
  assert (control.rank >= 0).sum() < (attacked.rank >= 0).sum()
  # It tries on where the attack has succeeded already.
  assert (control.num_tried >= attacked.num_tried).all()
  assert control.num_tried.sum() > attacked.num_tried.sum()
