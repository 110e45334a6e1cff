# `make demo` and `make test` need Python 3.11 or later and nothing else.

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
PORT ?= 5000
TTL ?= 7200

.PHONY: demo test test-all lint coverage mutants bench docs clean

demo: $(VENV)/installed
	@TTL=$(TTL) PORT=$(PORT) $(BIN)/python examples/quickstart

# Four at a time on two cores: most of a test's time it waits for a process or a browser.
test: lint
	$(BIN)/python -m pytest -q -n 4 --dist loadfile -m "not slow"

# uWSGI is compiled on the way; where that fails, its tests say that they were skipped.
test-all: lint mutants
	-$(BIN)/python -m pip install -q --disable-pip-version-check uwsgi
	WXJSAPI_TEST_EXAMPLES=500 WXJSAPI_TEST_ROUNDS=100 $(BIN)/python -m pytest -q

lint: $(VENV)/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/tested
	$(BIN)/python -m pip install -q --disable-pip-version-check "coverage>=7.2"
	$(BIN)/python -m coverage run -m pytest -q --ignore tests/faults -m "not slow and not processes and not browser"
	$(BIN)/python -m coverage report
	$(BIN)/python -m coverage json -q -o - | $(BIN)/python -m tests.coverage_goals

mutants: $(VENV)/tested
	$(BIN)/python -m tests.mutants

# Debian's wrk is needed for requests a second, and its valgrind to count instructions; without them
# the table says so.
bench: $(VENV)/tested
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[bench]"
	$(BIN)/python -m benchmarks $(PARTS)

docs: $(VENV)/installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[docs]"
	$(BIN)/sphinx-build -q -W -b html docs docs/_build
	$(BIN)/sphinx-build -q -W -E -a -b html -c docs -D language=zh_CN docs/zh docs/_build/zh
	@echo "docs/_build/index.html, docs/_build/zh/index.html"

clean:
	rm -rf $(VENV) .coverage build dist *.egg-info .tox docs/_build tests/browser/node_modules client/index.* client/LICENSE examples/vite-*/dist examples/vite-*/node_modules .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/tested: $(VENV)/installed tests/browser/package.json
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[test]"
	-cd tests/browser && npm install --silent --no-audit --no-fund --no-package-lock
	@touch $@
