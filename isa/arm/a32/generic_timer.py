"""The generic timer (ARM ARM B8.1): CP15 c14, which processors have since the version V7VE.

CNTKCTL says what user mode may access. Without the Virtualization Extensions the virtual count is the physical one.
"""

from __future__ import annotations

from types import SimpleNamespace

from isa.arm.a32.coprocessor import READ, WRITE, Condition, Register, define_registers
from isa.arm.a32.registry import insn
from isa.arm.private import COUNT, PHYSICAL_TIMER, TIMER_COMPARE, TIMER_CONTROL, TIMER_VALUE, VIRTUAL_TIMER
from isa.arm.recorder import Recorder
from isa.arm.state import Architecture
from isa.ir.uop import Uop

_SINCE = Architecture.V7VE
#: Bits of CNTKCTL: user mode may read the physical or the virtual count, and access the virtual or the physical timer.
_PL0PCTEN, _PL0VCTEN, _PL0VTEN, _PL0PTEN = 1 << 0, 1 << 1, 1 << 8, 1 << 9


def _permits(bits: int) -> Condition:
    return lambda u: (u.get("cntkctl") & bits) != 0


def _timer_register(name: str, crm: int, opc2: int, number: int, permission: int) -> Register:
    def write(u: Recorder, value: Uop) -> None:
        u.callout("write_private", number, value, 0)

    return Register(
        name, (0, 14, crm, opc2), since=_SINCE, user=READ + WRITE, user_if=_permits(permission),
        read=lambda u: u.callout_value("read_private", number), write=write,
    )  # fmt: skip


REGISTERS: tuple[Register, ...] = (
    Register("CNTFRQ", (0, 14, 0, 0), "cntfrq", since=_SINCE, user=READ, user_if=_permits(_PL0PCTEN | _PL0VCTEN)),
    Register("CNTKCTL", (0, 14, 1, 0), "cntkctl", since=_SINCE),
    _timer_register("CNTP_TVAL", 2, 0, PHYSICAL_TIMER + TIMER_VALUE, _PL0PTEN),
    _timer_register("CNTP_CTL", 2, 1, PHYSICAL_TIMER + TIMER_CONTROL, _PL0PTEN),
    _timer_register("CNTV_TVAL", 3, 0, VIRTUAL_TIMER + TIMER_VALUE, _PL0VTEN),
    _timer_register("CNTV_CTL", 3, 1, VIRTUAL_TIMER + TIMER_CONTROL, _PL0VTEN),
)
define_registers(REGISTERS)


def _require_permission(u: Recorder, bit: int) -> None:
    with u.when(~_permits(bit)(u)):
        u.callout("require_privilege")


def _wide_register(name: str, opc1: int, number: int, permission: int, writable: bool) -> None:
    """Define MRRC, and MCRR if it can be written, of a register of 64 bits."""
    place = f"rt2:4 rt:4 1111 {opc1:04b} 1110"

    @insn(f"cond:4 11000101 {place}", name=f"MRRC ({name})", syntax=f"MRRC{{<c>}} p15, {opc1}, <Rt>, <Rt2>, c14",
          section="A8.8.108", since=_SINCE)  # fmt: skip
    def mrrc(u: Recorder, f: SimpleNamespace) -> None:
        _require_permission(u, permission)
        low, high = (u.callout_value("read_private", number + half) for half in (0, 1))
        u.reg[f.rt] = low
        u.reg[f.rt2] = high

    if writable:

        @insn(f"cond:4 11000100 {place}", name=f"MCRR ({name})", syntax=f"MCRR{{<c>}} p15, {opc1}, <Rt>, <Rt2>, c14",
              section="A8.8.99", since=_SINCE)  # fmt: skip
        def mcrr(u: Recorder, f: SimpleNamespace) -> None:
            _require_permission(u, permission)
            u.callout("write_private", number, u.reg[f.rt], u.reg[f.rt2])


_wide_register("CNTPCT", 0, COUNT, _PL0PCTEN, writable=False)
_wide_register("CNTVCT", 1, COUNT, _PL0VCTEN, writable=False)
_wide_register("CNTP_CVAL", 2, PHYSICAL_TIMER + TIMER_COMPARE, _PL0PTEN, writable=True)
_wide_register("CNTV_CVAL", 3, VIRTUAL_TIMER + TIMER_COMPARE, _PL0VTEN, writable=True)
