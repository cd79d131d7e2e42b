"""The programs, each a module with ``steps(cpu)`` and the CPUs that it is for."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import ModuleType

from tests.oracle.privileged.layout import CPUS
from tests.oracle.privileged.program import Program
from tests.oracle.privileged.programs import (
    contexts,
    cp15,
    entry,
    faults,
    fetches,
    interrupts,
    modes,
    new_tables,
    old_tables,
    returns,
    status,
    user_registers,
    warm,
)

_MODULES: tuple[ModuleType, ...] = (
    modes,
    status,
    entry,
    returns,
    user_registers,
    old_tables,
    new_tables,
    warm,
    faults,
    fetches,
    interrupts,
    contexts,
    cp15,
)
_BY_NAME = {module.__name__.rpartition(".")[2]: module for module in _MODULES}

#: (CPU, program)
PROGRAMS = [(cpu.name, name) for cpu in CPUS.values() for name, module in _BY_NAME.items() if module.steps(cpu)]
_EXPECTED = Path(__file__).resolve().parent.parent / "expected"


@lru_cache(maxsize=4)
def make_program(cpu: str, name: str) -> Program:
    module = _BY_NAME[name]
    return Program(name, CPUS[cpu], module.steps(CPUS[cpu]))


def expected_file(cpu: str, name: str) -> Path:
    return _EXPECTED / cpu / f"{name}.txt"
