# One environment for everything, in .venv, made when first needed. `make help` lists what there is.

PYTHON ?= python3
TRAIN ?=
BIN := .venv/bin
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fleet test-slow android lint bench docs dist proto clean

# Slow tests take minutes; the others named here need something that not every machine has.
QUICK := not slow and not long and not fleet and not netns and not android and not browser
FLEET := (fleet or fault) and not netns and not soak and not slow and not android and not browser
# These wait for minutes, on a network or in a fleet of their own: they run beside the others.
BESIDE := (netns or soak) and not slow and not android and not browser
SLOW := slow and not netns and not android and not browser
# Beside the build a test that takes a minute is too much: .venv/bin/pytest -m 'android and long' runs it.
ANDROID := android and not slow and not long

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: .venv/export.stamp  ## Split a ViT over three device processes and classify with them (TRAIN=1 trains the teacher)
	$(BIN)/edvit-tf demo $(if $(filter-out 0,$(TRAIN)),--train)

test: lint  ## Lint, types, walls and every test that takes seconds
	$(BIN)/pytest -m "$(QUICK)"

test-slow: .venv/dev.stamp  ## The tests that take minutes
	$(BIN)/pytest -m "$(SLOW)"

test-fleet: .venv/dev.stamp  ## Devices as processes, and what breaks them: power, network, disk (some minutes)
	@mkdir -p build
	@$(BIN)/pytest -m "$(BESIDE)" --durations=10 > build/test-beside.log 2>&1 & beside=$$!; failed=0; \
	$(BIN)/pytest -m "$(FLEET)" --durations=25 || failed=1; \
	wait $$beside || failed=1; cat build/test-beside.log; exit $$failed

android: .venv/dev.stamp  ## Build and test the agent for phones on a Java virtual machine, also in a fleet (some minutes)
	@command -v mvn > /dev/null && javac -version 2> /dev/null | grep -qE ' (1[7-9]|[2-9][0-9])' \
	  || { echo "This needs Maven and a JDK of version 17 or newer: run 'sudo apt install maven openjdk-17-jdk-headless'."; exit 1; }
	mvn --batch-mode --no-transfer-progress --file android_bridge/pom.xml clean verify
	$(BIN)/pytest -m "$(ANDROID)"

lint: .venv/dev.stamp  ## Style, types, and the walls between the rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/export.stamp  ## Measure every flatbuffer of the demo's bundle on this machine
	@test -d build/demo/bundle || { echo "There is no bundle to measure yet: run 'make demo' first."; exit 1; }
	$(BIN)/edvit-tf benchmark build/demo/bundle

docs: .venv/dev.stamp  ## Check that every link leads somewhere and every command in the documents exists
	$(BIN)/pytest tests/test_docs.py

dist: .venv/dev.stamp  ## Build the source archive and, from it, the wheel
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	@ls -l dist

proto: .venv/dev.stamp  ## Generate the protocol's Python from edvit.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. --grpc_python_out=. edvit_tf/rpc/edvit.proto

clean:  ## Remove everything that was made here, .venv too
	rm -rf .venv build dist android_bridge/*/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "edvit-tf needs Python 3.11 or newer: name one, for example 'make PYTHON=python3.11'."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
	  || { echo "Python's venv module is not complete: run 'sudo apt install python3-venv', then make again."; exit 1; }
	@echo "Making .venv with $$($(PYTHON) --version)."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip

.venv/export.stamp: .venv/bin/pip setup.cfg pyproject.toml constraints.txt
	@echo "Installing edvit-tf[export] in the versions of constraints.txt: TensorFlow and its company, some minutes."
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[export]'
	@touch $@

.venv/dev.stamp: .venv/export.stamp
	@echo "Installing the tools for tests: pytest, mypy, ruff, import-linter."
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[export,sound,serve,cluster,dev]'
	@touch $@
