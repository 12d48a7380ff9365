# make demo: from nothing to runs/demo/report.html.   make test: linter, types, all tests.
# make test-torch: the tests that compare with PyTorch, which it installs.
# make test-latest: all tests with the newest version of everything, on the newest Python.
# make torture: a campaign of sabotage, which takes up to an hour: see docs/reliability.md.
# make docs: the documentation as pages, in site/.
# make wheel: dist/jprotop-*.whl.   make test-wheel: it works in an environment of its own.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-torch test-latest torture wheel test-wheel docs clean

demo: .venv/.installed
	$(BIN)/jprotop reproduce --config=demo --workdir=runs/demo

test: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --summary=none --python-interpreter-path=$(BIN)/python
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup

test-torch: .venv/.installed-torch
	$(BIN)/python -m pytest tests/with_torch

test-latest:
	bash tests/latest.sh

torture: .venv/.installed-test
	$(BIN)/python tests/torture

# Files of an earlier build would get into the wheel.
wheel: .venv/.installed
	rm -rf build dist/jprotop-*.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir=dist .

test-wheel: wheel
	PYTHON=$(PYTHON) bash tests/wheel.sh dist/jprotop-*.whl

docs: .venv/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html"

.venv/.installed: setup.cfg setup.py pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "jprotop needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(INSTALL) -e '.[test]'
	touch $@

.venv/.installed-torch: .venv/.installed-test
	$(INSTALL) -e '.[torch,imagenet]'
	touch $@

.venv/.installed-docs: .venv/.installed
	$(INSTALL) -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-latest runs build dist site *.egg-info
