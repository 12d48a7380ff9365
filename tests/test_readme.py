"""The README's code runs, and every function, command and config that it names exists."""

import importlib
import pathlib
import re

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def resolve(name):
  """The object at a dotted name below jprotop."""
  parts = name.split(".")
  for end in range(len(parts), 0, -1):
    try:
      found = importlib.import_module(".".join(parts[:end]))
    except ModuleNotFoundError:
      continue
    for part in parts[end:]:
      found = getattr(found, part, None) or found.__dataclass_fields__[part]
    return found
  raise AssertionError(f"{name} does not exist")


def test_every_name_exists():
  names = set(re.findall(r"`(jprotop(?:\.\w+)+)", README)) - {"jprotop.py"}
  assert len(names) > 10
  for name in names:
    assert resolve(name) is not None or name
  for module in set(re.findall(r"experiments\.(\w+)", README)):
    assert (ROOT / f"experiments/{module}.py").exists(), module
  for config in set(re.findall(r"configs/\w+\.py", README)):
    assert (ROOT / config).exists(), config


def test_the_library_example_runs(run):
  (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
  assert len(code.splitlines()) <= 40
  scope = {}
  exec(
    code.replace("runs/demo/standard", str(run[0])).replace("num_steps=40", "num_steps=2"), scope
  )
  change = np.abs(scope["attacked"] - scope["images"])
  assert 0 < change.max() <= 8 / 255 + 1e-6
  assert change[~scope["mask"]].max() == 0
