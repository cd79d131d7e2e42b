"""Guests whose exceptions never end are told so after the same number of exceptions in every tier; others are not."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.addresses import Gpa
from dbt.vm.exception_storm import FIRST_LOOK, ExceptionStorm, Situation
from dbt.vm.options import TIERS, TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.long import LONG
from tests.vm.programs import BASE

RAM = 1 << 20
_SETUP = "msr cpsr_c, #0xd7 ; mov sp, #0x5000 ; msr cpsr_c, #0xdb ; mov sp, #0x6000 ; msr cpsr_c, #0xd3 ;"
#: Maps the first megabyte, and one at 0x30000000 where there is nothing, to which R2 points. R0 points to what is not
#: mapped.
_MMU_ON = """
    mov r1, #0x4000 ; ldr r0, =0xc02 ; str r0, [r1] ; ldr r2, =0x30000c02 ; add r3, r1, #0xc00 ; str r2, [r3]
    mcr p15, 0, r1, c2, c0, 0 ; mvn r0, #0 ; mcr p15, 0, r0, c3, c0, 0 ; mov r2, #0x30000000
    mrc p15, 0, r0, c1, c0, 0 ; orr r0, r0, #1 ; mcr p15, 0, r0, c1, c0, 0
    mov r0, #0x20000000 ; b 0f ; .ltorg ; 0: nop
"""
#: By name: code, and what is at which vector.
STORMS = {
    "a handler that raises its own exception": ("udf #0", {4: "nop", 8: "udf #0"}),
    "a handler that goes back to what raised it": ("udf #0", {4: "subs pc, lr, #4"}),
    "a handler with a stack that it leaves as it was": ("udf #0", {4: "push {r0} ; pop {r0} ; udf #1"}),
    "both in turn": ("udf #0", {4: "ldr pc, [pc, #0x58]", 0xC: "udf #0", 0x64: ".word 0x40000000"}),
    "prefetch aborts": ("mvn r0, #3 ; mov pc, r0", {0xC: "subs pc, lr, #4"}),
    "breakpoints": ("bkpt 1", {0xC: "subs pc, lr, #4"}),
    "data aborts": ("mvn r0, #3 ; ldr r1, [r0]", {0x10: "subs pc, lr, #8"}),
    "a handler of aborts that aborts": ("mvn r0, #3 ; ldr r1, [r0]", {0x10: "nop", 0x14: "ldr r1, [r0]"}),
    "three aborts in turn": (
        "mvn r0, #3 ; loop: ldr r1, [r0] ; add r2, r2, #1 ; ldrb r1, [r0] ; ldrh r1, [r0, #2] ; mov r2, #0 ; b loop",
        {0x10: "subs pc, lr, #4"},
    ),
    "aborts and undefined instructions": (
        "mvn r0, #3 ; ldr r1, [r0]",
        {0x10: "udf #0 ; subs pc, lr, #8", 4: "movs pc, lr"},
    ),
    "translation aborts": (f"{_MMU_ON} ; ldr r1, [r0]", {0x10: "subs pc, lr, #8"}),
    "an abort in the handler of translation aborts": (f"{_MMU_ON} ; ldr r1, [r0]", {0x10: "nop ; str r1, [r0]"}),
    "translation and external aborts in turn": (
        f"{_MMU_ON} ; loop: ldr r1, [r0] ; ldr r1, [r2] ; ldr r1, [r0, #4] ; b loop",
        {0x10: "subs pc, lr, #4"},
    ),
}  # fmt: skip


def machine_for(code: str, vectors: dict[int, str], tier: TierName) -> Machine:
    machine = Machine(RAM, tier, jit="off", console=CaptureConsole())
    machine.load_bytes(assemble(_SETUP + code, BASE), BASE)
    for gpa, source in vectors.items():
        machine.write(Gpa(gpa), assemble(source, gpa))
    return machine


@pytest.mark.parametrize(
    ("name", "first_look"),
    [*((name, 1 << 10) for name in STORMS), *((name, FIRST_LOOK) for name in (STORMS if LONG else ("both in turn",)))],
)
def test_a_storm_is_endless(name: str, first_look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if it is looked for sooner, which takes less time."""
    monkeypatch.setattr("dbt.vm.exception_storm.FIRST_LOOK", first_look)
    monkeypatch.setattr("dbt.vm.vcpu.FIRST_LOOK", first_look)
    monkeypatch.setattr("dbt.vm.vcpu.ABORTS_PER_LOOK", first_look)
    found = set()
    for tier in TIERS:
        with machine_for(*STORMS[name], tier) as machine:
            result = machine.run(timeout=100)
            assert result.reason is StopReason.FAULT, (tier, result)
            assert "exceptions the guest gets nowhere" in result.message
            assert machine.event_counts.total() < 8 * first_look
            found.add((result.icount, result.pc, result.message, state_hash(machine)))
            again = machine.run(timeout=100)
            assert (again.reason, again.icount, again.pc) == (StopReason.FAULT, result.icount, result.pc)
    assert len(found) == 1


#: Counts its exceptions, in a register or in memory, and ends after 20,000. CAUSE raises one, and LINK is what LR is
#: then beyond it.
_PROGRESS = {
    "in a register": ("ldr r4, =20000 ; loop: CAUSE ; subs r4, r4, #1 ; bne loop", "subs pc, lr, #LINK-4"),
    "in memory": (
        """
            ldr r5, =0x7000 ; ldr r4, =20000 ; str r4, [r5]
            loop: mov r4, #0 ; CAUSE
            ldr r4, [r5] ; subs r4, r4, #1 ; str r4, [r5] ; bne loop
        """,
        "subs pc, lr, #LINK-4",
    ),
    "in the handler": (
        "ldr r4, =20000 ; ldr r5, =0x7000 ; str r4, [r5] ; mov r4, #0 ; CAUSE",
        """
            push {r0, r1} ; mov r1, #0x7000 ; ldr r0, [r1] ; subs r0, r0, #1 ; str r0, [r1]
            addeq lr, lr, #4 ; pop {r0, r1} ; subs pc, lr, #LINK
        """,
    ),
}
_END = " ; mov r0, #0x18 ; ldr r1, =0x20026 ; svc 0x123456 ; .ltorg"
#: What raises an exception, its name, its vector, and what LR is beyond it.
_CAUSES = (("udf #0", "undefined", 4, 4), ("ldr r11, [r10, #-4]", "data abort", 0x10, 8))


