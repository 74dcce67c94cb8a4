# make quick     30 seconds: a small grid on the demo features, then the report opens in your browser
# make demo      the whole study on the demo features
# make test      lint, types and the quick tests, which find nearly every fault
# make test-all  lint, types and every test; PostgreSQL, Chromium and LaTeX too if they are installed
# make docs      the documentation as a site: open site/index.html
# make docs-figures  figures and numbers of the demo in the documents, from the whole study on the demo
# Each target sets up .venv first: quick and demo with the base packages only, the others with everything for
# development (make setup). PYTHON is the interpreter for .venv. uv installs the packages if it is on the PATH, else pip.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
UV := $(shell command -v uv)
# pip installs torch even if there is uv, first and by its exact version: pip finds local wheels and the build for this
# machine (such as +cpu), which uv ignores. uv leaves an installed torch alone.
INSTALL := $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python --constraint constraints.txt,$(PIP))
ACTIVATE := printf '\nTo use the cemobam command in this shell: source %s/activate\n' $(BIN)

.PHONY: quick demo test test-all lint setup setup-demo docs docs-figures clean

quick: setup-demo
	$(BIN)/cemobam demo --quick --open
	@$(ACTIVATE)

demo: setup-demo
	$(BIN)/cemobam demo
	@$(ACTIVATE)

test: lint
	$(PYTEST) -m 'not (slow or hostile or postgres or browser or latex)'

test-all: lint
	$(PYTEST) --hypothesis-profile=thorough

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The variable hides an advertisement that Material for MkDocs prints about another tool.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-figures: setup
	$(BIN)/python docs/figures.py

setup: $(VENV)/.dev

setup-demo: $(VENV)/.base

$(VENV)/.base: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) '$(TORCH)'
	$(INSTALL) --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(INSTALL) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
