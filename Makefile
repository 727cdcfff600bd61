# What one can do here. Everything is set up in .venv/ on first use; nothing else is installed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
NODE_OK := $(shell node -e 'process.exit(parseInt(process.versions.node) >= 20 ? 0 : 1)' 2>/dev/null && echo yes)
PYTHON312 := $(shell for p in $(PYTHON) python3.12 python3.13 $$HOME/.pyenv/versions/3.1[23]*/bin/python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)
PIP := $(PY) -m pip --disable-pip-version-check --quiet install
HASHED := $(PIP) --require-hashes --no-deps -r
COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
  --custom-compile-command "make lock"
TEST ?= tests
SOURCES := $(shell find frontend -type f -not -path '*/node_modules/*' 2>/dev/null)

# Compiled modules are kept: the tests start many processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-browser check lint types walls setup setup-dev pages peers vnpy format lock \
  screenshots bench-engine bench-feeds drill-rollout faults soak kills mutants fuzz bench-paint bench-monitoring drill-alerts clean

help: ## List what one can do here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: setup pages ## Set everything up and run the demo: both simulated brokers and the page, http://127.0.0.1:5080
	@$(BIN)/orderwire demo $(ARGS)

serve: setup pages ## Set everything up and run the service
	@$(BIN)/orderwire serve $(ARGS)

test: setup-dev pages peers sdk vnpy ## Set everything up and run every test (TEST=path runs some, REPORT=1 shows figures)
	@$(BIN)/pytest $(TEST) -n 3 --dist loadfile --no-loadscope-reorder $(if $(REPORT),-rA) $(ARGS)

test-browser: setup-dev pages peers ## Run the tests in a real browser
	@$(BIN)/pytest tests/browser tests/acceptance -v $(ARGS)

check: lint types walls ## Lint, types and import contracts

lint: setup-dev ## Run ruff, check the format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup-dev pages ## Run mypy, check the pages' types
	@$(BIN)/mypy && $(PY) frontend/build.py --check

walls: setup-dev ## Check the import contracts
	@$(BIN)/lint-imports

format: setup-dev ## Format and fix what can be fixed
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

screenshots: setup-dev pages ## Make the pictures of the README from the running demo
	@$(PY) docs/screenshots.py

.PHONY: stream-truth schema
stream-truth: setup-dev pages ## 10,000 random disconnects and 100,000 deliveries of the stream (DISCONNECTS=, DELIVERIES=)
	@ORDERWIRE_DISCONNECTS=$(or $(DISCONNECTS),10000) ORDERWIRE_DELIVERIES=$(or $(DELIVERIES),100000) \
	  $(BIN)/pytest tests/web/test_stream_truth.py $(ARGS)

schema: setup-dev pages ## Call the REST interface from its OpenAPI document (EXAMPLES=500 for each call)
	@ORDERWIRE_SCHEMA_EXAMPLES=$(or $(EXAMPLES),500) $(BIN)/pytest tests/web/test_api_schema.py -n 2 $(ARGS)

faults: setup-dev ## Run seeded fault schedules and compare with the field's rules (SCHEDULES=1000, SEED=0)
	@$(PY) bench/faults.py --schedules $(or $(SCHEDULES),1000) --seed $(or $(SEED),0) --jobs 2 $(ARGS)

soak: setup-dev pages ## Run 24 hours' worth, or MINUTES=10 of real time; fails when anything grows (LEAK=1 has to fail)
	@$(PY) bench/endurance.py $(if $(MINUTES),--minutes $(MINUTES)) $(if $(LEAK),--leak $(LEAK)) --write $(ARGS)

.PHONY: chaos
chaos: setup-dev pages ## Run several processes under load and kill any of them, PostgreSQL and Redis too (MINUTES=10, ARGS="--rate 170")
	@$(PY) bench/chaos.py --minutes $(or $(MINUTES),10) $(ARGS)

.PHONY: never-lost
never-lost: setup-dev pages ## Never wrong, never lost as several processes: strangers, forgeries, faults while workers die (SIZE=small for minutes)
	@ORDERWIRE_NEVER_LOST=$(or $(SIZE),full) $(BIN)/pytest tests/acceptance/never_lost.py -q -p no:randomly \
	  -W ignore::pytest.PytestUnraisableExceptionWarning $(ARGS)  # sockets of clients whose server was killed, at the very end too

kills: setup-dev ## Kill the store at every boundary of a commit (N=1000)
	@ORDERWIRE_KILLS=$(or $(N),1000) $(BIN)/pytest tests/store/test_kills.py -q -n 2 --dist load $(ARGS)

mutants: setup-dev ## Break the core in a thousand ways and count what its tests notice
	@$(PY) bench/mutants.py $(ARGS)

fuzz: setup-dev ## Fuzz the parsers, guided by coverage (SECONDS=30 for each, TARGET=xts-rows for one)
	@$(PY) bench/fuzz.py --seconds $(or $(SECONDS),30) $(if $(TARGET),--target $(TARGET)) $(ARGS)

.PHONY: bench-weather
bench-weather: setup-dev pages ## Put accounts of both brokers under every fault switch of the simulators, and judge by the bounds
	@ORDERWIRE_GATES=1 $(BIN)/pytest tests/integration/test_jainam_faults.py tests/integration/test_zerodha_faults.py -q $(ARGS)

