# Two commands on a fresh machine (git, make, python3 >= 3.11 with venv): make demo, make test.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Byte-code of the environment saves Ray seconds per process; never switch it off here.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-fast test-faults test-cluster test-images check docs pins clean

demo: $(READY)
	$(BIN)/tapray demo

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet --site-dir build/site
	$(BIN)/python -m pytest

test-fast: $(READY)  ## without Ray, MLflow and whole jobs
	$(BIN)/python -m pytest -m "not slow"

test-faults: $(READY)  ## what dies while pretraining or a study goes on costs nothing; a full disk needs root
	$(BIN)/python -m benchmarks.faults
	$(BIN)/python -m benchmarks.study_faults

test-cluster: $(READY)  ## machines, links and services of a cluster die; needs root, names the packages it needs
	$(BIN)/python -m benchmarks.cluster_faults

test-images:  ## the images, built by buildah; as root
	docker/prove.sh

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/mkdocs build --strict --site-dir build/site

# Pins anew from pyproject.toml, in an environment of its own.
pins:
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/pip install --quiet . --group dev "setuptools>=77"
	( sed -n '1,2p' requirements.txt; build/pins/bin/pip freeze --all --exclude pip --exclude tapray | sed 's/+cpu//' ) > build/requirements.txt
	mv build/requirements.txt requirements.txt

clean:
	rm -rf build $(VENV)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "tapray needs python3 >= 3.11 with venv; name another with make PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(READY)
