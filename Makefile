# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GUEST ?= guests/images/sudoku-armv7-a-O2.elf

.PHONY: run test test-linux long check fuzz bench bench-callouts guests linux refresh-oracle clean help

help:
	@echo "make run    set up and run a guest (GUEST=$(GUEST))"
	@echo "make test   set up and run the tests"
	@echo "make test-linux boot Linux in every tier and use it (LINUX=build/linux)"
	@echo "make long   the tests that take long, of every guest in every mode"
	@echo "make check  ruff, mypy and the import-direction test"
	@echo "make fuzz   look for differences from Unicorn and between tiers with new seeds (SECONDS=60)"
	@echo "make bench  measure beside Unicorn and, where installed, gcc's native code and QEMU (BENCH=options)"
	@echo "make bench-callouts  what sensitive operations cost, beside QEMU where it is installed"
	@echo "make guests build the guests from source (needs gcc-arm-none-eabi)"
refresh-oracle: $(VENV)/.stamp-test
	$(BIN)/python -m tests.privileged.refresh

linux: $(VENV)/.stamp-run
	$(BIN)/python tools/build_linux.py $(LINUX)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
