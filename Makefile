# make help lists the targets. Everything runs inside .venv, which is built when it is missing or stale.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_DEFAULT_TIMEOUT ?= 120

.DEFAULT_GOAL := help
.PHONY: .venv demo test lint typecheck docs seeds chaos bench clean help

.venv: $(STAMP)  ## build the virtual environment

$(STAMP): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "omnistage needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --retries 10 -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## the whole pipeline on a tiny model, on the CPU, with its tables and report pages
	$(BIN)/omnistage demo

test: $(STAMP)  ## every test that this machine can run
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(STAMP)  ## ruff over the tree
	$(BIN)/ruff check --output-format concise data rewards rl stages launch tests benchmarks docs setup.py

typecheck: $(STAMP)  ## mypy, strict
	.ci/typecheck

docs: $(STAMP)  ## the documentation as a site, in build/docs
	$(BIN)/python -m sphinx -b html -W --keep-going -n -q docs build/docs
	@echo "build/docs/index.html"

seeds: $(STAMP)  ## the demo over several seeds
	$(BIN)/python benchmarks/demo_seeds.py

chaos: $(STAMP)  ## the demo, killed 20 times, beside the demo in one go
	$(BIN)/python benchmarks/chaos.py

bench: $(STAMP)  ## what data, a GRPO step and sharing cost, beside the plain ways
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/grpo_step.py
	$(BIN)/python benchmarks/evaluate.py

clean:  ## remove the environment and everything built or cached
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## this list
	@sed -n 's/^\([a-z.]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
