# Everything runs in a virtual environment of its own, made on first use. `make demo` and `make test` need nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint types format bench bench-rotations kafka-up kafka-down docs clean help

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## the daemon on a drifting stream of real images; page at http://127.0.0.1:8080/
	$(BIN)/streamlearn demo $(DEMO)

test: $(READY) ## all tests; starts a real Kafka when Java and Maven are there, and says what it skipped
	$(BIN)/python -m pytest $(TEST)

lint: $(READY) ## formatting and lint
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY) ## strict types
	$(BIN)/mypy

format: $(READY) ## format in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: bench-rotations ## the benchmarks; data from the folder that STREAMLEARN_DATA names

bench-rotations: $(READY) ## MNIST Rotations through a real Kafka and the served endpoint
	$(BIN)/python -m benchmarks.rotations $(BENCH)

kafka-up: $(READY) ## a real one-node Apache Kafka on 127.0.0.1:9092, from Maven coordinates
	$(BIN)/python deploy/kafka/broker.py up --port 9092

kafka-down: $(READY) ## stop it
	$(BIN)/python deploy/kafka/broker.py down

docs: $(READY) ## write the generated reference pages anew
	$(BIN)/python -m streamlearn.telemetry > docs/metrics.md
	$(BIN)/python -m streamlearn.reference > docs/configuration.md

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m streamlearn.warm
	touch $(READY)
