# `make upgrade` and `make test` need Python 3.11 or newer, and nothing else.

VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
# Modules are compiled once, and not by each process of each run.
export PYTHONDONTWRITEBYTECODE =
# One more than there are processors: some tests wait for somebody.
WORKERS = $(shell expr 1 + "$$(getconf _NPROCESSORS_ONLN)")
PYTEST = $(BIN)/pytest --numprocesses=$(WORKERS) --maxprocesses=4 --dist=loadscope --no-loadscope-reorder

# The first Python that is new enough; `make PYTHON=…` names another.
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; \
	done)

.NOTPARALLEL:
.PHONY: upgrade test check fmt lint types wheel bench bench-upgrade

# Where no DATABASE_URL is set: a PostgreSQL of the embedded extra, in a folder that is named.
upgrade: $(VENV)/.user
	$(BIN)/alembic upgrade head
	$(BIN)/workflow-models show

test: $(VENV)/.dev
	$(PYTEST) $(ARGS)

check: lint types wheel
	TEST_SERVER=each $(PYTEST) $(ARGS)

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

types: $(VENV)/.dev
	$(BIN)/mypy

wheel: $(VENV)/.dev
	tests/wheel/run.sh

# What row-level security costs, and how that grows; docs/performance.md.
bench: LOGS = 1000000
bench: $(VENV)/.dev
	$(BIN)/python -m bench.performance --logs $(LOGS)

# An upgrade under load, ours beside the naive way; results in bench/results/.
LOGS = 2000000
bench-upgrade: $(VENV)/.dev
	$(BIN)/python -m bench.upgrade --logs $(LOGS)

$(BIN)/python:
	@if [ -z '$(PYTHON)' ]; then echo >&2 \
		'error: no Python 3.11 or newer that can make virtual environments.' \
		'Install one (on Debian and Ubuntu: apt-get install python3-venv), or name one: make PYTHON=/path/to/python3'; \
		exit 1; fi
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.user: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[cli,embedded]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[dev]'
	$(BIN)/npm install --prefix $(VENV) --silent --no-fund --no-audit 'typescript@~5.9'
	@touch $@ $(VENV)/.user
