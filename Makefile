# `make test` or any other target builds .venv once, from the pinned versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup test check style lint types smoke clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

test: $(READY)  ## all tests
	$(BIN)/pytest

check: $(READY) lint types test  ## what CI runs

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

style: $(READY)  ## fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: $(READY)  ## one short run of every scheme
	for gate in dense top-2 top-1 adaptive; do \
		$(BIN)/repro train --task sst2 --gate $$gate --steps 30 --out build/smoke --fresh || exit 1; \
	done

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .hypothesis
