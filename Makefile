# Everything a fresh machine with python3 and make needs: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
# A worker for each processor, which runs whole files; each may hold a TensorFlow of its own and start others.
WORKERS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-all lint fuzz bench docs fixtures clean

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
	$(BIN)/python -m pytest -q $(WORKERS)

test-all: lint
	$(BIN)/python -m pytest -q -m ''

# What was drawn is printed with what it broke: `tests/mutations.py --first N --count 1` makes that case again.
fuzz: $(STAMP)
	GRAPHLENS_MUTATE_SHARED=1 $(BIN)/python tests/mutations.py --count $${COUNT:-10000} --first $$(date +%s)
	$(BIN)/python -m pytest -q -m hypothesis --hypothesis-profile=fuzz --timeout=3600

bench: $(STAMP)
	$(BIN)/python tests/bench.py

docs: $(STAMP)
	$(BIN)/mkdocs build --quiet --strict

fixtures: $(STAMP)
	$(BIN)/python fixtures/record.py
	$(BIN)/python fixtures/record_fake_gpu.py

clean:
	rm -rf $(VENV) demo-report.html demo-report-model site
