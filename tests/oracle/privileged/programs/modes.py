"""Changing the mode: which registers are seen, and which keep what was written to them."""

from __future__ import annotations

from tests.oracle.privileged.layout import EXCEPTION_MODES, MODES, PRIVILEGED, Cpu
from tests.oracle.privileged.program import PSR_F, PSR_I, Step

_MASKED = PSR_I | PSR_F


def steps(cpu: Cpu) -> list[Step]:
    found = []
    for old in MODES:
        for new, number in MODES.items():
            to_new, to_old = (f"msr cpsr_c, #{_MASKED | mode:#x}" for mode in (number, MODES[old]))
            found.append(Step(f"{old} to {new}", to_new, old))
            found.append(Step(f"{old} to {new}, register", "msr cpsr_c, r0", old, state={"r0": _MASKED | number}))
            if old == "usr" or new == "usr":
                continue
            writes = "mov r8, #1\nmov r12, #2\nmov sp, #3\nmov lr, #4\nmov r1, #0x13\n"
            if new in EXCEPTION_MODES:
                writes += "msr spsr_cxsf, r1\n"
            found.append(Step(f"{old} to {new} and back", f"{to_new}\n{writes}{to_old}", old))
            if cpu.arch >= 6:
                found.append(Step(f"{old} by cps to {new} and back", f"cps #{number}\n{writes}cps #{MODES[old]}", old))
    if cpu.arch >= 6:
        found += [Step(f"{old} by cps to {new}", f"cps #{MODES[new]}", old) for old in MODES for new in MODES]
        found += [
            Step(f"{old} by cpsid to {new}", f"cpsid if, #{MODES[new]}", old, masks=0) for old in MODES for new in MODES
        ]
    found += [
        Step(f"{old}: no such mode {number:#x}", f"msr cpsr_c, #{_MASKED | number:#x}", old)
        for old in PRIVILEGED
        for number in (0x14, 0x15, 0x18, 0x1C, 0x1E)
    ]
    return found
