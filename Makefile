# make demo      the whole study on the demo features
# make test      lint, types and the quick tests, which find nearly every fault
# make test-all  lint, types and every test, PostgreSQL, Chromium and LaTeX among them where they are installed
# make docs-figures  the demo's figures and numbers in the documents, from the whole study on the demo
# Each sets up .venv first; PYTHON chooses the interpreter it is made with.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup
# torch comes first and by its exact version, so that pip takes the build for this machine that it finds.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all lint setup docs-figures clean

demo: $(VENV)/.runtime
	$(BIN)/python run_grid.py

test: lint
	$(PYTEST) -m 'not (slow or postgres or browser or latex)'

test-all: lint
	$(PYTEST) --hypothesis-profile=thorough

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs-figures: $(VENV)/.dev
	$(BIN)/python docs/figures.py

setup: $(VENV)/.dev

$(VENV)/.runtime: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
