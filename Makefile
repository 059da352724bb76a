# Two commands set themselves up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# The tests of a file run one after the other; of the files, four side by side: mostly they wait.
PYTEST := $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit integration servers soak fuzz image bench crds format clean

help: ## what there is to type
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: .venv/.run ## see it work: events, retries, dead letters, redrive (needs no broker)
	@exec $(BIN)/python examples/demo.py

test: .venv/.dev servers lint ## everything, real servers included
	$(PYTEST) integration tests

lint: .venv/.dev ## format, style, import contracts, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	$(BIN)/mypy

unit: .venv/.dev ## the fast tests: no servers, two minutes
	$(PYTEST) tests

integration: .venv/.dev servers ## the same promises against real servers
	$(PYTEST) integration

servers: .venv/.dev ## the tools that get and start the real servers
	@./integration/install-tools
	@$(BIN)/python -m integration.kubernetes_programs >/dev/null
	@$(BIN)/python -m integration.helm_program >/dev/null
	@$(BIN)/python -m integration.gateway_api >/dev/null
	@$(BIN)/python -m integration.servers >/dev/null
	@$(BIN)/python -m integration.nats_servers >/dev/null
	@$(BIN)/python -m integration.kinesis_servers >/dev/null

soak: .venv/.dev servers ## a hub that is killed every few seconds: make soak RECORDS=200000
	SOAK=$(or $(RECORDS),200000) $(BIN)/pytest -s -o faulthandler_timeout=0 integration/test_kafka_soak.py

fuzz: .venv/.dev ## coverage-guided fuzzers, 100 000 inputs each: make fuzz RUNS=1000000
	@$(BIN)/pip install --quiet --disable-pip-version-check atheris \
	  || { echo "make fuzz needs atheris, which is there for CPython on Linux; what it found is in tests/fuzz/found and read by make unit"; exit 1; }
	@for each in schedules connections callers; do $(BIN)/python -m tests.fuzz $$each $(or $(RUNS),100000) || exit 1; done

image: ## the hub as an image, triggerhub:local (needs docker; BASE=… for another base image)
	@command -v docker >/dev/null || { echo "make image needs docker; podman build takes deploy/Dockerfile, too"; exit 1; }
	docker build -f deploy/Dockerfile -t triggerhub:local $(if $(BASE),--build-arg BASE=$(BASE)) .

bench: .venv/.dev ## the figures of the README, side by side in one run
	@./integration/install-tools bench
	$(BIN)/python -m bench

crds: .venv/.run ## the CustomResourceDefinitions anew, from the code
	@for folder in crds deploy/helm/triggerhub/crds; do $(BIN)/triggerhub crds -d $$folder || exit 1; done

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .triggerhub

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "triggerhub needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up .venv (once, about half a minute) ..."
	@$(PYTHON) -m venv .venv \
	  || { echo "python3 cannot make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@touch $@

.venv/.run: .venv/.python pyproject.toml constraints.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	@touch $@

.venv/.dev: .venv/.python pyproject.toml constraints.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@ .venv/.run
