# Everything runs in .venv. It is made once, and brought up to date only when pyproject.toml or constraints.txt change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Two torch threads on cores that others use too are many times slower than one.
ONE_THREAD := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.installed-dev ## the main job in minutes: few labels in, a table of errors and a picture out
	@$(BIN)/python examples/demo.py

test: lint ## lint, then all tests and the examples in docstrings; PYTEST_ARGS are passed on
	@$(ONE_THREAD) $(BIN)/python -m pytest -n 2 -q $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/.installed-docs ## the documentation as HTML, in docs/_build/html; a warning is an error
	@$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.installed-dev ## time of a training step over its bare passes, for each method
	@$(ONE_THREAD) $(BIN)/python benchmarks/step_cost.py

clean: ## remove caches and built files; .venv and runs stay
	rm -rf build dist docs/_build docs/methods docs/api .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests examples benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Some systems ship Python without the parts that put pip into a new environment: then virtualenv, or an outer pip, does.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vicinal needs Python 3.11 or later; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "setting up $(VENV) (once, a few minutes) ..."
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 || \
	  $(PYTHON) -m virtualenv --quiet --clear $(VENV) >/dev/null 2>&1 || \
	  { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } >/dev/null 2>&1 || \
	  { rm -rf $(VENV); \
	    echo "cannot make an environment with $(PYTHON); install its venv module (on Debian: apt install python3-venv)" >&2; \
	    exit 1; }

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@# Other libraries' attacks, to hold ours against. Their metadata would replace torch, so they come without what they
	@# say they need; tests skip those that are missing.
	@$(PIP) install --no-deps torchattacks==3.5.1 adversarial-robustness-toolbox==1.20.1 six 2>/dev/null || true
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@
