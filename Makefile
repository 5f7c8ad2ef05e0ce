# Every task of the project. `make help` lists them; each does its own set-up.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
BENCH_ARGS ?=
FAULTS_ARGS ?=
FUZZ_RUNS ?= 1000000
TEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
.DEFAULT_GOAL := help

AS_ROOT = $(if $(filter 0,$(shell id -u)),,sudo)
PACKAGES := openjdk-17-jdk-headless maven nodejs npm postgresql kcat haproxy chromium fonts-noto-cjk
SYFT := anchore/syft:v1.57.1
.PHONY: help docs site publish-site demo test test-kubernetes test-compose test-kind lint workflows generate format bench faults fuzz \
	release release-check release-tag release-notes image-sbom packages sbom lock clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

$(VENV)/.run: requirements/run.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the connector into $(VENV) (once, about a minute)"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	@echo "installing the tools of tests and checks into $(VENV) (once)"
	@$(BIN)/python -m pip install -q --require-hashes -r requirements/dev.txt
	@touch $@

demo: $(VENV)/.run ## the main job on an embedded broker: see it flow (DEMO_ARGS="--instances 20 --seconds 15")
	@$(BIN)/weda-connector demo $(DEMO_ARGS)

test: $(VENV)/.dev ## every test, on a real Kafka that the run starts itself (TEST_ARGS="-k lanes")
	@$(BIN)/python -m tests.servers install
	@$(BIN)/python -m tests.chart.tools install
	@$(BIN)/python -m tests.browser
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(TEST_ARGS)

test-kubernetes: $(VENV)/.dev ## the chart on a real API server, which is built first (once, some twenty minutes)
	@$(BIN)/python -m tests.kubernetes.programs install
	@$(BIN)/python -m pytest tests/kubernetes $(TEST_ARGS)

lint: $(VENV)/.dev ## ruff, mypy --strict, yamllint, hadolint, actionlint, zizmor, Chinese texts, licences, known weaknesses
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/yamllint --strict .
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m tools.workflows
	@$(BIN)/python -m tools.chinese
	@$(BIN)/python -m tests.supply licences
	@$(BIN)/python -m tests.supply weaknesses

generate: $(VENV)/.dev ## write every document and file that is generated, from schemas, settings, metrics and figures
	@$(BIN)/python -m tools.schemas
	@$(BIN)/python -m tools.generate

format: $(VENV)/.dev ## rewrite the code in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.dev ## measure against a bare ASGI app and librdkafka alone; writes bench/RESULTS.md
	@$(BIN)/python -m tests.servers install
	@$(BIN)/python -m bench $(BENCH_ARGS)

faults: $(VENV)/.dev ## the long fault runs against three brokers
	@$(BIN)/python -m tests.servers install
	@$(BIN)/python -m tests.faults $(FAULTS_ARGS)

fuzz: $(VENV)/.dev ## fuzz bodies and HTTP, a million executions each (FUZZ_RUNS=100000)
	@$(BIN)/python -m tests.fuzz message --runs $(FUZZ_RUNS)
	@$(BIN)/python -m tests.fuzz http --runs $(FUZZ_RUNS)

release: $(VENV)/.dev ## a release candidate in dist/: sdist, wheel, chart, bill of materials, checksums
	@$(BIN)/python -m tools.release build

release-check: release ## the candidate built twice and compared, its wheel installed elsewhere and its demo run
	@$(BIN)/python -m tools.release check

release-tag: $(VENV)/.dev ## whether every place names the version of TAG, and the changelog dates it (TAG=v0.1.0)
	@$(BIN)/python -m tools.release tag "$(TAG)"

release-notes: $(VENV)/.dev ## what the changelog says of this version
	@$(BIN)/python -m tools.release notes

image-sbom: ## the bill of materials of a pushed image, by Docker (IMAGE=registry/name@sha256:...)
	@mkdir -p dist
	@docker run --rm --volume "$(HOME)/.docker:/root/.docker:ro" $(SYFT) scan "registry:$(IMAGE)" --output cyclonedx-json > dist/image.cdx.json

test-compose: $(VENV)/.run ## the compose file for real: simulated messages, then counted in Kafka (needs Docker)
	@$(BIN)/python -m tools.smoke compose

test-kind: $(VENV)/.run ## image and chart on a kind cluster: messages through them into Kafka (needs Docker, kind, helm)
	@$(BIN)/python -m tools.smoke kind

packages: ## what the tests need of Debian's or Ubuntu's archive, by apt-get
	@$(AS_ROOT) apt-get update -q
	@$(AS_ROOT) apt-get install -q -y --no-install-recommends $(PACKAGES)

workflows: $(VENV)/.dev ## actionlint and zizmor over .github
	@$(BIN)/python -m tools.workflows

sbom: $(VENV)/.dev ## the bill of materials of what is installed with the connector: dist/sbom.cdx.json (CycloneDX)
	@$(BIN)/python -m tests.supply materials dist/sbom.cdx.json

site: $(VENV)/.dev ## build the documents as one site, strictly, into dist/site
	@$(BIN)/python -m tools.site build

publish-site: $(VENV)/.dev ## push that site as the documents of a version, to the branch gh-pages (VERSION=0.1.0)
	@$(BIN)/python -m tools.site publish $(VERSION)

docs: $(VENV)/.dev ## serve that site on http://127.0.0.1:8000
	@$(BIN)/python -m tools.site serve

lock: $(VENV)/.dev ## resolve requirements/ again, with hashes
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --upgrade -o requirements/run.txt
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --group build -c requirements/run.txt -o requirements/build.txt
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --extra otlp -c requirements/run.txt -o requirements/otlp.txt
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --extra postgresql -c requirements/run.txt -o requirements/postgresql.txt
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --extra notify -c requirements/run.txt -o requirements/notify.txt
	@$(BIN)/uv pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --extra postgresql --extra notify --extra arrow --group build --group docs --group dev -c requirements/run.txt -o requirements/dev.txt

clean: ## remove what the targets made
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