bench-paint: setup-dev pages ## Measure from the click to the paint at each broker, by stage, and judge by the gate
	@ORDERWIRE_GATES=1 $(BIN)/pytest tests/browser/test_main_job.py -k measured -q $(ARGS)

.PHONY: bench-mounted
bench-mounted: setup-dev pages ## Measure the way of a change into a host application, under each of its servers (ARGS="--fills 100")
	@$(PY) bench/mounted.py $(ARGS)

.PHONY: verdicts
verdicts: setup-dev ## Play every simulated pilot with SEEDS=50 seeds, drawn anew, and compare the verdicts with the right ones
	@$(BIN)/orderwire pilot verdicts --seeds $(or $(SEEDS),50) --jobs $(or $(JOBS),2) $(ARGS)

drill-rollout: setup-dev ## Rehearse the rollout: shares, toggling under load, two processes, the guard
	@$(PY) bench/rollout.py $(ARGS)

drill-alerts: setup-dev pages ## Raise every alert with the real Prometheus and Alertmanager, see each told and cleared
	@$(BIN)/pytest tests/core/test_promrules.py tests/core/test_alerts.py tests/monitoring tests/ops tests/acceptance/test_drill.py -n 0 $(ARGS)

bench-monitoring: setup-dev ## Measure what monitoring costs on the hot path
	@$(PY) bench/monitoring.py $(ARGS)

bench-engine: setup-dev ## Measure the event engine beside vn.py's
	@$(PY) bench/engine.py

bench-feeds: setup-dev ## Measure what feeds promise, against the simulated brokers (ARGS=--write)
	@$(PY) bench/feeds.py $(ARGS)

setup: $(VENV)/.run ## Set up what the service needs
setup-dev: $(VENV)/.dev ## Set up what the tests need
vnpy: .venv-vnpy/.stamp ## Set up vn.py's engine (test peer)
peers: .venv-peers/.stamp ## Set up the environment of the brokers' own client libraries (test peers)

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit("orderwire needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …") if sys.version_info < (3, 11) else None'
	@echo "Setting up $(VENV)/ …"
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.run: requirements/run.lock pyproject.toml | $(PY)
	@echo "Installing what the service needs …"
	@$(HASHED) requirements/run.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.lock $(VENV)/.run
	@echo "Installing what the tests need …"
	@$(HASHED) requirements/dev.lock
	@touch $@

.venv-peers/.stamp: requirements/peers.lock
	@echo "Installing the brokers' own client libraries (test peers) …"
	@$(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r $<
	@touch $@

.venv-vnpy/.stamp: requirements/vnpy.lock
	@echo "Installing vn.py's engine (test peer) …"
	@$(PYTHON) -m venv .venv-vnpy
	@.venv-vnpy/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r $<
	@touch $@

.PHONY: sdk
sdk: .venv-openalgo/.stamp $(if $(PYTHON312),.venv-openalgo2/.stamp) ## Set up OpenAlgo's SDK (test peers): 1.0.47, and 2.0.5 where there is Python 3.12

.venv-openalgo/.stamp: requirements/openalgo.lock
	@echo "Installing OpenAlgo's SDK 1.0.47 (test peer) …"
	@$(PYTHON) -m venv .venv-openalgo
	@.venv-openalgo/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r $<
	@touch $@

.venv-openalgo2/.stamp: requirements/openalgo2.lock
	@echo "Installing OpenAlgo's SDK 2.0.5 (test peer) …"
	@$(PYTHON312) -m venv .venv-openalgo2
	@.venv-openalgo2/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps -r $<
	@touch $@

pages: src/orderwire/web/static/build/.stamp ## Build the pages

src/orderwire/web/static/build/.stamp: $(SOURCES) | setup
	@$(if $(NODE_OK),:,echo "Installing Node.js from PyPI for the page build …" && $(HASHED) requirements/pages.lock)
	@echo "Building the pages …"
	@$(PY) frontend/build.py
	@touch $@

.PHONY: postbacks
postbacks: setup-dev pages ## Attack the postback endpoint of a running service (FORGED=10000, SECONDS=60 of flood)
	@$(PY) bench/postbacks.py --forged $(or $(FORGED),10000) --seconds $(or $(SECONDS),60) $(ARGS)

lock: setup-dev ## Resolve the lock files anew
	@$(PIP) uv
	@$(COMPILE) pyproject.toml --all-extras --group dev -o requirements/dev.lock
	@$(COMPILE) pyproject.toml --extra sim --extra notify --group build -c requirements/dev.lock -o requirements/run.lock
	@$(COMPILE) pyproject.toml --extra postgres --extra redis --extra web --extra notify -c requirements/dev.lock -o requirements/cluster.lock
	@$(COMPILE) --group pages -c requirements/dev.lock -o requirements/pages.lock
	@$(COMPILE) --group peers -o requirements/peers.lock
	@$(COMPILE) --group openalgo -o requirements/openalgo.lock
	@$(subst --python-version 3.11,--python-version 3.12,$(COMPILE)) --group openalgo2 -o requirements/openalgo2.lock
	@$(COMPILE) --no-deps --group vnpy -o requirements/vnpy.lock

clean: ## Remove everything that was set up or built
	@rm -rf $(VENV) .venv-* frontend/node_modules src/orderwire/web/static/build .mypy_cache .ruff_cache
