"""The system control coprocessor: one table of registers, and the rules of reading and writing them.

A register is a word of the state, a constant, or an operation without effect. Whatever has no row is
an undefined instruction, and so is a register that user mode may not access, from user mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dbt.runtime.cpu import CpuState
from dbt.runtime.exits import LeaveGuest, Undefined, Unsupported, WaitForInterrupt
from isa.state import SCTLR_A, Mode

READ, WRITE = "r", "w"

SCTLR_M = 1 << 0
SCTLR_V = 1 << 13
SCTLR_EE = 1 << 25
SCTLR_TE = 1 << 30
SCTLR_ONES = 0x00C50078  # read as one on ARMv7 (B4.1.130)
SCTLR_KEPT = SCTLR_A | SCTLR_V | 1 << 2 | 7 << 10 | 1 << 14 | 1 << 17 | 3 << 28  # C, SW Z I, RR, HA, TRE AFE
REFUSED = {
    SCTLR_M: "the MMU (SCTLR.M)",
    SCTLR_EE: "big-endian exception handlers (SCTLR.EE)",
    SCTLR_TE: "Thumb exception handlers (SCTLR.TE)",
}


@dataclass(frozen=True, slots=True)
class Register:
    """``word``: what holds it, of which ``writable`` bits change; ``value``: bits that are one besides.

    ``access`` is what privileged code may do, ``user`` what user mode may. A register without a word
    ignores what is written.
    """

    name: str
    word: str = ""
    value: int = 0
    writable: int = 0xFFFFFFFF
    access: str = READ + WRITE
    user: str = ""


Place = tuple[int, int, int, int]  # opc1, CRn, CRm, opc2


def _constant(name: str, value: int) -> Register:
    return Register(name, value=value, access=READ)


def _operation(name: str, user: str = "") -> Register:
    return Register(name, access=WRITE, user=user)


# Caches, branch predictors and TLBs are not there to be maintained: CRm to the values of opc2.
_CACHE_OPERATIONS: Mapping[int, tuple[int, ...]] = {
    1: (0, 6), 5: (0, 1, 2, 6, 7), 6: (0, 1, 2), 7: (0, 1), 10: (0, 1, 2), 11: (0, 1), 13: (1,), 14: (0, 1, 2),
}  # fmt: skip
_TLB_OPERATIONS: Mapping[int, tuple[int, ...]] = {3: (0, 1, 2, 3), 5: (0, 1, 2), 6: (0, 1, 2), 7: (0, 1, 2, 3)}
_WAIT: Place = (0, 7, 0, 4)
_SCTLR: Place = (0, 1, 0, 0)
_TEST_AND_CLEAN = 1 << 30  # into the Z flag with Rt = PC: the cache is clean

REGISTERS: Mapping[Place, Register] = {
    # Identification. choice: midr
    (0, 0, 0, 0): _constant("MIDR", 0x000FDB00),
    (0, 0, 0, 1): _constant("CTR", 0x80048004),  # lines of 16 words
    (0, 0, 0, 2): _constant("TCMTR", 0),
    (0, 0, 0, 3): _constant("TLBTR", 0),
    (0, 0, 0, 5): _constant("MPIDR", 0xC0000000),  # a uniprocessor
    (0, 0, 0, 6): _constant("REVIDR", 0),
    (0, 0, 1, 0): _constant("ID_PFR0", 0x00000001),  # A32, no Thumb
    (0, 0, 1, 1): _constant("ID_PFR1", 0x00000001),
    (0, 0, 1, 2): _constant("ID_DFR0", 0),
    (0, 0, 1, 3): _constant("ID_AFR0", 0),
    (0, 0, 1, 4): _constant("ID_MMFR0", 0x00000003),  # VMSAv7
    (0, 0, 1, 5): _constant("ID_MMFR1", 0),
    (0, 0, 1, 6): _constant("ID_MMFR2", 0x01200000),  # WFI stalls, DSB DMB ISB
    (0, 0, 1, 7): _constant("ID_MMFR3", 0),
    (0, 0, 2, 0): _constant("ID_ISAR0", 0x02100111),
    (0, 0, 2, 1): _constant("ID_ISAR1", 0x13102110),
    (0, 0, 2, 2): _constant("ID_ISAR2", 0x21232041),
    (0, 0, 2, 3): _constant("ID_ISAR3", 0x01002131),
    (0, 0, 2, 4): _constant("ID_ISAR4", 0x00010142),
    (0, 0, 2, 5): _constant("ID_ISAR5", 0),
    (1, 0, 0, 0): _constant("CCSIDR", 0),
    (1, 0, 0, 1): _constant("CLIDR", 0),  # no caches, so that loops over their sets end at once
    (1, 0, 0, 7): _constant("AIDR", 0),
    (2, 0, 0, 0): Register("CSSELR", writable=0),
    # Control
    _SCTLR: Register("SCTLR", "sctlr", SCTLR_ONES, SCTLR_KEPT),
    (0, 1, 0, 1): Register("ACTLR", writable=0),
    (0, 1, 0, 2): Register("CPACR", "cpacr", writable=0),  # there are no coprocessors to enable
    # Memory management: kept for the guest, without effect while the MMU is off
    (0, 2, 0, 0): Register("TTBR0", "ttbr0"),
    (0, 2, 0, 1): Register("TTBR1", "ttbr1"),
    (0, 2, 0, 2): Register("TTBCR", "ttbcr", writable=0b110111),
    (0, 3, 0, 0): Register("DACR", "dacr"),
    (0, 5, 0, 0): Register("DFSR", "dfsr"),
    (0, 5, 0, 1): Register("IFSR", "ifsr"),
    (0, 5, 1, 0): Register("ADFSR", writable=0),
    (0, 5, 1, 1): Register("AIFSR", writable=0),
    (0, 6, 0, 0): Register("DFAR", "dfar"),
    (0, 6, 0, 2): Register("IFAR", "ifar"),
    # Maintenance and barriers
    **{(0, 7, crm, op): _operation("cache operation") for crm, ops in _CACHE_OPERATIONS.items() for op in ops},
    **{(0, 8, crm, op): _operation("TLB operation") for crm, ops in _TLB_OPERATIONS.items() for op in ops},
    _WAIT: _operation("wait for interrupt"),
    (0, 7, 5, 4): _operation("CP15ISB", user=WRITE),
    (0, 7, 10, 4): _operation("CP15DSB", user=WRITE),
    (0, 7, 10, 5): _operation("CP15DMB", user=WRITE),
    (0, 7, 10, 3): _constant("test and clean", _TEST_AND_CLEAN),
    (0, 7, 14, 3): _constant("test, clean and invalidate", _TEST_AND_CLEAN),
    # Vectors, context and threads
    (0, 12, 0, 0): Register("VBAR", "vbar", writable=0xFFFFFFE0),
    (0, 12, 1, 0): _constant("ISR", 0),
    (0, 13, 0, 0): Register("FCSEIDR", writable=0),
    (0, 13, 0, 1): Register("CONTEXTIDR", "contextidr"),
    (0, 13, 0, 2): Register("TPIDRURW", "tpidrurw", user=READ + WRITE),
    (0, 13, 0, 3): Register("TPIDRURO", "tpidruro", user=READ),
    (0, 13, 0, 4): Register("TPIDRPRW", "tpidrprw"),
}


def _find(cpu: CpuState, pc: int, place: Place, access: str) -> Register:
    register = REGISTERS.get(place)
    if register is None or access not in (register.user if cpu.mode == Mode.USER else register.access):
        raise LeaveGuest(Undefined(pc))
    return register


def read_register(cpu: CpuState, pc: int, place: Place) -> int:
    """MRC; LeaveGuest with Undefined if there is no such register or it may not be read."""
    register = _find(cpu, pc, place, READ)
    return register.value | (cpu[register.word] if register.word else 0)


def write_register(cpu: CpuState, pc: int, place: Place, value: int) -> None:
    """MCR; LeaveGuest with Undefined as above, with Unsupported for what this version cannot do."""
    register = _find(cpu, pc, place, WRITE)
    if place == _WAIT:
        raise LeaveGuest(WaitForInterrupt(pc))
    if place == _SCTLR:
        for bit, what in REFUSED.items():
            if value & bit:
                raise LeaveGuest(Unsupported(pc, what))
    if register.word:
        cpu[register.word] = cpu[register.word] & ~register.writable | value & register.writable
