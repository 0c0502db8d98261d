# Everything is made from a clean checkout with python3 and make, and with Go where Beam's releases cannot be reached.

PYTHON ?= python3
VENV ?= .venv
EVENTS ?= 1000000
SEED ?= 7
BENCH ?= $(basename $(notdir $(wildcard benchmarks/[a-z]*.py)))

BIN := $(VENV)/bin
DEMO := data/demo-$(EVENTS)-$(SEED)
OUT := out/demo

# A program that Debian has: one of $(1) is found, or with CI=true the packages $(2) are installed, or it is said what to install.
define debian
	@found() { for name in $(1); do command -v $$name && return; done; false; }; \
	found >/dev/null || { if [ "$$CI" = true ]; then \
	  as_root=; [ "$$(id -u)" = 0 ] || as_root='sudo -n'; $$as_root apt-get update -qq && \
	  $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(2) >/dev/null; fi; } || true; \
	found || echo '$(firstword $(1)) is not there: apt-get install $(2)'
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env engine emulators prometheus chromium run test bench bench-peers docs pictures doctor clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

env: $(VENV)/.installed-test  ## the environment, in $VENV (default .venv)

engine: env  ## Prism, Beam's local engine: found, fetched or built (a build takes a minute or two)
	@$(BIN)/python -m measurement.local.prism

run: env engine $(DEMO)/bookings.csv  ## simulated events through the real job, checked (EVENTS=1000000 SEED=7)
	$(BIN)/measurement run --profile local --input '$(DEMO)/events*.avro' --policy config/demo.yaml --out $(OUT)
	$(BIN)/measurement bookings load $(DEMO)/bookings.csv --out $(OUT)
	$(BIN)/measurement reconcile --out $(OUT)
	$(BIN)/measurement head --out $(OUT)

emulators: env  ## the cloud's emulators for tests: found, or what to install (a build takes some five minutes)
	@$(BIN)/python -m measurement.local.emulators --build

prometheus:  ## Prometheus for tests: found, or what to install; with CI=true it is installed (Debian's package, as root or by sudo)
	$(call debian,prometheus,prometheus)

chromium:  ## Chromium for tests of the page and its pictures, in the same way
	$(call debian,chromium chromium-browser google-chrome,chromium fonts-dejavu-core)

test: env engine emulators prometheus chromium  ## the tests
	$(BIN)/python -m pytest -q tests

bench: engine $(VENV)/.installed-bench  ## the benchmarks, or one of them with BENCH=name
	for name in $(BENCH); do $(BIN)/python -m benchmarks.$$name || exit 1; done

bench-peers: engine $(VENV)/.installed-bench  ## other engines at the same task, each in its own environment (PEERS="--events 200000")
	$(BIN)/python -m benchmarks.peers $(PEERS)

docs: env  ## docs/methodology.md, Prometheus's rules and Grafana's dashboard, from the rules, the default policy and levels
	$(BIN)/python -m measurement.reporting.methodology > docs/methodology.md
	$(BIN)/python -m measurement.monitors.prometheus_rules > config/prometheus/rules.yml
	$(BIN)/python -m measurement.monitors.dashboard > config/grafana/measurement.json

pictures: env chromium  ## docs/pictures, of the page over what `make run` left
	$(BIN)/python -m tests.pictures $(OUT)

doctor:  ## what is there, what is missing, what each thing is needed for
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) measurement/local/doctor.py

clean:  ## remove the demo and what tests leave; the environment and the engine stay
	rm -rf data/demo-* $(OUT) build .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed and $(PYTHON) is not: try make PYTHON=python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-%: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# After the environment, yet no reason to simulate again.
$(DEMO)/bookings.csv: | env
	$(BIN)/measurement simulate --events $(EVENTS) --seed $(SEED) --policy config/demo.yaml --out $(DEMO)
