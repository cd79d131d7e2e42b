"""Whatever is raised during a run, the guest stands between two instructions afterwards, and can be run on."""

from __future__ import annotations

import io
import random
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import pytest

from dbt import CaptureConsole, Machine, StopReason
from dbt.abi.addresses import Gpa
from dbt.backend.compiled import Refused
from dbt.debug.instruction_log import InstructionTrace
from dbt.engine import worker
from dbt.engine.messages import CompileRequest
from dbt.engine.mirror import CodeMirror
from dbt.engine.observer import Observer
from dbt.engine.tier import JitMode
from dbt.engine.worker import CompileWorker
from dbt.vm.machine import TierName
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.alarms import Alarm, alarms
from tests.vm.programs import BASE, EXIT, MODES, TIERS

RAM = 1 << 20
#: R0 counts the rounds, each of four instructions.
LOOP = "loop: add r0, r0, #1 ; adds r1, r1, #3 ; bne other ; other: b loop"
#: Sends the letters from a to z, again and again: R4 counts them. 6 instructions each.
TALK = """
    ldr r5, =0x101f1000 ; mov r4, #0 ; mov r0, #97
    loop: str r0, [r5] ; add r4, r4, #1 ; add r0, r0, #1 ; cmp r0, #123 ; moveq r0, #97 ; b loop
"""


def machine_of(source: str, tier: TierName, jit: JitMode = "off", console: CaptureConsole | None = None) -> Machine:
    machine = Machine(RAM, tier, jit=jit, console=console or CaptureConsole())
    machine.load_bytes(assemble(source), base=BASE)
    _ = machine.tier
    return machine


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_handler_that_raises_leaves_the_count_exact(tier: TierName, jit: JitMode) -> None:
    chance = random.Random(5)
    with machine_of(LOOP, tier, jit) as machine, alarms():
        caught = 0
        for _ in range(20):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.02))
                machine.run(timeout=2)
            except Alarm:
                caught += 1
            assert machine.r[0] == (machine.icount + 3) // 4
            assert machine.pc == BASE + machine.icount % 4 * 4
        assert caught == 20


@pytest.mark.parametrize("tier", TIERS)
def test_a_handler_that_raises_in_device_accesses_loses_no_output(tier: TierName) -> None:
    chance = random.Random(6)
    console = CaptureConsole()
    with machine_of(TALK, tier, console=console) as machine, alarms():
        for _ in range(20):
            with pytest.raises(Alarm):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.01))
                machine.run(timeout=5)
        machine.run(fuel=6 - (machine.icount - 3) % 6)
        icount, state = machine.icount, state_hash(machine)
        assert len(console.output) == machine.r[4]
        assert bytes(console.output[:60]) == (b"abcdefghijklmnopqrstuvwxyz" * 3)[:60]
    with machine_of(TALK, tier) as again:
        again.run(fuel=icount)
        assert state_hash(again) == state


class Signalling(InstructionTrace):
    """Sends a signal before each instruction."""

    def before_step(self, machine: Machine) -> None:
        super().before_step(machine)
        signal.raise_signal(signal.SIGUSR1)


def test_handlers_are_called_in_a_run_and_are_the_users_again_after_it() -> None:
    def first(number: int, frame: FrameType | None) -> None:
        seen.append("first")
        signal.signal(signal.SIGUSR1, second)

    def second(number: int, frame: FrameType | None) -> None:
        seen.append("second")

    seen: list[str] = []
    before = signal.signal(signal.SIGUSR1, first)
    try:
        with machine_of(LOOP, "threaded") as machine:
            machine.run(fuel=10)
            assert signal.getsignal(signal.SIGUSR1) is first
            machine.run(fuel=3, trace=Signalling(io.StringIO()))
            assert signal.getsignal(signal.SIGUSR1) is second
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["first", "second", "second"]


class Broken(CaptureConsole):
    """Raises at each third write, and has not taken anything then."""

    writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        if self.writes % 3 == 0:
            raise BrokenPipeError
        super().write(data)


@pytest.mark.parametrize("tier", TIERS)
def test_a_console_that_raises(tier: TierName) -> None:
    console = Broken()
    raised = 0
    with machine_of(TALK, tier, console=console) as machine:
        while machine.icount < 5000:
            try:
                machine.run(fuel=500)
            except BrokenPipeError:
                raised += 1
        assert raised > 2
        while True:
            try:
                machine.run(fuel=0)
            except BrokenPipeError:
                continue
            break
        assert bytes(console.output) == (b"abcdefghijklmnopqrstuvwxyz" * 60)[: machine.r[4]]
        assert machine.icount == 3 + 6 * machine.r[4] - (5 - (machine.icount - 4) % 6)


