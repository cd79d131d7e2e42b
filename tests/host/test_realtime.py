"""A guest that waits: for the host's clock or not, for input that comes, and for none that can come."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dbt import Machine
from dbt.board.clock import DEFAULT_INSN_NS, ticks_per_second
from dbt.host.console import CaptureConsole
from dbt.host.realtime import RealTime
from dbt.vm.machine import TierName
from dbt.vm.recording import Recorder, RunIdentity, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import BASE, EXIT, TIERS
from tests.waiting import BOUND_S

TICKS_PER_SECOND = ticks_per_second(DEFAULT_INSN_NS)
#: Enables what the UART receives as an interrupt, which the CPU masks: WFI goes on with it all the same.
_LISTEN = """
    ldr r4, =0x101f1000 ; mov r0, #0x10 ; str r0, [r4, #0x38]
    ldr r5, =0x10140000 ; mov r0, #0x1000 ; str r0, [r5, #0x10]
"""
_EXIT_WITH_KEY = f"ldr r2, [r4] ; {EXIT}"
#: A timer that interrupts after R0 microseconds.
_ALARM = """
    ldr r6, =0x101e2000 ; str r0, [r6] ; mov r1, #0xa3 ; str r1, [r6, #8]
    ldr r5, =0x10140000 ; ldr r1, [r5, #0x10] ; orr r1, r1, #0x10 ; str r1, [r5, #0x10]
"""


class Typist(CaptureConsole):
    """Types ``keys`` once the machine has waited ``patience`` times."""

    def __init__(self, input: bytes = b"", keys: bytes = b"", patience: int = 0) -> None:
        super().__init__(input)
        self.keys, self.patience = keys, patience
        self.waits: list[float] = []

    @property
    def ended(self) -> bool:
        return not self.keys and not self.input

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) > self.patience:
            self.input, self.keys = self.input + self.keys, b""
        super().wait(seconds)


def machine_with(source: str, console: CaptureConsole, tier: TierName = "reference", realtime: bool = False) -> Machine:
    machine = Machine(memory=1 << 20, tier=tier, console=console, realtime=realtime)
    machine.load_bytes(assemble(source), BASE)
    return machine


# -- the pace ------------------------------------------------------------------------------------


def test_lag() -> None:
    host = [100.0]
    pace = RealTime(TICKS_PER_SECOND, lambda: host[0])
    assert pace.lag(5 * TICKS_PER_SECOND) == 0
    host[0] += 0.5
    assert pace.lag(5 * TICKS_PER_SECOND) == pytest.approx(0.5)
    assert pace.lag(5 * TICKS_PER_SECOND + TICKS_PER_SECOND // 2) == pytest.approx(0)
    assert pace.lag(9 * TICKS_PER_SECOND) == 0  # it was faster, and is not held up
    host[0] += 0.25
    assert pace.lag(9 * TICKS_PER_SECOND) == pytest.approx(0.25)
    host[0] += 3600
    assert pace.lag(9 * TICKS_PER_SECOND) == pytest.approx(1)  # it is not to catch up with what is long ago
    assert pace.lag(10 * TICKS_PER_SECOND) == pytest.approx(0)


@pytest.mark.parametrize("tier", TIERS)
def test_a_guest_sleeps_as_long_as_it_says(tier: TierName) -> None:
    source = f"ldr r0, =200000 ; {_ALARM} ; wfi ; mov r2, #3 ; {EXIT}"
    for realtime in (False, True):
        console = Typist()
        machine = machine_with(source, console, tier, realtime)
        _ = machine.tier
        started = time.monotonic()
        assert machine.run(timeout=BOUND_S).exit_code == 3
        took = time.monotonic() - started
        assert machine.timeline.now == pytest.approx(TICKS_PER_SECOND // 5, abs=200)
        if realtime:
            assert took >= 0.19 and sum(console.waits) >= 0.15, "it slept, and did not turn round and round"
        else:
            assert console.waits == []


def test_a_key_ends_the_sleep() -> None:
    console = Typist(keys=b"k", patience=2)
    machine = machine_with(
        f"{_LISTEN} ; ldr r0, =100000000 ; {_ALARM} ; wfi ; {_EXIT_WITH_KEY}", console, realtime=True
    )
    started = time.monotonic()
    assert machine.run(timeout=30).exit_code == ord("k")
    passed = time.monotonic() - started
    assert len(console.waits) == 3
    assert 0.09 <= machine.timeline.now / TICKS_PER_SECOND <= passed + 0.01


# -- input ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("realtime", [False, True])
@pytest.mark.parametrize("tier", TIERS)
def test_a_guest_waits_for_input_that_may_come(tier: TierName, realtime: bool, tmp_path: Path) -> None:
    console = Typist(keys=b"k", patience=1)
    source = f"{_LISTEN} ; wfi ; {_EXIT_WITH_KEY}"
    machine = machine_with(source, console, tier, realtime)
    path = str(tmp_path / "recording")
    recorder = Recorder(machine.input_source, path, identify(machine, ""))
    machine.attach_input(recorder)
    result = machine.run(timeout=30)
    recorder.end(machine, result)
    assert result.exit_code == ord("k") and console.waits

    again = machine_with(source, CaptureConsole(), "reference")
    recording = read_recording(path)
    replay = Replay(recording, identify(again, ""))
    again.attach_input(replay)
    assert replay.compare(again, again.run(timeout=30), pytest.fail).exit_code == ord("k")
    assert again.timeline.now == machine.timeline.now


@pytest.mark.parametrize("realtime", [False, True])
def test_a_guest_halts_when_no_input_can_come(realtime: bool) -> None:
    machine = machine_with(f"{_LISTEN} ; wfi ; {_EXIT_WITH_KEY}", CaptureConsole(), realtime=realtime)
    assert machine.run(timeout=30).reason is StopReason.HALTED


def test_a_guest_that_waits_for_input_can_be_stopped() -> None:
    machine = machine_with(f"{_LISTEN} ; wfi ; {_EXIT_WITH_KEY}", Typist(keys=b"k", patience=10**9))
    assert machine.run(timeout=0.1).reason is StopReason.TIMEOUT
    machine.interrupt()
    assert machine.run(timeout=30).reason is StopReason.INTERRUPTED


def test_a_replay_in_real_time(tmp_path: Path) -> None:
    machine = machine_with(f"{_LISTEN} ; wfi ; {_EXIT_WITH_KEY}", CaptureConsole(), realtime=True)
    identity: RunIdentity = identify(machine, "")
    path = tmp_path / "recording"
    recorder = Recorder(machine.input_source, str(path), identity)
    recorder.close()
    with path.open("a") as file:
        file.write(f'["uart", {TICKS_PER_SECOND // 5}, "k", 0]\n')
    machine.attach_input(Replay(read_recording(str(path)), identity))
    started = time.monotonic()
    assert machine.run(timeout=30).exit_code == ord("k")
    assert time.monotonic() - started >= 0.19


# -- a guest that computes -----------------------------------------------------------------------

#: Polls a timer for half a second of its time, and counts how often. Then it does so again with the timer's interrupt.
_BUSY = f"""
    mov r0, #0x18 ; ldr r1, =0xe51ff004 ; str r1, [r0] ; adr r1, handler ; str r1, [r0, #4]
    ldr r6, =0x101e2000 ; ldr r0, =250000 ; str r0, [r6] ; mov r1, #0x83 ; str r1, [r6, #8] ; mov r7, #0
1:  add r7, r7, #1 ; ldr r1, [r6, #0x10] ; cmp r1, #0 ; beq 1b
    str r0, [r6, #0xc] ; {_ALARM} ; mov r8, #0 ; msr cpsr_c, #0x53
2:  add r7, r7, #1 ; cmp r8, #0 ; beq 2b
    msr cpsr_c, #0xd3 ; mov r2, #0 ; {EXIT}
handler: mov r8, #1 ; str r8, [r6, #0xc] ; subs pc, lr, #4
"""


def test_a_slow_guests_time_is_that_of_the_host_and_a_replay_repeats_it(tmp_path: Path) -> None:
    """In the reference tier it would take half a minute, and longer, to retire what half a second has instructions."""
    machine = machine_with(_BUSY, CaptureConsole(), "reference", realtime=True)
    recorder = Recorder(machine.input_source, str(tmp_path / "run"), identify(machine, ""))
    machine.attach_input(recorder)
    started = time.monotonic()
    result = machine.run(timeout=BOUND_S)
    took = time.monotonic() - started
    recorder.end(machine, result)
    assert result.exit_code == 0 and machine.timeline.now >= TICKS_PER_SECOND // 2 > 3 * result.icount
    assert took >= 0.45
    recording = read_recording(str(tmp_path / "run"))
    assert len(recording.passed) > 20 and sum(passed.ticks for passed in recording.passed) == machine.vcpu.skipped

    for tier in TIERS:
        again = machine_with(_BUSY, CaptureConsole(), tier)
        replay = Replay(recording, identify(again, ""))
        again.attach_input(replay)
        assert replay.compare(again, again.run(timeout=BOUND_S), pytest.fail).exit_code == 0
        assert state_hash(again) == state_hash(machine)


def test_time_is_that_of_the_program_unless_the_user_wants_it_otherwise() -> None:
    source = f"mov r2, #0 ; ldr r0, =3000000 ; 1: subs r0, r0, #1 ; bne 1b ; {EXIT}"
    machine = machine_with(source, CaptureConsole(), "threaded")
    assert machine.run(timeout=BOUND_S).exit_code == 0 and machine.vcpu.skipped == 0
