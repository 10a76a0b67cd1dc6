# Every target makes the virtual environment itself when it is missing or older than pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# a machine with a GPU may bring an environment of its own
PYTHON_HERE = $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
# one compute thread per test process: two processes on two cores
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-web test-cluster test-versions test-loggers test-full faults fuzz test-interpret test-compile variants test-gpu gpu-wheels gpu-binaries gpu-variants on-gpu check lint type bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

# as pyproject.toml asks: an environment of an older one would be met again by every later call
RECENT := import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d, and 3.11 or newer is \
needed; name one that is: make ... PYTHON=python3.12" % tuple(sys.version_info[:2]))

# without pip it is half an environment: Debian's python3 leaves one where python3-venv is not installed
$(STAMP): pyproject.toml constraints.txt
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -c '$(RECENT)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parquet]'
	touch $(STAMP)

install: $(STAMP) ## create .venv and install the package with its development tools

demo: $(STAMP) ## search, finalists, tune, train, export, benchmark and report on real digits (a few minutes on 2 cores)
	$(BIN)/darts-core run experiment=demo

test: $(STAMP) ## the everyday tests (CPU)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m "not gpu and not interpret and not full and not web"

test-web: $(STAMP) ## the live page in a real Chromium (Debian's chromium and chromium-driver, through Selenium)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt selenium
	$(TEST_ENV) $(BIN)/python -m pytest -n 0 -m web tests/web

# FAULTS=benchmarks/results writes down what each fault left in the books
test-cluster: $(STAMP) ## studies, searches and multiruns on a Ray cluster of several nodes here, on Slurm, and on three hosts in namespaces (root)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,slurm]'
	$(TEST_ENV) $(if $(FAULTS),FAULTS=$(FAULTS)) $(BIN)/python -m pytest -n 0 -m cluster tests/cluster

# SETS=oldest, PYTHONS="python3.12 python3.13", TORCH=2.13.0 (instead of a set's own), TESTS=tests
test-versions: $(STAMP) ## tests with the oldest, the pinned and the newest packages, an environment each; other Pythons are resolved
	$(BIN)/python tests/versions.py $(if $(SETS),--sets $(SETS)) $(if $(PYTHONS),--pythons $(PYTHONS)) \
		$(if $(TORCH),--torch $(TORCH)) $(if $(TESTS),--tests $(TESTS))

LOGGERS := .venv-loggers

test-loggers: ## wandb and mlflow, whose releases do not stand beside the pinned set, in an environment of their own
	test -x $(LOGGERS)/bin/python || $(PYTHON) -m venv $(LOGGERS)
	$(LOGGERS)/bin/python -m pip install --quiet --disable-pip-version-check wandb mlflow pytest pyyaml numpy pillow
	$(LOGGERS)/bin/python -m pytest -q -p no:cacheprovider -c /dev/null --rootdir . -o pythonpath=. tests/loggers

test-full: $(STAMP) ## the everyday tests and the heavy ones (CPU)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m "not gpu and not interpret and not web"

faults: $(STAMP) ## three hundred random kills of studies, and faults at every write of the stages' commands (CPU)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m full tests/faults

FUZZED := architecture manifest idx csv job
SECONDS ?= 300

fuzz: $(STAMP) ## byte-level fuzzing of the parsers that are ours, one after another (5 x 5 minutes, CPU)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt atheris
	for name in $(FUZZED); do $(TEST_ENV) $(BIN)/python tests/hostile/fuzz.py $$name $(SECONDS) || exit 1; done

test-interpret: $(STAMP) ## the Triton kernel bodies in Triton's CPU interpreter, looked at for races and bounds
	$(TEST_ENV) TRITON_INTERPRET=1 $(BIN)/python -m pytest -n 2 -p tests.kernels.racecheck -m interpret tests/kernels

test-compile: $(STAMP) ## every variant's binary (sm_90) against the golden file; only what changed is compiled
	$(TEST_ENV) $(BIN)/python -m pytest tests/kernels/test_compile.py tests/kernels/test_overlap.py

variants: $(STAMP) ## renew the golden file of binaries (only what changed is compiled)
	$(TEST_ENV) $(BIN)/python -m darts_core.bench.offline --renew

test-gpu: ## everything that needs a CUDA device, in steps of 9 minutes: call it until nothing is left
	$(PYTHON_HERE) -m pytest -p benchmarks.resumable_tests --resume runs/test_gpu -m gpu tests \
		$(shell $(PYTHON_HERE) -c "import xdist" 2>/dev/null && printf '%s' '-n 4')

gpu-wheels: $(STAMP) ## download what a GPU's image (Python 3.12, torch) lacks into carried/; `make on-gpu` installs it
	$(BIN)/python -m benchmarks.gpu_wheels

# the binaries fit the Triton and the Python that compile them: those of the GPU's machine
GPU_PYTHON ?= python3.12
GPU_TRITON ?= 3.6.0
GPU_TORCH ?= 2.11.0
GPU_VENV := .venv-gpu
GPU_ENV := $(TEST_ENV) PYTHONPATH=.:kernels TRITON_CACHE_DIR=$(abspath $(GPU_VENV))/cache

# other versions make it anew, as binaries of the old ones would not fit; what was compiled stays in its cache
GPU_STAMP := $(GPU_VENV)/.installed-$(notdir $(GPU_PYTHON))-$(GPU_TRITON)-$(GPU_TORCH)

$(GPU_STAMP):
	rm -rf $(GPU_VENV)/.installed* $(GPU_VENV)/bin $(GPU_VENV)/include $(GPU_VENV)/lib $(GPU_VENV)/lib64
	$(GPU_PYTHON) -m venv $(GPU_VENV)
	$(GPU_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==$(GPU_TORCH) triton==$(GPU_TRITON) numpy pyyaml
	touch $@

gpu-binaries: $(GPU_STAMP) ## compile what a GPU launches for its Python and Triton, into carried/; goes on where it stopped
	mkdir -p carried
	$(GPU_ENV) $(GPU_VENV)/bin/python -m benchmarks.triton_cache --compile --pack carried/triton-cache.tar.xz \
		$(if $(MINUTES),--minutes $(MINUTES))

gpu-variants: $(GPU_STAMP) ## renew the golden file of that Triton, from the binaries of gpu-binaries where they are
	$(GPU_ENV) $(GPU_VENV)/bin/python -m darts_core.bench.offline --renew --processes 1

on-gpu: ## tests, tiles, step, kernels, export, latency, models, full search; DATA=cifar10.parquet; call until nothing is left
	$(PYTHON_HERE) -m benchmarks.on_gpu --data $(DATA) $(if $(BRING),--bring $(BRING))

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP) ## mypy, strict
	$(BIN)/mypy

check: lint type test ## lint, types and tests

bench: $(STAMP) ## the search-step benchmark on this device
	$(BIN)/darts-core bench what=step

clean: ## remove the environment and every cache (runs/ stays)
	rm -rf $(VENV) .venv-loggers .venv-versions $(GPU_VENV) .pytest_cache .mypy_cache .ruff_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
