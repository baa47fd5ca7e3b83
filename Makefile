# Two commands matter: `make demo` and `make test`. Both need Python 3.11, pip and make, no more.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test tests soak bench mutants lint unit clean

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
BASE := .venv/installed-base
INSTALLED := .venv/installed
FLAVORS := .venv/flavors
# Lies of workers have a long form too, and need no process.
LONG_UNIT := tests/unit/gateway/serving/replica/test_worker_messages.py
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt

export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = 1
# Three hundred processes start in the tests: without this each compiles all that it imports.
export PYTHONDONTWRITEBYTECODE =

help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | column -t -s '|'

demo: $(BASE) ## Play the whole story on a real MLflow server; ARGS=--once ends by itself
	$(BIN)/python -m deploy.demo $(ARGS)

test: $(INSTALLED) ## Everything that must hold
	@$(MAKE) --jobs=2 --no-print-directory lint tests

# Three processes for two cores: tests of nodes, which come first, often wait. Each process has
# servers of its own.
tests: $(INSTALLED)
	$(BIN)/python -m pytest tests --ignore=tests/benchmarks --numprocesses=3 --dist=loadfile --no-loadscope-reorder $(ARGS)

soak: $(INSTALLED) $(FLAVORS) ## The tests that take counts and durations, in full
	REGISTRY_GATEWAY_SOAK=1 $(BIN)/python -m pytest tests/acceptance tests/contracts $(LONG_UNIT) --timeout=3600 $(ARGS)

bench: $(INSTALLED) ## The benchmarks: ratios within one run
	$(BIN)/python -m tests.benchmarks $(ARGS)
	$(BIN)/python -m tests.benchmarks.polling $(ARGS)

mutants: $(INSTALLED) ## Sabotage the spines: the tests must notice 95 % of it
	@$(BIN)/python -m tests.mutants $(ARGS)

unit: $(INSTALLED) ## Only what needs no process
	$(BIN)/python -m pytest tests/unit tests/contracts $(ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gateway registry_sync deploy tests
	$(BIN)/lint-imports

# One environment, two stamps: the demonstration needs the package only, and what `make test` adds
# to it stays when the demonstration installs again.
$(BASE): pyproject.toml constraints.txt
	@echo 'Installing the package into .venv: the first time 240 MB to download, 1 GB on disk;'
	@echo 'a minute or two on two cores, and what the download takes.'
	$(MAKE_VENV)
	$(PIP) --editable .
	@touch $@

# torch first and alone: its CPU build satisfies whatever asks for torch later.
$(INSTALLED): pyproject.toml constraints.txt
	@echo 'Installing the package, torch and the tests into .venv: the first time 600 MB to download,'
	@echo '2.3 GB on disk, where pip knows an index of CPU builds of torch (PIP_EXTRA_INDEX_URL);'
	@echo 'else 3.1 GB to download. Two minutes or three on two cores, and what the download takes.'
	$(MAKE_VENV)
	$(PIP) torch
	$(PIP) --editable '.[torch,postgresql]' $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["test"])')
	@touch $(BASE) $@

define MAKE_VENV
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=…")'
@test -x $(BIN)/python || $(PYTHON) -m venv .venv
endef

# Their own stamp: nothing but the long run needs them. The versions of the others stay as they are.
$(FLAVORS): $(INSTALLED)
	@echo 'Installing the libraries of every flavor of MLflow into .venv (4.5 GB) …'
	$(PIP) $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["flavors"])')
	@touch $@

clean: ## Remove the environment, and what demo and tests left
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .mutants
	find . -name __pycache__ -prune -exec rm -rf {} +
