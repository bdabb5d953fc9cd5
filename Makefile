# `make quickstart` and `make test` do everything on a fresh machine: environment, installation, the job itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# setuptools warns of every editable installation, also under --quiet
SILENT := PYTHONWARNINGS=ignore

.PHONY: environment quickstart test fuzz test-transformers-5 test-lowest lint types docs package clean

environment: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(SILENT) $(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(STAMP)

quickstart: environment
	$(BIN)/fishlens track quickstart

# one torch thread a worker: two workers share two cores
test: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

# people who work with transformers 5 and peft, without adapters: engine, callbacks, `fishlens track` and peft's recipes
NEWEST := .venv-transformers-5
$(NEWEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade pip
	$(SILENT) $(NEWEST)/bin/python -m pip install --quiet --editable '.[peft,test]' 'transformers>=5'
	@touch $@

test-transformers-5: $(NEWEST)/.installed
	OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m pytest --numprocesses 2 tests/fisher tests/tracking tests/schedules tests/journal tests/training/runs/test_peft_adapters.py tests/training/runs/test_bundled_models.py

# the oldest versions that pyproject.toml allows
LOWEST := .venv-lowest
$(LOWEST)/.installed: pyproject.toml | environment
	@mkdir -p build
	$(BIN)/python -m uv pip compile --quiet --resolution lowest-direct pyproject.toml --extra madx --extra peft --output-file build/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python -m pip install --quiet --requirement build/lowest.txt
	$(SILENT) $(LOWEST)/bin/python -m pip install --quiet --editable '.[test]'
	@touch $@

# (forked processes with threads of their own hang at times with torch 2.6: test_processes.py is left out)
test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest --numprocesses 2 --ignore tests/tracking/test_processes.py tests/fisher tests/tracking tests/schedules tests/journal tests/recipe tests/cli tests/analysis

# what would be published: sdist and wheel, and the wheel at work in an empty folder
package: environment
	rm -rf dist build/empty && $(BIN)/python -m build --outdir dist . > build/package.log 2>&1 || { tail -n 20 build/package.log; exit 1; }
	$(BIN)/python -m twine check --strict dist/*

# 100,000 damaged inputs; the tests try some of them each time (10,000 with FISHLENS_FUZZ=10000)
fuzz: environment
	FISHLENS_FUZZ=100000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 tests/fuzz

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
	rm -rf $(VENV) $(NEWEST) $(LOWEST) build dist *.egg-info
