# make demo: from nothing to runs/demo/report.html.   make test: linter, types, all tests.
# make test-torch: the tests that compare with PyTorch, which it installs.
# make test-latest: all tests with the newest version of everything, on the newest Python.
# make torture: a campaign of sabotage, which takes up to an hour: see docs/reliability.md.
# make study-cub DIR=CUB_200_2011: three seeds and five draws on CUB's classes in DIR, hours; resumes.
# make docs: the documentation as pages, in site/.
# make wheel: dist/jprotop-*.whl.   make test-wheel: it works in an environment of its own.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# Where study-cub writes. It holds pictures of CUB, which are not to be published.
OUT ?= runs/study_cub
STUDY_CUB = $(BIN)/jprotop reproduce --config.data.dir=$(DIR)

.PHONY: demo study-cub test test-torch test-latest torture wheel test-wheel docs clean

demo: .venv/.installed
	$(BIN)/jprotop reproduce --config=demo --workdir=runs/demo

# One seed whole, two more of the standard and the altered network, and five draws of the classes in
# a cheap form. Each results.json and history.jsonl below OUT can be published; figures cannot.
study-cub: .venv/.installed-imagenet
	@test -n "$(DIR)" || { echo "DIR is missing; make study-cub DIR=CUB_200_2011"; exit 1; }
	$(STUDY_CUB) --config=cub_laptop --workdir=$(OUT)/seeds/seed0
	$(STUDY_CUB) --config=cub_laptop --workdir=$(OUT)/seeds --seeds=3 --networks=standard,altered
	$(STUDY_CUB) --config=cub_draws --workdir=$(OUT)/draws --draws=5 --networks=standard,altered \
	  --only=accuracy,alteration

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

.venv/.installed-imagenet: .venv/.installed
	$(INSTALL) -e '.[imagenet]'
	touch $@

.venv/.installed-torch: .venv/.installed-test
	$(INSTALL) -e '.[torch,imagenet]'
	touch $@

.venv/.installed-docs: .venv/.installed
	$(INSTALL) -e '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-latest runs build dist site *.egg-info
