"""The guest's architectural state: one declarative layout of 32-bit words.

Every consumer addresses the state by this layout: the evaluator by word index, native code by byte
offset, snapshots and state hashes by the bytes themselves. Registers ``r`` are those of the current
mode; the banks hold those of the others. ``r[15]`` is the address of the next instruction whenever
the guest is stopped, and scratch while it runs. The flags are words of their own, each 0 or 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from isa.ir.layout import StateLayout


class Mode(IntEnum):
    """CPSR.M (ARM ARM B1.3.1)."""

    USER = 0b10000
    FIQ = 0b10001
    IRQ = 0b10010
    SUPERVISOR = 0b10011
    ABORT = 0b10111
    UNDEFINED = 0b11011
    SYSTEM = 0b11111


#: Mode to the number of its bank of R13, R14 and SPSR. User and system mode share bank 0.
BANKS: Mapping[int, int] = {
    Mode.USER: 0,
    Mode.SYSTEM: 0,
    Mode.FIQ: 1,
    Mode.IRQ: 2,
    Mode.SUPERVISOR: 3,
    Mode.ABORT: 4,
    Mode.UNDEFINED: 5,
}
BANK_COUNT = 6

# Bits of the CPSR that the word ``psr`` holds; the others (N Z C V Q GE) have words of their own.
PSR_T = 1 << 5
PSR_F = 1 << 6
PSR_I = 1 << 7
PSR_A = 1 << 8
PSR_E = 1 << 9
PSR_MODE = 0x1F
PSR_KEPT = PSR_MODE | PSR_T | PSR_F | PSR_I | PSR_A | PSR_E


SCTLR_M = 1 << 0  # the MMU is on
SCTLR_A = 1 << 1  # every access must be aligned
SCTLR_B = 1 << 7  # big-endian, up to ARMv5
SCTLR_V = 1 << 13  # the vectors are at 0xFFFF0000
SCTLR_XP = 1 << 23  # descriptors of ARMv6, without subpages
SCTLR_EE = 1 << 25  # exception handlers are big-endian
SCTLR_AFE = 1 << 29  # AP[0] is the access flag
SCTLR_TE = 1 << 30  # exception handlers are in Thumb


class Architecture(IntEnum):
    """The versions of the architecture that processors have, as the word ``architecture`` of the state.

    A word is an instruction of all versions from its first one on. A register of a coprocessor can end with a version.
    """

    V5 = 5
    V6 = 6
    V7 = 7
    ANY = 8  # ARMv4 to ARMv7 with everything that is implemented, as no processor has it
    V7VE = 9  # ARMv7 as since the Virtualization Extensions: the generic timer, more of CP15, and CP14


#: Identification registers that differ from processor to processor, as words of the state.
IDENTIFICATION = (
    "MIDR", "CTR", "TCMTR", "TLBTR", "MPIDR",
    "ID_PFR0", "ID_PFR1", "ID_DFR0", "ID_AFR0", "ID_MMFR0", "ID_MMFR1", "ID_MMFR2", "ID_MMFR3",
    "ID_ISAR0", "ID_ISAR1", "ID_ISAR2", "ID_ISAR3", "ID_ISAR4", "ID_ISAR5", "CLIDR",
)  # fmt: skip

#: The breakpoints and watchpoints of the debug architecture, by DBGDIDR.
BREAKPOINTS, WATCHPOINTS = 6, 4

_WORDS: tuple[tuple[str, int, str], ...] = (
    ("r", 16, "registers of the current mode; r[15] as described above"),
    ("n", 1, "CPSR.N"),
    ("z", 1, "CPSR.Z"),
    ("c", 1, "CPSR.C"),
    ("v", 1, "CPSR.V"),
    ("q", 1, "CPSR.Q, sticky saturation"),
    ("ge", 1, "CPSR.GE, four bits"),
    ("psr", 1, "the rest of the CPSR: M, T, F, I, A, E"),
    ("bank_r8", 5, "R8 to R12 of FIQ mode, or of the others while in FIQ mode"),
    ("bank_r13", BANK_COUNT, "R13 of each bank; stale for the current one"),
    ("bank_r14", BANK_COUNT, "R14 of each bank; stale for the current one"),
    ("spsr", BANK_COUNT, "SPSR of each bank; bank 0 has none"),
    ("exclusive", 1, "1: the local monitor is in the Exclusive Access state"),
    ("exclusive_address", 1, "the address it watches"),
    ("sctlr", 1, "CP15 c1: system control"),
    ("vbar", 1, "CP15 c12: vector base address"),
    ("dfsr", 1, "CP15 c5: data fault status"),
    ("dfar", 1, "CP15 c6: data fault address"),
    ("ifsr", 1, "CP15 c5: instruction fault status"),
    ("ifar", 1, "CP15 c6: instruction fault address"),
    ("ttbr0", 1, "CP15 c2"),
    ("ttbr1", 1, "CP15 c2"),
    ("ttbcr", 1, "CP15 c2"),
    ("dacr", 1, "CP15 c3: domain access control"),
    ("contextidr", 1, "CP15 c13: context ID"),
    ("tpidrurw", 1, "CP15 c13: thread ID, user read/write"),
    ("tpidruro", 1, "CP15 c13: thread ID, user read-only"),
    ("tpidrprw", 1, "CP15 c13: thread ID, privileged"),
    ("cpacr", 1, "CP15 c1: coprocessor access"),
    ("actlr", 1, "CP15 c1: auxiliary control"),
    ("par", 1, "CP15 c7: where an address that was asked for goes"),
    ("fcseidr", 1, "CP15 c13: what is added to addresses below 32 MB"),
    ("csselr", 1, "CP15 c0: which cache CCSIDR is about"),
    ("architecture", 1, "version of the architecture: an Architecture"),
    ("sctlr_writable", 1, "bits of SCTLR that this processor can change"),
    *((name.lower(), 1, f"CP15 c0: {name}") for name in IDENTIFICATION),
    ("ccsidr", 4, "CP15 c0: what CCSIDR reads as, by CSSELR"),
)
#: What only processors of the version V7VE have.
_WORDS_OF_V7VE: tuple[tuple[str, int, str], ...] = (
    ("prrr", 1, "CP15 c10: primary region remap"),
    ("nmrr", 1, "CP15 c10: normal memory remap"),
    ("cntfrq", 1, "CP15 c14: frequency of the generic timer as firmware has written it down"),
    ("cntkctl", 1, "CP15 c14: what user mode may access of the generic timer"),
    ("pmcr", 1, "CP15 c9: what PMCR says of the performance monitors, among that how many event counters there are"),
    ("pmselr", 1, "CP15 c9: which event counter is selected"),
    ("pmuser", 1, "CP15 c9: PMUSERENR, whether user mode may use the performance monitors"),
    ("cbar", 1, "CP15 c15: base of the private peripherals"),
    ("l2ctlr", 1, "CP15 c9: L2 control"),
    ("dbgdidr", 1, "CP14 c0: debug ID"),
    ("dbgdevid", 3, "CP14 c7: debug device ID, 1 and 2 after it"),
    ("dbgdscr", 1, "CP14 c0: debug status and control"),
    ("dbgoslsr", 1, "CP14 c1: the debug registers' lock"),
    ("dbgosdlr", 1, "CP14 c1: their double lock"),
    ("dbgbvr", BREAKPOINTS, "CP14 c0: breakpoint values"),
    ("dbgbcr", BREAKPOINTS, "CP14 c0: breakpoint controls"),
    ("dbgwvr", WATCHPOINTS, "CP14 c0: watchpoint values"),
    ("dbgwcr", WATCHPOINTS, "CP14 c0: watchpoint controls"),
    ("teecr", 1, "CP14 c0: ThumbEE configuration"),
    ("teehbr", 1, "CP14 c1: ThumbEE handler base"),
)
LAYOUT = StateLayout(*_WORDS, *_WORDS_OF_V7VE, sensitive=("psr",))


def state_size(architecture: int) -> int:
    """Return how many bytes of the state a processor of that version has. The words behind them are 0 and unused."""
    return LAYOUT.size if architecture == Architecture.V7VE else LAYOUT[_WORDS_OF_V7VE[0][0]].offset


#: The bits that can change of the words in which not all can: the others are 0, or what the processor's model says.
WRITABLE: Mapping[str, int] = {
    **dict.fromkeys(("n", "z", "c", "v", "q", "exclusive"), 1),
    **{"ge": 0b1111, "psr": PSR_KEPT, "csselr": 0b1111, "ttbcr": 0b110111, "vbar": 0xFFFFFFE0, "fcseidr": 0xFE000000},
    "cpacr": 0,  # there are no coprocessors to enable
    **dict.fromkeys(("architecture", "sctlr_writable", "ccsidr", *map(str.lower, IDENTIFICATION)), 0),
    **{"pmselr": 0b11111, "pmuser": 1},
    **dict.fromkeys(("pmcr", "cbar", "l2ctlr", "dbgdidr", "dbgdevid"), 0),
    **{"dbgoslsr": 0b10, "dbgosdlr": 1, "dbgwvr": 0xFFFFFFFC, "teecr": 1},
}
#: Bits of SCTLR that a guest cannot set, although its processor has them. choice: no-big-endian, no-thumb
SCTLR_REFUSED = SCTLR_B | SCTLR_EE | SCTLR_TE
