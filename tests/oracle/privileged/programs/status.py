"""MSR, MRS and CPS: which bits each may change, in which mode, and who may read them."""

from __future__ import annotations

from tests.oracle.privileged.layout import EXCEPTION_MODES, MODES, Cpu
from tests.oracle.privileged.program import PSR_A, PSR_F, PSR_I, Step

_FLAGS = {5: 0xF8000000, 6: 0xF80F0000, 7: 0xF80F0000}  # N Z C V Q and GE
_MASKS = {5: PSR_I | PSR_F, 6: PSR_A | PSR_I | PSR_F, 7: PSR_A | PSR_I | PSR_F}
_FIELDS = "cxsf"


def _fields(mask: int) -> str:
    return "".join(letter for bit, letter in enumerate(_FIELDS) if mask >> bit & 1)


def _cpsr(cpu: Cpu) -> list[Step]:
    found = []
    for mode, number in MODES.items():
        found.append(Step(f"{mode}: mrs cpsr", "mrs r0, cpsr", mode, flags=_FLAGS[cpu.arch]))
        for mask in range(1, 16):
            code = f"msr cpsr_{_fields(mask)}, r0\nmrs r1, cpsr"
            ones, zeros = _FLAGS[cpu.arch] | _MASKS[cpu.arch] | number, number
            found.append(Step(f"{mode}: set cpsr_{_fields(mask)}", code, mode, masks=0, state={"r0": ones}))
            found.append(
                Step(
                    f"{mode}: clear cpsr_{_fields(mask)}", code, mode, _MASKS[cpu.arch], _FLAGS[cpu.arch], {"r0": zeros}
                )
            )
        for text in (
            "f, #0xf0000000",
            "f, #0x80000000",
            "f, #0",
            *(("s, #0xf0000", "sf, #0") if cpu.arch >= 6 else ()),
        ):
            found.append(Step(f"{mode}: msr cpsr_{text}", f"msr cpsr_{text}", mode, flags=_FLAGS[cpu.arch]))
        for condition in ("eq", "ne"):
            found.append(Step(f"{mode}: msr{condition}", f"msr{condition} cpsr_c, #0xd1", mode))
    return found


def _spsr(cpu: Cpu) -> list[Step]:
    found = []
    for mode in EXCEPTION_MODES:
        found.append(Step(f"{mode}: mrs spsr", "mrs r0, spsr", mode))
        for mask in range(1, 16):
            fields = _fields(mask)
            ones = _FLAGS[cpu.arch] | _MASKS[cpu.arch] | MODES["sys"]
            for verb, value, old in (("set", ones, 0), ("clear", 0, ones)):
                code = f"msr spsr_{fields}, r0\nmrs r1, spsr"
                found.append(Step(f"{mode}: {verb} spsr_{fields}", code, mode, state={"r0": value, "spsr": old}))
        found.append(Step(f"{mode}: msr spsr_cf, #0x93", "msr spsr_cf, #0x93", mode))
        found.append(Step(f"{mode}: any mode in the spsr", "msr spsr_c, #0x1e", mode))
    found += [
        Step(f"usr: {code}", code, "usr") for code in ("mrs r0, spsr", "msr spsr_cxsf, r0", "msr spsr_f, #0xf0000000")
    ]
    return found


def _cps() -> list[Step]:
    found = []
    every = PSR_A | PSR_I | PSR_F
    for mode in MODES:
        for letters in ("a", "i", "f", "ai", "af", "if", "aif"):
            found.append(Step(f"{mode}: cpsie {letters}", f"cpsie {letters}", mode, every))
            found.append(Step(f"{mode}: cpsid {letters}", f"cpsid {letters}", mode, 0))
        for number in ("fiq", "und", "sys"):
            code = f"cpsie aif, #{MODES[number]}"
            found.append(Step(f"{mode}: cpsie aif to {number}", code, mode, every))
    return found


def steps(cpu: Cpu) -> list[Step]:
    return _cpsr(cpu) + _spsr(cpu) + (_cps() if cpu.arch >= 6 else [])
