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

PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# Some indexes make pip print one harmless line for each package that they lack.
QUIET := 2> >(grep --line-buffered -v 'WARNING: Location' >&2)

# The pip that Python brings is slow, and any pip compiles on one core, also what nobody imports. What
# does not compile is meant for a newer Python.
SELDOM := /tests/|/ray/rllib/|/transformers/models/(?!auto/|bert/)
define install
	@$(PIP) pip $(QUIET)
	@$(PIP) --no-compile -e '.[$(EXTRAS)]' $(QUIET)
	@$(BIN)/python -m compileall -qq -j 0 -x '$(SELDOM)' $(VENV)/lib inferstack || true
endef

# Node.js is needed where the web UI is built or tested, and nowhere else.
UI := frontend
UI_SOURCES = $(shell find $(UI)/src $(UI)/public -type f ! -name '*.test.*' ! -name schema.d.ts) \
	$(addprefix $(UI)/,index.html openapi.json tsconfig.json vite.config.ts)
HAS_NODE := node -e 'const [a, b] = process.versions.node.split(".").map(Number); \
	process.exit(a > 22 || (a === 22 && b >= 12) || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null \
	&& command -v npm >/dev/null
# $(call with_node,what is skipped without,command): on a user's machine only; CI must have it.
with_node = if $(HAS_NODE); then $(2); else \
	echo "SKIPPED $(1): it needs Node.js 20.19, 22.12 or newer, with npm" >&2; test "$${CI:-}" != true; fi

# Most tests wait for processes: more of them at once than there are cores of a small machine.
# Those that measure are alone (tests/turns.py).
SIDE_BY_SIDE := -n 3 --dist loadfile --no-loadscope-reorder

# Hundreds of processes start: each would compile the program, and the tests, by itself.
test e2e faults: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test check manifests images bench e2e faults ui try-ui has-node openapi clean
.PHONY: style types layers rendered ui-check # the parts of check

help: ## show this list
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | awk -F ":.*## " '{ printf "  make %-9s %s\n", $$1, $$2 }'

run: $(VENV)/.installed try-ui ## start everything here (ARGS='--no-ray --port 8080')
	@exec $(BIN)/inferstack up $(ARGS)

test: $(VENV)/.installed-dev try-ui ## run every test (ARGS='-k queue')
	@$(if $(ARGS),true,$(call with_node,the tests of the web UI,npm --prefix $(UI) test --silent))
	@$(BIN)/python -m pytest $(or $(ARGS),$(SIDE_BY_SIDE) --durations=25)

check: style types layers rendered ui-check ## lint, format, types, layers and Kubernetes manifests

style: $(VENV)/.installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

# It gives its workers 3 s to start, for which a machine may be too busy; then it ends with 2.
types: $(VENV)/.installed-dev
	@$(BIN)/mypy --num-workers 2 || { test $$? -eq 2 && $(BIN)/mypy; }

layers: $(VENV)/.installed-dev
	@$(BIN)/lint-imports

rendered: $(VENV)/.installed-dev
	@$(BIN)/python scripts/check_manifests.py

ui-check:
	@$(call with_node,the checks of the web UI,$(MAKE) --no-print-directory $(UI)/node_modules/.installed \
	&& npm --prefix $(UI) run --silent check)

manifests: $(VENV)/.installed-dev ## render kubernetes/deployment.yaml anew (takes kubectl)
	@$(BIN)/python scripts/check_manifests.py --write

images: $(VENV)/.installed-dev ## build and smoke-run every image with buildah (as root; apt: buildah, mmdebstrap)
	@SMOKE_IMAGES=all $(BIN)/python -m pytest tests/deployment/test_images.py $(ARGS)

bench: $(VENV)/.installed ## measure, next to other systems (ARGS='--profile quick')
	@$(BIN)/python -m benchmarks $(ARGS)

e2e: $(VENV)/.installed-dev try-ui ## test the whole stack from outside, as `make run` starts it
	@$(BIN)/python -m pytest tests/e2e $(ARGS)

faults: $(VENV)/.installed-dev ## kill everything and count what is lost (ARGS='--seed 7 --long')
	@$(BIN)/python -m pytest tests/faults $(SIDE_BY_SIDE) $(ARGS)

has-node:
	@$(HAS_NODE)

ui: $(UI)/dist/index.html ## build the web UI
	@:

# What runs without the UI must not fail because of it; CI must have it.
try-ui:
	@if $(HAS_NODE); then $(MAKE) --no-print-directory ui || { test "$${CI:-}" != true && \
	echo "SKIPPED the web UI: its build failed, see above; everything else works" >&2; }; \
	elif [ ! -f $(UI)/dist/index.html ]; then $(call with_node,the web UI,true); fi

openapi: $(VENV)/.installed ## write down the API as it is now, for the types of the web UI
	@$(BIN)/python -m inferstack.api.document > $(UI)/openapi.json

clean: ## delete what is installed and built here; keeps .inferstack/, where your data is
	@rm -rf $(UI)/node_modules $(UI)/dist $(UI)/src/api/schema.d.ts
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "inferstack needs Python 3.11 or newer: install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@echo "Making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: EXTRAS := all
$(VENV)/.installed-dev: EXTRAS := all,dev

# The stamps are younger than what they were installed from, or the install runs again.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(install)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV), with what tests and checks need (a few minutes the first time)"
	$(install)
	@touch $(VENV)/.installed $@

$(UI)/node_modules/.installed: $(UI)/package.json $(UI)/package-lock.json
	@echo "Installing what the web UI is built with"
	@npm --prefix $(UI) ci --silent
	@touch $@

$(UI)/dist/index.html: $(UI)/node_modules/.installed $(UI_SOURCES)
	@echo "Building the web UI"
	@npm --prefix $(UI) run --silent build
	@touch $@
