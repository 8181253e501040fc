# Everything a fresh machine with python3 and make needs: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed

.PHONY: demo test test-all lint bench docs fixtures clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[cpu,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/graphlens demo -o demo-report.html

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q

test-all: lint
	$(BIN)/python -m pytest -q -m ''

bench: $(STAMP)
	$(BIN)/python tests/bench.py

docs: $(STAMP)
	$(BIN)/mkdocs build --quiet --strict

fixtures: $(STAMP)
	$(BIN)/python fixtures/record.py
	$(BIN)/python fixtures/record_fake_gpu.py

clean:
	rm -rf $(VENV) demo-report.html demo-report-model site
