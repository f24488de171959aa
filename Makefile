SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

# The first Python of 3.11 or newer; the newest that all pinned wheels exist for comes last.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& command -v $$python && break; done)

# Some indexes make pip print one harmless line for each package that they lack.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
QUIET := 2> >(grep --line-buffered -v 'WARNING: Location' >&2)

.PHONY: help run test check manifests images bench e2e faults clean

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | awk -F ":.*## " '{ printf "  make %-9s %s\n", $$1, $$2 }'

run: $(VENV)/.installed ## start everything here (ARGS='--no-ray --port 8080')
	@exec $(BIN)/inferstack up $(ARGS)

test: $(VENV)/.installed-dev ## run every test (ARGS='-k queue')
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev ## lint, format, types, layers and Kubernetes manifests
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/check_manifests.py

manifests: $(VENV)/.installed-dev ## render kubernetes/deployment.yaml anew (takes kubectl)
	@$(BIN)/python scripts/check_manifests.py --write

images: $(VENV)/.installed-dev ## build and smoke-run every image with buildah (as root; apt: buildah, mmdebstrap)
	@SMOKE_IMAGES=all $(BIN)/python -m pytest tests/deployment/test_images.py $(ARGS)

bench: $(VENV)/.installed ## measure, next to other systems (ARGS='--profile quick')
	@$(BIN)/python -m benchmarks $(ARGS)

e2e: $(VENV)/.installed-dev ## test the whole stack from outside, as `make run` starts it
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

faults: $(VENV)/.installed-dev ## kill everything and count what is lost (ARGS='--seed 7 --seeds 20')
	@$(BIN)/python -m pytest tests/faults $(ARGS)

clean: ## delete .venv and the tools' caches; keeps .inferstack/, where your data is
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "inferstack needs Python 3.11 or newer: install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

# The stamps are younger than what they were installed from, or the install runs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(PIP) -c constraints.txt -e '.[all]' $(QUIET)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what tests and checks need"
	@$(PIP) -c constraints.txt -e '.[all,dev]' $(QUIET)
	@touch $@
