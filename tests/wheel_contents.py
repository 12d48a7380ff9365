"""The wheel holds the library and the config files, whole, and nothing else.

python tests/wheel_contents.py WHEEL CHECKOUT
"""

import pathlib
import sys
import zipfile


def expected(root: pathlib.Path) -> set[str]:
  """The files of a checkout that belong into the wheel, by their names there."""
  python = {path.relative_to(root).as_posix() for path in (root / "jprotop").rglob("*.py")}
  configs = {f"jprotop/_configs/{path.name}" for path in (root / "configs").glob("*.py")}
  return python | configs | {"jprotop/report/report.html.jinja"}


def contents(wheel: pathlib.Path) -> set[str]:
  """All files of a wheel but those that say what it is."""
  with zipfile.ZipFile(wheel) as file:
    return {name for name in file.namelist() if ".dist-info/" not in name}


def main(wheel: str, root: str) -> int:
  found, wanted = contents(pathlib.Path(wheel)), expected(pathlib.Path(root))
  lines = [f"the wheel lacks {name}" for name in sorted(wanted - found)]
  lines += [f"the wheel should not hold {name}" for name in sorted(found - wanted)]
  if top := {name.partition("/")[0] for name in found} - {"jprotop"}:
    lines.append(f"the wheel installs {', '.join(sorted(top))} beside jprotop")
  name = pathlib.Path(wheel).name
  print("\n".join(lines) or f"{name}: {len(found)} files, all as they should be")
  return bool(lines)


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
