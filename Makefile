# Two commands matter: `make up` and `make test`. Both set up what they need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# What tests/conformance/run.py runs, each in .venv-client-NAME-VERSION; and LiteLLM from .venv-litellm.
CLIENTS := mistralai-0.4.2 mistralai-1.0.0 mistralai-1.12.4 mistralai-2.4.13 mistralai-3.7.0 \
  openai-3.54.0 langchain-mistralai-1.1.6
# One platform for each database, side by side: tests/promises/conftest.py shares the scenes.
SCENES := $(BIN)/python -m pytest tests/promises -n 2
PROPERTIES := tests/contracts/queue/test_properties.py tests/contracts/queue/test_same_answers.py

# An engine that takes long to start is handed from test to test. Warnings there are vLLM's own.
IN_ONE_LOOP := -p no:cacheprovider -W default --timeout 600 \
  -o asyncio_default_test_loop_scope=session -o asyncio_default_fixture_loop_scope=session

help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

up: $(VENV)/.models ## Install, migrate and start everything; ARGS="--detach --port 8123" passes through
	@exec $(BIN)/tramontane up $(ARGS)

down: $(VENV)/.models ## Stop what `make up ARGS=--detach` started
	@$(BIN)/tramontane down

test: check sdk-test $(VENV)/redis7/.installed $(VENV)/.chromium .venv-client-mistralai-0.4.2/.installed ## Everything: lint, types, architecture, unit, contract, end-to-end
	@$(BIN)/python -m pytest tests --ignore=tests/promises --ignore=tests/browser -n 2 --dist loadfile
	@$(BIN)/python -m pytest tests/browser  # apart: a loop of the browser's runs in the thread of the tests
	@$(SCENES) --ignore=tests/promises/test_operator.py

promises: $(VENV)/.dev $(VENV)/redis7/.installed ## Money, limits and keys on whole platforms, small; make promises-money is the full size
	@$(SCENES)

check: $(VENV)/.dev ## Lint, types, architecture: under a minute
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py

sdk-test: $(VENV)/.dev .venv-sdk/.installed ## The Python client alone: lint, types, tests, every line of it run
	@cd sdk && ../$(BIN)/ruff check . && ../$(BIN)/ruff format --check . && ../$(BIN)/mypy --config-file pyproject.toml
	@cd sdk && ../$(BIN)/python -m pytest -q --cov=tramontane --cov-branch --cov-report=term:skip-covered --cov-fail-under=100

docs: $(VENV)/.models ## Write the pages that are made from the code
	@$(BIN)/python -m cli.configuration > docs/configuration.md

openapi: $(VENV)/.dev ## Write docs/openapi.json from the routes and schemas
	@$(BIN)/python -m tests.conformance.openapi > docs/openapi.json

conformance: $(VENV)/.dev $(CLIENTS:%=.venv-client-%/.installed) .venv-litellm/.installed ## Every client generation against a running platform: docs/compatibility.md
	@$(BIN)/python -m tests.conformance.run $(ARGS)

demo-train: $(VENV)/.models ## Train the demo checkpoints into .demo-training, on a GPU if there is one; ARGS="--until 18:00" stops each then
	@for name in mistral-tiny mistral-small mistral-medium; do $(BIN)/python -m demo.train $$name $(ARGS) || exit; done

demo-eval: $(VENV)/.models ## Score the shipped ones on prompts that they never saw; ARGS="mistral-tiny --folder .demo-training"
	@$(BIN)/python -m demo.evaluate $(ARGS)

bench-gateway: $(VENV)/.dev .venv-litellm/.installed ## What the gateway costs, beside a bare FastAPI app and LiteLLM: docs/benchmarks/gateway.md
	@$(BIN)/python -m benchmarks.gateway.run $(ARGS)

bench-usage: $(VENV)/.dev ## What a usage page costs over a million records; ARGS="--records 10000000" for the promise's size
	@$(BIN)/python -m benchmarks.usage.run $(ARGS)

bench-console: $(VENV)/.dev ## What each page of the console costs over a year of data; ARGS="--records 10000000" for the promise's size
	@$(BIN)/python -m benchmarks.console.run $(ARGS)

bench-console-lag: $(VENV)/.dev ## What opening pages does to the latency of requests
	@$(BIN)/python -m benchmarks.console.lag $(ARGS)

screenshots: $(VENV)/.dev $(VENV)/.chromium ## Every page of the console, light and dark: docs/screenshots
	@$(BIN)/python -m tests.browser.screenshots $(ARGS)

promises-money: $(VENV)/.dev $(VENV)/redis7/.installed ## What is promised about money, limits and keys, at full size: docs/figures/promises-money.json
	@rm -f docs/figures/promises-money.json
	@$(BIN)/python -m pytest -v --full $(PROPERTIES) tests/promises $(ARGS)

vllm: .venv-vllm/.installed ## vLLM for CPUs in an environment of its own, for tiers of the vllm engine: docs/engines.md

vllm-test: .venv-vllm/.installed-dev ## The engine contract suite over vLLM: about ten minutes on two cores
	@TRAMONTANE_TEST_ENGINES=vllm OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest -v $(IN_ONE_LOOP) \
	  tests/contracts/engines/test_engines.py tests/contracts/engines/test_oracle.py \
	  tests/contracts/engines/test_json_schemas.py tests/contracts/engines/test_experts.py \
	  tests/contracts/engines/test_demo_checkpoints.py tests/contracts/engines/test_vllm_engine.py $(ARGS)

$(VENV)/.models: pyproject.toml deploy/install
	@deploy/install models

$(VENV)/.dev: pyproject.toml sdk/pyproject.toml deploy/install $(VENV)/.models
	@deploy/install dev

$(VENV)/redis7/.installed: deploy/install-test-redis $(VENV)/.dev
	@deploy/install-test-redis
	@touch $@

$(VENV)/.chromium: deploy/install-test-chromium $(VENV)/.dev
	@deploy/install-test-chromium
	@touch $@

.venv-client-%/.installed: | $(VENV)/.dev
	@echo "Installing the client $* into an environment of its own ..."
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install -q $(PIP_ARGS) "$(shell echo $* | sed 's/-\([0-9.]*\)$$/==\1/')"
	@touch $@

.venv-vllm/.installed: deploy/install-vllm pyproject.toml | $(VENV)/.models
	@deploy/install-vllm

.venv-vllm/.installed-dev: deploy/install-vllm pyproject.toml | $(VENV)/.models
	@deploy/install-vllm dev

# Under the oldest interpreter there is, with nothing but what the client itself asks for.
.venv-sdk/.installed: $(shell find sdk/tramontane -name '*.py') sdk/pyproject.toml | $(VENV)/.dev
	@echo "Installing the Python client into an environment of its own ..."
	@for each in python3.9 python3.10 $(BIN)/python; do if $$each -m venv --clear $(@D) 2>/dev/null; then break; fi; done
	@rm -rf sdk/build  # modules that are gone would be installed from there
	@$(@D)/bin/python -m pip install -q $(PIP_ARGS) ./sdk
	@$(@D)/bin/tramontane-chat --help > /dev/null
	@touch $@

.venv-litellm/.installed: Makefile
	@echo "Installing LiteLLM proxy 1.106.2 into .venv-litellm, to measure against ..."
	@$(BIN)/python -m venv .venv-litellm
	@.venv-litellm/bin/python -m pip install -q $(PIP_ARGS) "litellm[proxy]==1.106.2"
	@touch $@

.PHONY: help up down test sdk-test check docs openapi conformance demo-train demo-eval bench-gateway bench-usage bench-console bench-console-lag screenshots promises-money vllm vllm-test promises
