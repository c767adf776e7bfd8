# Every recipe is a line or two; what needs more is a command of its own. `make` alone prints this file's `##` comments.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# TFDV's wheels for Python >= 3.12 need glibc >= 2.39, so an older Debian or Ubuntu does best with Python 3.11.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.13 python3.12 python3,$(if $(shell command -v $(p) 2>/dev/null),$(p))))
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
STAMP := .venv/.complete
WORKERS ?= 2
ROWS ?= 60000
DEMO_WORKSPACE ?= .millrace/demo

##@ Everyday
help: ## print this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST); echo

setup: $(STAMP) ## install everything into .tools and .venv; nothing outside this folder

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Millrace needs Python 3.11, 3.12 or 3.13. Name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools "uv==$(UV_VERSION)" 2>&1 | grep -v "WARNING: Running pip as" || true
	@test -x $(UV) || { echo "pip could not install uv. Is pip there? Try: $(PYTHON) -m ensurepip --user"; exit 2; }

# Compiled byte code: importing TensorFlow costs a third of what it costs without, in every step of every run.
$(STAMP): requirements/dev.txt platform/pyproject.toml pipelines/pyproject.toml serving/pyproject.toml gpu-queue/pyproject.toml | $(UV)
	@test -x $(BIN)/python || $(UV) venv --quiet --no-project --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python requirements/dev.txt || { echo "The libraries did not install. On Python 3.12 and 3.13 they need glibc 2.39 (Debian 13, Ubuntu 24.04); on an older system take 3.11: rm -rf .venv && make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable platform --editable pipelines --editable serving --editable gpu-queue
	@touch $@

demo: setup ## the whole flow on generated bank transactions: raw rows to a served, gated model
	@there=$$($(BIN)/python tools/binaries.py --there prometheus alertmanager); PATH="$${there:+$$there:}$$PATH" \
	  $(BIN)/python -m mlpipelines.commands.demo --workspace $(DEMO_WORKSPACE) --rows $(ROWS)

format: setup ## format the code
	@$(BIN)/ruff format --quiet . && $(BIN)/ruff check --quiet --fix --exit-zero .

verify: setup ## regenerate, format, lint, type, check the import walls, and assert that nothing changed
	@$(BIN)/python tools/verify.py

##@ Tests
test: setup ## every test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-unit: setup ## the tests that take seconds
	@$(BIN)/python -m pytest -n $(WORKERS) tests/unit

test-integration: setup ## against real databases, servers and processes
	@$(BIN)/python -m pytest -n $(WORKERS) tests/integration tests/e2e

tools: | $(UV) ## build the real programs that tests run against, once for all checkouts; takes twenty minutes and Go
	@$(PYTHON) tools/binaries.py
	@$(PYTHON) tools/feast_environment.py

##@ Platform
# Your own helm and kubectl, or else those that tests run with.
PLATFORM = there=$$($(BIN)/python tools/binaries.py --there helm kubectl); PATH="$$PATH$${there:+:$$there}" $(BIN)/millrace platform
PLATFORM_ENV = $(or $(ENV),laptop)

plan-platform: setup ## what ENV=… would put into its cluster, against what is there, and what it costs; OFFLINE=1 asks nobody
	@$(PLATFORM) plan $(PLATFORM_ENV) $(if $(OFFLINE),--offline) $(if $(JSON),--json)

deploy-platform: setup ## put it there, and wait until all of it is ready; again after any failure
	@$(PLATFORM) deploy $(PLATFORM_ENV) $(WITH)

status-platform: setup ## what of it is unhealthy, and why
	@$(PLATFORM) status $(PLATFORM_ENV)

destroy-platform: setup ## name what would go, ask for the environment's name, and remove it
	@$(PLATFORM) destroy $(PLATFORM_ENV)

images: setup ## build our images and run each; ENV=gke-staging PUSH=1 pushes them and writes their digests (BUILDER=, BASE=)
	@$(BIN)/millrace images $(if $(ENV),--environment $(ENV)) $(if $(PUSH),--push) $(if $(WITHOUT_BILL),--without-bill) $(if $(BASE),--base $(BASE)) $(if $(BUILDER),--builder $(BUILDER)) $(IMAGES)

##@ Generate
generate: setup ## reference pages, JSON Schemas and the dashboard from their definitions
	@$(BIN)/python -m mlpipelines.reference docs/reference
	@$(BIN)/python -m gpuqueue.reference docs/reference
	@$(BIN)/python -m mlserving.reference docs/reference
	@$(BIN)/python -m mlplatform.reference docs/reference
	@$(BIN)/python tools/gpu_queue_dashboard.py
	@$(BIN)/python tools/model_serving_dashboard.py
	@$(BIN)/python tools/retraining_dashboard.py
	@$(BIN)/python tools/chart_values.py

golden: setup ## compile the projects' pipelines, render the charts, write the environments' plans, list the clouds' resources; read the diff as code
	@$(BIN)/millrace compile pipelines/projects/*
	@$(BIN)/python tools/chart_renders.py
	@$(BIN)/python tools/platform_plans.py
	@$(BIN)/python tools/cloud_resources.py

lock: | $(UV) ## resolve again and write requirements/*.txt
	@$(UV) lock --quiet --upgrade
	@$(MAKE) --no-print-directory export

export: | $(UV)
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --all-packages --all-extras --all-groups -o requirements/dev.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlpipelines --extra steps --no-default-groups -o requirements/steps.txt
	@$(PYTHON) tools/gpu_requirements.py $(UV)
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlpipelines --no-default-groups -o requirements/pipelines.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlpipelines --extra trigger --no-default-groups -o requirements/trigger.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlserving --extra server --no-default-groups -o requirements/serving.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlserving --extra gateway --extra monitor --no-default-groups -o requirements/gateway.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package gpuqueue --extra controller --extra webhook --no-default-groups -o requirements/gpu-queue.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlplatform --extra mlflow --no-default-groups -o requirements/mlflow.txt
	@$(UV) export --quiet --frozen --no-annotate --no-header --no-emit-workspace --format requirements-txt --package mlplatform --extra gke --no-default-groups -o requirements/gke.txt

##@ Measure
benchmark: setup ## a million rows through every step; results in benchmarks/results
	@$(BIN)/python benchmarks/pipeline.py
	@$(BIN)/python benchmarks/input_pipeline.py

evaluate-models: setup ## every model on a real table, with what it is held against (MODELS=, MILLRACE_DATA=); an hour
	@$(BIN)/python benchmarks/models/evaluate.py $(MODELS)

benchmark-gateway: setup ## what the gateway adds to a 1 KB Predict, and how many a second one core carries
	@$(BIN)/python benchmarks/gateway.py

benchmark-gpu-queue: setup ## the queue's controller on a real control plane: latency, rate, requests, memory
	@$(BIN)/python benchmarks/gpu_queue_controller.py

##@ Tidy
clean: ## remove what set-up and runs made
	@rm -rf .venv .tools .millrace

.PHONY: help setup demo format verify test test-unit test-integration tools plan-platform deploy-platform status-platform destroy-platform generate golden lock export benchmark evaluate-models benchmark-gateway benchmark-gpu-queue images clean
