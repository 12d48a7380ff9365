"""The pages in docs/ say what there is: every command and flag, every config key, every module."""

import ast
import doctest
import functools
import pathlib
import re
import warnings

import pytest
from absl import flags as absl_flags
from flax.traverse_util import flatten_dict
from test_readme import PAGES, ROOT, resolve

from jprotop.cli import launch, main
from jprotop.experiments import EXPERIMENTS
from jprotop.runs import config, config_keys

COMMANDS = [main.name_of(key) for key in (*main._MODULES, *EXPERIMENTS)]
DOCS = {page.name: page.read_text() for page in PAGES}
KEYS = set(flatten_dict(config.get_config().to_dict(), sep="."))


@functools.cache
def flags_of(command):
  """Names of the flags that a command defines, which are then undefined again."""
  before = set(absl_flags.FLAGS)
  try:
    launch.define_flags()
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", DeprecationWarning)  # How ml_collections loads a file.
      main.command_of(command).define_flags()
    return set(absl_flags.FLAGS) - before
  finally:
    for name in set(absl_flags.FLAGS) - before:
      delattr(absl_flags.FLAGS, name)


def sources():
  """(name, text) of what shows commands: blocks of the pages, configs, the commands' own help."""
  for page, text in DOCS.items():
    for language, block in re.findall(r"^```(.*?)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
      if not language:
        yield page, block
  for path in (ROOT / "configs").glob("[a-z]*.py"):
    yield path.name, ast.get_docstring(ast.parse(path.read_text()))
  for command in COMMANDS:
    yield f"jprotop {command} --help", main.command_of(command).text


def command_lines():
  """(source, command, its flags) of every `jprotop NAME --flag ...` there."""
  for source, text in sources():
    for line in text.replace("\\\n", " ").splitlines():
      line = line.partition(" #")[0]
      for command, rest in re.findall(r"jprotop ([a-z][a-z-]+)((?: +--\S+)+)", line):
        yield source, command, re.findall(r"--([\w.]+)", rest)


def test_commands_in_blocks_take_the_flags_that_they_are_given():
  lines = list(command_lines())
  assert len(lines) > 80
  for source, command, names in lines:
    known = flags_of(command) | {f"no{name}" for name in flags_of(command)}
    known |= {f"config.{key}" for key in KEYS | {"KEY"}}
    assert set(names) <= known, f"{source}: jprotop {command}: {set(names) - known}"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_each_of_its_flags_is_told(command):
  text = DOCS["commands.md"]
  assert f"\n### {command}\n" in text
  told = set(re.findall(r"--(?:no-?)?(\w+)", text)) | set(re.findall(r"--(\w+)", text))
  assert flags_of(command) <= told


def test_every_config_key_that_is_named_exists():
  for page, text in DOCS.items():
    named = set(re.findall(r"\bconfig\.((?:train|measure|compute|data)(?:\.[a-z_0-9]+)+)\b", text))
    named |= set(re.findall(r"--config\.([a-z_0-9.]*[a-z_0-9])\b", text))
    for key in named - {"py"}:
      sections = {".".join(k.split(".")[: len(key.split("."))]) for k in KEYS}
      assert key in KEYS | sections, f"{page}: config.{key}"


def test_former_keys_are_told_as_the_message_tells_them():
  text = (ROOT / "CHANGELOG.md").read_text()
  table = text.partition("### Config keys")[2].partition("###")[0]
  rows = [
    re.findall(r"`([^`]+)`", cell) for cell in table.replace("\n", "").split("|") if "`" in cell
  ]
  pairs = [pair for old, new in zip(rows[::2], rows[1::2]) for pair in zip(old, new, strict=True)]
  assert len(pairs) > 15
  for old, new in pairs:
    if old not in KEYS:
      assert config_keys.present_key(old.removesuffix(".*")) == new.removesuffix(".*")


def test_the_versions_are_those_of_the_constraints():
  rows = re.findall(r"^\| ([\w-]+) \| ([\d.]+) \| [\d.]+ \|$", DOCS["index.md"], re.MULTILINE)
  constraints = (ROOT / "constraints.txt").read_text().splitlines()
  assert len(rows) == 7
  for name, version in rows:
    assert name == "Python" or f"{name}=={version}" in constraints


def test_every_page_is_in_the_navigation_and_every_module_of_the_api_exists():
  navigation = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text())
  pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
  assert sorted(navigation) == sorted(pages)
  modules = re.findall(r"^::: ([\w.]+)$", DOCS["api.md"], re.MULTILINE)
  assert len(modules) > 30
  for module in modules:
    resolve(module)


def test_the_examples_of_metrics_give_what_their_pages_say():
  pages = sorted((ROOT / "docs/metrics").glob("*.md"))
  assert len(pages) >= 12
  runner = doctest.DocTestRunner(verbose=False)
  for page in pages:
    blocks = re.findall(r"^```pycon\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert blocks, page
    # A page's blocks go on with each other's names.
    example = doctest.DocTestParser().get_doctest("".join(blocks), {}, page.name, str(page), 0)
    runner.run(example)
  done = runner.summarize(verbose=False)
  assert done.attempted > 80 and done.failed == 0


def test_what_pages_include_is_there():
  included = [path for text in DOCS.values() for path in re.findall(r'--8<-- "(.*?)"', text)]
  assert len(included) >= 7
  for path in included:
    assert (ROOT / path).is_file(), path
  assert {pathlib.Path(path).parent for path in included} == {
    pathlib.Path(),
    pathlib.Path("tests/extensions"),
  }
