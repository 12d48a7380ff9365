"""The plan of the library, read from its imports: they go down, never up."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# From bottom to top. A file may import from lower layers and from its own package.
LAYERS = (
  {"jprotop.errors"},
  {"jprotop.files"},
  {
    "jprotop.download",
    "jprotop.regions",
    "jprotop.statistics",
    "jprotop.parallel",
  },
  {"jprotop.networks", "jprotop.data", "jprotop.metrics"},
  {"jprotop.prototypes"},
  {"jprotop.attacks", "jprotop.torch_io"},
  {"jprotop.runs", "jprotop.report"},
  {"jprotop.training"},
  {"jprotop.experiments"},
  {"jprotop.cli"},
  {"jprotop.benchmark"},
  {"jprotop"},
  {"configs"},
  {"experiments"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(
  path for folder in ("jprotop", "configs", "experiments") for path in (ROOT / folder).rglob("*.py")
)
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "jprotop")]


def name_of(path):
  return path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__")


def syntax_tree(path):
  return ast.parse(path.read_text(), str(path))


def imports(path):
  """Full names of everything a file imports, wherever in the file."""
  for node in ast.walk(syntax_tree(path)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package_of(module):
  """The entry of LAYERS that a dotted name belongs to; None: not ours."""
  parts = module.split(".")
  for length in (2, 1):
    name = ".".join(parts[:length])
    if name in LEVEL and len(parts) >= length:
      return name
  return None


def wrong_imports(path):
  here = package_of(name_of(path).replace("/", "."))
  for module in imports(path):
    there = package_of(module)
    if there and there != here and LEVEL[there] >= LEVEL[here]:
      yield f"{name_of(path)} ({here}) imports {module} ({there})"


def test_every_file_has_its_layer():
  unknown = [
    name_of(path) for path in LIBRARY if package_of(name_of(path).replace("/", ".")) is None
  ]
  top = {path.relative_to(ROOT / "jprotop").parts[0].removesuffix(".py") for path in LIBRARY}
  assert not unknown
  assert {f"jprotop.{name}" for name in top - {"__init__"}} <= LEVEL.keys()


def test_imports_go_down_or_stay_in_their_package():
  assert [line for path in FILES for line in wrong_imports(path)] == []


def test_the_check_sees_an_import_that_goes_up(tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), "ROOT", tmp_path)
  path = tmp_path / "jprotop" / "data" / "cub.py"
  path.parent.mkdir(parents=True)
  path.write_text(
    "def f():\n  from jprotop.prototypes import push\n  import jprotop.training.loop\n"
    "from jprotop.networks import vgg\nfrom jprotop.data import decode\nfrom jprotop import load\n"
  )
  assert len(list(wrong_imports(path))) == 4


@pytest.mark.parametrize("name", ["tensorflow", "torch", "torchvision", "cv2", "keras"])
def test_no_other_framework_is_imported(name):
  users = {name_of(path) for path in FILES if name in {m.split(".")[0] for m in imports(path)}}
  # The benchmark's comparison, where the torch extra is installed.
  assert users <= {"jprotop/benchmark/reference", "jprotop/benchmark/torch_twin"}


def test_configs_are_made_outside_the_library():
  users = {
    name_of(path) for path in LIBRARY for m in imports(path) if m.startswith("ml_collections")
  }
  assert users <= {"jprotop/runs/config", "jprotop/runs/config_files", "jprotop/cli/flags"}


def test_pmap_is_named_in_one_file_only():
  def names(path):
    nodes = ast.walk(syntax_tree(path))
    return {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}

  users = [name_of(path) for path in FILES if "pmap" in names(path)]
  users += [name_of(path) for path in FILES if any(m.endswith(".pmap") for m in imports(path))]
  assert users == ["jprotop/parallel"]


def test_the_library_prints_nothing():
  calls = [
    f"{name_of(path)}:{node.lineno}"
    for path in LIBRARY
    if package_of(name_of(path).replace("/", ".")) not in ("jprotop.cli", "jprotop.benchmark")
    for node in ast.walk(syntax_tree(path))
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
  ]
  assert calls == []


def functions(path):
  return (n for n in ast.walk(syntax_tree(path)) if isinstance(n, ast.FunctionDef))


def num_parameters(function):
  arguments = function.args
  every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
  every += [a for a in (arguments.vararg, arguments.kwarg) if a]
  return len([a for a in every if a.arg not in ("self", "cls")])


def test_files_and_functions_fit_a_screen_or_two():
  long = [name_of(path) for path in FILES if len(path.read_text().splitlines()) > 300]
  for path in LIBRARY:
    for function in functions(path):
      lines = function.end_lineno - function.lineno + 1
      if lines > 40 or num_parameters(function) > 8:
        long.append(f"{name_of(path)}:{function.name} ({lines} lines, {num_parameters(function)})")
  assert long == []
