"""Coprocessor 14: the registers of the debug architecture (ARM ARM C11) and of ThumbEE, which processors have since
the version V7VE.

The debug registers keep what is written to them, as far as a kernel looks for them. No breakpoint or watchpoint ever
matches. choice: no-debug-events
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from isa.arm.a32.coprocessor import READ, WRITE, Register, define_registers
from isa.arm.a32.registry import insn
from isa.arm.recorder import Recorder
from isa.arm.state import BREAKPOINTS, WATCHPOINTS, WRITABLE, Architecture
from isa.ir.uop import Uop

_SINCE = Architecture.V7VE
#: What is written to DBGOSLAR to lock the registers. Anything else unlocks them.
_LOCK = 0xC5ACCE55
_LOCKED = 1 << 1
_DENIES_USER = 1 << 0  # TEECR.XED


def _lock(u: Recorder, value: Uop) -> None:
    status = u.get("dbgoslsr")
    u.set("dbgoslsr", u.select(value == _LOCK, status | _LOCKED, status & ~_LOCKED))


def _user_may_access_teehbr(u: Recorder) -> Uop:
    return (u.get("teecr") & _DENIES_USER) == 0


def _register(name: str, place: tuple[int, int, int, int], word: str = "", **properties: Any) -> Register:
    return Register(name, place, word, since=_SINCE, coprocessor=14, **properties)


REGISTERS: tuple[Register, ...] = (
    _register("DBGDIDR", (0, 0, 0, 0), "dbgdidr", access=READ, user=READ),
    _register("DBGDSCRint", (0, 0, 1, 0), "dbgdscr", access=READ),
    _register("DBGDSCRext", (0, 0, 2, 2), "dbgdscr"),
    _register("DBGDCCINT", (0, 0, 2, 0)),
    _register("DBGVCR", (0, 0, 7, 0)),
    _register("DBGDRAR", (0, 1, 0, 0), access=READ, user=READ),
    _register("DBGDSAR", (0, 2, 0, 0), access=READ, user=READ),
    _register("DBGOSLAR", (0, 1, 0, 4), access=WRITE, write=_lock),
    _register("DBGOSLSR", (0, 1, 1, 4), "dbgoslsr", access=READ),
    _register("DBGOSDLR", (0, 1, 3, 4), "dbgosdlr", writable=WRITABLE["dbgosdlr"]),
    *(_register(f"DBGDEVID{n or ''}", (0, 7, 2 - n, 7), f"dbgdevid+{n}", access=READ) for n in range(3)),
    _register("TEECR", (6, 0, 0, 0), "teecr", writable=WRITABLE["teecr"]),
    _register("TEEHBR", (6, 1, 0, 0), "teehbr", user=READ + WRITE, user_if=_user_may_access_teehbr),
    # The trivial implementation of Jazelle
    _register("JIDR", (7, 0, 0, 0), access=READ),
    _register("JOSCR", (7, 1, 0, 0)),
    _register("JMCR", (7, 2, 0, 0)),
)
define_registers(REGISTERS)


def _points(name: str, opc2: int, word: str, count: int) -> None:
    """Define what accesses a register that each breakpoint or watchpoint has. CRm is its number."""
    place = f"rt:4 1110 {opc2:03b} 1 crm:4"
    writable = WRITABLE.get(word, 0xFFFFFFFF)

    def check(u: Recorder, f: SimpleNamespace) -> None:
        u.callout("require_privilege")
        with u.when(~f.crm.ult(count)):
            u.undefined()

    @insn(f"cond:4 1110 000 1 0000 {place}", name=f"MRC ({name})", syntax=f"MRC{{<c>}} p14, 0, <Rt>, c0, <CRm>, {opc2}",
          section="A8.8.107", since=_SINCE)  # fmt: skip
    def mrc(u: Recorder, f: SimpleNamespace) -> None:
        check(u, f)
        u.reg[f.rt] = u.get_at(word, f.crm)

    @insn(f"cond:4 1110 000 0 0000 {place}", name=f"MCR ({name})", syntax=f"MCR{{<c>}} p14, 0, <Rt>, c0, <CRm>, {opc2}",
          section="A8.8.98", since=_SINCE)  # fmt: skip
    def mcr(u: Recorder, f: SimpleNamespace) -> None:
        check(u, f)
        u.set_at(word, f.crm, u.reg[f.rt] & writable)


_points("DBGBVR", 4, "dbgbvr", BREAKPOINTS)
_points("DBGBCR", 5, "dbgbcr", BREAKPOINTS)
_points("DBGWVR", 6, "dbgwvr", WATCHPOINTS)
_points("DBGWCR", 7, "dbgwcr", WATCHPOINTS)


def _rom_address(name: str, crm: int) -> None:
    @insn(f"cond:4 11000101 rt2:4 rt:4 1110 0000 {crm:04b}", name=f"MRRC ({name})",
          syntax=f"MRRC{{<c>}} p14, 0, <Rt>, <Rt2>, c{crm}", section="A8.8.108", since=_SINCE)  # fmt: skip
    def mrrc(u: Recorder, f: SimpleNamespace) -> None:
        u.reg[f.rt] = u.const(0)
        u.reg[f.rt2] = u.const(0)


_rom_address("DBGDRAR", 1)
_rom_address("DBGDSAR", 2)
