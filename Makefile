# make demo       adapt a digit classifier, compare, report, export (8 minutes)
# make demo-full  the same with the upper bound, trained on target labels
# make test       the test suite
# make test-all   the slow tests too (processes killed)
# make lint       ruff: rules and format
# make format     rewrites the files in the house's format
#
# PYTHON=python3.10 make demo  chooses the Python that .venv is made with.

PYTHON ?= python3
RUN = .venv/bin/python
# Two processes at a time; the tests of a file share what they have made.
TEST = $(RUN) -m pytest --numprocesses=2 --dist=loadfile

.PHONY: demo demo-full test test-all lint format

demo: .venv/installed
	$(RUN) -m tools.demo

demo-full: .venv/installed
	$(RUN) -m tools.demo --full

test: .venv/installed
	$(TEST)

test-all: .venv/installed
	$(TEST) -m 'slow or not slow'

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/installed
	.venv/bin/ruff format .

.venv/installed: requirements.txt requirements-dev.txt
	@PYTHON=$(PYTHON) sh tools/make_venv.sh
	@touch $@
