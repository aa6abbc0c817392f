# `make` lists the targets. All of them build their environment in .venv by themselves.

N ?= 20000
EXAMPLES ?= 1000
FUZZED ?= 20000
MINUTES ?= 10
SEED := $(or $(SEED),$(shell date +%s))
# PYTHON=... has an environment of its own, named after its version: none rebuilds another's.
VERSION := $(if $(PYTHON),$(or $(shell "$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null),\
	$(error $(PYTHON) is no Python that runs)))
VENV := .venv$(if $(VERSION),-$(VERSION))
BIN := $(VENV)/bin
# Named after the locked versions: built again only when these change.
STAMP := $(VENV)/.installed-$(shell cksum < requirements.lock | tr ' ' -)
PYTEST := $(BIN)/python -m pytest
# Installed apart, by their first use: neither tests nor CI need them.
MUTMUT := $(BIN)/uv run --quiet --no-project --python $(BIN)/python --with mutmut==3.8.1 mutmut
PIP_AUDIT := $(BIN)/uv tool run --quiet --from pip-audit==2.10.1 pip-audit --strict --disable-pip --progress-spinner=off
CYCLONEDX := $(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py
LOCKS := requirements.lock worker/requirements.lock tests/kolibri/requirements.lock
ACCEPTED := accepted-advisories.txt
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --quiet
# Generated databases; and the unit tests that take longest, beside them.
QUICK_PARITY := tests/parity/test_forests.py tests/parity/serialization/test_generated.py
QUICK_LONG_UNITS := $(patsubst %,tests/unit/test_%.py,bench bench_smoke simulation)
KIT := morango_celery/contrib/deployment/files
IMAGE_EXTRAS := flower oplog server
WITH_PROCESSES := tests/faults tests/smoke
# Have a target of their own, and are left out of `make test`.
APART := tests/brokers tests/upgrade
# Are about no database, or bring one of their own; `make test` runs them once.
WITHOUT_DATABASE = tests/documentation tests/kolibri tests/smoke/test_containers.py \
	$(patsubst %,tests/integration/test_%.py,admin_actions admin_errors admin_lists admin_models admin_runs alerts arguments blocked_runs \
		broken_pipes coalesced_runs command common_cause compose core_alone demo deployment doctor dry_run eager flower health \
		json_results metrics recover_command services sharing status trail two_instances waiting_commands) \
	$(patsubst %,tests/oplog/test_%.py,any_line memory two_projects) \
	$(patsubst %,tests/payloads/test_%.py,cache linked_tasks references retries task worker) \
	$(patsubst %,tests/unit/test_%.py,bench bench_cost bench_relay bench_smoke celery_checks celery_names conf dependency_graph envelope \
		environment fidelity_page filters graph imports kolibri_plug_in migrations mutations muting newer_messages package \
		private_names rabbitmq_checks sections simulation source_hash stream transports tree worker_command worker_plans) \
	$(OF_WORKERS)
# Are about messages and attempts, which there are where workers are: on PostgreSQL.
OF_WORKERS := $(patsubst %,tests/integration/test_%.py,attempts batches monitor monitor_workers newer_forms one_message quarantine shadow splitting task \
	timeline)

# Tests start hundreds of processes, which would compile all of this project each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help venv demo quick quick-lint quick-units test test-processes test-integration test-records test-on-sqlite test-postgresql test-sqlite parity brokers faults faults-on-postgresql faults-on-sqlite upgrade slow fuzz soak kolibri compat mutants mutate bench simulate compose coverage check format docs services worker server lock audit sbom clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build the environment in .venv (PYTHON=... chooses the interpreter)

# A version manager may leave a python3.11 on PATH that doesn't run: try before choosing. pip would compile on one
# core; compileall's status says nothing, for packages contain templates that are no Python.
$(STAMP):
	@set -e; chosen=""; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3); do \
		if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; \
		then chosen="$$python"; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
		echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	echo "Building $(VENV) with $$("$$chosen" --version), once; a minute or two"; \
	"$$chosen" -m venv --clear $(VENV); \
	export PIP_DISABLE_PIP_VERSION_CHECK=1; \
	$(BIN)/python -m pip install -qq --no-compile --no-deps --require-hashes -r requirements.lock; \
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true; \
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .; \
	touch $@

demo: venv ## Sync N=20000 records between two instances and deserialize them with workers
	$(BIN)/python -m worker.demo --records $(N)

# Two jobs of about the same length; the first one builds mypy's cache when there is none, which takes a minute more.
quick: venv ## Lint, types, unit tests and parity on few databases, on SQLite: within a minute
	@$(MAKE) --no-print-directory --jobs=2 quick-lint quick-units

quick-lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PARITY_EXAMPLES=2 PARITY_BATCH_SIZES=3 $(PYTEST) -q --database=sqlite $(QUICK_PARITY) $(QUICK_LONG_UNITS)

quick-units:
	$(PYTEST) -q --database=sqlite tests/unit $(addprefix --ignore=,$(QUICK_LONG_UNITS))

# Those with processes of their own wait most of the time: the others run meanwhile, and let them go first.
test: venv ## Run all tests, on PostgreSQL and SQLite at the same time (ARGS=... goes to pytest)
	@$(MAKE) --no-print-directory --jobs=4 $(if $(ARGS),test-postgresql test-sqlite,test-processes test-integration test-records test-on-sqlite)

test-integration:
	$(PYTEST) --database=postgresql tests/integration

test-processes:
	$(PYTEST) --database=postgresql $(WITH_PROCESSES)

test-records:
	PARITY_EXAMPLES=4 PARITY_BATCH_SIZES=1000 nice $(PYTEST) --database=postgresql $(addprefix --ignore=,tests/integration $(WITH_PROCESSES) $(APART))

test-on-sqlite:
	PARITY_EXAMPLES=2 PARITY_BATCH_SIZES=3 nice $(PYTEST) --database=sqlite $(addprefix --ignore=,$(WITHOUT_DATABASE) $(APART))

test-postgresql: venv ## Run the tests on PostgreSQL
	$(PYTEST) --database=postgresql $(ARGS)

test-sqlite: venv ## Run the tests on SQLite, but for those that need PostgreSQL
	$(PYTEST) --database=sqlite $(ARGS)

parity: venv ## Compare with Morango on EXAMPLES=1000 databases of each kind, PostgreSQL and SQLite (PARITY_SEED=1: others)
	PARITY_EXAMPLES=$(EXAMPLES) PARITY_BATCH_SIZES="1000 1000 3 1" $(PYTEST) --database=postgresql tests/parity $(ARGS)
	PARITY_EXAMPLES=$(EXAMPLES) PARITY_BATCH_SIZES="1000 1000 3 1" $(PYTEST) --database=sqlite tests/parity $(ARGS)

brokers: venv ## Try Redis, Valkey and RabbitMQ, as far as they are installed: syncs, kills, freezes, alarms, garbage
	$(PYTEST) --database=postgresql tests/brokers $(ARGS)

faults: venv ## Kill, drop, double and garble all there is to, at every point, and see that nothing is lost
	@$(MAKE) --no-print-directory --jobs=2 faults-on-postgresql faults-on-sqlite

faults-on-postgresql:
	$(PYTEST) --database=postgresql --exhaustive tests/faults tests/oplog $(ARGS)

faults-on-sqlite:
	$(PYTEST) --database=sqlite --exhaustive tests/oplog $(ARGS)

upgrade: venv ## Upgrade a project and downgrade it while it syncs: the last release, this version and one of the future
	$(PYTEST) --database=postgresql --exhaustive tests/upgrade $(ARGS)

slow: venv ## Run the other tests that are too long for every day (ARGS=... goes to pytest)
	$(PYTEST) --database=postgresql --exhaustive -m slow tests/documentation tests/integration tests/unit $(ARGS)

fuzz: venv ## Deserialize FUZZED=20000 broken records, PostgreSQL and SQLite (SEED=... does it again)
	FUZZ_RECORDS=$(FUZZED) FUZZ_SEED=$(SEED) $(PYTEST) --database=postgresql -x -q tests/faults/test_fuzzed_records.py $(ARGS)
	FUZZ_RECORDS=$(FUZZED) FUZZ_SEED=$(SEED) $(PYTEST) --database=sqlite -x -q tests/faults/test_fuzzed_records.py $(ARGS)

soak: venv ## Sync for MINUTES=10 while workers, Redis and database sessions are killed; then check all
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(ARGS)

kolibri: venv ## Compare with Morango on Kolibri's real models and data (ARGS=--help shows how to choose, ARGS=--plug-in tries the plug-in)
	@$(BIN)/python -m tests.kolibri.environment .venv-kolibri
	.venv-kolibri/bin/python -m tests.kolibri $(ARGS)

compat: venv ## Run tests with Django 3.2, 4.2 and 5.2; an hour or more (ARGS=--help shows how to choose, and other PostgreSQLs)
	$(BIN)/python -m tests.compat $(ARGS)

mutants: venv ## Undo our deviations from Morango one at a time, and see a test fail each time (ARGS=NAME for one)
	@$(BIN)/python -m tests.mutations $(ARGS)

mutate: venv ## Break functions in small ways by mutmut, and run parity tests (ARGS="run 'morango_celery.MODULE*'", ARGS=results)
	@PARITY_EXAMPLES=2 PARITY_BATCH_SIZES=3 $(MUTMUT) $(or $(ARGS),--help)

bench: venv ## Measure speed and memory beside Morango; QUICK=1 in three minutes (ARGS=--help shows how to choose)
	@$(BIN)/python -m tests.kolibri.environment .venv-kolibri
	$(BIN)/python -m bench $(if $(QUICK),--quick) $(ARGS)

simulate: venv ## Model up to 1,000 workers on one PostgreSQL (ARGS=--check holds the model to what is measured here)
	$(BIN)/python -m bench.simulate $(ARGS)

compose: venv ## Run docker-compose.yml on a real engine: push, scale, kill, down and up; skipped where there is none
	$(BIN)/python -m tests.smoke.compose_run $(ARGS)

coverage: venv ## Measure what the tests on both databases cover
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q --database=postgresql
	$(BIN)/coverage run --append -m pytest -q --database=sqlite
	$(BIN)/coverage report

check: venv ## Lint, formatting, types, import contracts, docstrings, missing migrations, locks, compose file and Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.documentation.docstrings
	$(BIN)/python -m worker makemigrations --check --dry-run --settings tests.settings
	@awk 'NR == FNR { tested[$$1]; next } /==|--hash=/ && !($$1 in tested) { print FILENAME ": " $$1 " is not tested"; bad = 1 } \
		END { exit bad }' requirements.lock worker/requirements.lock
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose.yml $(KIT)/docker-compose.yml
	$(BIN)/hadolint worker/Dockerfile $(KIT)/Dockerfile

format: venv ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: venv ## Write docs/reference/settings.md anew from the apps' conf.py
	$(BIN)/python -m tests.documentation.settings_page

services: venv ## Start Redis and PostgreSQL until Ctrl-C, and print what to export
	@$(BIN)/python -m worker.services

worker: venv ## Start a worker (needs DATABASE_URL, REDIS_URL, SECRET_KEY or DEBUG=1)
	$(BIN)/python -m morango_celery.worker -A worker --loglevel=INFO

server: venv ## Migrate and start a sync server for development (needs the same)
	$(BIN)/python -m worker migrate
	$(BIN)/python -m worker runserver

lock: venv ## Write requirements.lock anew from pyproject.toml, and of it what the image needs
	$(LOCK) --all-extras --upgrade --output-file requirements.lock pyproject.toml
	$(LOCK) $(addprefix --extra=,$(IMAGE_EXTRAS)) --upgrade --constraint requirements.lock \
		--output-file worker/requirements.lock pyproject.toml

# An id is accepted for one version: it is passed on with the locks that have that one.
audit: venv ## Look for known vulnerabilities of locked packages, but for those in accepted-advisories.txt (by pip-audit)
	@awk 'FILENAME != "$(ACCEPTED)" { locked[$$1]; next } /^[A-Z]/ && !($$2 in locked) { print $$1 ": no lock has " $$2; bad = 1 } \
		END { exit bad }' $(LOCKS) $(ACCEPTED)
	@failed=0; for lock in $(LOCKS); do echo "$$lock:"; \
		accepted=$$(awk 'NR == FNR { locked[$$1]; next } $$2 in locked { print "--ignore-vuln=" $$1 }' $$lock $(ACCEPTED)); \
		$(PIP_AUDIT) --requirement $$lock $$accepted $(ARGS) || failed=1; \
	done; exit $$failed

sbom: venv ## List what the image contains, as CycloneDX, in build/morango-celery.cdx.json
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python build/image
	$(BIN)/uv pip install --quiet --python build/image --no-deps --require-hashes --requirement worker/requirements.lock
	$(CYCLONEDX) environment build/image --pyproject pyproject.toml --output-reproducible --output-file build/morango-celery.cdx.json

clean: ## Remove the environment and what tools leave behind
	rm -rf $(VENV) .venv-3.* .venv-compat-* .venv-kolibri .venv-kolibri-server build dist mutants *.egg-info .coverage .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find morango_celery worker tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
