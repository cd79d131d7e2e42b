"""Checkpoints of whole machines: after a rollback the state is what it was, and the run goes on as it did."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.abi.layout import PAGE_SIZE
from dbt.host.console import CaptureConsole
from dbt.memory.contents import nonzero_pages
from dbt.vm.checkpoint import Checkpoint, CheckpointError
from dbt.vm.input import RecordingError
from dbt.vm.machine import JitMode, TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.long import LONG
from tests.vm.programs import EXIT, MODES, make_elf

IMAGES = Path(__file__).resolve().parents[2] / "guests" / "images"
MINIOS = IMAGES / "minios-armv5te-O2.elf"
NATIVE = [mode for mode in MODES if mode[0] != "reference"]
COMMANDS = b"help\nps\nmem\n"


def console_of(machine: Machine) -> CaptureConsole:
    assert isinstance(machine.console, CaptureConsole)
    return machine.console


def changed_pages(machine: Machine, before: dict[Any, bytes]) -> set[int]:
    now = dict(nonzero_pages(machine.ram))
    return {gpa // PAGE_SIZE for gpa in now.keys() | before.keys() if now.get(gpa) != before.get(gpa)}


def check_point(machine: Machine, count: int) -> None:
    """Go on from a checkpoint three times, by slices that differ, and compare."""
    console, state = console_of(machine), state_hash(machine)
    before, given = dict(nonzero_pages(machine.ram)), console.input
    with machine.checkpoint() as checkpoint:
        assert state_hash(machine) == state and checkpoint.icount == machine.icount
        ends = set()
        for parts in (1, 2, 5):
            console.output.clear()
            for part in range(parts):
                result = machine.run(fuel=count * (part + 1) // parts - count * part // parts)
                if result.reason is not StopReason.FUEL:
                    break
            assert changed_pages(machine, before) <= set(checkpoint.dirty_pages())
            ends.add((state_hash(machine), machine.icount, bytes(console.output)))
            machine.rollback(checkpoint)
            console.input = given
            assert state_hash(machine) == state and machine.icount == checkpoint.icount
            assert checkpoint.dirty_pages() == []
        assert len(ends) == 1


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_an_operating_system(tier: TierName, jit: JitMode) -> None:
    """Processes, page tables, timer interrupts, and a console that is read."""
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(COMMANDS))
    machine.load(str(MINIOS))
    slow = tier == "reference"
    icounts = sorted(random.Random(f"{tier}/{jit}").sample(range(1, 100_000 if slow else 1_500_000), 4 if slow else 12))
    for icount in icounts:
        machine.run(fuel=icount - machine.icount)
        check_point(machine, 3_000 if slow else 60_000)
    machine.close()


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
@pytest.mark.parametrize("name", ["smc", "heap", "quicksort", "vm", "atomics", *(["json"] if LONG else [])])
def test_programs(tier: TierName, jit: JitMode, name: str) -> None:
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole())
    machine.load(str(IMAGES / f"{name}-armv7-a-O2.elf"))
    chance = random.Random(name)
    for _ in range(6):
        machine.run(fuel=chance.randrange(200_000))
        check_point(machine, chance.randrange(1, 150_000))
    machine.close()


#: Reads a file four bytes at a time into a buffer, adds up, closes it at its end, and exits with the sum.
READER = """
    mov r0, #1 ; adr r1, block ; svc 0x123456 ; str r0, handle ; mov r5, #0
next: mov r0, #6 ; adr r1, handle ; svc 0x123456 ; cmp r0, #4 ; beq last
    ldr r2, buffer ; ldrb r2, [r2] ; add r5, r5, r2 ; b next
last: mov r0, #2 ; adr r1, handle ; svc 0x123456 ; and r2, r5, #0xff
""" + EXIT + """
    b .
handle: .word 0
buffer: .word 0x20ffe
    .word 4
block: .word name
    .word 0
    .word 4
