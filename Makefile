# README repeats each target in plain commands for Windows and conda.
PYTHON ?= python3
BIN = .venv/bin

# The folder and the version of Python that .venv was made for, and those that are wanted: without PYTHON=... its own.
VERSION = -c 'import sys; print(*sys.version_info[:2])'
MADE := $(shell cat .venv/ready 2>/dev/null)
WANTED := $(shell pwd -P; $(BIN)/python $(VERSION) 2>/dev/null || true)
ifneq "$(origin PYTHON)" "file"
WANTED := $(shell pwd -P; $(PYTHON) $(VERSION) || true)
endif

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

ifneq "$(MADE)" "$(WANTED)"
.PHONY: .venv/ready
CLEAR = --clear
endif
.venv/ready: pyproject.toml
	$(PYTHON) -m venv $(CLEAR) .venv
	$(BIN)/python -m pip install --editable ".[notebook,dev]"
	(pwd -P; $(BIN)/python $(VERSION)) > .venv/ready
