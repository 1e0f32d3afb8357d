# make demo    trains first models on this machine, and draws what federation buys: demo/*/index.html
# make test    the one check: format, lint, types, borders, examples, doctests, tests
# make format  lets ruff rewrite what it can
# make versions   tries the core on each version of Python that is named and is here
# make mutants ROOM=transforms   how many faults in a room its tests notice; SAMPLE=20 SEED=0
#
# All use .venv, made with $(PYTHON) and renewed when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# pip would compile on one core, and the tests of all packages too; a file that is no Python stays as it is.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests?/' $(VENV)/lib || true
EXAMPLES := $(wildcard examples/*.py)
RUNS := $(EXAMPLES:examples/%.py=run-%)
BESIDE := --no-print-directory --jobs 2 SIDE_BY_SIDE=1
WHOLE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# Holds for pip's own build environments too, so that every set-up builds with the same tools.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := test
.PHONY: demo test format mutants style borders pages types tests versions $(RUNS)
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

demo: $(VENV)/.installed
	$(BIN)/hanse demo

test: $(VENV)/.dev
	@.ci/packages
	@$(BIN)/python -m compileall -q src  # once, for all processes that examples and tests start
	@$(MAKE) $(BESIDE) $(WHOLE) style borders $(RUNS) pages
	@$(MAKE) $(BESIDE) types tests

style: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

borders: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

pages: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

$(RUNS): run-%: $(VENV)/.dev
	@mkdir -p $(VENV)/examples/$*
	cd $(VENV)/examples/$* && ../../bin/python -W error ../../../examples/$*.py

# mypy takes one core, and says all at its end: the tests need not wait for it.
types: $(VENV)/.dev
	$(BIN)/mypy src $(EXAMPLES)

tests: $(VENV)/.dev
	@at=$$(.ci/memory) && \
	if TMPDIR=$$at $(BIN)/pytest -n auto --dist worksteal; then rm -rf "$$at"; \
	else echo "what the tests wrote is in $$at"; exit 1; fi

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(VENV)/.mutants
	$(BIN)/python benchmarks/mutants.py $(ROOM) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

versions:
	$(PYTHON) benchmarks/core/versions.py

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[report]'
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[dev,report]'
	@$(COMPILE)
	@touch $@ $(VENV)/.installed

$(VENV)/.mutants: $(VENV)/.dev
	$(PIP) --editable '.[mutants]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Hanse needs Python 3.11 or later; '$(PYTHON)' is not one." >&2; \
		echo "Name another, for example: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