name: .asciz "data"
"""  # fmt: skip


def reading(tmp_path: Path, tier: TierName, jit: JitMode) -> Machine:
    (tmp_path / "data").write_bytes(bytes(range(40)))
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole(), files=tmp_path)
    machine.load_bytes(make_elf(assemble(READER, 0x8000)))
    return machine


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_open_files(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    """The guest reads on and closes its file, and has it open again at its earlier position after the rollback."""
    machine = reading(tmp_path, tier, jit)
    early = machine.checkpoint()
    machine.run(fuel=40)
    state = state_hash(machine)
    with machine.checkpoint() as checkpoint:
        for _ in range(3):
            result = machine.run()
            assert result.exit_code == sum(range(0, 40, 4)) and checkpoint.dirty_pages() == [0x20, 0x21, 0xFF]
            machine.rollback(checkpoint)
            assert state_hash(machine) == state
        machine.rollback(early)
        assert machine.icount == 0
        assert machine.run().exit_code == sum(range(0, 40, 4))
        machine.rollback(checkpoint)
        assert state_hash(machine) == state
    descriptors = len(os.listdir("/proc/self/fd"))
    machine.close()  # with a checkpoint open
    assert len(os.listdir("/proc/self/fd")) < descriptors
    early.close()


def test_a_file_stays_open_only_as_long_as_it_is_needed(tmp_path: Path) -> None:
    machine = reading(tmp_path, "threaded", "off")
    machine.run(fuel=40)
    checkpoint = machine.checkpoint()
    machine.run()
    count = len(os.listdir("/proc/self/fd"))
    checkpoint.close()
    checkpoint.close()
    assert len(os.listdir("/proc/self/fd")) == count - 1
    machine.close()


#: Programs timer 0 of the board, which then interrupts once; the loop stores how often it went round.
TIMER = make_elf(
    assemble("""
        ldr r9, =0x101e2000 ; ldr r8, =0x30000
    loop: add r0, r0, #1 ; str r0, [r8] ; cmp r0, #100 ; bne loop
        mov r1, #50 ; str r1, [r9] ; mov r1, #0xe2 ; str r1, [r9, #8]
    again: ldr r2, [r9, #4] ; ldr r3, [r9, #0x10] ; add r4, r4, r2 ; add r4, r4, r3 ; str r4, [r8, #4] ; b again
    """)
)


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_device_that_is_first_used_after_the_checkpoint(tier: TierName, jit: JitMode) -> None:
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole())
    machine.load_bytes(TIMER)
    machine.run(fuel=100)
    check_point(machine, 2000)
    machine.run(fuel=700)
    assert machine.timeline.next_tick is not None
    check_point(machine, 2000)
    machine.close()


@pytest.mark.parametrize("tier", ["threaded", "auto"])
def test_a_fuzzing_loop_does_not_grow(tier: TierName) -> None:
    """1,000 rollbacks of a parser that gets other input each time, and writes to 40 pages."""
    code = assemble("""
        ldr r8, =0x40000 ; mov r1, #40
    next: ldrb r2, [r9], #1 ; add r5, r5, r2 ; str r5, [r8] ; add r8, r8, #0x1000 ; subs r1, r1, #1 ; bne next
        and r2, r5, #0xff
    """ + EXIT)  # fmt: skip
    machine = Machine(1 << 20, tier=tier, console=CaptureConsole())
    machine.load_bytes(make_elf(code))
    machine.r[9] = 0x10000
    state, chance = state_hash(machine), random.Random(7)
    checkpoint = machine.checkpoint()
    used = 0
    for number in range(1000):
        data = chance.randbytes(40)
        machine.write(0x10000, data)
        assert machine.run().exit_code == sum(data) & 0xFF
        machine.rollback(checkpoint)
        if number == 200:
            used = resident_pages()
            assert state_hash(machine) == state
    assert resident_pages() - used < 64
    assert state_hash(machine) == state
    machine.close()


def resident_pages() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1])


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_code_that_changes(tier: TierName, jit: JitMode) -> None:
    """What is patched after the checkpoint is as it was again, and compiled code of other words stays."""
    code = assemble("""
        ldr r4, =200000
    loop: add r0, r0, #1 ; ldr r1, word ; add r2, r2, r1 ; subs r4, r4, #1 ; bne loop
    """ + EXIT + "\nword: .word 3")  # fmt: skip
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole())
    machine.load_bytes(make_elf(code))
    machine.run(fuel=400_001)
    with machine.checkpoint() as checkpoint:
        installed = machine.tier.regions.counts.dropped if machine.tier.regions else 0
        state = state_hash(machine)
        machine.run()
        end = state_hash(machine)
        machine.rollback(checkpoint)
        assert not machine.tier.regions or machine.tier.regions.counts.dropped == installed
        machine.write(0x8004, assemble("sub r0, r0, #5"))
        machine.write(0x8000 + len(code) - 4, b"\x09")
        machine.run(fuel=100_000)
        assert machine.r[0] > 1 << 31 or machine.r[0] < 100_000
        machine.rollback(checkpoint)
        assert state_hash(machine) == state
        machine.run()
        assert state_hash(machine) == end
    machine.close()


def test_the_input_of_a_replay(tmp_path: Path) -> None:
    """A replay goes back with the machine, and ends as the recording."""
    machine = Machine(16 << 20, tier="threaded", console=CaptureConsole(COMMANDS))
    machine.load(str(MINIOS))
    recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, "1"))
    machine.attach_input(recorder)
    recorded = machine.run(fuel=2_000_000)
    recorder.end(machine, recorded)
    other = Machine(16 << 20, tier="auto", console=CaptureConsole())
    other.load(str(MINIOS))
    source = Replay(read_recording(str(tmp_path / "run")), identify(other, "1"))
    other.attach_input(source)
    points: list[Checkpoint] = []
    while other.icount < 1_400_000:
        points.append(other.checkpoint())
        other.run(fuel=100_000)
    for point in (points[9], points[2], points[13], points[0]):
        other.rollback(point)
        other.run(fuel=30_000)
    other.rollback(points[5])
    result = other.run(source.fuel(other.icount, None))
    assert source.compare(other, result, print).icount == result.icount == recorded.icount < 2_000_000
    assert state_hash(other) == state_hash(machine)


def refused(machine: Machine, checkpoint: Checkpoint, error: type[Exception], match: str) -> None:
    state, icount = state_hash(machine), machine.icount
    with pytest.raises(error, match=match):
        machine.rollback(checkpoint)
    assert (state_hash(machine), machine.icount) == (state, icount)


def test_rollbacks_that_are_refused(tmp_path: Path) -> None:
    machine, other = (Machine(1 << 20, tier="threaded", console=CaptureConsole()) for _ in range(2))
    for one in (machine, other):
        one.load_bytes(TIMER)
        one.run(fuel=500)
    checkpoint = machine.checkpoint()
    machine.run(fuel=500)
    refused(other, checkpoint, CheckpointError, "another machine")
    machine.attach_input(recorder := Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, "1")))
    refused(machine, checkpoint, RuntimeError, "attached after the checkpoint")
    recorded = machine.checkpoint()
    refused(machine, recorded, RecordingError, "being recorded")
    recorder.close()
    machine.reset()
    refused(machine, checkpoint, CheckpointError, "has been reset")
    checkpoint.close()
    refused(machine, checkpoint, CheckpointError, "has been closed")
    with pytest.raises(CheckpointError, match="has been closed"):
        checkpoint.dirty_pages()

    class Observer:
        def before_step(self, machine: Machine) -> None:
            self.call()

        def after_step(self, machine: Machine, event: str) -> None:
            pass

        def __init__(self, call: Callable[[], object]) -> None:
            self.call = call

    for call in (machine.checkpoint, lambda: machine.rollback(recorded)):
        with pytest.raises(RuntimeError, match="running"):
            machine.run(fuel=1, trace=Observer(call))
    machine.close()
    with pytest.raises(RuntimeError, match="closed"):
        machine.checkpoint()


def test_a_guest_that_waits_and_one_that_has_ended() -> None:
    """A WFI that has begun, and an exit code that the caller has seen."""
    code = assemble("""
        ldr r9, =0x101e2000 ; ldr r1, =5000 ; str r1, [r9] ; mov r1, #0xe2 ; str r1, [r9, #8]
        ldr r9, =0x10140000 ; mov r1, #0x10 ; str r1, [r9, #0x10]
        mcr p15, #0, r1, c7, c0, #4
        mov r2, #7
    """ + EXIT)  # fmt: skip
    for tier in ("reference", "threaded"):
        machine = Machine(1 << 20, tier=tier, cpu="arm926", console=CaptureConsole())
        machine.load_bytes(make_elf(code))
        machine.run(fuel=9)
        check_point(machine, 1)
        state = state_hash(machine)
        with machine.checkpoint() as checkpoint:
            for _ in range(3):
                result = machine.run()
                assert result.exit_code == 7 and machine.timeline.now > 5000
                machine.rollback(checkpoint)
                assert state_hash(machine) == state
        machine.close()


@pytest.mark.parametrize(("tier", "jit"), NATIVE)
def test_forks_and_restored_machines(tier: TierName, jit: JitMode) -> None:
    """A fork maps RAM anew beneath a checkpoint, and both machines have checkpoints of their own."""
    machine = Machine(16 << 20, tier=tier, jit=jit, console=CaptureConsole(COMMANDS))
    machine.load(str(MINIOS))
    machine.run(fuel=400_000)
    state = state_hash(machine)
    with machine.checkpoint() as checkpoint:
        machine.run(fuel=50_000)
        later = state_hash(machine)
        other = machine.fork(console=CaptureConsole())
        machine.run(fuel=50_000)
        end = state_hash(machine)
        with other.checkpoint() as own:
            assert not own.dirty_pages()
            other.run(fuel=50_000)
            assert state_hash(other) == end
            other.rollback(own)
            assert state_hash(other) == later
            refused(other, checkpoint, CheckpointError, "another machine")
        machine.rollback(checkpoint)
        assert state_hash(machine) == state and state_hash(other) == later
        with machine.save() as saved:
            restored = Machine.restore(saved, tier="threaded", console=CaptureConsole(COMMANDS))
        machine.run(fuel=100_000)
        restored.run(fuel=100_000)
        assert state_hash(machine) == end == state_hash(restored)
        check_point(restored, 20_000)
    for one in (machine, other, restored):
        one.close()


class Interrupted(Exception):
    """Raised by the handler of a signal."""


def test_signals_come_before_a_rollback_or_after_it() -> None:
    """A handler that raises leaves the state at which the machine was, or that of the checkpoint."""
    machine = Machine(1 << 20, tier="threaded", console=CaptureConsole())
    machine.load_bytes(TIMER)
    machine.run(fuel=600)
    state, checkpoint = state_hash(machine), machine.checkpoint()
    machine.run(fuel=400)
    later = state_hash(machine)
    machine.rollback(checkpoint)
    interrupted = 0

    def handle(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    try:
        for delay in range(1, 250):
            machine.run(fuel=400)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay * 2e-6)
                machine.rollback(checkpoint)
                time.sleep(0.001)
            except Interrupted:
                interrupted += 1
            assert state_hash(machine) == (state if machine.icount == checkpoint.icount else later)
            machine.rollback(checkpoint)
            assert state_hash(machine) == state
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 200
    machine.close()
