#!/usr/bin/env bash
# bash tests/latest.sh: all tests with the newest version of everything, which need not be that of
# constraints.txt, on the newest Python that is found here, in an environment of its own.
set -euo pipefail
cd "${BASH_SOURCE[0]%/*}/.."
env=.venv-latest

newest() {
  local minor
  for ((minor = 30; minor >= 11; minor--)); do
    # A name may be there of a Python that is not.
    if "python3.$minor" -c "import ensurepip, venv" >/dev/null 2>&1; then
      echo "python3.$minor"
      return
    fi
  done
}

python=${LATEST_PYTHON:-$(newest)}
if [ -z "$python" ]; then
  echo "skipped: the newest versions are not tested, because no python3.11 or newer is on the PATH"
  exit 0
fi
"$python" -m venv --clear "$env"
"$env/bin/python" -m pip install --quiet --disable-pip-version-check -e '.[test]'
echo "Tested: $("$env/bin/python" --version), $("$env/bin/python" -m pip freeze --exclude-editable |
  grep -iE '^(jax|jaxlib|flax|optax|orbax-checkpoint|numpy|scipy|tensorflow-datasets)==' |
  paste -sd ' ')"
"$env/bin/python" -m pytest --numprocesses=2 --dist=loadgroup
