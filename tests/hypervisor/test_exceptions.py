"""Exception entry against the tables of ARM ARM B1.8.3 and B1.9, and return from it."""

from __future__ import annotations

import pytest

from dbt.hypervisor.callouts import Callouts
from dbt.hypervisor.exceptions import ExceptionKind, enter_exception, vector_address
from dbt.runtime.cpu import CpuState
from dbt.runtime.exits import LeaveGuest, ThumbEntry, Undefined, Unsupported
from isa.state import Mode

USER_CPSR = 0xA80F0000 | Mode.USER  # N, C, Q and GE set, nothing masked
IRQS, FIQS, ABORTS = 0x80, 0x40, 0x100
ADDRESS = 0x8000

ENTRIES = [
    (ExceptionKind.RESET, Mode.SUPERVISOR, 0x00, 0x8000, IRQS | FIQS | ABORTS),
    (ExceptionKind.UNDEFINED, Mode.UNDEFINED, 0x04, 0x8004, IRQS),
    (ExceptionKind.SUPERVISOR_CALL, Mode.SUPERVISOR, 0x08, 0x8004, IRQS),
    (ExceptionKind.PREFETCH_ABORT, Mode.ABORT, 0x0C, 0x8004, IRQS | ABORTS),
    (ExceptionKind.DATA_ABORT, Mode.ABORT, 0x10, 0x8008, IRQS | ABORTS),
    (ExceptionKind.IRQ, Mode.IRQ, 0x18, 0x8004, IRQS | ABORTS),
    (ExceptionKind.FIQ, Mode.FIQ, 0x1C, 0x8004, IRQS | FIQS | ABORTS),
]


@pytest.fixture
def cpu() -> CpuState:
    cpu = CpuState()
    cpu.cpsr = USER_CPSR
    cpu.r[13], cpu.r[14] = 0x1300, 0x1400
    return cpu


@pytest.mark.parametrize(("kind", "mode", "vector", "link", "masks"), ENTRIES)
def test_entry(cpu: CpuState, kind: ExceptionKind, mode: Mode, vector: int, link: int, masks: int) -> None:
    assert vector_address(cpu, kind) == vector
    assert enter_exception(cpu, kind, ADDRESS) == vector
    assert (cpu.mode, cpu.r[15], cpu.r[14], cpu.spsr) == (mode, vector, link, USER_CPSR)
    assert cpu.cpsr == USER_CPSR & ~0x1F | mode | masks
    assert (cpu.banked(13, Mode.USER), cpu.banked(14, Mode.USER)) == (0x1300, 0x1400)


def test_the_vectors_move(cpu: CpuState) -> None:
    cpu["vbar"] = 0x40000000
    assert vector_address(cpu, ExceptionKind.IRQ) == 0x40000018
    cpu["sctlr"] = 1 << 13
    assert vector_address(cpu, ExceptionKind.IRQ) == 0xFFFF0018


def test_return_undoes_entry(cpu: CpuState) -> None:
    enter_exception(cpu, ExceptionKind.DATA_ABORT, ADDRESS)
    Callouts(cpu).exception_return(0, cpu.r[14] - 8)
    assert (cpu.r[15], cpu.cpsr, cpu.r[13], cpu.r[14]) == (ADDRESS, USER_CPSR, 0x1300, 0x1400)


@pytest.mark.parametrize(("bit", "exit_"), [(1 << 5, ThumbEntry(0x10, 0x9001)), (1 << 9, Unsupported)])
def test_a_return_that_cannot_be_done_changes_nothing(cpu: CpuState, bit: int, exit_: object) -> None:
    enter_exception(cpu, ExceptionKind.SUPERVISOR_CALL, ADDRESS)
    cpu.spsr = USER_CPSR | bit
    before = cpu.snapshot()
    with pytest.raises(LeaveGuest) as leave:
        Callouts(cpu).exception_return(0x10, 0x9000)
    assert leave.value.exit == exit_ or type(leave.value.exit) is exit_
    assert cpu.snapshot() == before


def test_user_mode_has_no_return(cpu: CpuState) -> None:
    with pytest.raises(LeaveGuest) as leave:
        Callouts(cpu).exception_return(0x10, 0x9000)
    assert leave.value.exit == Undefined(0x10)
