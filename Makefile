# Everything runs in .venv, which the first call makes from what constraints.txt pins.
PYTHON ?= python3.11
COUNT ?= 10000
FILES ?= 2000
SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup bench test check format docs coder fuzz clean clean-outputs

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

setup: $(STAMP)  ## make .venv and install what is pinned

# torch comes first and by its exact version: a later release would pull gigabytes of CUDA on a machine without a GPU.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found. Give one of 3.10 to 3.13: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,docs]'
	@touch $@

bench: $(STAMP)  ## the main job: a leaderboard over the embedded photographs, real bitstreams
	$(BIN)/python -m lc_bench $(ARGS)

test: $(STAMP)  ## all tests (under 12 minutes on 2 cores)
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

check: $(STAMP)  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)  ## put the code in shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## the documentation as a site, docs/_build/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

coder: $(STAMP)  ## speed and size of the entropy coder
	$(BIN)/python benchmarks/coder.py $(ARGS)

fuzz: $(STAMP)  ## 10,000 malformed streams, 2,000 damaged files for each reader: an error, or what was written (COUNT=, FILES=, SEED=)
	$(BIN)/python benchmarks/fuzz.py --count $(COUNT) --seed $(SEED) $(ARGS)
	$(BIN)/python benchmarks/fuzz_files.py --count $(FILES) --seed $(SEED)
	$(BIN)/python benchmarks/fuzz_clouds.py --count $(FILES) --seed $(SEED)

clean:  ## remove .venv and caches; what runs left in outputs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build dist docs/_build

clean-outputs:  ## remove outputs/: all runs, their weights and reports
	rm -rf outputs
