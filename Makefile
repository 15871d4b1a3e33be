# `make` lists what can be done; every target sets up what it needs.
PYTHON ?= python3
BIN := .venv/bin
# Half of a test's time is waiting. The longest files come first, and each file stays in one process; 0 is one after another.
PROCESSES ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test fuzz check fmt lock env-example chaos upgrade bench-queue bench-throttle bench-evidence bench-plan

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.venv/installed: requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kimi-review needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: .venv/installed ## set up .venv; the command is then .venv/bin/kimi-review

demo: .venv/installed ## a review of real commits through the whole pipeline, on this machine; no key needed
	$(BIN)/kimi-review demo

test: .venv/installed ## the whole suite: real Redis, Celery, git and HTTP, all on loopback, in two processes
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

fuzz: .venv/installed ## the properties again, with other examples and many more of them
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/unit

check: .venv/installed ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: .venv/installed ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/installed ## write the hash-locked requirements anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements-dev.txt

chaos: .venv/installed ## kill, pause and lie to a whole fleet; SEED=7 CHANGES=1000 repeat a storm
	$(BIN)/python -m pytest -m long
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(CHANGES),--changes $(CHANGES))

upgrade: .venv/installed ## this tree beside that of FROM=<git revision> on one Redis; default: the newest release tag
	$(BIN)/python -m tests.upgrade $(FROM)

bench-queue: .venv/installed ## deliveries per second, what a job costs, and growth to 100,000 queued jobs
	$(BIN)/python -m benchmarks.queue

bench-throttle: .venv/installed ## the throttle under processes, HTTP and kill -9: caps kept, capacity used (4 min)
	$(BIN)/python -m benchmarks.throttle.run

bench-evidence: .venv/installed ## definitions that a request shows and their cost, on real releases (fetches packages)
	$(BIN)/python -m benchmarks.evidence

env-example: .venv/installed ## write .env.example anew from the settings
	$(BIN)/kimi-review settings > .env.example

bench-plan: .venv/installed ## compare diff preparation with PR-Agent's on releases of large packages (fetches both)
	$(BIN)/python benchmarks/plan/run.py
