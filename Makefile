# make demo   the main comparison: table, plots and report in runs/demo
# make test   lint, types and the whole test suite
# make coverage   the tests, and which lines they reach (slower)
# make smoke  a few steps of the experiments with many arms
# make docs   the site, in build/docs (notebooks run once, then their outputs are kept)
# make wheel  a wheel for this kind of machine, with its native loops built in, in dist/
# All make the environment first; the first time that takes a few minutes.

VENV := .venv
BIN := $(VENV)/bin
# The newest Python here that is new enough; `make PYTHON=/path/to/python3.12` chooses another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
SOURCES := src experiments benchmarks tests docs hatch_build.py
WORKERS ?= 2

.PHONY: help env env-test env-docs demo smoke test coverage test-deep lint types docs wheel clean

help:
	@sed -n 's/^# //p' Makefile

# An environment that does not import is made anew; one that does is left alone unless
# pyproject.toml has changed since. The stamps are written last, so a broken install is repaired.
env:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer on the PATH; found none" >&2; exit 2; }
	@$(BIN)/python -c 'import longlag, jax' 2>/dev/null && test -f $(VENV)/.ready \
		&& test ! pyproject.toml -nt $(VENV)/.ready \
	|| { echo "making $(VENV) with $(PYTHON)" \
		&& $(PYTHON) -m venv --clear $(VENV) \
		&& $(PIP) --upgrade pip \
		&& $(PIP) --editable '.[experiments,data]' \
		&& $(BIN)/python -m longlag.kernels \
		&& touch $(VENV)/.ready; }

env-test: env
	@test -f $(VENV)/.ready-test && test ! pyproject.toml -nt $(VENV)/.ready-test \
	|| { echo "adding what the tests need" \
		&& $(PIP) --editable '.[experiments,data,peers,cluster,tensorboard,wandb,docs,dev]' \
		&& touch $(VENV)/.ready-test; }
	@$(BIN)/python -m benchmarks.targets

env-docs: env
	@test -f $(VENV)/.ready-docs && test ! pyproject.toml -nt $(VENV)/.ready-docs \
	|| { echo "adding what the site needs" \
		&& $(PIP) --editable '.[experiments,data,peers,docs]' \
		&& touch $(VENV)/.ready-docs; }

demo: env
	@$(BIN)/python -m longlag demo

smoke: env
	@$(BIN)/python -m experiments.harness.smoke

test: lint types
	@$(BIN)/python -m pytest -n $(WORKERS) --durations=15

coverage: env-test
	@$(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term

test-deep: env-test
	@$(BIN)/python -m pytest -n $(WORKERS) -m deep --durations=15

lint: env-test
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)

types: env-test
	@$(BIN)/basedpyright

# Pages that are not there any more must not stay in the folder.
docs: env-docs
	@rm -rf build/docs
	@$(BIN)/python -m sphinx -q -E -j $(WORKERS) -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

wheel: env-test
	@LONGLAG_WHEEL=native $(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .coverage .coverage.*
