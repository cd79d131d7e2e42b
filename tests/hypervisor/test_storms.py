"""Guests whose exceptions never end are told so after the same number of exceptions in every tier; others are not."""

from __future__ import annotations

import struct

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.addresses import Gpa
from dbt.vm.exception_storm import FIRST_LOOK, ExceptionStorm, Situation
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE

RAM = 1 << 20
TIERS: tuple[TierName, ...] = ("reference", "threaded", "auto")
_SETUP = "msr cpsr_c, #0xd7 ; mov sp, #0x5000 ; msr cpsr_c, #0xdb ; mov sp, #0x6000 ; msr cpsr_c, #0xd3 ;"
#: By name: code, and what is at which vector.
STORMS = {
    "a handler that raises its own exception": ("udf #0", {4: "nop", 8: "udf #0"}),
    "a handler that goes back to what raised it": ("udf #0", {4: "subs pc, lr, #4"}),
    "a handler with a stack that it leaves as it was": ("udf #0", {4: "push {r0} ; pop {r0} ; udf #1"}),
    "both in turn": ("udf #0", {4: "ldr pc, [pc, #0x58]", 0xC: "udf #0", 0x64: ".word 0x40000000"}),
    "prefetch aborts": ("mvn r0, #3 ; mov pc, r0", {0xC: "subs pc, lr, #4"}),
    "breakpoints": ("bkpt 1", {0xC: "subs pc, lr, #4"}),
}  # fmt: skip


def machine_for(code: str, vectors: dict[int, str], tier: TierName) -> Machine:
    machine = Machine(RAM, tier, jit="off", console=CaptureConsole())
    machine.load_bytes(assemble(_SETUP + code, BASE), BASE)
    for gpa, source in vectors.items():
        machine.write(Gpa(gpa), assemble(source, gpa))
    return machine


@pytest.mark.parametrize("name", STORMS)
def test_a_storm_is_endless(name: str) -> None:
    found = set()
    for tier in TIERS:
        with machine_for(*STORMS[name], tier) as machine:
            result = machine.run(timeout=100)
            assert result.reason is StopReason.FAULT, (tier, result)
            assert "exceptions the guest gets nowhere" in result.message
            assert machine.event_counts.total() < 2 * FIRST_LOOK
            found.add((result.icount, result.pc, result.message, state_hash(machine)))
            again = machine.run(timeout=100)
            assert (again.reason, again.icount, again.pc) == (StopReason.FAULT, result.icount, result.pc)
    assert len(found) == 1


#: Counts its exceptions, in a register or in memory, and ends after 20,000.
_PROGRESS = {
    "in a register": ("ldr r4, =20000 ; loop: udf #0 ; subs r4, r4, #1 ; bne loop", "movs pc, lr"),
    "in memory": (
        """
            ldr r5, =0x7000 ; ldr r4, =20000 ; str r4, [r5]
            loop: mov r4, #0 ; udf #0
            ldr r4, [r5] ; subs r4, r4, #1 ; str r4, [r5] ; bne loop
        """,
        "movs pc, lr",
    ),
    "in the handler": (
        "ldr r4, =20000 ; ldr r5, =0x7000 ; str r4, [r5] ; mov r4, #0 ; udf #0",
        """
            push {r0, r1} ; mov r1, #0x7000 ; ldr r0, [r1] ; subs r0, r0, #1 ; str r0, [r1]
            addeq lr, lr, #4 ; pop {r0, r1} ; subs pc, lr, #4
        """,
    ),
}


@pytest.mark.parametrize("name", _PROGRESS)
def test_progress_is_no_storm(name: str) -> None:
    code, handler = _PROGRESS[name]
    end = " ; mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456 ; .ltorg"
    with machine_for(code + end, {4: "b 0x3000", 0x3000: handler}, "threaded") as machine:
        result = machine.run(timeout=100)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
        assert machine.event_counts["undefined"] == 20_000


def test_an_interrupt_that_will_come_ends_a_storm() -> None:
    """The handler goes back to what raised it, until a timer's handler has written over that."""
    code = """
        ldr r4, =0x101e2000 ; mov r0, #200 ; str r0, [r4] ; mov r0, #0xe3 ; str r0, [r4, #8]
        ldr r5, =0x10140000 ; mov r0, #0x10 ; str r0, [r5, #0x10] ; adr r6, place ; mov r7, #0 ; msr cpsr_c, #0x53
        place: udf #0
        mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456
    """
    nop = struct.unpack("<I", assemble("nop"))[0]
    irq = f"ldr r8, =0x{nop:x} ; str r8, [r6] ; str r0, [r4, #0xc] ; subs pc, lr, #4 ; .ltorg"
    with machine_for(code, {4: "subs pc, lr, #4", 0x18: "b 0x3000", 0x3000: irq}, "threaded") as machine:
        result = machine.run(timeout=100)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
        assert machine.event_counts["undefined"] > FIRST_LOOK


@pytest.mark.parametrize("length", [1, 2, 3, 1000])
def test_a_cycle_of_any_length_is_found(length: int) -> None:
    taken = [0]
    storm = ExceptionStorm(lambda: Situation(bytes([taken[0] % length % 256, taken[0] % length // 256]), 0), lambda: "")
    while not storm.is_endless():
        taken[0] += 1
        assert taken[0] < 3 * FIRST_LOOK
    assert FIRST_LOOK < storm.count <= FIRST_LOOK + length


def test_what_comes_from_outside_is_progress() -> None:
    outside = [0]
    storm = ExceptionStorm(lambda: Situation(b"", outside[0]), lambda: "")
    for _ in range(3 * FIRST_LOOK):
        outside[0] += 1
        assert not storm.is_endless()
