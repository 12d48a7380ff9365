#!/usr/bin/env bash
# The wheel in an environment of its own, in an empty folder: bash tests/wheel.sh dist/jprotop-*.whl
set -eu
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
place=$(mktemp -d)
trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT
export JPROTOP_CACHE="$place/cache"

"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$constraints" "$wheel"
mkdir "$place/empty"
cd "$place/empty"

# It installs jprotop, and nothing else at the top level.
"$place/env/bin/python" - "$wheel" <<'PYTHON'
import sys
import zipfile

names = {name.split("/")[0] for name in zipfile.ZipFile(sys.argv[1]).namelist()}
extra = {name for name in names if not name.endswith(".dist-info")} - {"jprotop"}
assert not extra, f"the wheel also installs {extra}"
PYTHON

run() { "$place/env/bin/jprotop" "$@"; }
run --help | grep -q "jprotop train --config=demo"
run head-on-stomach --help | grep -q -- "--eps"
run train --config=tiny --workdir=run > train.log 2>&1 || { cat train.log; exit 1; }
run head-on-stomach --workdir=run --eps=4/255 --num_steps=1 | grep "eps 4/255"
run accuracy --workdir=run --config.measure.class_pgd.num_steps=1 | grep "test accuracy, clean"
run report --workdir=run | grep "report.html"
test -s run/report.html

# Where nothing can be written, one message. (Root may write anywhere: there the path is a file.)
touch "$place/file"
if run train --config=tiny --workdir="$place/file/run" > message 2>&1; then
  echo "a run was made below a file"; exit 1
fi
grep -q "error:" message
if grep -q Traceback message; then cat message; exit 1; fi
echo "the wheel works: $(basename "$wheel")"
