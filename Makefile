# Short names for what is done every day; each works on a fresh clone with Python >= 3.11 and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format types bench ci clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## a virtual environment with everything for development

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	touch $@

demo: $(STAMP) ## a real training on four ranks, counted at the end
	$(BIN)/stepstream demo

test: $(STAMP) ## all tests
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(STAMP) ## format, lint and import contracts, changing nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

format: $(STAMP) ## write the format, mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

bench: $(STAMP) ## the load benchmark, as one JSON object
	$(BIN)/python -m benchmarks.load

ci: ## everything that must hold before a change is taken
	.ci/run

clean: ## remove what the tools leave behind, the environment included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
