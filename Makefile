# Eight verbs; CI and people call the same ones. Python 3.11+ and make are all that is needed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
AEGIS_DATA ?= ../shared/data
export AEGIS_DATA

.PHONY: install full format check test integration fault fuzz load soak-history up demo docs site bench-pipeline bench-scale measure-costs bench-processors bench-extraction eval-extraction eval soak-processors soak-orders soak-reindex eval-entities train-ner train-relations lock security bandit secrets audit image scan runtime smoke clean

# What a user runs needs the runtime lock only; developers get the tools on top.
$(VENV)/.runtime: requirements.lock pyproject.toml requirements-uv.lock
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline -e .
	touch $@

# Other models and GPUs: torch, CUDA's libraries and sentence-transformers.
$(VENV)/.full: requirements-full.lock $(VENV)/.runtime
	$(BIN)/uv pip install --no-config --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-full.lock
	touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.full
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements-dev.lock
	touch $@

install: $(VENV)/.dev

full: $(VENV)/.full

demo: $(VENV)/.runtime
	$(BIN)/aegis demo

up: $(VENV)/.runtime
	$(BIN)/aegis up

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

BANDIT := $(BIN)/bandit --quiet --recursive schemas processors streams api deploy training

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BANDIT)

test: check
	$(BIN)/pytest

integration: install
	$(BIN)/pytest -m integration

fault: install
	$(BIN)/python -m tests.fault --report build/fault.json

fuzz: install
	$(BIN)/python -m tests.fuzz_api --report build/fuzz.txt

load: install
	$(BIN)/python -m tests.load --report build/load.json

soak-history: install
	$(BIN)/python -m tests.history --report build/history.json

bench-pipeline: install
	$(BIN)/python -m tests.bench_pipeline --report build/bench-pipeline.json

bench-scale: install
	$(BIN)/python -m tests.bench_scale --report build/bench-scale.json

# For `aegis capacity`: deploy/capacity.json is such a report.
measure-costs: install
	$(BIN)/python -m tests.measure_costs --report build/capacity.json

# Beside these: OLLAMA_URL compares an Ollama server that holds the same model.
bench-processors: install
	$(BIN)/python -m tests.bench_processors --report build/processors
	$(BIN)/python -m tests.eval_retrieval --report build/retrieval.json

# Fails on what is worse than build/extraction-last.json by more than tests/regressions.py allows.
bench-extraction: install
	$(BIN)/python -m tests.bench_extraction --report build/extraction

eval-extraction: install
	$(BIN)/python -m tests.eval_extraction --report build/eval-extraction.json

# Ingests 20,000 chunks the first time: an hour on two cores.
eval: install
	$(BIN)/python -m tests.eval_search --folder build/eval --report build/eval/report

# One corpus in 20 orders, by one worker and by four: one graph.
soak-orders: install
	$(BIN)/python -m tests.soak_orders --report build/orders.json

eval-entities: install
	$(BIN)/python -m tests.eval_entities --report build/entities.json

soak-processors: install
	$(BIN)/python -m tests.bench_processors --soak 20

soak-reindex: install
	$(BIN)/python -m tests.soak_reindex --documents 2000 --kill --report build/soak-reindex.json

# The weights that ship come from here: hours on two cores.
train-ner: install
	$(BIN)/python -m training.ner --data $(AEGIS_DATA) --output build/ner
	$(BIN)/python -m training.release --data $(AEGIS_DATA) --weights build/ner --output processors/ner/model

train-relations: install
	$(BIN)/python -m training.relations --data $(AEGIS_DATA) --output build/relations
	$(BIN)/python -m training.relation_release --data $(AEGIS_DATA) --weights build/relations --output processors/relations/model --card training/RELATIONS_CARD.md

# docs/delivery.md says what each of these needs, and what it does where that is missing.
security: bandit secrets audit

bandit: install
	$(BANDIT)

GITLEAKS ?= go run github.com/zricethezav/gitleaks/v8@v8.28.0
secrets:
	$(GITLEAKS) git --no-banner --redact .

# AUDIT: options of pip-audit, such as another service.
audit: install
	$(BIN)/python -m deploy.audit requirements.lock requirements-full.lock requirements-dev.lock $(AUDIT)

IMAGE ?= aegis-streams:light
PYTHON_IMAGE ?= python:3.12-slim-bookworm
image:
	docker build --target light --build-arg PYTHON=$(PYTHON_IMAGE) --tag $(IMAGE) --file deploy/docker/Dockerfile .

# Any program that fails on what it finds in the image whose name comes last.
SCANNER ?= trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed
scan:
	@command -v $(firstword $(SCANNER)) > /dev/null || \
	  { echo "NOT SCANNED: $(firstword $(SCANNER)) is not on the PATH; SCANNER names another program"; exit 3; }
	$(SCANNER) $(IMAGE)

runtime: $(VENV)/.runtime

smoke: runtime
	$(BIN)/aegis smoke $(if $(URL),--url $(URL))

docs: install
	$(BIN)/python -m deploy.docs

# build/site/index.html; a warning is an error.
site: install
	$(BIN)/sphinx-build -W --keep-going -n -q -b html docs build/site

COMPILE := $(BIN)/uv pip compile --universal --generate-hashes --no-header --no-emit-index-url --no-annotate --quiet
# Locks hold names, versions and hashes, and no address of any registry.
lock:
	$(COMPILE) pyproject.toml --group build -c constraints.txt -o requirements.lock
	$(COMPILE) pyproject.toml --group build --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) --no-config pyproject.toml --group build --extra full -c requirements.lock -o requirements-full.lock

clean:
	rm -rf $(VENV) build
