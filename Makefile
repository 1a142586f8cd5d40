# GlassGPT's eight words. `make run` needs Python 3.11 or newer, pip and make, and nothing else.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run setup test slow check bench gallery clean

run: setup  ## install, then tell the story of the baby GPT
	$(BIN)/glassgpt tour

setup: .venv/installed  ## install GlassGPT into .venv

test: .venv/installed-dev  ## every test, on two cores in under five minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: .venv/installed-dev  ## the tests that take longer: thousands of damaged files, a gigabyte of text, hundreds of kills, the README, the page in a browser (about half an hour)
	$(BIN)/python -m pytest -q -m slow

check: .venv/installed-dev  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev  ## speed and memory beside peers (about an hour, ten minutes of it to build llama.cpp for this very machine)
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/training.py
	$(PIP) --no-cache-dir llama-cpp-python || echo "llama.cpp could not be installed (it needs a C++ compiler): the benchmark goes on without it"
	$(BIN)/python benchmarks/models.py
	-$(BIN)/python benchmarks/smollm2.py
	-$(BIN)/python benchmarks/page.py

gallery: .venv/installed-dev  ## every picture drawn anew, and docs/gallery.md (about twelve minutes)
	$(BIN)/python docs/gallery.py

clean:  ## take away what was installed and built
	rm -rf .venv out

.venv/installed: pyproject.toml constraints.txt hatch_build.py | .venv/bin/python
	@echo "installing GlassGPT into .venv (torch is the large part)"
	$(PIP) --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	@echo "installing the tools that develop and test it"
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "there is no $(PYTHON): install Python 3.11 or newer, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "GlassGPT needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1): name a newer one, as in make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv) and run make again"; exit 1; }
	@$(PYTHON) -m venv .venv
