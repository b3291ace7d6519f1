# Two commands do everything: `make demo` and `make test`. Both need only Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# One process more than cores: tests of real processes wait more than they compute.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1)
# An oracle of the tests whose own range stops before pandas 3, which it runs on all the same: with it, by range, the
# whole suite would go back to pandas 2.
ORACLE := lifelines autograd autograd-gamma formulaic interface-meta narwhals wrapt
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help demo env test check bench clean
help:
	@echo "make demo   create $(VENV), install privfl, run the demo"
	@echo "make test   create $(VENV) with the test extras, run the whole suite"
	@echo "make env    create $(VENV) with the test extras"
	@echo "make check  ruff, mypy --strict, import-linter, doctests"
	@echo "make bench  every benchmark, as tables"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "privfl needs Python 3.11 or newer: set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# A stamp names the set of extras that is installed, so that each target is idempotent.
$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[analytics]"
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt -e ".[test]"
	$(PIP) install --no-deps $(ORACLE)
	@touch $@ $(VENV)/.core

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.test
	$(PIP) install -c constraints.txt -e ".[test,bench]"
	@touch $@

demo: $(VENV)/.core
	$(BIN)/privfl demo --dir demo-out $(ARGS)

env: $(VENV)/.test

test: env
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=keys:analytics $(BIN)/lint-imports
	$(BIN)/python -m pytest -q --doctest-modules privfl keys/privfl_keys analytics/privfl_analytics

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
