# The verbs to remember; each works on a fresh machine and needs only python3 (3.11+), make and a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLOORS := build/floors
TOOLS := build/tools
OLDEST_PYTHON ?= python3.11
NEXT_PYTHON ?= python3.13

# on the CPU, one thread for each of two workers: with more they wait for each other
ONE_EACH := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1

# by halves, and who has done its own takes of the other's: where no test must come before another
BOTH_BUSY := -n 2 --dist worksteal
# several processes first, torch's compiler last: tests/conftest.py
LONG := "(processes or journeys or compiles) and not slow and not gpu and not tools"

.PHONY: demo device rarebench test test-all test-gpu test-tools check check-floors check-newest newest-on bench bench-large docs gallery clean

demo: $(VENV)/.run  ## SimCLR against SDCLR on long-tailed digits, minutes on a CPU
	$(BIN)/sdclr demo

test: $(VENV)/.dev  ## everything but the tests marked slow, gpu, tools, processes, journeys and compiles; on the CPU, whose bits they compare
	$(ONE_EACH) $(BIN)/python -m pytest $(BOTH_BUSY)

test-all: $(VENV)/.dev  ## the slow ones too
	$(ONE_EACH) $(BIN)/python -m pytest -n 2 -m "not gpu and not tools"

test-gpu: $(VENV)/.dev  ## what needs a CUDA device
	$(BIN)/python -m pytest -m gpu -v --tb=short  # names as they end: what is cut off has then said what it can

# label-studio-sdk, cvat-sdk and fiftyone are 1.2 GB with what they need, so they get an environment of their own
test-tools: $(VENV)/.tools $(TOOLS)/.ready  ## what needs a browser (Debian's chromium, or SDCLR_CHROMIUM), npm, other tools' packages or several processes, and whole journeys
	$(ONE_EACH) $(BIN)/python -m pytest -n 2 -m $(LONG)
	$(ONE_EACH) $(BIN)/python -m pytest -n 2 --dist loadfile -m tools

docs: $(VENV)/.docs  ## the documentation as a site in build/site, which opens from a disk; a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

gallery: $(VENV)/.tools  ## the pictures of docs/gallery.md anew, from the pages of `make demo`
	$(BIN)/python docs/site/drawings.py
	$(BIN)/sdclr profile runs/demo/rare
	$(BIN)/python docs/site/gallery.py runs/demo

check: $(VENV)/.dev docs  ## formatter, linter, type checker, site; the wheel builds and imports in a clean environment
	$(BIN)/ruff format --check src tests benchmarks examples docs/site
	$(BIN)/ruff check src tests benchmarks examples docs/site
	$(BIN)/mypy
	rm -rf build/wheel && $(BIN)/python -m build --wheel --outdir build/wheel
	$(PYTHON) -m venv --clear build/clean
	build/clean/bin/python -m pip install --quiet build/wheel/*.whl
	cd build && clean/bin/python -W error::SyntaxWarning -c "import sdclr; print(len([getattr(sdclr, n) for n in sdclr.__all__]), 'names import from the wheel of sdclr', sdclr.__version__)"
	cd build && clean/bin/sdclr recipes list

# The suite, on the CPU, with the package as its wheel: $(call suite,FOLDER,OPTIONS OF PIP,ENVIRONMENT)
define suite
	$(1)/bin/python -m pip install --quiet --no-deps --force-reinstall $(2) .
	$(1)/bin/python -m pip check
	PYTHONPATH= $(ONE_EACH) $(3) $(1)/bin/python -m pytest $(BOTH_BUSY) $(TESTS)
	PYTHONPATH= $(ONE_EACH) $(3) $(1)/bin/python -m pytest -n 2 -m $(LONG) $(TESTS)
endef

check-floors: $(FLOORS)/.ready  ## the suite with the oldest versions that pyproject.toml allows, on the oldest Python
	$(call suite,$(FLOORS),--no-build-isolation,SDCLR_TEST_WARNINGS=own)

check-newest:  ## the suite with the newest versions that there are, on this Python and on python3.13
	$(MAKE) newest-on NEWEST_PYTHON="$(PYTHON)" NEWEST=build/newest
	@if $(NEXT_PYTHON) -c "" 2>/dev/null; then \
	  $(MAKE) newest-on NEWEST_PYTHON="$(NEXT_PYTHON)" NEWEST=build/newest-next; \
	else \
	  echo "SKIPPED: $(NEXT_PYTHON) was not found, so nothing was tried on it. Install it, or give NEXT_PYTHON=/its/path."; \
	fi

newest-on:
	$(NEWEST_PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(NEWEST)/bin/python -m pip install --upgrade --upgrade-strategy eager ".[test]"
	$(call suite,$(NEWEST))

$(FLOORS)/.ready: pyproject.toml
	@$(OLDEST_PYTHON) -c "" || { echo "$(OLDEST_PYTHON) was not found. Give OLDEST_PYTHON=/its/path."; exit 1; }
	$(OLDEST_PYTHON) -m venv --clear $(FLOORS)
	$(OLDEST_PYTHON) tests/support/floors.py --build test > $(FLOORS)/floors.txt
	$(FLOORS)/bin/python -m pip install --requirement $(FLOORS)/floors.txt
	touch $@

bench: $(VENV)/.run  ## what a step costs, against SimCLR and the 2021 reference's way; under 5 minutes on two cores
	$(BIN)/python benchmarks/step.py

device: $(VENV)/.dev  ## all that a CUDA device is wanted for, within MINUTES, written to OUT; the same command goes on
	$(BIN)/python benchmarks/on_device.py --out "$(or $(OUT),runs/device)" --minutes "$(or $(MINUTES),10)" $(if $(DATA),--data "$(DATA)" --splits-dir "$(SPLITS)" --grid "$(or $(GRID),paper)")

rarebench: $(VENV)/.dev  ## how well scores find rare classes; SDCLR_DATA names a folder with the larger sets
	$(BIN)/python -m benchmarks.rarebench

bench-large: $(VENV)/.run  ## the same for ResNet-50 at 224 px, which a large CUDA device is held to
	$(BIN)/python benchmarks/step.py --backbone resnet50 --size 224 --batch 256

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

$(VENV)/.docs: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[dev, docs]"
	touch $@

$(VENV)/.tools: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[dev, tools]"
	touch $@

$(TOOLS)/.ready: tests/support/tools.txt
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --requirement tests/support/tools.txt
	@if command -v npm > /dev/null; then \
	  npm install --prefix $(TOOLS) --no-save --no-audit --no-fund --loglevel=error axe-core@4; \
	else \
	  echo "npm was not found, so the tests of accessibility will skip. Install it, then: make -B $(TOOLS)/.ready"; \
	fi
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
