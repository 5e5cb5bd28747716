# What a user runs, and what CI runs. `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
TEST_PROCESSES ?= 2

.PHONY: demo test quick check fmt bench docs clean

demo: $(VENV)/.package  ## environment, install, and the whole journey on generated scenes
	$(BIN)/terralean demo --out demo

test: $(VENV)/.dev  ## everything but tests that need a GPU
	$(BIN)/python -m pytest -m "not gpu" --numprocesses $(TEST_PROCESSES) --dist loadfile --max-worker-restart 0

quick: $(VENV)/.dev  ## without the slow tests
	$(BIN)/python -m pytest -m "not gpu and not slow"

check: $(VENV)/.dev  ## format, lint, types
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy

fmt: $(VENV)/.dev
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

bench: $(VENV)/.package  ## LeMeViT beside its peers on this machine; keep it quiet meanwhile
	for comparison in paper inference training peers; do \
	  TERRALEAN=$(BIN)/terralean benchmarks/compare.sh $$comparison || exit 1; \
	done

docs: $(VENV)/.docs  ## the site, into site/
	$(BIN)/zensical build --clean

clean:
	rm -rf $(VENV) demo site build dist

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "terralean needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.package

$(VENV)/.docs: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@
