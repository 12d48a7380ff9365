"""Layers that stay as they start: what is trained behind them, and on what is stored of them."""

import jax
import numpy as np
import pytest
from conftest import drawn_variables
from miniature import drawn_split

import jprotop
from jprotop.data.batches import EpochPlan, to_float
from jprotop.errors import InputError
from jprotop.prototypes.initial import drawn_for_inputs, random_patches
from jprotop.prototypes.see import Network
from jprotop.runs import config as base
from jprotop.runs.config_checks import check_config
from jprotop.runs.history import read_history
from jprotop.training import copies, fronts, loop, phases, trainer

FROZEN = ("conv_stem", "bn0", "blocks_0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


def make_config(cache, network="standard", **changes):
  """Three classes of four birds, two copies of each, a pass of each of the paper's phases."""
  config = base.get_config(network)
  config.data.cache = str(cache)
  train = config.train
  train.data.update({"name": "toybirds", "image_size": 16, "copies": 2, "validation_share": 0.0})
  train.data.toy.update({"num_classes": 3, "images_per_class": 4, "size": 32})
  train.model.update({"backbone": "small_lite", "prototypes_per_class": 2, "prototype_depth": 4})
  train.batch_size = 10
  train.frozen.parts = 2
  for phase in ("pretrain", "warm", "joint", "last_layer"):
    train[phase].epochs = int(phase != "pretrain")
  config.update_from_flattened_dict(changes)
  return config.to_dict()


def trained(config, workdir):
  """The network's arrays as a training leaves them, and its losses."""
  loop.train(config, workdir)
  _, variables, info = jprotop.load(workdir)
  rows = read_history(workdir, info["position"])
  return variables, [row["loss"] for row in rows if row.get("split") == "train"]


@pytest.fixture
def counted(monkeypatch):
  """Each time that outputs of frozen layers are stored adds to this list."""
  calls, original = [], fronts.store
  monkeypatch.setattr(fronts, "store", lambda *a: (calls.append(a), original(*a))[1])
  return calls


def layers(variables, names):
  """Parameters and batch statistics of the backbone's layers of these names."""
  kinds = (variables[kind]["features"] for kind in ("params", "batch_stats"))
  return [layers[name] for layers in kinds for name in names if name in layers]


def assert_same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


# --- training behind them


@pytest.mark.parametrize("network", ["standard", "remedied"])
def test_training_on_what_is_stored_is_training_on_images(
  network, small_family, counted, cache, tmp_path, monkeypatch
):
  config = make_config(cache, network)
  monkeypatch.setattr(copies, "MAX_MEMORY_BYTES", 0)  # a file, not memory
  fast, losses = trained(config, tmp_path / "fast")
  assert len(counted) == 1  # for all phases
  monkeypatch.setattr(fronts, "is_stored", lambda *_: False)
  slow, wanted = trained(config, tmp_path / "slow")
  np.testing.assert_allclose(losses[:2], wanted[:2], rtol=1e-5)
  # Adam's steps take the sign of gradients near 0 from rounding: of few weights, and by little.
  np.testing.assert_allclose(losses[2], wanted[2], rtol=5e-3)
  pairs = zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True)
  differences = np.concatenate([np.abs(a - b).ravel() for a, b in pairs])
  assert np.mean(differences > 1e-4) < 0.01


@pytest.mark.parametrize("network", ["standard", "adversarial"])
def test_frozen_layers_stay_and_the_others_do_not(
  network, small_family, counted, cache, tmp_path, monkeypatch
):
  """Their batch statistics, too; and what adversarial images change is not stored."""
  started, original = [], loop.Trainer.run

  def run(self):
    started.append(jax.tree.map(np.array, self.state.variables))
    return original(self)

  monkeypatch.setattr(loop.Trainer, "run", run)
  bars, tqdm = [], trainer.tqdm
  monkeypatch.setattr(trainer, "tqdm", lambda *a, **k: (bars.append(tqdm(*a, **k)), bars[-1])[1])
  after, _ = trained(make_config(cache, network), tmp_path / "run")
  assert len(counted) == (network == "standard")
  assert bars[0].n == pytest.approx(bars[0].total)  # all that was to be done, and no more
  (before,) = started
  assert_same(layers(before, FROZEN), layers(after, FROZEN))
  trained_layers = (jax.tree.leaves(layers(v, ("blocks_1", "conv_head"))) for v in (before, after))
  assert all((a != b).any() for a, b in zip(*trained_layers))


