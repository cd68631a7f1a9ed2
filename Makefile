# make demo   install, train a small net on handwritten digits, quantize it, run it in LiteRT
# make test   install, then lint, types, tests and the documentation (what continuous integration runs)
# make lint | types | pytest | bench | zoo | docs | site | build | clean
#
# PYTHON       the interpreter that the virtual environment is made from
# TORCH_INDEX  another package index for torch alone, such as https://download.pytorch.org/whl/cpu
# JOBS         test processes

PYTHON      ?= python3
VENV        ?= .venv
TORCH_INDEX ?=
JOBS        ?= 2

BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --constraint constraints.txt
FILES   := fxquant tests benchmarks examples docs

.PHONY: demo test check lint types pytest bench zoo docs site build clean
.DEFAULT_GOAL := test

# torch first and alone: whatever asks for it later finds it there and fetches no second build.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing torch (the largest download by far)"
	$(INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "installing fxquant and what the demo needs"
	$(INSTALL) --quiet --editable '.[litert,demo]'
	touch $@

# torchvision without what it depends on: it asks for a torch of its own build. Only its model
# definitions are used, by tests and benchmarks.
$(VENV)/.test: $(VENV)/.torch pyproject.toml
	@echo "installing fxquant and what development needs"
	$(INSTALL) --quiet --editable '.[litert,demo,onnx,images,dev,docs]'
	$(INSTALL) --quiet --no-deps torchvision
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python examples/digits.py

test: $(VENV)/.test
	$(MAKE) --no-print-directory check

check: lint types pytest site

lint: $(VENV)/.test
	$(BIN)/ruff check $(FILES)
	$(BIN)/ruff format --check $(FILES)

types: $(VENV)/.test
	$(BIN)/mypy

pytest: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

zoo: $(VENV)/.test
	$(BIN)/python -m benchmarks.zoo
	$(BIN)/python -m benchmarks.source

bench: zoo
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.methods
	$(BIN)/python -m benchmarks.precisions
	$(BIN)/python -m benchmarks.integer_precisions
	$(BIN)/python -m benchmarks.integer_only
	$(BIN)/python -m benchmarks.promises
	$(BIN)/python -m benchmarks.qat_accuracy
	$(BIN)/python -m benchmarks.qat_overhead
	$(BIN)/python -m benchmarks.calibration
	$(BIN)/python -m benchmarks.onnx_zoo
	$(BIN)/python -m benchmarks.validation
	$(BIN)/python -m benchmarks.mixed
	$(BIN)/python -m benchmarks.borders
	$(BIN)/python -m benchmarks.framework_cost
	$(BIN)/python -m benchmarks.fusion
	$(BIN)/python -m benchmarks.speed

docs: $(VENV)/.test
	$(BIN)/python docs/write_architecture.py
	$(MAKE) --no-print-directory site

# The documentation as a site, in build/site; a warning is an error.
site: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

build: $(VENV)/.test
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
