# Two commands matter: `make up` and `make test`. Both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

up: $(VENV)/.models ## Install, migrate and start everything; ARGS="--detach --port 8123" passes through
	@exec $(BIN)/tramontane up $(ARGS)

down: $(VENV)/.models ## Stop what `make up ARGS=--detach` started
	@$(BIN)/tramontane down

test: check $(VENV)/redis7/.installed .venv-mistralai-0.4.2/.installed ## Everything: lint, types, architecture, unit, contract, end-to-end
	@$(BIN)/python -m pytest tests

check: $(VENV)/.dev ## Lint, types, architecture: under a minute
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

docs: $(VENV)/.models ## Write the pages that are made from the code
	@$(BIN)/python -m cli.configuration > docs/configuration.md

bench-gateway: $(VENV)/.dev .venv-litellm/.installed ## What the gateway costs, beside a bare FastAPI app and LiteLLM: docs/benchmarks/gateway.md
	@$(BIN)/python -m benchmarks.gateway.run $(ARGS)

$(VENV)/.models: pyproject.toml deploy/install
	@deploy/install models

$(VENV)/.dev: pyproject.toml deploy/install $(VENV)/.models
	@deploy/install dev

$(VENV)/redis7/.installed: deploy/install-test-redis $(VENV)/.dev
	@deploy/install-test-redis
	@touch $@

.venv-mistralai-0.4.2/.installed: $(VENV)/.dev
	@echo "Installing the oldest client, mistralai 0.4.2, into an environment of its own ..."
	@$(BIN)/python -m venv .venv-mistralai-0.4.2
	@.venv-mistralai-0.4.2/bin/python -m pip install -q $(PIP_ARGS) mistralai==0.4.2
	@touch $@

.venv-litellm/.installed: Makefile
	@echo "Installing LiteLLM proxy 1.106.2 into .venv-litellm, to measure against ..."
	@$(BIN)/python -m venv .venv-litellm
	@.venv-litellm/bin/python -m pip install -q $(PIP_ARGS) "litellm[proxy]==1.106.2"
	@touch $@

.PHONY: help up down test check docs bench-gateway
