# Airavata Workflow. Each target installs what it needs first.
PYTHON := .venv/bin/python
unexport PYTHONDONTWRITEBYTECODE # Five hundred processes of a run would each compile our code anew, and pytest rewrite every test of a layer.

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

bootstrap: ## system packages, virtual environment, broker jars, private MySQL
	@app/dev/bootstrap.sh

demo: bootstrap ## the whole system, one real experiment, one take-over; OBSERVE=1: with a Prometheus beside it
	@$(PYTHON) -m app.dev.demo $(if $(OBSERVE),--observe)

test: bootstrap ## every gate and every layer of tests; what a database can decide, on both
	@$(PYTHON) tests/run.py

chaos: bootstrap ## every fail point struck once, the scheduler killed mid-graph, a minute of random faults: one page of verdicts
	@$(PYTHON) -m tests.chaos commit $(if $(SEED),--seed $(SEED))

chaos-hour: bootstrap ## an hour of random faults
	@$(PYTHON) -m tests.chaos hour $(if $(SEED),--seed $(SEED))

chaos-night: bootstrap ## every point in every mode, hundreds of kills, each fault alone and all together
	@$(PYTHON) tests/run.py nemeses
	@$(PYTHON) -m tests.chaos night $(if $(SEED),--seed $(SEED))

lint: bootstrap ## ruff, mypy, import directions
	@$(PYTHON) -m ruff check . && $(PYTHON) -m mypy && $(PYTHON) -m pytest -q tests/architecture

format: bootstrap ## ruff format
	@$(PYTHON) -m ruff format .

bench: bootstrap ## workloads w1, w2, w3: a table, and .dev/reports/bench.json
	@$(PYTHON) -m tests.bench

LOCK = .venv/bin/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-emit-find-links
lock: bootstrap ## the four locks from pyproject.toml: everything, what runs in an image, what builds one, what judges manifests
	@$(LOCK) --all-extras --group dev pyproject.toml -o requirements.lock
	@$(LOCK) --extra s3 -c requirements.lock pyproject.toml -o requirements.runtime.lock
	@$(LOCK) --group build -c requirements.lock -o requirements.build.lock
	@$(LOCK) --group deployment -c requirements.lock -o requirements.deployment.lock

dist: bootstrap ## sdist and wheel of the checked-out commit, the same bytes for everybody
	@$(PYTHON) -m tests.deployment.release

manifests: bootstrap ## every overlay as a cluster would be given it, in .dev/reports/manifests
	@$(PYTHON) -m tests.deployment.kustomize

images: bootstrap ## every image, with an engine that is found, or Debian's started privately
	@$(PYTHON) -m tests.deployment.images

jaeger: bootstrap ## a Jaeger from its Go module, into .dev/lib, for the tests of its searches; five to eleven minutes, once
	@$(PYTHON) -m tests.observability.jaeger

kubernetes: bootstrap ## a Kubernetes API server and its etcd from their Go modules, into .dev/lib, for the dry runs of the manifests; a quarter of an hour, once
	@$(PYTHON) -m tests.deployment.apiserver

test-images: bootstrap ## every image, built and started confined; the whole system by compose.yaml; needs root or an engine
	@$(PYTHON) tests/run.py images

clean: ## stop everything and remove .dev (keeps .venv)
	@[ ! -x $(PYTHON) ] || $(PYTHON) -m app.dev.stack down || true
	@rm -rf .dev

.PHONY: help bootstrap demo test chaos chaos-hour chaos-night lint format bench lock dist manifests images jaeger kubernetes test-images clean
