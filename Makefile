# Everything works in .venv, made here; a second time nothing is downloaded.
PYTHON ?= python3
PIP = .venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
TESTS ?= tests
JOBS ?= 2
PYTEST = .venv/bin/python -m pytest $(TESTS) -q -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run test test-all gx-suite lint type bench docs airflow airflow-stop clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: .venv/installed  ## run a real pipeline on the texts of the packages just installed
	.venv/bin/python examples/first_run.py

test: .venv/installed-test  ## the fast tests; TESTS=tests/cli for some of them, JOBS=4 for more at a time
	$(PYTEST)

test-all: .venv/installed-test  ## the slow tests too
	$(PYTEST) --slow

gx-suite: .venv/installed-test  ## Great Expectations' own tests with gristmill as the evaluator
	.venv/bin/python tests/validators/gx_suite/run.py

lint: .venv/installed-test  ## ruff, and the format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

type: .venv/installed-test  ## mypy, strict
	@rm -rf build/typed && mkdir -p build/typed/gristmill
	@ln -s $(CURDIR)/gristmill/* $(foreach folder,augment pipelines storage validators,$(CURDIR)/$(folder)) build/typed/gristmill/
	MYPYPATH=build/typed .venv/bin/mypy -p gristmill

bench: .venv/installed-test  ## the benchmarks; prints tables
	.venv/bin/python benchmarks/run_all.py

docs: .venv/installed  ## write the JSON Schema of pipeline files
	.venv/bin/gristmill schema > docs/pipeline.schema.json

airflow: .venv/installed-airflow  ## a local Airflow with the DAGs on example data; prints address and login
	.venv/bin/python -m gristmill.airflow.local start

airflow-stop:  ## stop it; its folder .airflow stays
	.venv/bin/python -m gristmill.airflow.local stop

clean:  ## remove what was made here
	rm -rf .venv build dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gristmill needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "Python's venv module is missing; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv: some minutes the first time"
	@$(PIP) -e . || { echo "could not install; the first time this needs the Python package index" >&2; exit 2; }
	.venv/bin/python -m gristmill.kernels.warm
	@touch $@

.venv/installed-test: .venv/installed
	@echo "installing the test packages: some minutes the first time"
	@$(PIP) -e '.[test]' || { echo "could not install the test packages; the first time this needs the Python package index" >&2; exit 2; }
	@touch $@

.venv/installed-airflow: .venv/installed
	@echo "installing Airflow: some minutes the first time"
	@$(PIP) -e '.[airflow,validate,torch]' || { echo "could not install Airflow; the first time this needs the Python package index" >&2; exit 2; }
	@touch $@
