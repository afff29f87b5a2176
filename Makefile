# Every target works on a bare checkout: `.venv` is built first when needed. ARGS="…" passes options on.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON) 2>/dev/null),)
PYTHON := python3
endif
ACCELERATOR ?= cpu
PROFILE ?= cpu
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo pacs-demo test check format serve up bench load vllm clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@echo "building .venv (about a minute, 6 GB)" >&2  # stdout belongs to results
	@$(PYTHON) -m venv .venv >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(ACCELERATOR),dev]' >&2
	@touch $@

demo: $(READY) ## The whole collaboration on synthetic cases (ARGS="--once --json" prints the result and exits)
	@$(BIN)/gsco demo $(ARGS)

pacs-demo: $(READY) ## A radiograph into Orthanc, and report and heat map back (needs Orthanc and DCMTK)
	@PYTHONPATH=. $(BIN)/python deploy/orthanc/demo.py

test: $(READY) ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0 $(ARGS)

check: $(READY) ## Lint, format, types, import contracts, Dockerfiles, compose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/compose.yaml

format: $(READY) ## Repair what can be repaired
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(READY) ## Serve the REST API
	@$(BIN)/gsco serve $(ARGS)

up: ## Start it with Docker Compose (PROFILE="cpu pacs monitoring"; ARGS="--detach")
	@$(PYTHON) docker/make_secrets.py
	docker compose --file docker/compose.yaml $(addprefix --profile ,$(PROFILE)) up --build $(ARGS)

bench: $(READY) ## Benchmarks (ARGS="end-to-end --json")
	@$(BIN)/python -m tests.benchmarks $(ARGS)

load: $(READY) ## Load test against a running service
	@$(BIN)/python -m tests.load $(ARGS)

vllm: $(READY) ## Serve the nano generalist with vLLM (builds .venv-vllm)
	@$(BIN)/gsco generalist serve $(ARGS)

clean: ## Remove environments and caches
	rm -rf .venv .venv-vllm .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build dist *.egg-info
