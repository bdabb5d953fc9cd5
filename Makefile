# `make quickstart` and `make test` do everything on a fresh machine: environment, installation, the job itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: environment quickstart test lint types docs clean

environment: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

quickstart: environment
	$(BIN)/fishlens track quickstart

# one torch thread a worker: two workers share two cores
test: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# as users import it: analysis/ in its installed place, fishlens.analysis
build/typed: FORCE
	@rm -rf build/typed && mkdir -p build/typed && cp -r fishlens build/typed/
	@if [ -d analysis ]; then cp -r analysis build/typed/fishlens/analysis; fi

FORCE:

types: environment build/typed
	cd build/typed && ../../$(BIN)/python -m mypy --config-file ../../pyproject.toml --python-executable ../../$(BIN)/python -p fishlens

# the documentation site, in build/site; a warning is an error
docs: environment build/typed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

clean:
	rm -rf $(VENV) build dist *.egg-info
