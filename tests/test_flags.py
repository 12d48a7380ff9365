"""Flags of the experiments: lists whose items count once, and numbers within their bounds."""

import pytest
from absl import flags as absl_flags

from configs import tiny
from jprotop.cli import flags
from jprotop.errors import InputError
from jprotop.experiments import EXPERIMENTS
from jprotop.experiments.experiment import check_distinct, whole_numbers
from jprotop.experiments.head_on_stomach import parse_cells
from jprotop.regions import cell_rectangle
from jprotop.runs.config_checks import check_values
from jprotop.runs.config_keys import apply_changes

INTEGERS = [
  (experiment.name, flag)
  for experiment in EXPERIMENTS.values()
  for flag in experiment.flags
  if flag.kind is int
]


@pytest.mark.parametrize(
  ("command", "flag"), INTEGERS, ids=lambda item: getattr(item, "name", item)
)
@pytest.mark.parametrize("text", ["1e3", "nan", str(10**12), str(-(10**12)), "9" * 5000, ""])
def test_an_integer_is_refused_by_its_name(command, flag, text, monkeypatch):
  """What is another name for a config key is refused where the config's numbers are."""
  values = absl_flags.FlagValues()
  define = absl_flags.DEFINE_integer
  monkeypatch.setattr(
    absl_flags, "DEFINE_integer", lambda *a, **k: define(*a, flag_values=values, **k)
  )
  flags.define(flag)
  large = text.strip("-").isdigit() and len(text) < 20
  if flag.setting and large and not (text[0] == "-" and flag.least is not None):
    values([command, f"--{flag.name}={text}"])
    changed = apply_changes(tiny.get_config().to_dict(), {flag.setting: values[flag.name].value})
    with pytest.raises(InputError, match=rf"^{flag.setting}=-?1000.* must be"):
      check_values(changed)
  elif text[:1] == "-" and flag.least is None:  # The network says from what to what.
    values([command, f"--{flag.name}={text}"])
  else:
    with pytest.raises(absl_flags.IllegalFlagValueError, match=f"--{flag.name}"):
      values([command, f"--{flag.name}={text}"])


def test_a_list_of_numbers_has_each_once():
  assert whole_numbers(["3", " 17", "3", "03"], "prototypes") == (3, 17)
  assert whole_numbers(range(3), "prototypes") == (0, 1, 2)
  assert whole_numbers(["-1"], "prototypes") == (-1,)


@pytest.mark.parametrize("item", ["", "x", "1.5", "1e3", "nan", "٣", "9" * 10, "9" * 5000, "1 2"])
def test_what_is_no_number(item):
  with pytest.raises(InputError, match=r"^--prototypes: .* is no number, or too large") as caught:
    whole_numbers(["1", item], "prototypes")
  assert len(str(caught.value)) < 400


def test_a_run_whose_scores_would_count_twice(tmp_path):
  check_distinct([tmp_path / "a", tmp_path / "b"], "members")
  (tmp_path / "link").symlink_to(tmp_path / "a")
  for again in ("a", "b/../a", "link"):
    with pytest.raises(InputError, match=r"--members: .* would count twice"):
      check_distinct([tmp_path / "a", tmp_path / again], "members")


@pytest.mark.parametrize("text", ["1", "1,1", "1,1:2", "1,1:2,2:3,3", "a,b:c,d", "1,1:2,nan", ":"])
def test_cells_that_are_none(text):
  with pytest.raises(InputError, match="is not row,column:row,column"):
    parse_cells(text)


@pytest.mark.parametrize("text", ["-1,0:1,1", "0,0:7,7", "1,1:0,0", f"0,0:{10**30},1"])
def test_cells_outside_of_the_map(text):
  with pytest.raises(InputError):
    cell_rectangle(*parse_cells(text), (7, 7))