@pytest.mark.parametrize("name", _PROGRESS)
@pytest.mark.parametrize(("cause", "kind", "vector", "link"), _CAUSES)
def test_progress_is_no_storm(name: str, cause: str, kind: str, vector: int, link: int) -> None:
    code, handler = (text.replace("CAUSE", cause).replace("LINK", str(link)) for text in _PROGRESS[name])
    with machine_for(code + _END, {vector: "b 0x3000", 0x3000: handler}, "threaded") as machine:
        result = machine.run(timeout=100)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
        assert machine.event_counts[kind] == 20_000


#: Guests whose registers and RAM recur at each exception, and which end: the handler waits for a timer that counts down
#: from 2000 microseconds, or a watchdog resets the machine after 400 at last.
_TIMER = "ldr r4, =0x101e2000 ; ldr r0, =2000 ; str r0, [r4] ; mov r0, #0x82 ; str r0, [r4, #8]"
_WATCHDOG = "ldr r4, =0x101e1000 ; ldr r0, =200 ; str r0, [r4] ; mov r0, #3 ; str r0, [r4, #8]"
_WAITS = {
    "by reading it": (
        f"{_TIMER} ; mov r0, #0 ; mvn r10, #3 ; mov r6, #100 ; CAUSE",
        """
            ldr r1, [r4, #4] ; cmp r1, r6 ; mov r1, #0 ; addlo lr, lr, #4 ; cmp r1, #0
            sub lr, lr, #LINK ; movs pc, lr
        """,
    ),
    "with all interrupts masked": (f"{_WATCHDOG} ; mov r0, #0 ; mvn r10, #3 ; CAUSE", "subs pc, lr, #LINK"),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", _WAITS)
@pytest.mark.parametrize(("cause", "kind", "vector", "link"), _CAUSES)
def test_a_guest_that_waits_for_a_device_is_no_storm(
    name: str, cause: str, kind: str, vector: int, link: int, tier: TierName
) -> None:
    code, handler = (text.replace("CAUSE", cause).replace("LINK", str(link)) for text in _WAITS[name])
    with machine_for(code + _END, {vector: "b 0x3000", 0x3000: handler}, tier) as machine:
        result = machine.run(timeout=100)
        assert (result.reason, result.exit_code) == (StopReason.EXITED, 0), result.message
        assert machine.event_counts[kind] > 2 * FIRST_LOOK


@pytest.mark.parametrize("first", ["ldr r1, [r0]", "ldr r1, [r2]"])
@pytest.mark.parametrize("second", ["ldr r1, [r0]", "ldr r1, [r2]"])
def test_an_abort_at_the_first_instruction_of_its_handler_is_refused(first: str, second: str) -> None:
    """Whether native code takes an abort, as it does for one of translation, or the machine."""
    found = set()
    for tier in TIERS:
        with machine_for(f"{_MMU_ON} ; {first}", {0x10: second}, tier) as machine:
            result = machine.run(fuel=100)
            assert result.reason is StopReason.FAULT and "raises the same exception again" in result.message
            found.add((result.icount, result.message, state_hash(machine)))
            again = machine.run(fuel=100)  # still no instruction has retired since
            found.add((again.icount, again.message, state_hash(machine)))
    assert len(found) == 1


def test_what_a_user_restores_between_runs_is_no_storm() -> None:
    """As a fuzzer does that gives a guest many inputs."""
    with machine_for("udf #0 ; nop ; nop", {4: "movs pc, lr"}, "threaded") as machine:
        machine.run(fuel=5)
        registers = list(machine.r)
        for _ in range(2 * FIRST_LOOK):
            machine.r[15] = registers[15]
            assert machine.run(fuel=2).reason is StopReason.FUEL
        assert machine.event_counts["undefined"] >= 2 * FIRST_LOOK


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


def storm_of(situation: Callable[[], Situation]) -> ExceptionStorm:
    return ExceptionStorm(situation, lambda: True, lambda: "the same")


@pytest.mark.parametrize("length", [1, 2, 3, 1000, 20_000])
def test_a_cycle_of_any_length_is_found(length: int) -> None:
    taken = itertools.count()
    storm = storm_of(lambda: Situation((next(taken) % length).to_bytes(4), 0, 0))
    looks = next(n for n in itertools.count(1) if storm.is_endless())
    assert looks <= 2 * length + 1 if length <= FIRST_LOOK else looks <= 6 * length


@pytest.mark.parametrize("lines", [False, True])
def test_what_comes_from_outside_is_progress(lines: bool) -> None:
    outside = itertools.count()
    storm = storm_of(lambda: Situation(b"", next(outside), 0) if lines else Situation(b"", 0, next(outside)))
    assert not any(storm.is_endless() for _ in range(3 * FIRST_LOOK))


def test_ram_is_seldom_hashed_for_a_guest_that_counts_in_it() -> None:
    hashes = itertools.count()
    storm = ExceptionStorm(lambda: Situation(b"", 0, 0), lambda: True, lambda: str(next(hashes)))
    assert not any(storm.is_endless() for _ in range(100_000))
    assert next(hashes) < 12
