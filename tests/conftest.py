"""Two CPU devices, and loud shape bugs, for every test."""

import gc
import os

from commands import FAST_COMPILATION, command

os.environ["JAX_PLATFORMS"] = "cpu"
_DEVICES = "--xla_force_host_platform_device_count=2"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES} {FAST_COMPILATION}".strip()

import flax.struct  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.experimental.compilation_cache import compilation_cache  # noqa: E402

# Rooms of arrays, whose annotations are checked wherever a test calls them. The others have few
# arrays, or many small calls: with a check of each, to draw ToyBirds took twice as long.
CHECKED = (
  *("jprotop.attacks", "jprotop.metrics", "jprotop.networks", "jprotop.prototypes"),
  *("jprotop.training", "jprotop.parallel", "jprotop.regions", "jprotop.statistics"),
  *("jprotop.data.alterations", "jprotop.data.augment", "jprotop.data.batches"),
  *("jprotop.data.dataset", "jprotop.data.decode", "jprotop.data.device_augment"),
  *("jprotop.data.device_jpeg", "jprotop.data.own_images"),
)
_pytree = flax.struct.dataclass


def _unchecked_pytree(*args, **kwargs):
  """A pytree's fields hold whatever JAX puts there: shapes, placeholders, arrays per device."""
  made = _pytree(*args, **kwargs)
  made.__no_type_check__ = True
  return made


flax.struct.dataclass = _unchecked_pytree
# The tower: an int may stand for a float.
jaxtyping.install_import_hook(
  CHECKED, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

from tiny_network import TINY  # noqa: E402

from jprotop.networks import families  # noqa: E402
from jprotop.networks.efficientnet_lite import BlockShape, EfficientNetLite  # noqa: E402
from jprotop.prototypes import protopnet  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs that stay in JAX's caches are many objects, which need not be looked through so often.
gc.set_threshold(100_000, 50, 50)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
  """A file's tests share what its fixtures make; those of the study share it over all files."""
  for item in items:
    group = "study" if "study" in item.fixturenames else item.path.stem
    item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory):
  """A program that a test, or a run that goes on, makes anew is found where it was compiled."""
  jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
  compilation_cache.reset_cache()  # What was compiled before has settled that there is none.


def drawn_variables(model, image_size, seed=0):
  """Variables of a network drawn with NumPy, which compiles nothing."""
  image = jnp.zeros((1, image_size, image_size, 3))
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == "kernel":
      return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
    if name == "scale":  # small, so that the add-on's sigmoid is not saturated
      return rng.uniform(0.2, 0.6, leaf.shape)
    if name == "var":
      return rng.uniform(0.5, 1.5, leaf.shape)
    if name in ("bias", "mean"):
      return rng.normal(0, 0.1, leaf.shape)
    if name == "prototypes":
      return rng.uniform(0, 1, leaf.shape)
    assert name == "last_layer", name
    own = np.array(model.prototype_class)[:, None] == np.arange(model.num_classes)
    return np.where(own, 1.0, -0.5)

  shapes = jax.eval_shape(model.init, jax.random.key(0), image)
  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), drawn)


@pytest.fixture(scope="session")
def tiny():
  """The smallest network: three classes of two prototypes, a 2x2 grid at 32 pixels (4x4 at 64).

  Its variables are drawn; tests share them and must not donate them to a training step.
  """
  model = protopnet.make_model(TINY, 3)
  return model, drawn_variables(model, 32)


SMALL_LITE = EfficientNetLite((BlockShape(3, 1, 1, 8), BlockShape(5, 2, 2, 8)))


@pytest.fixture
def small_family(monkeypatch):
  """A ProtoPNet over an EfficientNet-Lite of two blocks, "small_lite", known during a test."""
  monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
  monkeypatch.setattr(families, "BACKBONES", dict(families.BACKBONES))
  families.register(families.Family({"small_lite": lambda **fields: SMALL_LITE.clone(**fields)}))
  model = protopnet.ProtoPNet("small_lite", 2, (0, 1), 4)
  return model, drawn_variables(model, 16)


@pytest.fixture(scope="session")
def study(tmp_path_factory):
  """(workdir, cache, output) of `experiments.reproduce` on configs/tiny.py: the whole paper."""
  base = tmp_path_factory.mktemp("reproduce")
  workdir, cache = base / "study", base / "cache"
  done = command("reproduce", "--config=configs/tiny.py", f"--workdir={workdir}", cache=cache)
  assert done.returncode == 0, done.stderr[-3000:]
  return workdir, cache, done


@pytest.fixture(scope="session")
def run(study):
  """(workdir, cache, output) of the standard network of that study."""
  return study[0] / "standard", *study[1:]
