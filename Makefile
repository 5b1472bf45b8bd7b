# Every command of the project, one line each; `make` alone lists them.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready-dev
DEMO_READY := $(VENV)/.ready-demo
BENCH_READY := $(VENV)/.ready-bench
LOCKS := $(wildcard labextension/package-lock.json tests/*/package-lock.json)
NODE_MODULES := $(LOCKS:package-lock.json=node_modules/.package-lock.json)
MARKED := processes or browser or node or slow

.DEFAULT_GOAL := help
.PHONY: help setup test fast marked all lint fmt types js notebooks check cover bench demo clean

help:  ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY)  ## create .venv and install the package, editable, with all tools (PYTHON= chooses the Python)

test: $(READY)  ## the default run on all cores: every test that needs no process, browser or Node
	$(PY) -m pytest -n auto $(ARGS)

fast: $(READY)  ## only the pure rooms and the checks of the source tree, in seconds
	$(PY) -m pytest tests/protocol tests/link tests/wire $(wildcard tests/test_*.py) $(ARGS)

marked: $(READY) $(NODE_MODULES)  ## the other tests: real servers and kernels, browser, Node, slow ones
	$(PY) -m pytest -m "$(MARKED)" $(ARGS)

all: test js marked  ## every test there is

lint: $(READY)  ## ruff's rules and spelling
	$(BIN)/ruff check .
	$(BIN)/codespell

fmt: $(READY)  ## format the Python sources in place
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

js: $(READY) $(NODE_MODULES)  ## build the JupyterLab side bar, link it into .venv, run the JavaScript tests
	cd labextension && npm run --silent format:check && PATH="$(abspath $(BIN)):$$PATH" npm run --silent build:prod
	$(BIN)/jupyter-builder develop . --overwrite
	$(PY) -m pytest -m node tests/js

notebooks: $(READY)  ## run every tutorial notebook from top to bottom
	$(PY) -m pytest -m "" tests/notebooks

check: $(READY)  ## what CI checks on every change: format, lint, types, test, js
	$(BIN)/ruff format --check .
	$(MAKE) lint types test js

cover: $(READY)  ## the default run again, with branch coverage
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report

bench: $(BENCH_READY)  ## measure against peers on this machine (ARGS="--what round-trip,echo --rounds 3")
	$(PY) -m benchmarks $(ARGS)

demo: $(if $(wildcard $(READY)),$(READY),$(DEMO_READY))  ## open JupyterLab on the first notebook (ARGS=--headless: prove it works, no browser)
	$(PY) scripts/demo.py $(ARGS)

clean:  ## remove everything that these commands made
	rm -rf $(VENV) build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo
	rm -rf jupyter_agents/labextension labextension/lib tests/browser/screenshots
	find . -name node_modules -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +

# The side bar is left to `make js`: a build of 20 s in every fresh set-up helps nobody.
$(READY): pyproject.toml hatch_build.py | $(PY)
	JUPYTER_AGENTS_SKIP_LABEXTENSION=1 $(PY) -m pip install --quiet -e ".[dev]"
	@touch $@

$(DEMO_READY): pyproject.toml hatch_build.py | $(PY)
	$(PY) -m pip install --quiet -e ".[lab]"
	@touch $@

# Peers are brought once; one that cannot be is left out of the tables, and named.
$(BENCH_READY): benchmarks/requirements.txt benchmarks/workerd/package.json | $(READY)
	@echo "Installing what jupyter_agents is compared with: benchmarks/requirements.txt, benchmarks/workerd"
	JUPYTER_AGENTS_SKIP_LABEXTENSION=1 $(PY) -m pip install --quiet -e ".[bench]" -r benchmarks/requirements.txt
	npm install --prefix benchmarks/workerd --no-audit --no-fund --no-package-lock || echo "Without workerd: npm and Node 20 are needed"
	@touch $@

$(PY):
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python 3.10 or newer with venv is needed (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }

%/node_modules/.package-lock.json: %/package-lock.json
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund
	@touch $@
