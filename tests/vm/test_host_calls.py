"""Semihosting calls that a tier has answered within its slice: the run is the one in which it leaves with each."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.exits import VmExit
from dbt.engine.observer import MEASURING, NOBODY, Observer, Several
from dbt.engine.threaded import MAX_ANSWERS
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.alarms import Alarm, alarms
from tests.vm.programs import BASE, EXIT, MODES, TIERS

RAM = 1 << 20
FILE = b"the content of a file of some length, which is read again and again"
#: Reads a file in pieces of 3 bytes, and writes each piece and where it stands to the console, for ever.
COPY = """
    start: adr r1, name ; mov r0, #1 ; svc 0x123456 ; mov r4, r0
    adr r1, console ; mov r0, #1 ; svc 0x123456 ; mov r5, r0
    mov r6, #0 ; mov r9, sp
    again: mov r7, #0
    loop: add r6, r6, #1
    sub sp, r9, #32 ; add r8, sp, #16 ; mov r2, #3
    stmia sp, {r4, r8} ; str r2, [sp, #8] ; mov r1, sp ; mov r0, #6 ; svc 0x123456
    cmp r0, #3 ; beq rewind
    rsb r2, r0, #3 ; stmia sp, {r5, r8} ; str r2, [sp, #8] ; mov r0, #5 ; svc 0x123456
    mov r0, #0x30 ; svc 0x123456 ; ldr r3, [sp] ; eor r7, r7, r3 ; b loop
    rewind: stmia sp, {r4} ; mov r3, #1 ; str r3, [sp, #4] ; mov r0, #0xa ; svc 0x123456
    mov r0, #0x10 ; svc 0x123456 ; add r7, r7, r0 ; b again
    .align 2
    name: .word path, 0, 4
    console: .word tt, 4, 3
    path: .asciz "file"
    tt: .asciz ":tt"
"""


@pytest.fixture
def files(tmp_path: Path) -> str:
    (tmp_path / "file").write_bytes(FILE)
    return str(tmp_path)


def output(machine: Machine) -> bytes:
    assert isinstance(machine.console, CaptureConsole)
    return bytes(machine.console.output)


def machine_of(source: str, tier: object = "threaded", files: str | None = None, **options: object) -> Machine:
    machine = Machine(RAM, tier, files=files, **{"console": CaptureConsole(), **options})  # type: ignore[arg-type]
    machine.load_bytes(assemble(source), base=BASE)
    return machine


def test_a_run_that_stops_anywhere_is_alike_in_every_tier(files: str) -> None:
    chance = random.Random(8)
    ends = [chance.randrange(1, 60) for _ in range(40)] + [chance.randrange(500, 5000) for _ in range(12)]
    found = []
    for tier, jit in MODES:
        with machine_of(COPY, tier, files, jit=jit) as machine:
            states = []
            for fuel in ends:
                assert machine.run(fuel=fuel).reason is StopReason.FUEL
                states.append((state_hash(machine), output(machine), machine.event_counts["semihosting"]))
            assert sum(machine.retired.values()) == machine.icount == sum(ends)
            found.append((states, machine.retired["machine"]))
    assert all(one == found[0] for one in found)
    assert found[0][1] > 1000


class Exits(Observer):
    def __init__(self) -> None:
        self.count = 0

    def left_guest(self, exit_: object) -> None:
        self.count += 1


def test_an_observer_hears_of_each_call(files: str) -> None:
    observer = Exits()
    with machine_of(COPY, files=files, observer=observer) as machine:
        machine.run(fuel=20000)
        assert observer.count >= machine.event_counts["semihosting"] > 1000


def test_statistics_do_not_change_how_calls_are_answered() -> None:
    assert Exits().hears_exits and Several(MEASURING, Exits()).hears_exits
    assert not NOBODY.hears_exits and not Several(MEASURING, NOBODY).hears_exits


def test_a_slice_ends_after_so_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine_of("loop: mov r0, #0x13 ; svc 0x123456 ; b loop") as machine:
        slices: list[int] = []
        run = machine.tier.run

        def run_slice(budget: int) -> tuple[VmExit, int]:
            exit_, retired = run(budget)
            slices.append(retired)
            return exit_, retired

        monkeypatch.setattr(machine.tier, "run", run_slice)
        machine.run(fuel=20 * MAX_ANSWERS)
        calls = machine.event_counts["semihosting"]
        assert calls / MAX_ANSWERS <= len(slices) < calls / 20
        assert max(slices) <= 3 * (MAX_ANSWERS + 1)


@pytest.mark.parametrize("tier", TIERS)
def test_a_handler_that_raises_loses_no_call(files: str, tier: str) -> None:
    chance = random.Random(9)
    with machine_of(COPY, tier, files) as machine, alarms():
        for _ in range(20):
            with pytest.raises(Alarm):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.01))
                machine.run(timeout=5)
        icount, state = machine.icount, state_hash(machine)
    with machine_of(COPY, files=files) as again:
        again.run(fuel=icount)
        assert state_hash(again) == state


class Conversation(CaptureConsole):
    """Answers what was written, and nothing before."""

    def read(self, size: int) -> bytes | None:
        return bytes(self.output[-1:]).upper()


@pytest.mark.parametrize("tier", TIERS)
def test_output_is_delivered_before_input_is_read(tier: str) -> None:
    talk = """
        mov r4, #97 ; sub sp, sp, #8
        loop: strb r4, [sp] ; mov r1, sp ; mov r0, #3 ; svc 0x123456
        mov r0, #7 ; svc 0x123456 ; add r0, r0, #32 ; cmp r0, r4 ; movne r2, #1 ; bne end
        add r4, r4, #1 ; cmp r4, #123 ; bne loop ; mov r2, #0
        end:
    """
    with machine_of(talk + EXIT, tier, console=Conversation()) as machine:
        assert machine.run(timeout=30).exit_code == 0
        assert output(machine) == b"abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("tier", TIERS)
def test_code_that_a_call_reads_from_a_file_is_executed(tmp_path: Path, tier: str) -> None:
    numbers = [7, 200, 31]
    (tmp_path / "file").write_bytes(b"".join(assemble(f"mov r7, #{number}") for number in numbers))
    source = """
        adr r1, name ; mov r0, #1 ; svc 0x123456 ; mov r4, r0 ; adr r5, patch ; mov r2, #0 ; mov r6, #3
        loop: sub sp, sp, #16 ; mov r3, #4 ; stmia sp, {r4, r5} ; str r3, [sp, #8] ; mov r1, sp ; mov r0, #6
        svc 0x123456
        patch: mov r7, #0
        add r2, r2, r7 ; subs r6, r6, #1 ; bne loop ; b end
        .align 2
        name: .word path, 0, 4
        path: .asciz "file"
        .align 2
        end:
    """
    with machine_of(source + EXIT, tier, str(tmp_path)) as machine:
        assert machine.run(timeout=30).exit_code == sum(numbers)
