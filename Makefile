# Everything runs from a private environment in .venv, made on first use from requirements.lock.
# Variables: PYTHON=python3.12 (when .venv is made)   JOBS=4   ARGS="-k rollback"   KEEP=dir

PYTHON ?= python3
JOBS ?= auto
ARGS ?=
KEEP ?=
UV_VERSION := 0.13.9

BIN := .venv/bin
INSTALLED := .venv/.installed

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup bench demo drill test attacks interop soak crash swarm fuzz lint typecheck format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Install the locked packages and this project into .venv

demo: $(INSTALLED) ## Train, attest, publish, install, attack; KEEP=dir leaves the result there
	$(BIN)/python examples/meter-reader/demo.py $(if $(KEEP),--keep "$(KEEP)")

drill: $(INSTALLED) ## Steal each online key in turn, show what that is worth, replace it
	$(BIN)/python examples/drill/drill.py $(ARGS)

test: $(INSTALLED) ## Run the tests, but for the slow ones
	$(BIN)/pytest -n $(JOBS) -m "not slow" $(ARGS)

attacks: $(INSTALLED) ## Run the attack gallery and print its table
	$(BIN)/pytest tests/attacks -n $(JOBS) --attack-table $(ARGS)

interop: $(INSTALLED) .venv-interop/.installed ## Check against other implementations
	MODEL_SIGNING=.venv-interop/bin/model_signing $(BIN)/pytest tests/interop -n $(JOBS) $(ARGS)

bench: $(INSTALLED) .venv-bench/.installed ## Measure, beside peers and limits; writes docs/benchmarks.md; ARGS=name for one
	$(BIN)/python -m tests.bench $(ARGS)

soak: $(INSTALLED) ## Kill the daemon at random 1,000 times; ARGS="--cycles 50" for less
	$(BIN)/python -m tests.soak $(ARGS)

swarm: $(INSTALLED) ## Ten devices behind one slow uplink, in network namespaces; needs root
	$(BIN)/pytest tests/swarm -s -m slow $(ARGS)

crash: $(INSTALLED) ## Kill and cut the power at every system call, on ext4 and XFS (root)
	$(BIN)/pytest tests/crash -n $(JOBS) -m slow
	$(BIN)/python -m tests.crash.power $(ARGS)

vm: $(INSTALLED) ## Debian 12 in a virtual machine: systemd, fs-verity, power cuts (root)
	$(BIN)/pytest tests/vm -s -m slow $(ARGS)

fuzz: $(INSTALLED) ## Run the property tests for much longer
	$(BIN)/pytest -n $(JOBS) -m fuzz --hypothesis-profile=fuzz --timeout=1800 $(ARGS)

lint: $(INSTALLED) ## Check style, formatting and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

typecheck: $(INSTALLED) ## Check types, strictly
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code and fix what can be fixed safely
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Resolve requirements.lock anew; tool.uv.exclude-newer sets as of which day
	@rm -rf .venv-lock uv.lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv==$(UV_VERSION)
	.venv-lock/bin/uv lock --quiet
	{ echo "# Made by 'make lock': every package of every group, with hashes."; \
	  .venv-lock/bin/uv export --quiet --frozen --no-header --no-emit-workspace \
	    --all-groups --all-packages --format requirements-txt; } > .venv-lock/requirements.lock
	mv .venv-lock/requirements.lock requirements.lock
	for peers in interop bench; do \
	  { echo "# Made by 'make lock' from requirements.in, with hashes."; \
	    .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --no-header \
	      --generate-hashes --no-emit-index-url --exclude-newer "$$(grep -oE '20[0-9-]+T' \
	      pyproject.toml | tr -d T)" tests/$$peers/requirements.in; } > .venv-lock/peers.lock; \
	  mv .venv-lock/peers.lock tests/$$peers/requirements.lock; \
	done
	@rm -rf .venv-lock

clean: ## Remove what tools and builds left behind; .venv stays
	rm -rf .hypothesis .import_linter_cache .grimp_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf .vm .venv-lock .venv-interop .venv-bench build dist client/dist repo_tools/dist
	find client repo_tools examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Wheels only and hashes required, so that setting up runs no package's own build script.
$(INSTALLED): requirements.lock pyproject.toml client/pyproject.toml repo_tools/pyproject.toml
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) not found. On Debian: apt-get install python3-venv make git" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): make PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null && $(PYTHON) -m venv --clear .venv; } || \
	  { echo "$(PYTHON) cannot make an environment. On Debian: apt-get install python3-venv make git" >&2; exit 1; }
	@echo "Installing the locked packages into .venv, once"
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --only-binary :all: \
	  --require-hashes -r requirements.lock
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation \
	  -e client -e repo_tools
	@touch $@

# The peers that `make interop` and `make bench` compare with, each kept out of the project's own
# environment.
.venv-%/.installed: tests/%/requirements.lock
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --require-hashes --only-binary :all: -r $<
	@touch $@
