# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
# Wheels of this torch on package indexes may be CUDA builds of several GB; a CPU build is all that is needed.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests and benchmarks import ONNX Runtime themselves, whose telemetry gar-edge would otherwise have turned off.
export ORT_DISABLE_TELEMETRY ?= 1
PACKAGES := calibration export models runtime

ARM := cortex-a57 cortex-a72 cortex-a76
X86 := Haswell Nehalem
CAMPAIGN := --questions 100 -m runtime/nano_bundle -m build/nano-int8 -m build/nano-int4

.PHONY: demo test schedules schemas test-many test-arm test-x86 gpu-check gpu-pieces lint docs nano-bundle tile-cutter clean

demo: $(STAMP)
	$(BIN)/gar-export --size nano --force -o build/demo
	$(BIN)/gar-run examples/scene_1.png --mask examples/scene_1_mask_0.png -q 'What colour is <Prompt0>?' -m build/demo
	$(BIN)/gar-run examples/scene_1.png --mask examples/scene_1_mask_0.png --mask examples/scene_1_mask_1.png \
		-q 'Is <Prompt0> larger or smaller than <Prompt1>?' -m build/demo --overlay build/demo.png
	@echo '(gar-nano knows drawn shapes only: see models/nano/README.md. README.md has real weights.)'

test: lint
	$(BIN)/python -m pytest -n logical --dist loadfile

schedules: $(STAMP)  # thousands of requests in random schedules, each answer compared with the one it gets alone
	$(BIN)/gar-export --size nano --force -o build/demo
	$(BIN)/python tests/benchmarks/schedules.py -m build/demo --requests 2000

schemas: $(STAMP)  # a thousand random JSON Schemas: every answer that is finished is valid
	$(BIN)/gar-export --size nano --force -o build/demo
	$(BIN)/python tests/benchmarks/random_schemas.py -m build/demo --count 1000

test-many: $(STAMP)  # gar-label and gar-serve on clusters of Ray's, on this machine: installs 360 MB
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'ray[serve]>=2.50' 'pyarrow>=17'
	$(BIN)/python -m pytest -n logical --dist loadfile tests/runtime/label tests/examples/test_serve_ray.py
	$(BIN)/python -m pytest tests/whole/test_readme.py -k many

test-arm: $(STAMP) build/nano-int4/gar.json  # gar-nano on emulated ARM cores: the answers that it gives here? 10 minutes or more
	tests/processors/arm_root.sh build/arm $(BIN)/python
	$(BIN)/python tests/processors/campaign.py $(ARM:%=-p %) $(CAMPAIGN)

test-x86: $(STAMP) build/nano-int4/gar.json  # the same on processors without VNNI
	$(BIN)/python tests/processors/campaign.py $(X86:%=-p %) $(CAMPAIGN)

build/nano-int4/gar.json: $(STAMP)
	$(BIN)/gar-export --size nano --int8 --force -o build/nano-int8
	$(BIN)/gar-export --size nano --int4 --force -o build/nano-int4

gpu-check: $(STAMP)  # evidence from a GPU in 8 minutes; DRY=--dry tries the script on the processor
	$(BIN)/python tests/gpu/check.py $(DRY)

gpu-pieces: $(STAMP)  # what a GPU machine without a network lacks, in pieces of 60 MiB at most
	$(BIN)/python tests/gpu/pieces.py pack build/gpu-pieces

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types/gar_edge
	@for package in $(PACKAGES); do ln -sfn ../../../$$package build/types/gar_edge/$$package; done
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python tests/generate_cli_docs.py

nano-bundle: $(STAMP)  # the gar-nano that comes with the runtime, after its graphs or weights have changed
	$(BIN)/python -m gar_edge.export.shipped

tile-cutter: $(STAMP)  # the cutter's PTX, after its source has changed: of CUDA 12.0, so that every newer driver reads it
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/nvrtc nvidia-cuda-nvrtc-cu12==12.0.76
	$(BIN)/python tests/generate_tile_cutter.py build/nvrtc

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[export,cpu,structured,serve,dev]'
	# Without its Qt: tests load the one module that draws shapes, and hold ours to it.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps labelme==6.3.1
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
