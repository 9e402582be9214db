# `make demo` and `make test` set up everything they need: a virtual environment in .venv, the packages, and for
# the tests a redis-server and a Chromium. PYTHON=... chooses the interpreter; otherwise the first one from 3.11 on is taken.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q --no-input
export PYTHON

.NOTPARALLEL:
.PHONY: help demo test test-compiled lint format docs fuzz fuzz-compiled bench bench-micro chaos faults locust clean

help:
	@echo 'make demo     a gateway, a backend and a key to try, on 127.0.0.1:8080'
	@echo 'make test     the tests (ARGS="-k name" for some of them)'
	@echo 'make test-compiled   the same tests on the compiled build (needs a C compiler)'
	@echo 'make fuzz     the fuzzer, for a minute (ARGS="--seconds 600 --seed N"; --help says more)'
	@echo 'make fuzz-compiled   the same on the compiled build'
	@echo 'make lint     ruff and mypy'
	@echo 'make format   put the code in order'
	@echo 'make docs     write the tables of README.md anew'
	@echo 'make bench    the gateway against nginx, HAProxy and Envoy (ARGS="--cases key,tls")'
	@echo 'make bench-micro   the steps of a request in nanoseconds, without sockets (ARGS="--against HEAD~1")'
	@echo 'make chaos    numbered requests while backends are killed and lie (ARGS="--seed 2")'
	@echo 'make faults   what a node loses when it, a backend or Redis is hurt under load (ARGS="redis gone")'
	@echo 'make locust   a realistic load on a running demo (ARGS="--headless -u 50 -r 10 -t 60s")'
	@echo 'make clean    remove what make made'

$(BIN)/python:
	@sh dev/setup.sh venv $(VENV)

# A stamp is older than pyproject.toml after any change of it, and then the packages are installed again.
$(VENV)/.run: pyproject.toml $(BIN)/python
	$(PIP) install -e .
	@touch $@

$(VENV)/.test: pyproject.toml $(BIN)/python
	$(PIP) install -e '.[test]'
	@sh dev/setup.sh redis $(VENV)
	@sh dev/setup.sh chromium
	@touch $@ $(VENV)/.run

$(VENV)/.lint: pyproject.toml $(BIN)/python
	$(PIP) install -e '.[lint]'
	@touch $@ $(VENV)/.run

$(VENV)/.compile: pyproject.toml $(BIN)/python
	@sh dev/setup.sh compiler $(VENV)
	$(PIP) install -e '.[compile]'
	@touch $@ $(VENV)/.run

$(VENV)/.bench: pyproject.toml $(BIN)/python
	$(PIP) install -e '.[bench]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	@exec $(BIN)/authgate demo $(ARGS)

test: $(VENV)/.test
	@exec $(BIN)/python -m pytest $(ARGS)

# The checkout is kept out of sys.path's first place: there it would hide the compiled build from the tests.
test-compiled: $(VENV)/.test $(VENV)/.compile
	@$(BIN)/python -m dev.compiled
	@AUTHGATE_TEST_BUILD=compiled PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/compiled:$(CURDIR)" \
	    $(BIN)/python -m pytest -o pythonpath= $(ARGS)

fuzz: $(VENV)/.test
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

fuzz-compiled: $(VENV)/.test $(VENV)/.compile
	@$(BIN)/python -m dev.compiled
	@AUTHGATE_TEST_BUILD=compiled PYTHONSAFEPATH=1 PYTHONPATH="$(CURDIR)/build/compiled:$(CURDIR)" \
	    $(BIN)/python -m tests.fuzz $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.lint
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.run
	$(BIN)/python -m dev.render_docs

bench: $(VENV)/.bench $(VENV)/.compile
	@exec $(BIN)/python -m bench --compiled $(ARGS)

bench-micro: $(VENV)/.run $(VENV)/.compile
	@exec $(BIN)/python -m bench.micro $(ARGS)

chaos: $(VENV)/.run
	@exec $(BIN)/python -m bench.chaos $(ARGS)

faults: $(VENV)/.run
	@exec $(BIN)/python -m bench.faults $(ARGS)

locust: $(VENV)/.bench
	@exec $(BIN)/locust -f bench/locustfile.py --host http://127.0.0.1:8080 $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find authgate_fast bench dev tests -name __pycache__ -type d -prune -exec rm -rf {} +
