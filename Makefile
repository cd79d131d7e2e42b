# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GUEST ?= guests/images/sudoku-armv7-a-O2.elf

# The tests start hundreds of commands, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-linux long mutants timing check fuzz bench bench-real bench-callouts bench-trace bench-state bench-io bench-vms bench-containers bench-pv bench-migration guests linux virt debian programs images test-virt refresh-oracle refresh-docker docs clean help

help:
	@echo "make run    set up and run a guest (GUEST=$(GUEST))"
	@echo "make test   set up and run the tests"
	@echo "make test-linux boot Linux in every tier and use it (LINUX=build/linux)"
	@echo "make long   the tests that take long: guests in every mode, mutated snapshots, CONTRIBUTING.md's commands"
	@echo "make mutants make the translator wrong on purpose, and see whether the tests notice"
	@echo "make timing how long things take that somebody waits for (on an idle machine)"
	@echo "make check  ruff, mypy, the import-direction test and the documentation site"
	@echo "make docs   build the documentation site into build/docs"
	@echo "make fuzz   look for differences from Unicorn and between tiers with new seeds (SECONDS=60), run 200,000 cases in stitched code, and make 10^6 hypercalls and requests in rings of Xen"
	@echo "make bench  measure beside Unicorn and, where installed, gcc's native code and QEMU (BENCH=options)"
	@echo "make bench-real  measure real programs beside QEMU, and inside Linux (BENCH=options)"
	@echo "make bench-callouts  what sensitive operations cost, beside QEMU where it is installed"
	@echo "make bench-trace  what recording a translation trace costs"
	@echo "make bench-state  what saving, forking and going back cost (BENCH='--linux build/linux')"
	@echo "make bench-vms  what many machines in one host cost (BENCH='--images build/virt')"
	@echo "make bench-containers  what containers cost, beside dockerd and qemu-arm (IMAGES=build/images)"
	@echo "make bench-io  disks, networks, shared directories, consoles and booting beside QEMU (BENCH='--images DIR')"
	@echo "make bench-pv  a kernel in user mode, the same with privilege, and QEMU: system calls, events; Linux' disk, network"
	@echo "make bench-migration  how long a Linux stands still that is moved to another process (VIRT=build/virt)"
	@echo "make guests build the guests from source (needs gcc-arm-none-eabi)"
	@echo "make linux  build the Linux for test-linux from Debian's sources (ten minutes; docs/linux.md)"
	@echo "make virt   fetch Debian's kernel for the board virt, and make a disk for it (a minute; docs/virt.md)"
	@echo "make debian make a disk with a Debian for armel, for the board virt (two minutes; needs mmdebstrap)"
	@echo "make programs  fetch a hundred programs of Debian for armel, which tests/programs runs (a minute; needs mmdebstrap)"
	@echo "make images  make archives of busybox and of a Debian for containers (a minute; needs mmdebstrap)"
	@echo "make test-virt boot both, and compare with QEMU (VIRT=build/virt)"
	@echo "make refresh-oracle  ask QEMU again what the tests in tests/oracle compare with (needs qemu-system-arm)"
	@echo "make refresh-docker  ask a dockerd again what the tests of containers compare with (as root; needs docker.io)"
	@echo "make clean  remove the virtual environment and caches"

# One stamp for each set of dependencies, remade when pyproject.toml changes.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dbt needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.stamp-run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.stamp-test: pyproject.toml $(VENV)/.stamp-run
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml $(VENV)/.stamp-test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

$(VENV)/.stamp-docs: pyproject.toml $(VENV)/.stamp-run
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs]'
	@touch $@

run: $(VENV)/.stamp-run
	$(BIN)/dbt run $(GUEST)

# One worker more than there are processors, because many tests wait for other processes. Each has a part of the suite
# from one end to the other, and takes from the others when it is done, so that what a module's tests share is made once.
PYTEST = $(BIN)/python -m pytest -n $$(($$(nproc) + 1)) --dist worksteal
test: $(VENV)/.stamp-test
	$(PYTEST) tests

