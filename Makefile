# `make help` lists the targets. `make demo` and `make test` do all the set-up a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
# How `make sweep` launches: LAUNCHER=slurm PARTITION=gpu GPUS=1 TIME=120 (minutes), JOBS=4 (local: cells at once)
LAUNCHER ?= local
LAUNCH = hydra/launcher=$(LAUNCHER) $(if $(PARTITION),hydra.launcher.partition=$(PARTITION)) \
	$(if $(GPUS),hydra.launcher.gpus=$(GPUS)) $(if $(TIME),hydra.launcher.minutes=$(TIME)) \
	$(if $(JOBS),hydra.launcher.n_jobs=$(JOBS))

.PHONY: help setup demo plan doctor sweep resume status cancel slurm-local slurm-stop report test test-slow lint format types check docs gallery clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: $(STAMP) ## Make .venv and install what constraints.txt pins

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

demo: setup ## Run the smoke experiment (2 encoders x 3 clippings x 2 seeds) and write its report
	$(BIN)/asr-lab sweep smoke
	$(BIN)/asr-lab report smoke

plan: setup ## Cells and time of an experiment: make plan EXP=encoder_x_clipping
	$(BIN)/asr-lab plan $(EXP) $(ARGS)

doctor: setup ## Would it run? make doctor EXP=encoder_x_clipping
	$(BIN)/asr-lab doctor $(EXP) $(LAUNCH) $(ARGS)

sweep: setup ## Run what is missing: make sweep EXP=encoder_x_clipping [LAUNCHER=slurm PARTITION=gpu GPUS=1 TIME=120]
	$(BIN)/asr-lab sweep $(EXP) $(LAUNCH) $(ARGS)

resume: setup ## The same, with cells that failed: make resume EXP=encoder_x_clipping
	$(BIN)/asr-lab sweep $(EXP) --retry-failed $(LAUNCH) $(ARGS)

status: setup ## What has become of the cells: make status [EXP=encoder_x_clipping]
	$(BIN)/asr-lab status $(EXP)

cancel: setup ## Stop a sweep without losing anything: make cancel EXP=encoder_x_clipping
	$(BIN)/asr-lab cancel $(EXP)

slurm-local: setup ## Start a Slurm of one node for trying (root, Debian's slurm-wlm and munge)
	$(BIN)/python -m asr_lab.sweep.slurm_local start .slurm-local

slurm-stop: setup ## Stop it
	$(BIN)/python -m asr_lab.sweep.slurm_local stop .slurm-local

report: setup ## Report of an experiment: make report EXP=encoder_x_clipping
	$(BIN)/asr-lab report $(EXP)

test: setup ## Quick tests (under 5 minutes on 2 cores)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-slow: setup ## Long tests: learning on real speech, several processes, installation
	$(BIN)/pytest -n 2 --dist worksteal -m slow

lint: setup ## Style and likely mistakes (ruff)
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

format: setup ## Put the code into the agreed format
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

types: setup ## Types (pyright)
	$(BIN)/pyright

check: lint types test ## What a change must pass: lint, types, quick tests

docs: setup ## Build the documentation into site/
	$(BIN)/mkdocs build --strict

gallery: setup ## Render the pictures of README and docs from committed runs (needs chromium)
	$(BIN)/python benchmarks/gallery.py

clean: ## Remove .venv and what tools leave behind; outputs/ stays
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis
