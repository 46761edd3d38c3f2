# `make help` lists the targets. PYTHON is any Python >= 3.11: make train PYTHON=python3.12
PYTHON ?= python3
ARGS ?=
ALGO ?= ppo
VENV := .venv
BIN := $(VENV)/bin

# implicit's threads and OpenBLAS's own get in each other's way.
export OPENBLAS_NUM_THREADS = 1

# Two threads where there are two cores. The number decides the last digits of a run, so it does not depend on what
# else the machine does. A thread that waits for the other one spins for about half a millisecond and then sleeps:
# if it spun on, it would keep the core from that thread on a busy machine; if it slept at once, two idle cores would be
# slower than one (docs/speed.md).
THREADS = $(shell $(PYTHON) -c 'import os; print(min(2, os.cpu_count() or 1))')
export GOMP_SPINCOUNT = 10000

.PHONY: help train loop test proofs lowest check site dist checkpoint clean
.DEFAULT_GOAL := help

help:
	@echo "make train   install what training needs, train PPO on satiation (800,000 steps), write its report"
	@echo "make loop    learn, serve, learn from serving: three rounds with simulated people, and a page in loop/ (a quarter of an hour)"
	@echo "make test    install the tools and run the tests that guard the code (five minutes on two cores)"
	@echo "make proofs  run all other tests: what learns, kills, wheels, clusters, benchmarks (a quarter of an hour)"
	@echo "make lowest  install the lowest versions that pyproject.toml allows, into .venv-lowest, and run make test with them"
	@echo "make check   ruff, mypy and the import rule"
	@echo "make site    build the site of the docs into site/"
	@echo "make dist    build the source archive and the wheel of this machine into dist/"
	@echo "make checkpoint   train a small policy on made-up items and users; it and its card go to dist/checkpoint/ (two minutes of a core)"
	@echo "make clean   delete .venv, caches and builds; runs and checkpoints stay"
	@echo "ALGO=a2c trains the other algorithm; ARGS adds options: make train ARGS='--seed 1', make test ARGS=tests/agents"

train: $(VENV)/data.stamp
	$(BIN)/python -m train --algo $(ALGO) --env satiation --threads $(THREADS) $(ARGS)
	$(BIN)/python -m evaluate --algo $(ALGO) --checkpoint checkpoints/$(ALGO).pt --report --jobs $(THREADS)

# The server runs beside the loop: one thread for each.
loop: $(VENV)/serve.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m examples.loop $(ARGS)

# A test is in one of the two: -m chooses by the marker `proof`, which conftest.py also gives to learning proofs.
test: WHICH := not proof
proofs: WHICH := proof

# One thread of torch for each of pytest's processes: more only wait for each other. worksteal: each process gets
# whole files, so that what the tests of a file share is made once. Without bytecode each process would compile
# 300 files of tests again, which takes twice as long as all else before the first test.
test proofs: $(VENV)/dev.stamp
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "$(WHICH)" $(ARGS)

# Of the versions that pyproject.toml allows, the lowest that has a wheel for this Python; packages that others bring in are the newest.
LOWEST := .venv-lowest
lowest:
	$(PYTHON) -m venv $(LOWEST)/uv
	$(LOWEST)/uv/bin/python -m pip install --disable-pip-version-check --quiet uv
	$(LOWEST)/uv/bin/uv pip compile pyproject.toml --extra dev --resolution lowest-direct --only-binary :all: \
		--python $(PYTHON) --quiet --output-file $(LOWEST)/lowest.txt
	PIP_CONSTRAINT=$(CURDIR)/$(LOWEST)/lowest.txt $(MAKE) test VENV=$(LOWEST)/venv

check: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

site: $(VENV)/docs.stamp
	$(BIN)/python -m docs.site

dist: $(VENV)/dev.stamp
	$(BIN)/python -m build --outdir dist .

checkpoint: $(VENV)/data.stamp
	$(BIN)/python -m examples.small_checkpoint $(ARGS)

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache build dist site docs/notebooks/*.ipynb

$(VENV)/data.stamp: pyproject.toml hatch_build.py $(wildcard recsys_rl/functional/compiled/*.[ch])
	$(call install,data)

$(VENV)/serve.stamp: $(VENV)/data.stamp
	$(call install,serve)
	@touch $(VENV)/data.stamp $@

$(VENV)/dev.stamp: $(VENV)/data.stamp
	$(call install,dev)
	@touch $(VENV)/data.stamp $@

$(VENV)/docs.stamp: $(VENV)/dev.stamp
	$(call install,docs)
	@touch $(VENV)/data.stamp $(VENV)/dev.stamp $@

# Install with the extra $(1). While `unfinished` lies there an install was cut off somewhere, perhaps
# halfway through a file, and pip cannot see that: the next run then starts from an empty folder.
define install
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "recsys_rl needs Python 3.11 or newer, and '$(PYTHON)' is not that: name one, as in: make PYTHON=python3.12" >&2; exit 1; }
@rm -f $(VENV)/data.stamp $(VENV)/dev.stamp $(VENV)/docs.stamp
@if [ -e $(VENV)/unfinished ]; then find $(VENV) -mindepth 1 ! -path $(VENV)/unfinished -delete; fi
@mkdir -p $(VENV) && touch $(VENV)/unfinished
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --disable-pip-version-check -e '.[$(1)]'
@rm $(VENV)/unfinished
@touch $@
endef
