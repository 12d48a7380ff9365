"""What a config may not hold is said by its key, before anything is drawn, loaded or computed."""

import copy
import math

import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import tiny
from jprotop.cli.flags import Fraction
from jprotop.errors import InputError
from jprotop.runs import config as config_lib
from jprotop.runs.config_checks import check_config, check_measuring, check_values
from jprotop.runs.config_files import config_names, named_config
from jprotop.runs.config_keys import apply_changes
from jprotop.runs.config_later import completed
from jprotop.runs.config_numbers import Number

DEFAULTS = flatten_dict(config_lib.defaults(), sep=".")
NUMBERS = {key: leaf for key, leaf in DEFAULTS.items() if isinstance(leaf, Number)}
OTHERS = {key: leaf for key, leaf in DEFAULTS.items() if key not in NUMBERS}
WRONG = {
  "nan": math.nan,
  "infinity": math.inf,
  "minus infinity": -math.inf,
  "too large for a float": 10**400,
  "too large to be written": 10**5000,
  "far below": -(10**30),
  "true": True,
  "text": "1",
  "nothing": None,
  "a list": [[[]]],
}


TINY = tiny.get_config().to_dict()


def config(**changes):
  return apply_changes(TINY, changes)


def refused(changes):
  """The messages of both checks, which must be short and printable."""
  messages = []
  for check in (check_config, check_measuring):
    with pytest.raises(InputError) as caught:
      check(config(**changes))
    messages.append(str(caught.value))
    assert len(messages[-1]) < 300 and messages[-1].isprintable()
  return messages


@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_out_of_its_bounds_is_named_by_its_key(key):
  bounds = NUMBERS[key]
  assert bounds.least <= bounds.default <= bounds.most
  step = 1 if isinstance(bounds.default, int) else 1e-6
  outside = {"below": bounds.least - step, "above": bounds.most + step}
  for value in {**WRONG, **outside}.values():
    for message in refused({key: value}):
      assert message.startswith(f"{key}=") and f"--config.{key}" in message
  for value in (bounds.least, bounds.most):
    check_values(config(**{key: type(bounds.default)(value)}))


@pytest.mark.parametrize("key", OTHERS)
def test_a_value_of_another_type_is_named_by_its_key(key):
  for value in (1, math.nan, None, ["x"], {"x": 1}):
    for message in refused({key: value}):
      assert key in message


def test_a_whole_number_is_needed_where_things_are_counted():
  whole = [key for key, leaf in NUMBERS.items() if isinstance(leaf.default, int)]
  assert len(whole) > 25
  for key in whole:
    with pytest.raises(InputError, match=f"{key}=2.0 must be a whole number"):
      check_config(config(**{key: 2.0}))
  check_values(config(**{"train.loss.l1": 0}))


def test_a_key_that_is_missing_is_named():
  for key in DEFAULTS:
    section, _, last = key.rpartition(".")
    broken = copy.deepcopy(TINY)
    node = broken
    for name in filter(None, section.split(".")):
      node = node[name]
    del node[last]
    with pytest.raises(InputError, match=f"the config has no {key}"):
      check_values(broken)
  for section in ("train", "measure", "compute", "data"):
    with pytest.raises(InputError, match=f"the config has no {section}"):
      check_values(config(**{section: []}))


def test_keys_of_extensions_are_allowed():
  check_values(config(mine={"strength": 3}))


@pytest.mark.parametrize("name", config_names())
def test_our_own_configs_are_within_the_bounds(name):
  for network in config_lib.NETWORKS:
    check_values(named_config(name, network).to_dict())


def test_two_seeds_are_two():
  """JAX's keys have 32 bits: 2 ** 32 would be the seed 0 once more."""
  for key in (key for key in NUMBERS if key.endswith("seed")):
    check_values(config(**{key: 2**32 - 1}))
    assert all(key in message for message in refused({key: 2**32}))


def test_signs_of_the_losses():
  """The other sign would train the opposite, without a word."""
  for key, value in (
    ("train.loss.cluster", -0.8),
    ("train.loss.separation", 0.08),
    ("train.loss.l1", -1e-4),
    ("train.warm.learning_rate.add_on", -3e-3),
    ("train.weight_decay", -1e-3),
  ):
    with pytest.raises(InputError, match=f"{key}={value} must be a number from"):
      check_config(config(**{key: value}))


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-inf", "1e999", "-1/255", "1e308/1e-308"])
def test_a_number_on_the_command_line_that_is_none(text):
  changes = {"measure.attack.eps": Fraction().parse(text)}
  with pytest.raises(InputError, match=r"^measure\.attack\.eps=.* must be a number from 0 to 1;"):
    check_measuring(config(**changes))


@settings(max_examples=100, deadline=None)
@given(
  st.sampled_from(sorted(NUMBERS)),
  st.one_of(st.integers(), st.floats(), st.text(max_size=20), st.booleans(), st.none()),
)
def test_whatever_is_given_is_taken_or_refused_with_its_key(key, value):
  changed = config(**{key: value})
  try:
    check_values(changed)
  except InputError as error:
    assert str(error).startswith(f"{key}=")
  else:
    assert NUMBERS[key].least <= value <= NUMBERS[key].most


def test_a_stored_config_without_an_eps_to_measure_with_has_that_of_its_training():
  stored = config_lib.get_config("adversarial").to_dict()
  stored["train"]["adversarial"]["eps"] = 4 / 255
  del stored["measure"]["robustness"], stored["measure"]["transfer"]
  found = completed(stored)
  assert found["measure"]["robustness"]["eps"] == 4 / 255
  check_values(found)
  changed = config_lib.get_config("adversarial")
  changed.train.adversarial.eps = 2 / 255
  assert changed.measure.robustness.eps == 2 / 255
  changed.measure.robustness.eps = 1 / 255
  assert changed.train.adversarial.eps == 2 / 255
