"""A machine that is saved in the middle of a replay, and restored, gets the rest of the recording's input."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.input import RecordingError
from dbt.vm.playback import Delivery, PassedTime
from dbt.vm.recording import Position, Recorder, Recording, RunIdentity, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from tests.assembler import assemble
from tests.vm.lines import Trickle
from tests.vm.programs import EXIT, MODES, RT, RX, interrupt_driven

#: Adds up what SYS_READC gives until its end, with a pause in between.
_READS = f"""
    mov r4, #0
1:  mov r5, #100
2:  subs r5, r5, #1 ; bne 2b
    mov r0, #7 ; svc 0x123456 ; cmn r0, #1 ; addne r4, r4, r0 ; bne 1b
    mov r2, r4 ; {EXIT}
"""
_GUESTS = {
    "interrupts": (interrupt_driven(RX | RT), bytes(random.Random(5).choices(b"abcdefgh", k=60)) + b"Z"),
    "semihosting": (assemble(_READS), bytes(range(1, 100))),
}


def made(code: bytes, console: Any, tier: Any = "threaded", jit: Any = "off", **options: Any) -> Machine:
    machine = Machine(1 << 20, tier=tier, jit=jit, console=console, **options)
    machine.load_bytes(code, 0)
    return machine


def record(machine: Machine, path: str) -> int:
    """Record the rest of a run. Return how many instructions it has in all."""
    recorder = Recorder(machine.input_source, path, identify(machine, ""))
    machine.attach_input(recorder)
    result = machine.run(timeout=60)
    assert result.reason is StopReason.EXITED, result.message
    recorder.end(machine, result)
    return result.icount


def check_replays(machine: Machine, path: str, icounts: list[int]) -> None:
    """Replay a recording on a machine at its beginning, save it at these icounts, and replay what is left of it."""
    replay = Replay(read_recording(path), identify(machine, ""))
    machine.attach_input(replay)
    for number, icount in enumerate(icounts):
        assert machine.run(fuel=icount - machine.icount).reason is StopReason.FUEL
        tier, jit = MODES[number % len(MODES)]
        with machine.save() as state:
            other = Machine.restore(state, tier=tier, jit=jit, console=CaptureConsole())
        rest = Replay(read_recording(path), identify(other, ""))
        other.attach_input(rest)
        rest.compare(other, other.run(fuel=rest.fuel(icount, None), timeout=60), pytest.fail)
        other.close()
    replay.compare(machine, machine.run(timeout=60), pytest.fail)


@pytest.mark.parametrize("name", _GUESTS)
def test_the_rest_is_delivered_where_it_was(name: str, tmp_path: Path) -> None:
    code, data = _GUESTS[name]
    end = record(made(code, Trickle(data, 1) if name == "interrupts" else CaptureConsole(data)), str(tmp_path / "run"))
    icounts = sorted(random.Random(name).sample(range(1, end), 15))
    check_replays(made(code, CaptureConsole()), str(tmp_path / "run"), icounts)


def test_right_before_and_after_each_delivery(tmp_path: Path) -> None:
    code, data = _GUESTS["interrupts"]
    # In a slow tier the guest executes little between two looks at the line, however fast this host is.
    record(made(code, Trickle(data, 2), tier="reference"), str(tmp_path / "run"))
    times = [delivery.time for delivery in read_recording(str(tmp_path / "run")).deliveries[:6]]
    icounts = sorted({time + more for time in times for more in (-1, 0, 1)} - {0, -1})
    check_replays(made(code, CaptureConsole()), str(tmp_path / "run"), icounts)


def test_time_that_passed_passes_once(tmp_path: Path) -> None:
    """A guest that computes in real time, whose virtual time is raised to the host's."""
    code = assemble(f"ldr r4, =400000 ; 1: subs r4, r4, #1 ; bne 1b ; mov r2, #0 ; {EXIT}")
    end = record(made(code, CaptureConsole(), "reference", realtime=True, insn_ns=1), str(tmp_path / "run"))
    passed = read_recording(str(tmp_path / "run")).passed
    assert len(passed) > 3
    first = passed[0].time
    icounts = [first - 1, first, first + 1, *sorted(random.Random(1).sample(range(first + 2, end), 4))]
    check_replays(made(code, CaptureConsole(), insn_ns=1), str(tmp_path / "run"), icounts)


def test_a_recording_that_began_with_a_restored_machine(tmp_path: Path) -> None:
    code, data = _GUESTS["interrupts"]
    console = Trickle(data, 3)
    machine = made(code, console)
    while machine.board.console.arrived < 5:
        assert machine.run(fuel=500).reason is StopReason.FUEL
    state = machine.save()
    end = record(machine, str(tmp_path / "run"))
    icounts = sorted(random.Random(8).sample(range(state.icount + 1, end), 6))
    check_replays(Machine.restore(state, console=CaptureConsole()), str(tmp_path / "run"), icounts)
    with pytest.raises(RecordingError, match="another program, or what goes with it"):
        Replay(read_recording(str(tmp_path / "run")), identify(made(code, CaptureConsole()), ""))


# -- without a machine ---------------------------------------------------------------------------

IDENTITY = RunIdentity("0", 1 << 20, "versatile", "any", 0, 10, 0, True, False, "guest", "0" * 64, Position(100, 5, 7))
RECORDING = Recording(
    "run",
    IDENTITY,
    (
        Delivery("uart", 110, b"ab", 1),
        Delivery("read", 115, b"c"),
        Delivery("uart", 120, b"d"),
        Delivery("read", 130, b""),
    ),
    None,
    (PassedTime(112, 3),),
)


def at(now: int, arrived: int, received: int) -> Replay:
    identity = RunIdentity(
        "0", 1 << 20, "versatile", "any", 0, 10, 0, True, False, "guest", "1" * 64, Position(now, arrived, received)
    )
    return Replay(RECORDING, identity)


def test_what_has_come_at_the_present_tick_is_known_by_its_size() -> None:
    assert at(105, 5, 7).next_delivery == 112
    replay = at(110, 5, 7)
    assert replay.poll(110, 9, access=True) == b"ab"
    replay = at(110, 7, 7)  # and the second access of that instruction gets nothing
    assert replay.poll(110, 9, access=True) == b"" and replay.next_delivery == 112 and replay.pass_time(112, 0) == 3
    replay = at(120, 7, 8)
    assert replay.next_delivery == 120 and replay.poll(120, 9) == b"d"
    assert at(120, 8, 8).next_delivery is None and at(120, 8, 8).ended
    assert at(130, 8, 8).read(130, 1) == b"" == at(131, 8, 8).read(140, 1)


@pytest.mark.parametrize(
    ("now", "arrived", "received"), [(111, 5, 7), (111, 8, 7), (120, 9, 8), (120, 6, 8), (121, 8, 7)]
)
def test_a_machine_that_has_got_other_input(now: int, arrived: int, received: int) -> None:
    with pytest.raises(RecordingError, match=rf"another run: at {now}, the guest had got -?\d+ bytes of input"):
        at(now, arrived, received)
