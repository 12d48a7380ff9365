"""The README's code runs, and every function, command and config that it names exists."""

import importlib
import pathlib
import re

import numpy as np

from jprotop.cli.main import command_of
from jprotop.runs.config_files import config_path

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


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
  text = "\n".join(page.read_text() for page in PAGES)
  names = set(re.findall(r"`(jprotop(?:\.\w+)+)", text)) - {"jprotop.py"}
  assert len(names) > 20
  for name in names:
    assert resolve(name) is not None or name
  commands = set(re.findall(r"jprotop ([a-z]+(?:-[a-z]+)*)(?= (?:--|`)|`)", text))
  assert len(commands) > 10
  for command in commands:
    assert command_of(command).main
  for config in set(re.findall(r"--config=(\w+)", text)) - {"NAME", "FILE", "CONFIG"}:
    assert config_path(config).is_file()


def test_links_lead_somewhere():
  for page in PAGES:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
      assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_readme_is_short():
  assert len(README.splitlines()) <= 150


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
