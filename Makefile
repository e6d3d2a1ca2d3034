# `make test` or any other target builds .venv once, from the pinned versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# What a table is made of: make table3 SCALE=small DATA=../data SEEDS=3 TASKS=sst2,wikitext
SCALE ?= mini
SEEDS ?= 1
# Runs that work at the same time, and the steps after which compared runs take turns; empty: repro's defaults.
LANES ?=
TURNS ?=
DATA ?=
TASKS ?=
OUT ?= results
# A value as one word of the shell, whatever is in it; ~/ at its start is the home folder.
quoted = $(subst '~/,~/','$(subst ','\'',$(1))')
RESULTS = --scale $(call quoted,$(SCALE)) --out $(call quoted,$(OUT))
STUDY = $(BIN)/repro ablate $(1) $(RESULTS) --seeds $(call quoted,$(SEEDS)) \
	$(if $(LANES),--lanes $(call quoted,$(LANES))) $(if $(TURNS),--turns $(call quoted,$(TURNS))) \
	$(if $(DATA),--data $(call quoted,$(DATA))) $(if $(TASKS),--tasks $(call quoted,$(TASKS)))

.PHONY: setup table1 parallel gpu table3 table4 table5 table6 tables gates adamoe figures analysis report test torture check style lint types docs \
	stale dry-run smoke clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

table3: $(READY)  ## time, FLOPs and quality of dense, top-2, top-1 and adaptive on all tasks
	$(call STUDY,schemes)

tables: $(READY)  ## Tables 3, 5 and 6 from runs that take turns: all their times can be compared
	$(call STUDY,schemes threshold curriculum)

table5: $(READY)  ## adaptive gating at several thresholds
	$(call STUDY,threshold)

table6: $(READY)  ## adaptive gating with and without its curriculum
	$(call STUDY,curriculum)

gates: $(READY)  ## every adaptive gate at matched budgets
	$(call STUDY,gates)

adamoe: $(READY)  ## a top-2 model fine-tuned with null experts, and plainly
	$(call STUDY,adamoe)

table1: $(READY)  ## one MoE layer at forced shares of top-1 tokens, against other implementations
	$(BIN)/repro bench $(RESULTS)

parallel: $(READY)  ## the layer with its experts spread over 2 and 4 processes, beside a formula
	$(BIN)/repro bench $(RESULTS) --tokens 624,2048 --precision fp32 --parallel 2,4

gpu: $(READY)  ## every check that needs a CUDA device, within ten minutes, into results/published/gpu
	$(BIN)/repro bench --gpu --out $(call quoted,$(OUT)/published)

table4 figures: analysis

analysis: $(READY)  ## Table 4, Figures 1 and 2, loads and token heat maps, from the finished runs
	$(BIN)/repro analyze $(RESULTS)

report: $(READY)  ## every table and figure from the finished runs
	$(BIN)/repro report $(RESULTS)

test: $(READY)  ## all tests
	$(BIN)/pytest --numprocesses auto --dist loadfile

torture: $(READY)  ## kills, damages and nasty options by the thousand; half an hour and longer
	$(BIN)/pytest -m torture --numprocesses auto

check: $(READY) lint types stale dry-run test  ## what CI runs

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy

docs: $(VENV)/.docs  ## the generated parts of README and docs/, and the site in build/site
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/stage.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

$(VENV)/.docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'
	touch $@

stale: $(READY)  ## fail if documentation or published results are not what their sources give
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/statements.py --check
	$(BIN)/repro report --check

dry-run: $(READY)  ## every study at scale mini, and the models of every scale, without training
	$(BIN)/repro ablate $(basename $(notdir $(wildcard experiments/studies/*.toml))) --tasks sst2 --dry-run > /dev/null
	for scale in $(basename $(notdir $(wildcard experiments/*.toml))); do \
		$(BIN)/repro list tasks --scale $$scale > /dev/null || exit 1; \
	done

style: $(READY)  ## fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: $(READY)  ## one short run of every scheme
	for gate in dense top-2 top-1 adaptive; do \
		$(BIN)/repro train --task sst2 --gate $$gate --steps 30 --out build/smoke --fresh || exit 1; \
	done

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .hypothesis
