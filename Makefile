# The verbs to remember; each works on a fresh machine and needs only python3 (3.11+), make and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-gpu check bench bench-large clean

demo: $(VENV)/.run  ## SimCLR against SDCLR on long-tailed digits, minutes on a CPU
	$(BIN)/sdclr demo

test: $(VENV)/.dev  ## everything but the tests marked slow and gpu; on the CPU, whose bits they compare
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n 2

test-all: $(VENV)/.dev  ## the slow ones too
	CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest -n 2 -m "not gpu"

test-gpu: $(VENV)/.dev  ## what needs a CUDA device
	$(BIN)/python -m pytest -m gpu

check: $(VENV)/.dev  ## formatter, linter, type checker; the wheel builds and imports in a clean environment
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	rm -rf build/wheel && $(BIN)/python -m build --wheel --outdir build/wheel
	$(PYTHON) -m venv --clear build/clean
	build/clean/bin/python -m pip install --quiet build/wheel/*.whl
	cd build && clean/bin/python -W error::SyntaxWarning -c "import sdclr; print(len([getattr(sdclr, n) for n in sdclr.__all__]), 'names import from the wheel of sdclr', sdclr.__version__)"
	cd build && clean/bin/sdclr recipes list

bench: $(VENV)/.run  ## what a step costs, against SimCLR and the 2021 reference's way; under 5 minutes on two cores
	$(BIN)/sdclr bench

bench-large: $(VENV)/.run  ## the same for ResNet-50 at 224 px, which a large CUDA device is held to
	$(BIN)/sdclr bench --backbone resnet50 --size 224 --batch 256

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable ".[dev]"
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
