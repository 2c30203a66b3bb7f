# Development tasks; `make help` lists them. They need Python ≥ 3.11, Go ≥ 1.26, make and git, and nothing else.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup
DIR ?= .cluster
VERSION ?=
N ?= 1
PYTEST_ARGS ?=

# The environment's kubectl, else the one on PATH. Both use $KUBECONFIG, as kubectl always does.
KUBECTL ?= $(if $(wildcard $(BIN)/kubectl),$(BIN)/kubectl,kubectl)

# Which cluster the tests use: CLUSTER=kind, or CLUSTER=current with CONTEXT=name. The demo knows CLUSTER=current.
CLUSTER ?=
CONTEXT ?=
export CLUSTER CONTEXT
CLUSTER_ARGS := $(if $(CLUSTER),--cluster=$(CLUSTER)) $(if $(CONTEXT),--context=$(CONTEXT))

# Cluster tests wait more than they compute: on our own control planes files run side by side, each worker with its own.
WORKERS ?= $(if $(CLUSTER),0,2)
PARALLEL := -n $(WORKERS) --dist loadfile
SLOWEST := --durations=15

# Unset leaves the opt-in right to change bindings, and the opt-in stage, as they are; 1 gives, 0 takes away. DECIDERS likewise, empty for nobody.
# TENURE_OPERATOR_NAMESPACE and TENURE_PLATFORM_NAMESPACES reach the scripts as they reach the operator: in the environment.
INSTALL_ENV := KUBECTL="$(KUBECTL)" $(if $(ENTITLEMENTS),ENTITLEMENTS=$(ENTITLEMENTS)) \
  $(if $(DENYWRITES),DENYWRITES=$(DENYWRITES)) \
  $(if $(filter undefined,$(origin DECIDERS)),,DECIDERS="$(DECIDERS)")

.PHONY: help
help: ## list these targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Environment -----------------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(STAMP) ## create .venv from the lock files

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version): Python 3.11 or newer is needed (make PYTHON=…)" >&2; exit 1; }
	@echo "setup: creating $(VENV)"
	@[[ -x $(BIN)/python ]] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: lock
lock: ## renew the lock files from *.in (needs uv)
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements.in -o requirements.txt
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements.in requirements-dev.in -o requirements-dev.txt
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  requirements-build.in -o requirements-build.txt

# Clusters --------------------------------------------------------------------------------------------------------------

.PHONY: cluster
cluster: $(STAMP) ## start a control plane in the background (DIR=.cluster VERSION=1.34); its last line sets KUBECONFIG
	@$(BIN)/python -m tests.support.controlplane start --dir "$(DIR)" $(if $(VERSION),--version "$(VERSION)")

.PHONY: cluster-stop
cluster-stop: $(STAMP) ## end it and remove all it wrote (DIR=.cluster)
	@$(BIN)/python -m tests.support.controlplane stop --dir "$(DIR)"

.PHONY: install
install: $(STAMP) ## put CRDs, RBAC and admission policies into the current KUBECONFIG (ENTITLEMENTS=1 adds that right)
	@$(INSTALL_ENV) bash deploy/install.sh

.PHONY: uninstall
uninstall: $(STAMP) ## take everything out of the current KUBECONFIG again
	@$(INSTALL_ENV) bash deploy/uninstall.sh

.PHONY: demo
demo: $(STAMP) ## from an unowned token to a refused one, with times (CLUSTER=current uses the current KUBECONFIG)
	@$(BIN)/python -m tests.demo

# Checks ----------------------------------------------------------------------------------------------------------------

# What people decide is tested on the oldest Kubernetes too: it stamps nothing, and checks what people write instead. And of the sweeps a sample.
DECIDING := $(addprefix tests/cluster/test_,$(addsuffix .py,admission_claims admission_own_kinds attackers clocks commands \
  escalation exceptions inventory_command metrics owners pending release_all verdicts))
SWEEPS = $(wildcard tests/cluster/test_crash_*.py)

.PHONY: test
test: lint test-unit test-cluster ## lint, unit tests, cluster tests: what a change is tried with

.PHONY: test-rest
test-rest: $(STAMP) $(if $(CLUSTER),,test-oldest) ## what `make test` leaves out: long tests, and the oldest Kubernetes; CI runs both
	$(BIN)/python -m pytest tests/cluster -m long $(PARALLEL) $(SLOWEST) $(CLUSTER_ARGS) $(PYTEST_ARGS)

.PHONY: test-long
test-long: export SWEEP := full
test-long: test test-rest ## all of it with the full sweeps: a crash before and after every write, every fault at every write

.PHONY: test-unit
test-unit: $(STAMP) ## tests without a cluster
	$(BIN)/python -m pytest tests/unit -n 2 $(PYTEST_ARGS)

.PHONY: test-cluster
test-cluster: $(STAMP) ## tests on a real API server (CLUSTER=kind, or CLUSTER=current CONTEXT=name)
	$(BIN)/python -m pytest tests/cluster -m "not long" $(PARALLEL) $(SLOWEST) $(CLUSTER_ARGS) $(PYTEST_ARGS)

.PHONY: test-oldest
test-oldest: $(STAMP) ## tests of deciding, and sweeps, on the oldest Kubernetes that is supported
	$(BIN)/python -m pytest $(DECIDING) $(SWEEPS) --kubernetes=1.33 $(PARALLEL) $(PYTEST_ARGS)

.PHONY: lint
lint: $(STAMP) verify ## ruff, mypy, import linter, verify
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: verify
verify: $(STAMP) ## fail when a generated file is not what its source says
	$(BIN)/python -m tenure.api.crd --check
	$(BIN)/python -m tenure.enforce.policies --check
	$(BIN)/python -m monitoring.dashboards --check
	$(BIN)/python -m gitops.customizations --check

.PHONY: manifests
manifests: $(STAMP) ## bring deploy/ up to the default chart, for clusters without Helm (IMAGE=registry/tenure@sha256:…)
	@$(BIN)/python -m tests.support.helm $(IMAGE)
	@echo "deploy/ is the default chart: make install, then kubectl apply --server-side -f deploy/operator.yaml"

.PHONY: bench
bench: $(STAMP) ## the benchmark's table (N=1; N=10 is the contract's size); figures also in build/bench.json
	$(BIN)/python -m tests.scale.bench --scale $(N)
