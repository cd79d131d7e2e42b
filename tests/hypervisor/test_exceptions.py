"""Exception entry against the tables of ARM ARM B1.8.3 and B1.9, and return from it."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gva
from dbt.abi.exits import (
    Breakpoint,
    DataAbort,
    PrefetchAbort,
    SupervisorCall,
    ThumbEntry,
    Undefined,
    Unsupported,
    VmExit,
)
from dbt.vm.exception_entry import ExceptionEntry
from isa.arm.faults import Fault
from isa.arm.state import PSR_F, PSR_I, Mode
from isa.arm.vectors import ExceptionKind
from tests.oracle.privileged import CODE, TIERS, Guest

USER_CPSR = 0xA80F0000 | Mode.USER  # N, C, Q and GE set, nothing masked
IRQS, FIQS, ABORTS = 0x80, 0x40, 0x100
ADDRESS = 0x8000

ENTRIES = [
    (ExceptionKind.UNDEFINED, Undefined(Gva(ADDRESS)), Mode.UNDEFINED, 0x04, 0x8004, IRQS),
    (ExceptionKind.SUPERVISOR_CALL, SupervisorCall(Gva(ADDRESS), 1), Mode.SUPERVISOR, 0x08, 0x8004, IRQS),
    (ExceptionKind.PREFETCH_ABORT, PrefetchAbort(Gva(ADDRESS)), Mode.ABORT, 0x0C, 0x8004, IRQS | ABORTS),
    (
        ExceptionKind.DATA_ABORT,
        DataAbort(Gva(ADDRESS), Gva(0x1234), 4, True, Fault.DOMAIN_PAGE, 3),
        Mode.ABORT, 0x10, 0x8008, IRQS | ABORTS,
    ),
]  # fmt: skip


@pytest.fixture(params=TIERS)
def guest(request: pytest.FixtureRequest) -> Guest:
    guest = Guest(request.param)
    guest.cpu.cpsr = USER_CPSR
    guest.cpu.r[13], guest.cpu.r[14] = 0x1300, 0x1400
    guest.store(0, *[0xEAFFFFFE] * 8)
    return guest


def entry_of(guest: Guest) -> ExceptionEntry:
    return ExceptionEntry(guest.cpu, guest.memory, lambda: guest.tier)


@pytest.mark.parametrize(("kind", "exit_", "mode", "vector", "link", "masks"), ENTRIES, ids=lambda x: str(x)[:12])
def test_entry(
    guest: Guest, kind: ExceptionKind, exit_: VmExit, mode: Mode, vector: int, link: int, masks: int
) -> None:
    entry, cpu = entry_of(guest), guest.cpu
    assert entry.refusal(kind) == ""
    entry.take(exit_, kind)
    assert (cpu.mode, cpu.r[15], cpu.r[14], cpu.spsr) == (mode, vector, link, USER_CPSR)
    assert cpu.cpsr == USER_CPSR & ~0x1F | mode | masks
    assert (cpu.banked(13, Mode.USER), cpu.banked(14, Mode.USER)) == (0x1300, 0x1400)


@pytest.mark.parametrize(
    ("lines", "mode", "vector", "masks"),
    [
        (PSR_I, Mode.IRQ, 0x18, IRQS | ABORTS),
        (PSR_F, Mode.FIQ, 0x1C, IRQS | FIQS | ABORTS),
        (PSR_I | PSR_F, Mode.FIQ, 0x1C, IRQS | FIQS | ABORTS),
    ],
)
def test_interrupts(guest: Guest, lines: int, mode: Mode, vector: int, masks: int) -> None:
    cpu = guest.cpu
    cpu.r[15] = ADDRESS
    cpu.set_native("interrupt_lines", lines)
    entry_of(guest).take_interrupt()
    assert (cpu.mode, cpu.r[15], cpu.r[14], cpu.spsr) == (mode, vector, ADDRESS + 4, USER_CPSR)
    assert cpu.cpsr == USER_CPSR & ~0x1F | mode | masks


def test_a_masked_interrupt_waits(guest: Guest) -> None:
    guest.cpu.set_native("interrupt_lines", PSR_I | PSR_F)
    guest.cpu.cpsr = USER_CPSR | IRQS | FIQS
    assert entry_of(guest).take_interrupt() is None


def test_aborts_say_why(guest: Guest) -> None:
    entry, cpu = entry_of(guest), guest.cpu
    entry.take(DataAbort(Gva(ADDRESS), Gva(0x1234), 4, True, Fault.DOMAIN_PAGE, 3), ExceptionKind.DATA_ABORT)
    assert (cpu["dfsr"], cpu["dfar"]) == (0x83B, 0x1234)
    entry.take(PrefetchAbort(Gva(0x4321), Fault.TRANSLATION_PAGE, 5), ExceptionKind.PREFETCH_ABORT)
    assert (cpu["ifsr"], cpu["ifar"]) == (0x57, 0x4321)
    entry.take(Breakpoint(Gva(0x4320), 0), ExceptionKind.PREFETCH_ABORT)
    assert cpu["ifsr"] == 2


def test_arm926_does_not_tell_a_write() -> None:
    guest = Guest(cpu="arm926")
    abort = DataAbort(Gva(ADDRESS), Gva(0x1234), 4, True, Fault.DOMAIN_PAGE, 3)
    entry_of(guest).take(abort, ExceptionKind.DATA_ABORT)
    assert guest.cpu["dfsr"] == 0x3B


def test_the_vectors_move(guest: Guest) -> None:
    guest.cpu["vbar"] = 0x40
    assert guest.tier.call_routine("vector_base") == 0x40
    guest.cpu["sctlr"] = 1 << 13
    assert guest.tier.call_routine("vector_base") == 0xFFFF0000


def test_a_vector_without_code_is_no_handler(guest: Guest) -> None:
    guest.store(4, 0)
    assert "nothing is at its vector 0x4" in entry_of(guest).refusal(ExceptionKind.UNDEFINED)


def test_the_same_exception_again_is_refused(guest: Guest) -> None:
    entry = entry_of(guest)
    entry.take(Undefined(Gva(ADDRESS)), ExceptionKind.UNDEFINED)
    assert "again" in entry.refusal(ExceptionKind.UNDEFINED)
    assert entry.refusal(ExceptionKind.DATA_ABORT) == ""
    entry.retired()
    assert entry.refusal(ExceptionKind.UNDEFINED) == ""


# -- return ------------------------------------------------------------------------------------


def test_return_restores_mode_flags_and_registers(guest: Guest) -> None:
    entry_of(guest).take(SupervisorCall(Gva(ADDRESS), 1), ExceptionKind.SUPERVISOR_CALL)
    assert guest.execute("movs pc, lr") is None
    assert (guest.cpu.cpsr, guest.cpu.r[15]) == (USER_CPSR, 0x8004)
    assert (guest.cpu.r[13], guest.cpu.r[14]) == (0x1300, 0x1400)


def test_return_from_user_mode_is_undefined(guest: Guest) -> None:
    assert guest.execute("movs pc, lr") == Undefined(Gva(CODE))


@pytest.mark.parametrize(("bits", "exit_"), [(1 << 5, ThumbEntry), (1 << 9, Unsupported)], ids=["Thumb", "big-endian"])
def test_return_to_what_we_have_not(guest: Guest, bits: int, exit_: type[VmExit]) -> None:
    entry_of(guest).take(SupervisorCall(Gva(ADDRESS), 1), ExceptionKind.SUPERVISOR_CALL)
    guest.cpu.spsr |= bits
    before = guest.cpu.snapshot()[:60]
    assert isinstance(guest.execute("movs pc, lr"), exit_)
    assert guest.cpu.snapshot()[:60] == before


def test_an_interrupt_that_is_unmasked_comes_before_the_next_instruction(guest: Guest) -> None:
    cpu = guest.cpu
    cpu.cpsr = Mode.SUPERVISOR | IRQS
    cpu.set_native("interrupt_lines", PSR_I)
    cpu.r[0] = Mode.SUPERVISOR
    assert guest.execute("msr cpsr_c, r0; add r1, r1, #1; add r1, r1, #1") is None
    assert (cpu.r[15], cpu.r[1]) == (CODE + 4, 0)
