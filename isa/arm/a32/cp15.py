"""The system control coprocessor: each of its registers is an instruction that reads it and one that writes it.

A register without a row is an undefined instruction. So is one that user mode may not access, in user mode.
Coprocessor 14 is in :mod:`isa.arm.a32.cp14`. All others are undefined as well, floating point included: CDP, LDC and
STC match no pattern, and of MCRR only the ARM1176's operations on ranges of its caches do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace

from isa.arm.a32.coprocessor import (
    READ,
    WRITE,
    Register,
    Write,
    define_registers,
    require_architecture,
)
from isa.arm.a32.registry import insn
from isa.arm.faults import AccessKind
from isa.arm.recorder import Recorder
from isa.arm.state import (
    IDENTIFICATION,
    SCTLR_B,
    SCTLR_EE,
    SCTLR_TE,
    WRITABLE,
    Architecture,
)
from isa.ir.uop import Uop


def _write_sctlr(u: Recorder, value: Uop) -> None:
    writable, old = u.get("sctlr_writable"), u.get("sctlr")
    new = old & ~writable | value & writable
    for number, bit in ((1, SCTLR_B), (2, SCTLR_EE), (3, SCTLR_TE)):
        with u.when((new & bit) != 0):  # choice: no-big-endian, no-thumb
            u.callout("unsupported", number)
    u.set("sctlr", new)


def _flush_page(u: Recorder, value: Uop) -> None:
    u.callout("tlb_flush_page", value)


def _translate(access: AccessKind) -> Write:
    def write(u: Recorder, value: Uop) -> None:
        u.callout("translate_address", value, int(access))

    return write


def _ccsidr(u: Recorder) -> Uop:
    """Return the size of the cache that CSSELR selects. Early models look at two bits of CSSELR alone."""
    selected = u.get("csselr")
    there = ((selected & ~3) == 0) | (u.get("architecture") != int(Architecture.V7VE))
    return u.select(there, u.get_at("ccsidr", selected & 3), 0)


# CRm to the places in c0 of the identification registers.
_IDENTIFICATION_PLACES: Mapping[str, tuple[int, int, int]] = {
    "MIDR": (0, 0, 0), "CTR": (0, 0, 1), "TCMTR": (0, 0, 2), "TLBTR": (0, 0, 3), "MPIDR": (0, 0, 5),
    "ID_PFR0": (0, 1, 0), "ID_PFR1": (0, 1, 1), "ID_DFR0": (0, 1, 2), "ID_AFR0": (0, 1, 3),
    **{f"ID_MMFR{n}": (0, 1, 4 + n) for n in range(4)},
    **{f"ID_ISAR{n}": (0, 2, n) for n in range(6)},
    "CLIDR": (1, 0, 1),
}  # fmt: skip
assert set(_IDENTIFICATION_PLACES) == set(IDENTIFICATION)
_SINCE_4 = {"MIDR", "CTR", "TCMTR", "TLBTR"}
_SINCE_7 = {"MPIDR", "CLIDR"}

#: What the ARM1176 has and processors of ARMv7 do not.
_NOT_SINCE_7 = (Architecture.V7, Architecture.V7VE)
#: The last version that has what the Cortex-A15 and A7 do not.
_OLD = Architecture.ANY
_V7VE = Architecture.V7VE

# Caches and branch predictors are not there to be maintained: CRm to the values of opc2.
_CACHE_OPERATIONS: Mapping[int, tuple[int, ...]] = {
    1: (0, 6), 2: (5,), 5: (0, 1, 2, 6, 7), 6: (0, 1, 2), 7: (0, 1, 2), 10: (0, 1, 2), 11: (0, 1, 2), 13: (1,),
    14: (0, 1, 2), 15: (0, 1, 2),
}  # fmt: skip
_TEST_AND_CLEAN = 1 << 30  # into the Z flag with Rt = PC: the cache is clean
#: Of the instruction, the data and the unified TLB, and of all processors.
_TLBS = (5, 6, 7, 3)


def _identification() -> Iterator[Register]:
    for name in IDENTIFICATION:
        opc1, crm, opc2 = _IDENTIFICATION_PLACES[name]
        since = 4 if name in _SINCE_4 else 7 if name in _SINCE_7 else 6
        yield Register(name, (opc1, 0, crm, opc2), name.lower(), access=READ, since=since)


def _operations() -> Iterator[Register]:
    for crm, operations in _CACHE_OPERATIONS.items():
        for opc2 in operations:
            yield Register("cache operation", (0, 7, crm, opc2), access=WRITE)
    for crm in _TLBS:
        since = 7 if crm == 3 else 4
        yield Register("TLBIALL", (0, 8, crm, 0), access=WRITE, since=since, after="tlb_flush")
        yield Register("TLBIMVA", (0, 8, crm, 1), access=WRITE, since=since, write=_flush_page)
        yield Register("TLBIASID", (0, 8, crm, 2), access=WRITE, since=max(since, 6), after="tlb_flush")
    yield Register("TLBIMVAA", (0, 8, 7, 3), access=WRITE, since=6, write=_flush_page)
    yield Register("TLBIMVAAIS", (0, 8, 3, 3), access=WRITE, since=7, write=_flush_page)


REGISTERS: tuple[Register, ...] = (
    *_identification(),
    Register("REVIDR", (0, 0, 0, 6), access=READ, since=7, until=_OLD),
    Register("REVIDR", (0, 0, 0, 6), "midr", access=READ, since=_V7VE),
    Register("MIDR, another place", (0, 0, 0, 4), "midr", access=READ, since=_V7VE),
    Register("MIDR, another place", (0, 0, 0, 7), "midr", access=READ, since=_V7VE),
    Register("ID_MMFR4", (0, 0, 2, 6), access=READ, since=_V7VE),
    Register("ID_ISAR6", (0, 0, 2, 7), access=READ, since=_V7VE),
    Register("CCSIDR", (1, 0, 0, 0), access=READ, since=7, read=_ccsidr),
    Register("AIDR", (1, 0, 0, 7), access=READ, since=7),
    Register("CSSELR", (2, 0, 0, 0), "csselr", writable=WRITABLE["csselr"], since=7),
    # Control
    Register("SCTLR", (0, 1, 0, 0), "sctlr", write=_write_sctlr, after="regime_changed"),
    Register("ACTLR", (0, 1, 0, 1), "actlr", since=6, until=_OLD),
    Register("ACTLR", (0, 1, 0, 1), since=_V7VE),
    Register("CPACR", (0, 1, 0, 2), "cpacr", writable=WRITABLE["cpacr"], since=6),
    # Memory management
    Register("TTBR0", (0, 2, 0, 0), "ttbr0", after="regime_changed"),
    Register("TTBR1", (0, 2, 0, 1), "ttbr1", since=6, after="regime_changed"),
    Register("TTBCR", (0, 2, 0, 2), "ttbcr", writable=WRITABLE["ttbcr"], since=6, until=_OLD, after="regime_changed"),
    Register("TTBCR", (0, 2, 0, 2), "ttbcr", writable=0b111, since=_V7VE, after="regime_changed"),
    Register("DACR", (0, 3, 0, 0), "dacr", after="regime_changed"),
    Register("DFSR", (0, 5, 0, 0), "dfsr"),
    Register("IFSR", (0, 5, 0, 1), "ifsr"),
    Register("ADFSR", (0, 5, 1, 0), writable=0, since=7),
    Register("AIFSR", (0, 5, 1, 1), writable=0, since=7),
    Register("DFAR", (0, 6, 0, 0), "dfar"),
    Register("WFAR", (0, 6, 0, 1), since=_V7VE),
    Register("IFAR", (0, 6, 0, 2), "ifar", since=6),
    # Maintenance and barriers
    *_operations(),
    Register("wait for interrupt", (0, 7, 0, 4), access=WRITE, until=_OLD, after="wait_for_interrupt"),
    Register("no operation", (0, 7, 0, 4), access=WRITE, since=_V7VE),
    Register("CP15ISB", (0, 7, 5, 4), access=WRITE, user=WRITE, user_since=6),
    Register("CP15DSB", (0, 7, 10, 4), access=WRITE, user=WRITE, user_since=6),
    Register("CP15DMB", (0, 7, 10, 5), access=WRITE, user=WRITE, since=6),
    Register("test and clean", (0, 7, 10, 3), value=_TEST_AND_CLEAN, access=READ, until=_OLD),
    Register("test, clean and invalidate", (0, 7, 14, 3), value=_TEST_AND_CLEAN, access=READ, until=_OLD),
    Register("cache dirty status", (0, 7, 10, 6), access=READ, since=6, absent=_NOT_SINCE_7),
    Register("block transfer status", (0, 7, 12, 4), access=READ, user=READ, since=6, absent=_NOT_SINCE_7),
    Register("stop prefetch range", (0, 7, 12, 5), access=WRITE, user=WRITE, since=6, absent=_NOT_SINCE_7),
    # Address translation, as it is for privileged or user code that reads or writes
    Register("PAR", (0, 7, 4, 0), "par", since=6),
    Register("ATS1CPR", (0, 7, 8, 0), access=WRITE, since=6, write=_translate(AccessKind(0))),
    Register("ATS1CPW", (0, 7, 8, 1), access=WRITE, since=6, write=_translate(AccessKind.WRITE)),
    Register("ATS1CUR", (0, 7, 8, 2), access=WRITE, since=6, write=_translate(AccessKind.USER)),
    Register("ATS1CUW", (0, 7, 8, 3), access=WRITE, since=6, write=_translate(AccessKind.USER | AccessKind.WRITE)),
    # Lockdown of caches and TLBs
    Register("data cache lockdown", (0, 9, 0, 0), until=_OLD),
    Register("instruction cache lockdown", (0, 9, 0, 1), until=_OLD),
    Register("data TCM region", (0, 9, 1, 0), until=_OLD),
    Register("instruction TCM region", (0, 9, 1, 1), until=_OLD),
    Register("TLB lockdown", (0, 10, 0, 0), writable=0),
    Register("PRRR", (0, 10, 2, 0), value=0x00098AA4, since=7, until=_OLD),
    Register("PRRR", (0, 10, 2, 0), "prrr", since=_V7VE),
    Register("NMRR", (0, 10, 2, 1), value=0x44E048E0, since=7, until=_OLD),
    Register("NMRR", (0, 10, 2, 1), "nmrr", since=_V7VE),
    Register("L2CTLR", (1, 9, 0, 2), "l2ctlr", writable=0, since=_V7VE),
    Register("L2ECTLR", (1, 9, 0, 3), since=_V7VE),
    # Vectors, context and threads
    Register("VBAR", (0, 12, 0, 0), "vbar", writable=WRITABLE["vbar"], since=7),
    Register("ISR", (0, 12, 1, 0), access=READ, since=7, until=_OLD),
    Register("ISR", (0, 12, 1, 0), access=READ, since=_V7VE, read=lambda u: u.callout_value("read_lines")),
    Register("FCSEIDR", (0, 13, 0, 0), "fcseidr", writable=WRITABLE["fcseidr"], after="regime_changed"),
    Register("CONTEXTIDR", (0, 13, 0, 1), "contextidr", after="regime_changed"),
    Register("TPIDRURW", (0, 13, 0, 2), "tpidrurw", user=READ + WRITE, since=6),
    Register("TPIDRURO", (0, 13, 0, 3), "tpidruro", user=READ, since=6),
    Register("TPIDRPRW", (0, 13, 0, 4), "tpidrprw", since=6),
)  # fmt: skip


define_registers(REGISTERS)


#: Operations on the addresses from Rt to Rt2 (DDI 0301, 3.2.22), of which there is nothing to do: opc1 and CRm, name,
#: and whether user mode may.
_RANGES = (
    (0, 5, "invalidate instruction cache", False),
    (0, 6, "invalidate data cache", False),
    (0, 12, "clean data cache", True),
    (1, 12, "prefetch instructions", True),
    (2, 12, "prefetch data", True),
    (0, 14, "clean and invalidate data cache", False),
)


def _range_operation(opc1: int, crm: int, name: str, user: bool) -> None:
    @insn(f"cond:4 11000100 rt2:4 rt:4 1111 {opc1:04b} {crm:04b}", name=f"MCRR ({name} range)",
          syntax=f"MCRR{{<c>}} p15, {opc1}, <Rt>, <Rt2>, c{crm}", section="A8.8.99", since=6)  # fmt: skip
    def mcrr(u: Recorder, f: SimpleNamespace) -> None:
        require_architecture(u, (Architecture.V6, Architecture.ANY), since=6)
        if not user:
            u.callout("require_privilege")


for _operation in _RANGES:
    _range_operation(*_operation)


def _reserved_identification(crm: str) -> None:
    @insn(f"cond:4 1110 000 1 0000 rt:4 1111 opc2:3 1 {crm}", name="MRC (reserved identification)",
          syntax="MRC{<c>} p15, 0, <Rt>, c0, <CRm>, <opc2>", section="B3.17.1", since=_V7VE)  # fmt: skip
    def mrc(u: Recorder, f: SimpleNamespace) -> None:
        u.callout("require_privilege")
        u.reg[f.rt] = u.const(0)


_reserved_identification("0011")  # c3
_reserved_identification("01 crm:2")  # c4 to c7


@insn("cond:4 1110 opc1:3 1 1111 rt:4 1111 opc2:3 1 crm:4", name="MRC (implementation defined)",
      syntax="MRC{<c>} p15, <opc1>, <Rt>, c15, <CRm>, <opc2>", section="B3.17.2", since=_V7VE)  # fmt: skip
def mrc_implementation_defined(u: Recorder, f: SimpleNamespace) -> None:
    """All of c15 reads as zero, but for the base of the private peripherals. choice: implementation-defined-c15"""
    u.callout("require_privilege")
    u.reg[f.rt] = u.select(_is_cbar(f), u.get("cbar"), 0)


@insn("cond:4 1110 opc1:3 0 1111 rt:4 1111 opc2:3 1 crm:4", name="MCR (implementation defined)",
      syntax="MCR{<c>} p15, <opc1>, <Rt>, c15, <CRm>, <opc2>", section="B3.17.2", since=_V7VE)  # fmt: skip
def mcr_implementation_defined(u: Recorder, f: SimpleNamespace) -> None:
    """All of c15 ignores writes, but the base of the private peripherals can only be read."""
    u.callout("require_privilege")
    with u.when(_is_cbar(f)):
        u.undefined()


def _is_cbar(f: SimpleNamespace) -> Uop:
    cbar: Uop = (f.opc1 == 4) & (f.crm == 0) & (f.opc2 == 0)
    return cbar
