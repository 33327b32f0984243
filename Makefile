# Everything runs in a virtual environment of its own, made on first use. `make demo` and `make test` need nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
TEST_PROCESSES ?= 2

.PHONY: demo test lint types format docs clean help
.PHONY: bench bench-unlabelled bench-drift bench-rotations bench-paper bench-sliding bench-cifar bench-streams bench-speed bench-cost bench-pipeline bench-serving bench-omniglot bench-few-shot bench-osaka bench-meta-speed worked-example
.PHONY: kserve mlserver reliability crash-matrix broker-faults data-faults soak fuzz kafka-up kafka-down sbom audit

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

demo: $(READY) ## the daemon on a drifting stream of real images; page at http://127.0.0.1:8080/
	$(BIN)/streamlearn demo $(DEMO)

test: $(READY) ## all tests; starts a real Kafka when Java and Maven are there, and says what it skipped
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(TEST)

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

crash-matrix: $(READY) ## SIGKILL at every named point and at random; writes its rows to docs/reliability.md
	$(BIN)/python -m benchmarks.reliability crash

reliability: $(READY) ## every fault of docs/reliability.md; RELIABILITY="power state" names groups
	$(BIN)/python -m benchmarks.reliability $(RELIABILITY)

fuzz: $(READY) ## 100,000 broken records in each format, decoded twice: FUZZ="--records N --seed S"
	$(BIN)/python -m benchmarks.fuzz $(FUZZ)

broker-faults: $(READY) ## a real Kafka killed, slowed, cut and emptied; writes its rows to docs/reliability.md
	$(BIN)/python -m benchmarks.reliability broker $(RELIABILITY)

soak: $(READY) ## half an hour of full load, five million samples: SOAK_MINUTES and SOAK_SAMPLES shorten it
	$(BIN)/python -m benchmarks.reliability soak

data-faults: $(READY) ## streams that nobody would wish for; writes its rows to docs/reliability.md
	$(BIN)/python -m benchmarks.reliability data $(RELIABILITY)

bench-speed: $(READY) ## learn calls beside the authors' code; BENCH="--reference CHECKOUT"
	$(BIN)/python -m benchmarks.speed $(BENCH)

bench-paper: $(READY) ## the paper's streams, every learner, five seeds: hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.paper $(BENCH)

bench-sliding: $(READY) ## how the sliding look-ahead's settings were chosen, and what each part of it is worth
	$(BIN)/python -m benchmarks.sliding tuning
	$(BIN)/python -m benchmarks.sliding ablation

bench-cifar: $(READY) ## CIFAR-100 in one pass; BENCH="--device cuda" on a GPU
	$(BIN)/python -m benchmarks.cifar $(BENCH)

bench-omniglot: $(READY) ## characters one after another on meta-trained trunks; BENCH="--device cuda --width full" on a GPU
	$(BIN)/python -m benchmarks.omniglot $(BENCH)

bench-few-shot: $(READY) ## MAML, FOMAML, ANIL, Reptile, iMAML and COMLN on few drawings of unseen characters, and MAML's sinusoids
	$(BIN)/python -m benchmarks.few_shot $(BENCH)

bench-osaka: $(READY) ## Continual-MAML and others on a stream that changes its task unannounced
	$(BIN)/python -m benchmarks.osaka $(BENCH)

bench-meta-speed: $(READY) ## meta-steps beside the released code; BENCH="--anml CHECKOUT --oml CHECKOUT"
	$(BIN)/python -m benchmarks.meta_speed $(BENCH)

worked-example: $(READY) ## meta-train, then the daemon on unseen characters, warm and cold; BENCH=--kafka through a real Kafka
	$(BIN)/python -m benchmarks.worked_example $(BENCH)

bench-streams: $(READY) ## the default learner and river's methods on real streams; what is in the results already is not run again
	$(BIN)/python -m benchmarks.streams_baselines $(BENCH)
	$(BIN)/python -m benchmarks.streams $(BENCH)
	$(BIN)/python -m benchmarks.streams_speed
	$(BIN)/python -m benchmarks.streams_report

bench-unlabelled: $(READY) ## accuracy estimated before the labels come, against what they then say
	$(BIN)/python -m benchmarks.unlabelled $(BENCH)

bench-drift: $(READY) ## delay and false alarms of drift detectors, and how early other signs come
	$(BIN)/python -m benchmarks.drift $(BENCH)

bench-cost: $(READY) ## what a sample costs as stream, memory, chunk and labels grow
	$(BIN)/python -m benchmarks.cost $(BENCH)

bench-pipeline: $(READY) ## the whole daemon on a real Kafka beside decode and learn alone, and where the rest goes
	$(BIN)/python -m benchmarks.pipeline $(BENCH)

bench-serving: $(READY) ## latency while the learner works at full speed, beside MLServer where `make mlserver` was run
	$(BIN)/python -m benchmarks.serving $(BENCH)

mlserver: ## MLServer with scikit-learn in an environment of its own, for bench-serving
	$(PYTHON) -m venv .venv-mlserver
	.venv-mlserver/bin/python -m pip install --quiet mlserver mlserver-sklearn 'uvloop<0.22'  # 1.7.1 asks newer ones for a loop that is not there

kserve: ## KServe's Python clients in an environment of their own, which the tests then find
	$(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip install --quiet kserve

kafka-up: $(READY) ## a real one-node Apache Kafka on 127.0.0.1:9092, from Maven coordinates
	$(BIN)/python deploy/kafka/broker.py up --port 9092

kafka-down: $(READY) ## stop it
	$(BIN)/python deploy/kafka/broker.py down

sbom: $(READY) ## build/sbom.json: everything installed here, as CycloneDX; needs no network
	mkdir -p build
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --of JSON -o build/sbom.json $(BIN)/python

audit: $(READY) ## look up every installed package among known vulnerabilities; needs the network
	$(BIN)/python .ci/audit.py $(AUDIT)

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
