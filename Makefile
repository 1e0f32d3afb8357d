# make demo    trains first models on this machine, and draws what federation buys: demo/*/index.html
# make test    the one check: format, lint, types, borders, examples, doctests, tests
# make format  lets ruff rewrite what it can
# make mutants ROOM=transforms   how many faults in a room its tests notice; SAMPLE=20 SEED=0
#
# All use .venv, made with $(PYTHON) and renewed when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Holds for pip's own build environments too, so that every set-up builds with the same tools.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

.DEFAULT_GOAL := test
.PHONY: demo test format mutants types tests
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif

demo: $(VENV)/.installed
	$(BIN)/hanse demo

test: $(VENV)/.dev
	@.ci/packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mkdocs build --strict --quiet
	@mkdir -p $(VENV)/examples
	@for example in $(wildcard examples/*.py); do \
		echo "python $$example"; \
		(cd $(VENV)/examples && ../bin/python -W error ../../$$example) || exit 1; \
	done
	@$(BIN)/python -m compileall -q src  # once, for all processes that the tests start
	@$(MAKE) --no-print-directory --jobs 2 SIDE_BY_SIDE=1 types tests

# mypy takes one core, and says all at its end: the tests need not wait for it.
types: $(VENV)/.dev
	$(BIN)/mypy src $(wildcard examples/*.py)

tests: $(VENV)/.dev
	$(BIN)/pytest -n auto --dist worksteal

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(VENV)/.mutants
	$(BIN)/python benchmarks/mutants.py $(ROOM) $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[report]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[dev,report]'
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
