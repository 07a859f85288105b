# Everything runs in .venv, which is made when it is first needed and again when pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
BENCH := $(VENV)/.bench-installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo test coverage check bench soak clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(DEV) ## install the library and its development tools into .venv

demo: $(RUNTIME) ## show the library at work on a database of its own
	$(BIN)/agentos-store demo

test: $(DEV) ## run all tests on SQLite and PostgreSQL (ARGS="-k queue" for some)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

coverage: $(DEV) ## run all tests and tell which lines and branches they leave out; fail below 95 %
	$(BIN)/python -m pytest -n auto --dist worksteal --cov $(ARGS)

check: $(DEV) ## lint, types, layers, formatting, and models against migrations
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m agentos_store.testing.check

bench: $(BENCH) ## measure against the drivers alone and write benchmarks/RESULTS.md (ARGS="--growth 0" without large stores)
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(DEV) ## run the long forms of the tests that kill, cut and draw at random (MINUTES=30)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30)

clean: ## remove .venv, caches and build products; databases stay
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find agentos_store benchmarks migrations tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo needs no more than this, so it does not wait for the development tools.
$(RUNTIME): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(DEV): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --quiet --group bench
	touch $@
