# `make book` and `make test` are all that a reader needs; each sets up what it uses.

# make 3.81, that of macOS, does not read .SHELLFLAGS: loops end with `|| exit 1`.
SHELL         := bash
.SHELLFLAGS   := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help book test test-fast check test-portable reproduce bench notebooks clean environment .venv

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.ready
# Pages that are functions of run records: computed where they are missing, and once more at a quick size.
STUDIES := reproduction/table1 reproduction/figure1 reproduction/sensitivity lrrn/reconstruction lrrn/classification lrrn/two_ways
AFRESH  := _build/reproduce
RUN     := $(BIN)/papermill --log-output --log-level WARNING

# Relative folders are meant from here, not from where a notebook runs.
from_here = $(if $(filter /% ~%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
ifneq ($(LNN_DATA),)
override LNN_DATA := $(call from_here,$(LNN_DATA))
export LNN_DATA
endif
ifneq ($(LNN_CACHE),)
override LNN_CACHE := $(call from_here,$(LNN_CACHE))
export LNN_CACHE
endif

help:
	@echo "make book        build the pages, with a quick run of the experiments on this machine"
	@echo "make test        run every test: the library, the notebooks, the pages in a browser"
	@echo "make check       for maintainers: the linter, the types, the workflows (seconds)"
	@echo "make test-fast   for maintainers: the library alone, without pages, notebooks, mutants and a browser (two minutes)"
	@echo "make test-portable  for maintainers: what hangs on the last digits, as on a processor without vector instructions"
	@echo "make reproduce   compute the papers' experiments again, into $(AFRESH) (hours; can be stopped and resumed)"
	@echo "make bench       measure what training costs, into book/records/cost (a quarter of an hour; wants a quiet machine)"
	@echo "make notebooks   for maintainers: run all committed notebooks again, in place"
	@echo "make clean       remove what 'make book' wrote"
	@echo "PYTHON=…         the interpreter to set up with, 3.11 or later (now: $(PYTHON))"

# What the environment was made from: its pins and its place, as scripts in it name the checkout they belong to.
MADE_FROM = $$(cat requirements.txt pyproject.toml | cksum) $(CURDIR)

# Made again where that has changed (whatever the files' dates), in a copied checkout, and where its Python does not run.
environment:
	@{ [ "$$(cat $(STAMP))" = "$(MADE_FROM)" ] && $(BIN)/python -c ''; } 2>/dev/null || $(MAKE) --no-print-directory .venv

# The stamp is written last: an environment that was interrupted is made again, one that is complete is left alone.
.venv:
	@echo "==> Setting up .venv with $(PYTHON) (some minutes the first time; PyTorch is the largest part)"
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or later, or name it with 'make PYTHON=…'"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed, and $(PYTHON) is " + sys.version.split()[0] + ": name another with make PYTHON=…")'
	@rm -rf .venv
	@"$(PYTHON)" -m venv .venv || { echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@echo "$(MADE_FROM)" >$(STAMP)
	@echo "==> .venv is ready"

book: environment
	@mkdir -p book/quick
	@for study in $(STUDIES); do \
		echo "==> Running $$study on this machine, quick profile"; \
		$(RUN) --cwd book/quick -p profile quick -p records records book/$$study.ipynb book/quick/$${study#*/}.ipynb || exit 1; \
	done
	@echo "==> Building the pages"
	@$(BIN)/jupyter-book build --quiet --all -W -n --keep-going .
	@echo "Front page: $(CURDIR)/_build/html/index.html"

# In the order of collection: notebooks, the smaller pieces of work, come last, and both processes end together.
SPLIT := -n 2 --dist loadfile --no-loadscope-reorder

test: environment
	@echo "==> Testing the library, the notebooks and the pages"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPLIT)

# ruff by its rules in pyproject.toml, no more type errors than there were, workflows by the schema of GitHub.
check: environment
	@echo "==> Checking style, types and workflows"
	@$(BIN)/ruff check .
	@$(BIN)/python .ci/check_types.py
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# What is quick enough to be run after each change: tests/conftest.py marks the others as slow.
test-fast: environment
	@echo "==> Testing the library, without what is slow"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" tests

# Other sums, other last digits: what torch and MKL compute on a processor that has no vector instructions.
test-portable: environment
	@echo "==> Testing the notebooks and the records as on a processor without vector instructions"
	@ATEN_CPU_CAPABILITY=default MKL_CBWR=COMPATIBLE OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPLIT) \
		tests/test_drift.py tests/test_notebooks.py book

# Into a folder of its own: what is there is not run again, so that it can be stopped, and the published records stay.
reproduce: environment
	@mkdir -p $(AFRESH)/records
	@for study in $(STUDIES) reproduction/provenance; do \
		echo "==> Running $$study, profile of the paper"; \
		$(RUN) --cwd book/reproduction -p records "$(CURDIR)/$(AFRESH)/records" book/$$study.ipynb $(AFRESH)/$${study#*/}.ipynb || exit 1; \
	done
	@echo "==> The records are in $(AFRESH)/records, the notebooks with their outputs beside them"

# Afresh: times of different days do not belong in one table. Where it was interrupted, the same without --again goes on.
bench: environment
	@echo "==> Measuring what training costs"
	@$(BIN)/python -m benchmarks --again

notebooks: environment
	@$(BIN)/python book/execute.py

clean:
	@rm -rf _build book/quick
	@echo "==> Removed _build and the quick runs; .venv, data and records are left as they are"
