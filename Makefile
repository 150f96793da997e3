# README repeats each target in plain commands for Windows and conda.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: course test lab results notebooks
course: .venv/ready
	$(BIN)/python tools/notebooks.py course

test: .venv/ready
	$(BIN)/python -m pytest

lab: .venv/ready
	$(BIN)/python tools/notebooks.py lab

results: .venv/ready
	$(BIN)/python tools/notebooks.py results

notebooks: .venv/ready
	$(BIN)/python tools/notebooks.py execute

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable ".[notebook,dev]"
	touch .venv/ready