LINUX ?= build/linux
IMAGES ?= build/images
test-linux: $(VENV)/.stamp-test
	DBT_LINUX_IMAGES=$(abspath $(LINUX)) $(PYTEST) -rs tests/linux

# All tests that have a long form.
long: $(VENV)/.stamp-dev
	DBT_LONG_TESTS=1 $(PYTEST) $$(grep -rl --include='test_*.py' 'from tests.long import' tests)

# Neither are test modules by their names, so that only these targets collect them.
timing: $(VENV)/.stamp-test
	$(BIN)/python -m pytest -o python_files='measure_*.py' tests/timing

mutants: $(VENV)/.stamp-test
	$(PYTEST) -o python_files='mutate_*.py' tests/mutants

# Strict: a warning, as of a link that leads nowhere, is an error.
BUILD_DOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
docs: $(VENV)/.stamp-docs
	$(BUILD_DOCS)

check: $(VENV)/.stamp-dev $(VENV)/.stamp-docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_imports.py
	$(BUILD_DOCS)

SECONDS ?= 60
fuzz: $(VENV)/.stamp-test
	$(BIN)/python -m tests.oracle.fuzz --seconds $(SECONDS)
	$(BIN)/python -m tests.oracle.fuzz --stitched 200000
	$(BIN)/python -m tests.xen.fuzz --count 1000000
	$(BIN)/python -m tests.xen.fuzz_rings --count 1000000
	$(BIN)/python -m tests.xen.fuzz_states --count 20000

BENCH ?=
bench: $(VENV)/.stamp-test
	$(BIN)/python tools/bench.py $(BENCH)

bench-real: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_real.py $(BENCH)

bench-callouts: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_callouts.py $(BENCH)

bench-trace: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_trace.py $(BENCH)

bench-state: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_state.py $(BENCH)

bench-io: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_io.py $(BENCH)

bench-vms: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_vms.py $(BENCH)

bench-containers: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_containers.py --images $(IMAGES) $(BENCH)

bench-pv: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_pv.py $(BENCH)

bench-migration: $(VENV)/.stamp-run
	$(BIN)/python tools/bench_migration.py $(VIRT) $(BENCH)

guests: $(VENV)/.stamp-run
	$(MAKE) -C guests PYTHON=$(abspath $(BIN))/python

refresh-oracle: $(VENV)/.stamp-test
	$(BIN)/python -m tests.oracle.privileged.refresh
	$(BIN)/python -m tests.oracle.coprocessors.refresh

refresh-docker: $(VENV)/.stamp-test
	DBT_CONTAINER_IMAGES=$(abspath $(IMAGES)) $(BIN)/python -m tests.containers.golden.refresh

linux: $(VENV)/.stamp-run
	$(BIN)/python tools/build_linux.py $(LINUX)

VIRT ?= build/virt
virt: $(VENV)/.stamp-run
	$(BIN)/python tools/build_virt.py $(VIRT)

debian: virt
	$(BIN)/python tools/build_debian.py $(VIRT)

PROGRAMS ?= build/programs
programs: $(VENV)/.stamp-run
	$(BIN)/python tools/build_programs.py $(PROGRAMS)

images: $(VENV)/.stamp-run
	$(BIN)/python tools/build_images.py $(IMAGES)

test-virt: $(VENV)/.stamp-test
	DBT_VIRT_IMAGES=$(abspath $(VIRT)) $(PYTEST) -rs tests/linux/test_virt_like_qemu.py tests/linux/test_virt_linux.py tests/linux/test_virt_network.py tests/linux/test_xen_linux.py tests/linux/test_xen_devices.py tests/linux/test_saved_devices.py tests/linux/test_linux_cluster.py tests/linux/test_moved_linux.py tests/linux/test_debian.py

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
