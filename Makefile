# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Wheels of this torch on package indexes may be CUDA builds of several GB; a CPU build is all that is needed.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGES := calibration export models runtime

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/gar-export --size nano --random-weights --force -o build/demo
	@echo; echo '$$ gar-run examples/table.png --mask examples/table_cup.png'
	$(BIN)/gar-run examples/table.png --mask examples/table_cup.png -m build/demo --max-new-tokens 24
	@echo '(Random weights speak gibberish; the pipeline is the real one. See README.md for real weights.)'

test: lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types/gar_edge
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/types/gar_edge/$$package; done
	$(BIN)/mypy

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[export,cpu,dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
