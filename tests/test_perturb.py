"""The attack of every experiment with objectives and methods of one's own, from outside."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jprotop import parallel
from jprotop.attacks import objectives, pgd
from jprotop.attacks.budget import Budget, Numbers
from jprotop.attacks.perturb import AttackBatch, perturb, random_signs, see_own, with_control
from jprotop.errors import InputError
from jprotop.prototypes.see import Network

TRACED = []


def flatten(maps, cells, numbers):
  """An objective of one's own: a map without a peak."""
  TRACED.append(maps.shape)
  return maps.min(axis=(1, 2)) - maps.max(axis=(1, 2))


def one_for_all(maps, cells, numbers):
  return maps.sum()


@flax.struct.dataclass
class Best(pgd.State):
  """A method that keeps more than PGD: the images that were best so far."""

  best: jax.Array
  value: jax.Array

  @property
  def found(self):
    return self.best


def begin_best(room, numbers, keys):
  x = pgd.init(room, numbers, keys).x
  return Best(x, x, jnp.full(len(x), -jnp.inf))


def run_best(state, objective, room, numbers):
  def once(_, state):
    value = objective(state.x)
    better = value > state.value
    best = jnp.where(better[:, None, None, None], state.x, state.best)
    moved = pgd.step(state, objective, room, numbers)
    return moved.replace(best=best, value=jnp.maximum(value, state.value))

  return jax.lax.fori_loop(0, numbers.num_steps, once, state)


BEST = pgd.Method(begin_best, run_best)


@pytest.fixture(scope="module")
def batch(tiny):
  """Three pictures on a 4 x 4 grid; S the first row of cells, S_noisy the last, noise anywhere."""
  images = np.random.default_rng(2).random((3, 64, 64, 3)).astype(np.float32)
  cells = np.zeros((2, 3, 4, 4), bool)
  cells[0, :, 0] = cells[1, :, 3] = True
  return AttackBatch(
    image=images,
    pixels=np.ones(images.shape[:3], bool),
    prototype=np.array([0, 3, 5]),
    key=parallel.key_array(0, np.arange(3)),
    source=cells[0],
    target=cells[1],
  )


BUDGET = Budget(num_steps=4)


@pytest.fixture
def registry(monkeypatch):
  monkeypatch.setattr(objectives, "OBJECTIVES", dict(objectives.OBJECTIVES))


def height(views):
  return np.ptp(views.similarity_map.reshape(3, -1), axis=1)


def test_an_objective_of_ones_own_by_itself_and_by_its_name(tiny, batch, registry):
  network = Network(*tiny)
  clean = see_own(network, batch.image, batch.prototype, batch_size=4)
  found = perturb(network, batch, BUDGET, objective=flatten, batch_size=4)
  assert (height(found) < height(clean)).all()
  objectives.register_objective("flatten", flatten)
  views = with_control(network, batch, BUDGET, objective="flatten", batch_size=4, clean=clean)
  assert views["clean"] is clean
  np.testing.assert_allclose(views["attacked"].image, found.image, atol=1e-6)
  assert (height(views["control"]) > height(found)).all()


def test_a_name_is_given_once_and_must_be_known(tiny, batch, registry):
  with pytest.raises(InputError, match="objective 'move' is there already"):
    objectives.register_objective("move", flatten)
  with pytest.raises(InputError, match="'mvoe' is not known; it must be one of margin, move,"):
    perturb(Network(*tiny), batch, BUDGET, objective="mvoe", batch_size=4)


def test_objectives_that_cannot_be_raised_are_said(tiny, batch):
  with pytest.raises(InputError, match=r"one_for_all gives values of shape \(\) .* one value"):
    perturb(Network(*tiny), batch, BUDGET, objective=one_for_all, batch_size=4)
  arrays = {name: getattr(batch, name) for name in ("image", "pixels", "prototype", "key")}
  with pytest.raises(InputError, match="move needs the cells S and S_noisy"):
    perturb(Network(*tiny), AttackBatch(**arrays), BUDGET, batch_size=4)


def test_other_numbers_and_fewer_images_compile_nothing(tiny, batch):
  network = Network(*tiny)
  perturb(network, batch, BUDGET, objective=flatten, batch_size=4)
  before = len(TRACED)
  assert before
  fewer = AttackBatch(**{name: array[:1] for name, array in vars(batch).items()})
  other = Budget(eps=0.1, step_size=0.01, num_steps=2, random_start=False)
  perturb(network, fewer, other, objective=flatten, batch_size=4)
  assert len(TRACED) == before


def test_a_method_may_keep_more_than_where_it_stands(tiny, batch):
  network = Network(*tiny)
  last = perturb(network, batch, Budget(num_steps=3), batch_size=4)
  # The best of the images before each of four steps; the last of them is where three steps end.
  best = perturb(network, batch, Budget(num_steps=4), method=BEST, batch_size=4)

  def raised(views):
    maps = views.similarity_map
    return maps[:, 3].mean(axis=1) - maps[:, 0].mean(axis=1)

  assert (raised(best) >= raised(last) - 1e-5).all()
  assert np.abs(best.image - batch.image).max() <= BUDGET.eps + 1e-6


def test_the_control_is_as_large_a_change_of_every_pixel_as_may_be(tiny, batch):
  found = random_signs(Network(*tiny), batch, BUDGET, batch_size=4)
  change = found.image - batch.image
  free = (batch.image > BUDGET.eps) & (batch.image < 1 - BUDGET.eps)
  np.testing.assert_allclose(np.abs(change[free]), BUDGET.eps, atol=1e-6)
  assert abs((change[free] > 0).mean() - 0.5) < 0.01


def test_a_run_in_slices_is_the_run():
  image = jnp.asarray(np.random.default_rng(0).random((2, 4, 5, 3)), jnp.float32)
  room = pgd.Room(image, jnp.ones((2, 4, 5), bool))

  def objective(x):
    return jnp.sin(40 * x).sum(axis=(1, 2, 3))

  numbers = Numbers(eps=0.05, step_size=0.01, num_steps=5)
  whole = pgd.run(pgd.init(room, numbers), objective, room, numbers)
  state = pgd.init(room, numbers)
  for num_steps in (2, 0, 3):
    state = pgd.run(state, objective, room, numbers.replace(num_steps=num_steps))
  np.testing.assert_array_equal(whole.found, state.found)
  by_hand = pgd.init(room, numbers)
  for _ in range(5):
    by_hand = pgd.step(by_hand, objective, room, numbers)
  np.testing.assert_allclose(whole.found, by_hand.found, atol=1e-6)
