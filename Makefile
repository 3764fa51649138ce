# `make help` lists the targets. `make demo` and `make test` do all the set-up a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo sweep report test test-slow lint format types check docs clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

setup: $(STAMP) ## Make .venv and install what constraints.txt pins

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'
	@touch $@

demo: setup ## Run the smoke experiment (2 encoders x 3 clippings x 2 seeds) and write its report
	$(BIN)/asr-lab sweep smoke
	$(BIN)/asr-lab report smoke

sweep: setup ## Run what is missing of an experiment: make sweep EXP=encoder_x_clipping [ARGS="seed=1,2"]
	$(BIN)/asr-lab sweep $(EXP) $(ARGS)

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

clean: ## Remove .venv and what tools leave behind; outputs/ stays
	rm -rf $(VENV) site dist .pytest_cache .ruff_cache .hypothesis