#: It talks to a smart card reader, which native code does not serve.
_TALK_TO_PYTHON = TALK.replace("0x101f1000", "0x101f0000")


class Raising(Observer):
    """Raises when a device has been accessed so many times."""

    def __init__(self, every: int) -> None:
        self._every = every
        self.accesses: list[tuple[int, int]] = []

    def device_accessed(self, gpa: Gpa, size: int, value: int, write: bool) -> None:
        self.accesses.append((gpa, value))
        if len(self.accesses) % self._every == 0:
            raise ZeroDivisionError


@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])  # the reference tier has no observer
def test_an_observer_that_raises(tier: TierName) -> None:
    observer = Raising(7)
    raised = 0
    with Machine(RAM, tier, console=CaptureConsole(), observer=observer) as machine:
        machine.load_bytes(assemble(_TALK_TO_PYTHON), base=BASE)
        while machine.icount < 600:
            try:
                machine.run(fuel=600 - machine.icount)
            except ZeroDivisionError:
                raised += 1
                assert machine.icount == 3 + 6 * (len(observer.accesses) - 1) + 1  # after the access's instruction
        assert raised == len(observer.accesses) // 7 and machine.icount == 600
        assert len(observer.accesses) == 100 and {gpa for gpa, _ in observer.accesses} == {0x101F0000}
        state = state_hash(machine)
    with machine_of(_TALK_TO_PYTHON, tier) as again:
        again.run(fuel=600)
        assert state_hash(again) == state


class RaisingTrace(InstructionTrace):
    def after_step(self, machine: Machine, event: str) -> None:
        super().after_step(machine, event)
        if machine.icount % 5 == 0:
            raise ZeroDivisionError


@pytest.mark.parametrize("tier", TIERS)
def test_a_trace_that_raises(tier: TierName) -> None:
    text = io.StringIO()
    with machine_of(f"mov r2, #9 ; {EXIT}", tier) as machine:
        for _ in range(10):
            try:
                result = machine.run(trace=RaisingTrace(text))
            except ZeroDivisionError:
                continue
            break
        assert (result.reason, result.exit_code, result.icount) == (StopReason.EXITED, 9, 7)


class RaisesAtTheEnd(InstructionTrace):
    def after_step(self, machine: Machine, event: str) -> None:
        if machine.icount == 7:
            raise ZeroDivisionError


@pytest.mark.parametrize("tier", TIERS)
def test_an_exit_is_told_even_if_a_trace_raised_at_it(tier: TierName) -> None:
    with machine_of(f"mov r2, #9 ; {EXIT}", tier) as machine:
        with pytest.raises(ZeroDivisionError):
            machine.run(trace=RaisesAtTheEnd(io.StringIO()))
        result = machine.run()
        assert (result.reason, result.exit_code, result.icount) == (StopReason.EXITED, 9, 7)
        machine.reset()
        assert machine.run().icount == 7


class Mute(CaptureConsole):
    """Nothing has arrived, and something may."""

    @property
    def ended(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(10)


@pytest.mark.parametrize("tier", TIERS)
def test_a_wait_for_input_ends_at_once(tier: TierName) -> None:
    source = """
        ldr r4, =0x101f1000 ; mov r0, #0x10 ; str r0, [r4, #0x38]
        ldr r5, =0x10140000 ; mov r0, #0x1000 ; str r0, [r5, #0x10] ; wfi ; b .
    """
    with machine_of(source, tier, console=Mute()) as machine, alarms():
        started = time.monotonic()
        with pytest.raises(Alarm):
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            machine.run(timeout=30)
        assert time.monotonic() - started < 5
        assert machine.icount == 6 and machine.pc == BASE + 24


@pytest.mark.parametrize("ending", ["signal", "interrupt"])
def test_a_compilation_in_line_is_not_waited_for(
    ending: str, only_handlers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler hangs. What ends the run does so now, and the guest goes on exactly where it stands."""

    def hang(mirror: CodeMirror, request: CompileRequest) -> Refused:
        time.sleep(1000)
        raise AssertionError

    monkeypatch.setattr("dbt.engine.worker._SHARED", CompileWorker(lambda: hang))
    with machine_of(LOOP, "auto", "sync") as machine, alarms():
        began = time.monotonic()
        if ending == "signal":
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Alarm):
                machine.run()
        else:
            threading.Timer(0.3, machine.interrupt).start()
            assert machine.run().reason is StopReason.INTERRUPTED
        assert time.monotonic() - began < worker.TIMEOUT_S / 2
        assert machine.r[0] == (machine.icount + 3) // 4 and machine.pc == BASE + machine.icount % 4 * 4
        activity = machine.tier.regions
        assert activity is not None and activity.worker.pending
