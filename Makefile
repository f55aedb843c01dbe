# Set-up is part of every target: on a fresh machine with Python 3.11 to 3.13, `make demo` or `make test` is all.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test soak bench lint docs format lock wheel clean
.DEFAULT_GOAL := demo

demo: $(READY) ## measure the shipped model, unquantized and with six quantizers, and print the table
	$(BIN)/python -m quantlab -m quant=none,torch_int8,quanto_int8,quanto_int8_static,hqq_int4,hqq_int3,bnb_nf4

test: $(READY) ## the tests, offline, on the CPU: two files at a time, then those that measure time
	$(BIN)/python -m pytest --durations 15 -m "not alone and not soak and not bench" -n 2 --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone

soak: $(READY) ## fifty kills, and random records, checkpoints, configurations and manifests, for half an hour
	QUANTLAB_TEST_EXAMPLES=600 $(BIN)/python -m pytest tests -m "fuzz or soak" -n 2 --timeout 3600 --maxfail 20

bench: $(READY) ## what quantlab itself costs, as ratios within one run: a table, also in build/bench.md
	$(BIN)/python -m pytest tests/bench -m bench --timeout 900

lint: $(READY) ## linter, formatter and type checker, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## the site, build/site/index.html; a broken link is an error
	$(BIN)/python -m sphinx -W --keep-going -n -E -q -b html docs build/site

format: $(READY) ## fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY) ## update the dependencies to newer versions
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --upgrade \
	  --group dev pyproject.toml -o requirements.lock

wheel: $(READY) ## what PyPI gets: dist/*.whl
	$(BIN)/uv build --wheel

clean: ## remove the environment and what was built, but not the measured records (mlruns/)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { echo \
	  "quantlab needs Python 3.11 to 3.13, and $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo not there);" \
	  "name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(READY)
