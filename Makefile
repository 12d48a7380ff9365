# make demo: from nothing to runs/demo/report.html.   make test: linter, formatter, all tests.
# make test-torch: the tests that compare with PyTorch, which it installs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-torch clean

demo: .venv/.installed
	$(BIN)/python -m experiments.reproduce --config=configs/demo.py --workdir=runs/demo

test: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadgroup

test-torch: .venv/.installed-torch
	$(BIN)/python -m pytest tests/with_torch

.venv/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "jprotop needs Python 3.11 or newer; try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

.venv/.installed-torch: .venv/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
	touch $@

clean:
	rm -rf .venv runs build *.egg-info
