"""Shrinking a case that fails: it is made simpler for as long as it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from isa.arm.operands import ALWAYS
from isa.arm.state import PSR_MODE
from tests.oracle.cases.case import USER_CPSR, USER_SPSR, Case, default_register


def shrink(case: Case, fails: Callable[[Case], bool]) -> Case:
    """Return a simpler case that fails too: fewer instructions, defaults and small numbers in the state."""
    improved = True
    while improved:
        improved = False
        for candidate in _simpler(case):
            if candidate != case and fails(candidate):
                case, improved = candidate, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    yield from _simpler_code(case)
    yield from _simpler_registers(case)
    for n in range(len(case.memory)):
        yield replace(case, memory=case.memory[:n] + case.memory[n + 1 :])
    if case.spsr != USER_SPSR:
        yield replace(case, spsr=USER_SPSR)
    if case.cpsr != USER_CPSR:
        yield replace(case, cpsr=USER_CPSR)
        yield replace(case, cpsr=case.cpsr & ~PSR_MODE | USER_CPSR)
        for bit in range(6, 32):
            yield replace(case, cpsr=case.cpsr & ~(1 << bit))


def _simpler_code(case: Case) -> Iterator[Case]:
    """Yield the case without one of its instructions, or with one made unconditional."""
    for n, word in enumerate(case.code):
        before, after = case.code[:n], case.code[n + 1 :]
        if before or after:
            yield replace(case, code=before + after)
        if word >> 28 < ALWAYS:
            yield replace(case, code=(*before, word & 0x0FFFFFFF | ALWAYS << 28, *after))


def _simpler_registers(case: Case) -> Iterator[Case]:
    """Yield the case with one register that has its default, or fewer bits."""
    for number, value in enumerate(case.registers):
        if value != default_register(number):
            yield case.with_register(number, default_register(number))
            if value > 1:
                yield case.with_register(number, value & 1)
                yield case.with_register(number, value & value - 1)
