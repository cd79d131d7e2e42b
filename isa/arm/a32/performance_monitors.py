"""The performance monitors (ARM ARM C12), of processors since the version V7VE: CP15 c9, and as of PMUv2 c14.

PMCR says how many event counters there are, and PMUSERENR whether user mode may use them. What user mode does is
counted as what privileged code does. choice: no-monitor-filters
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from isa.arm.a32.coprocessor import READ, WRITE, Condition, Register, Write, define_registers
from isa.arm.private import (
    CONTROL,
    CYCLE_FILTER,
    CYCLES,
    ENABLE_CLEAR,
    ENABLE_SET,
    EVENT_COUNT,
    EVENT_COUNTERS,
    EVENT_TYPE,
    INTERRUPT_CLEAR,
    INTERRUPT_SET,
    MONITORS,
    NO_MONITOR,
    OVERFLOW_CLEAR,
    OVERFLOW_SET,
    SOFTWARE_INCREMENT,
)
from isa.arm.recorder import Recorder
from isa.arm.state import WRITABLE, Architecture
from isa.ir.uop import Uop

_SINCE = Architecture.V7VE
_CYCLE_COUNTER = 31  # its bit, and its number in PMSELR
_FILTER_BITS, _TYPE_BITS, _CONTROL_BITS = 0xF8000000, 0xFE00FFFF, 0xFF

#: Gives the number of a private register at the time of the access.
_Number = Callable[[Recorder], Uop | int]
#: Changes what is written before the peripheral gets it.
_Mask = Callable[[Recorder, Uop], Uop]


def _event_counters(u: Recorder) -> Uop:
    return u.get("pmcr").bits(15, 11)


def _is_permitted(u: Recorder) -> Uop:
    return (u.get("pmuser") & 1) != 0


def _counters(u: Recorder, value: Uop) -> Uop:
    """Return the bits of a set of counters that are there."""
    return value & ((u.const(1) << _event_counters(u)) - 1 | 1 << _CYCLE_COUNTER)


def _events(u: Recorder, value: Uop) -> Uop:
    """Return the same without the cycle counter."""
    return _counters(u, value) & ~(1 << _CYCLE_COUNTER) & 0xFFFFFFFF


def _bits(mask: int) -> _Mask:
    return lambda u, value: value & mask


def _number(number: int | _Number) -> _Number:
    return number if callable(number) else lambda u: number


def _reader(number: _Number) -> Condition:
    return lambda u: u.callout_value("read_private", number(u) + MONITORS)


def _writer(number: _Number, mask: _Mask) -> Write:
    def write(u: Recorder, value: Uop) -> None:
        u.callout("write_private", number(u) + MONITORS, mask(u, value), 0)

    return write


def _selected(u: Recorder, first: int, others: Uop | int) -> Uop:
    """Return the number of the register of the event counter that PMSELR selects, or ``others`` if there is none."""
    selected = u.get("pmselr")
    return u.select(selected.ult(_event_counters(u)), selected + first, others)


def _selected_count(u: Recorder) -> Uop:
    return _selected(u, EVENT_COUNT, NO_MONITOR)


def _selected_type(u: Recorder) -> Uop:
    selects_cycles = u.get("pmselr") == _CYCLE_COUNTER
    return _selected(u, EVENT_TYPE, u.select(selects_cycles, CYCLE_FILTER, NO_MONITOR))


def _type_bits(u: Recorder, value: Uop) -> Uop:
    return value & u.select(u.get("pmselr") == _CYCLE_COUNTER, _FILTER_BITS, _TYPE_BITS)


def _register(
    name: str, place: tuple[int, int, int], number: int | _Number, mask: _Mask, access: str = READ + WRITE,
    user: str = READ + WRITE, written: int | None = None, exists: Condition | None = None,
) -> Register:  # fmt: skip
    """Return a register at CRn, CRm and opc2. ``written``: its number for writes, if that is another one."""
    write_number = number if written is None else written
    return Register(
        name, (0, *place), since=_SINCE, access=access, user=user, user_if=_is_permitted if user else None,
        exists=exists, read=_reader(_number(number)), write=_writer(_number(write_number), mask),
    )  # fmt: skip


def _control(u: Recorder) -> Uop:
    return u.get("pmcr") | u.callout_value("read_private", MONITORS + CONTROL)


def _has(number: int) -> Condition:
    return lambda u: u.const(number).ult(_event_counters(u))


def _of_each_event() -> Iterator[Register]:
    for number in range(EVENT_COUNTERS):
        there = _has(number)
        yield _register(f"PMEVCNTR{number}", (14, 8, number), EVENT_COUNT + number, _bits(0xFFFFFFFF), exists=there)
        yield _register(f"PMEVTYPER{number}", (14, 12, number), EVENT_TYPE + number, _bits(_TYPE_BITS), exists=there)


REGISTERS: tuple[Register, ...] = (
    Register(
        "PMCR", (0, 9, 12, 0), since=_SINCE, user=READ + WRITE, user_if=_is_permitted, read=_control,
        write=_writer(lambda u: CONTROL, _bits(_CONTROL_BITS)),
    ),
    _register("PMCNTENSET", (9, 12, 1), ENABLE_SET, _counters),
    _register("PMCNTENCLR", (9, 12, 2), ENABLE_SET, _counters, written=ENABLE_CLEAR),
    _register("PMOVSR", (9, 12, 3), OVERFLOW_SET, _counters, written=OVERFLOW_CLEAR),
    _register("PMSWINC", (9, 12, 4), SOFTWARE_INCREMENT, _events, access=WRITE, user=WRITE),
    Register(
        "PMSELR", (0, 9, 12, 5), "pmselr", writable=WRITABLE["pmselr"], since=_SINCE, user=READ + WRITE,
        user_if=_is_permitted,
    ),
    _register("PMCCNTR", (9, 13, 0), CYCLES, _bits(0xFFFFFFFF)),
    _register("PMXEVTYPER", (9, 13, 1), _selected_type, _type_bits),
    _register("PMXEVCNTR", (9, 13, 2), _selected_count, _bits(0xFFFFFFFF)),
    Register("PMUSERENR", (0, 9, 14, 0), "pmuser", writable=WRITABLE["pmuser"], since=_SINCE, user=READ),
    _register("PMINTENSET", (9, 14, 1), INTERRUPT_SET, _counters, user=""),
    _register("PMINTENCLR", (9, 14, 2), INTERRUPT_SET, _counters, user="", written=INTERRUPT_CLEAR),
    _register("PMOVSSET", (9, 14, 3), OVERFLOW_SET, _counters),
    _register("PMCCFILTR", (14, 15, 7), CYCLE_FILTER, _bits(_FILTER_BITS)),
    *_of_each_event(),
)  # fmt: skip
define_registers(REGISTERS)