def test_batch_statistics_may_stay_alone(small_family, cache, tmp_path):
  config = make_config(cache, **{"train.frozen.parts": 0, "train.frozen.batch_norm": True})
  plan = phases.phases_of(config)
  assert not any(phase.train_batch_stats for phase in plan)
  assert "features" in dict(plan[1].learning_rate) and not plan[1].frozen
  authors = phases.make_phases(config["train"], "authors")
  assert not any(phase.train_batch_stats for phase in authors)


def test_what_is_too_much_is_not_stored_and_said(small_family, cache):
  config = make_config(cache)
  plan = EpochPlan(np.zeros(5994, int), 40, 80, 0)
  joint = phases.phases_of(config)[1]
  assert fronts.is_stored(config, joint, plan) and not fronts.what_is_too_much(config, plan)
  # 224 pixels leave a grid of 112 x 112, with 8 channels of four bytes.
  config["train"]["data"]["image_size"] = 224
  assert not fronts.is_stored(config, joint, plan)
  assert "would take 96.2 GB, of which 16 are stored" in fronts.what_is_too_much(config, plan)
  adversarial = {**config, "train": {**config["train"], "network": "adversarial"}}
  assert not fronts.what_is_too_much(adversarial, plan)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train.frozen.parts": 4}, r"train\.frozen\.parts=4: for small_lite it must be 0 to 3"),
    ({"train.pretrain.epochs": 1}, r"train\.pretrain\.epochs=1 trains them first"),
    ({"train.init.add_on": "zeros"}, r"init\.add_on='zeros' .* one of \('fan_out', 'fan_in'\)"),
    ({"train.init.prototypes": "ones"}, r"init\.prototypes='ones' .*\('uniform', 'patches'\)"),
  ],
)
def test_a_start_that_cannot_be(changes, message, small_family, cache):
  with pytest.raises(InputError, match=message):
    check_config(make_config(cache, **changes))


# --- how add-on and prototypes start


def test_kernels_are_drawn_for_their_inputs():
  rng = np.random.default_rng(0)
  outputs_alone = rng.normal(0, np.sqrt(2 / 50), (1, 1, 3000, 50))
  layer = {"kernel": outputs_alone, "bias": np.ones(50)}
  found = drawn_for_inputs({"conv0": layer})["conv0"]
  assert found["kernel"].var() == pytest.approx(2 / 3000, rel=0.02)
  assert (found["bias"] == 1).all()


def test_prototypes_start_at_patches_of_their_classes(small_family):
  """Each at one of an image of its own, while there are any."""
  model = small_family[0].clone(prototype_class=(0, 0, 0, 1, 1))
  variables = drawn_variables(model, 16)
  split = drawn_split(7, 16)
  split.label[:] = [0, 0, 1, 0, 1, 1, 1]
  found = random_patches(Network(model, variables), split, seed=3, batch_size=4)
  latent = jax.jit(lambda images: model.apply(variables, images, method="latent"))(
    to_float(split.pixels)
  )
  sq_dist = ((np.asarray(latent)[:, :, :, None] - found) ** 2).sum(-1).min(axis=(1, 2))  # [N, P]
  nearest = sq_dist.argmin(axis=0)
  assert sq_dist.min(axis=0).max() < 1e-9
  assert split.label[nearest].tolist() == [0, 0, 0, 1, 1]
  assert len(set(nearest.tolist())) == 5


def test_a_training_starts_at_patches(small_family, cache, tmp_path):
  """Where nothing moves them, they are patches still; the first push finds them at a distance of
  0."""
  still = {"train.warm.learning_rate.add_on": 0.0, "train.warm.learning_rate.prototypes": 0.0}
  config = make_config(cache, **still, **{"train.init.prototypes": "patches"})
  config["train"]["joint"]["epochs"] = 0
  loop.train(config, tmp_path / "run")
  info = jprotop.load(tmp_path / "run")[2]
  assert info["provenance"].sq_dist.max() < 1e-9
