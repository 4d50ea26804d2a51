# facemae: `make quickstart` runs the whole path on procedural faces, `make test` the tests.
# Needs Python 3.11 to 3.13 with the venv module, git and make; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A file that is newer than the lock means that the environment holds what the lock names.
READY := $(VENV)/.ready

.PHONY: help env quickstart test slow lint lock clean

help:
	@echo "make quickstart   the whole path on procedural faces, about five minutes on two cores"
	@echo "make test         the default tests, at most ten minutes"
	@echo "make slow         the slow tests, at most thirty minutes"
	@echo "make lint         ruff and mypy"
	@echo "make env          install into .venv"
	@echo "make lock         resolve the dependencies anew into requirements.lock"

env: $(READY)

# Bytecode is compiled once, here: where Python is told not to write any, every process would compile torch anew.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
		echo "facemae needs Python 3.11, 3.12 or 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1)."; \
		echo "Name another one: make env PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV) || { echo "The venv module is missing; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.5"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes --requirement requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	$(BIN)/python -m compileall -q facemae probes
	@touch $@

quickstart: env
	$(BIN)/facemae quickstart quickstart

test: env
	$(BIN)/python -m pytest --numprocesses auto

slow: env
	$(BIN)/python -m pytest -m slow

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The lock names packages, versions and hashes, but no host: whichever index is configured serves them. The loggers W&B
# and MLflow bring forty packages each that nothing else needs, and stay out of it.
lock:
	$(BIN)/uv pip compile pyproject.toml --extra all --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --output-file requirements.lock

clean:
	rm -rf $(VENV) quickstart .mypy_cache .ruff_cache .pytest_cache
