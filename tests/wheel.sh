#!/usr/bin/env bash
# bash tests/wheel.sh dist/jprotop-*.whl: the wheel holds what it should and nothing else, and the
# command works in an environment of its own, from a folder that is not the checkout.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=$(realpath "$1")
place=$(mktemp -d)
trap 'chmod -R u+w "$place"; rm -rf "$place"' EXIT

"${PYTHON:-python3}" "$root/tests/wheel_contents.py" "$wheel" "$root"

"${PYTHON:-python3}" -m venv "$place/env"
"$place/env/bin/python" -m pip install --quiet --disable-pip-version-check \
  -c "$root/constraints.txt" "$wheel"
unset PYTHONPATH VIRTUAL_ENV
# What is run is tiny: compiling it well takes longer than running it.
export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_backend_optimization_level=0"
export JPROTOP_CACHE="$place/cache" PATH="$place/env/bin:$PATH"

fail() { echo "wheel test: $1" >&2; [ -f "$place/said" ] && cat "$place/said" >&2; exit 1; }
# run WORDS ARGUMENTS...: the command ends well, and says the words.
run() {
  local words=$1; shift
  echo "+ jprotop $*"
  jprotop "$@" >"$place/said" 2>&1 || fail "jprotop $* failed"
  grep -qF -- "$words" "$place/said" || fail "jprotop $* does not say '$words'"
}

mkdir "$place/empty" && cd "$place/empty"
python - <<'PROGRAM' || fail "something of the checkout is found"
import importlib.metadata, importlib.util, jprotop, sys
assert jprotop.__file__.startswith(sys.prefix), jprotop.__file__
assert not [name for name in ("configs", "experiments", "tests") if importlib.util.find_spec(name)]
assert {file.parts[0] for file in importlib.metadata.files("jprotop")} <= {
  "..", "jprotop", f"jprotop-{importlib.metadata.version('jprotop')}.dist-info"
}
PROGRAM

run "jprotop head-on-stomach" --help
run "--config.measure.attack.eps" head-on-stomach --help
run "Trained: x" train --config=tiny --workdir=x
run "prototype now in S_noisy" head-on-stomach --workdir=x --eps=4/255
run "Report:" reproduce --config=configs/tiny.py --workdir=study --standard=x --only=head_on_stomach
for file in x/attack.npz study/results.json study/report.html; do
  [ -s "$file" ] || fail "$file is not there"
done

# A folder that cannot be written: root without its privilege to write everywhere.
mkdir "$place/closed" && chmod 555 "$place/closed" && cd "$place/closed"
unprivileged=()
if [ "$(id -u)" = 0 ]; then
  unprivileged=(setpriv --bounding-set=-dac_override --inh-caps=-dac_override)
  "${unprivileged[@]}" true 2>/dev/null || unprivileged=(false)
fi
if [ "${unprivileged[*]}" = false ]; then
  echo "skipped: a folder that cannot be written (root may write everywhere here)"
else
  "${unprivileged[@]}" env HOME="$place/closed" jprotop --help >"$place/said" 2>&1 ||
    fail "jprotop --help fails in a folder that cannot be written"
  for arguments in "train --config=tiny --workdir=x" "head-on-stomach --workdir=../empty/x --out=x" \
    "reproduce --config=tiny --workdir=x"; do
    echo "+ jprotop $arguments, in a folder that cannot be written"
    # shellcheck disable=SC2086
    if "${unprivileged[@]}" env HOME="$place/closed" jprotop $arguments >"$place/said" 2>&1; then
      fail "jprotop $arguments wrote where it should not be able to"
    fi
    [ "$(grep -vc '^$' "$place/said")" = 1 ] || fail "jprotop $arguments says more than one thing"
    grep -q '^error: cannot write into x: .*choose another place$' "$place/said" ||
      fail "jprotop $arguments does not say what is wrong"
  done
fi
echo "The wheel works: $(basename "$wheel")"
