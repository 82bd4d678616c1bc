.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help setup demo test check faults chaos soak bench ablation budget kafka configuration lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/ready ## the virtual environment with everything in it

$(VENV)/ready: pyproject.toml requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --system-certs --quiet --python $(BIN)/python --requirement requirements/dev.txt
	$(BIN)/uv pip install --system-certs --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup ## a plant, a broker, a model, live alerts (ARGS="--duration 120 --seed 7 --json FILE")
	$(BIN)/foreshock demo $(ARGS)

test: setup check ## lint, types, import contracts and every test (ARGS="-k name -n 0")
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

check: setup ## lint, types and import contracts only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: setup ## inject every fault and write docs/faults.md (ARGS=--long: outages of 60 s, a million sensors)
	$(BIN)/python -m pytest -m fault --faults=docs/faults.md $(ARGS)

chaos: setup ## kill the members of a service all the time, on real Apache Kafka (ARGS="--json FILE --client mixed --kernel numba --without-checkpoints")
	$(BIN)/python -m tests.chaos $(ARGS)

soak: setup ## does its memory stay what it is? (ARGS="--minutes 10 --rate 1000")
	$(BIN)/python -m tests.soak $(ARGS)

bench: setup ## measure (ARGS="--json FILE")
	$(BIN)/python -m benchmarks $(ARGS)

ablation: setup ## what each part of the detector is worth (ARGS="DATA --no-vus --only NAME --json FILE")
	$(BIN)/python -m benchmarks.ablation $(ARGS)

budget: setup ## false alarms on a plant without faults, against the budget (ARGS="--sensors 1000 --rows 20000")
	$(BIN)/python -m benchmarks.budget $(ARGS)

kafka: setup ## a real Apache Kafka node on 127.0.0.1:9092 (needs Java 17 and Maven)
	$(BIN)/python -m tests.kafka.node $(ARGS)

configuration: setup ## regenerate docs/configuration.md and foreshock.example.toml
	$(BIN)/python -m pipeline.config_reference > docs/configuration.md
	$(BIN)/python -m pipeline.config_reference --toml > foreshock.example.toml

lock: setup ## compile requirements/ anew from pyproject.toml
	$(BIN)/uv pip compile --system-certs --quiet --universal --python-version 3.11 --no-header --no-emit-index-url pyproject.toml --extra librdkafka -o requirements/serve.txt
	$(BIN)/uv pip compile --system-certs --quiet --universal --python-version 3.11 --no-header --no-emit-index-url pyproject.toml --extra train -c requirements/serve.txt -o requirements/train.txt
	$(BIN)/uv pip compile --system-certs --quiet --universal --python-version 3.11 --no-header --no-emit-index-url pyproject.toml --all-extras --group dev -c requirements/train.txt -o requirements/dev.txt
	$(BIN)/uv pip compile --system-certs --quiet --universal --python-version 3.11 --no-header --no-emit-index-url pyproject.toml --extra librdkafka --extra fast -c requirements/dev.txt -o requirements/fast.txt

clean: ## remove what was built
	rm -rf $(VENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
