"""The power key: what a guest sees of it, and that it is input like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbt import Machine
from dbt.board.boards import POWER_KEY
from dbt.devices.pl061 import Pl061
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.vm.input import Arrival, RecordingError
from dbt.vm.machine import TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.programs import EXIT, MODES

BASE = 0x40008000
#: Counts the edges of the power key's pin by interrupts, and notes when they come; two presses are four edges. The
#: interrupt is polled at the GIC. Between, the guest computes, or with the first word 1 it waits.
CODE = f"""
    ldr r4, =0x09030000 ; ldr r5, =0x08010000 ; ldr r6, =0x08000000 ; ldr r11, =0x40080000
    mov r0, #8 ; str r0, [r4, #0x408] ; str r0, [r4, #0x410]
    mov r0, #0x80 ; str r0, [r6, #0x104] ; mov r0, #1 ; str r0, [r6] ; str r0, [r5] ; mov r0, #0xf0 ; str r0, [r5, #4]
    ldr r7, =0x40070000 ; ldr r7, [r7] ; mov r9, #0
next:
    cmp r7, #0 ; wfine ; add r10, r10, #1
    ldr r0, [r5, #0xc] ; cmp r0, #39 ; bne next
    ldr r1, [r4, #0x20] ; str r1, [r11], #4
    mrrc p15, 1, r1, r2, c14 ; str r1, [r11], #4
    mov r1, #8 ; str r1, [r4, #0x41c] ; str r0, [r5, #0x10]
    add r9, r9, #1 ; cmp r9, #4 ; bne next
    mov r2, #0 ; ldr sp, =0x40070000 ; {EXIT}
"""


def made(tier: TierName = "reference", jit: JitMode = "off", waits: bool = False) -> Machine:
    machine = Machine(1 << 20, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a15")
    machine.load_bytes(assemble(CODE, BASE), BASE)
    machine.write(0x40070000, bytes([waits, 0, 0, 0]))
    return machine


def recorded(path: Path, tier: TierName = "threaded") -> list[bytes]:
    """Press the key twice in a run that is recorded. Return levels and times of the edges."""
    with made(tier) as machine:
        recorder = Recorder(machine.input_source, str(path), identify(machine, ""))
        machine.attach_input(recorder)
        for fuel in (12_345, 11_000_000):  # more than 100 ms
            machine.run(fuel=fuel)
            machine.press_power_key()
        result = machine.run()
        assert result.exit_code == 0
        recorder.end(machine, result)
        notes = machine.read(0x40080000, 32)
    return [notes[at : at + 4] for at in range(0, 32, 4)]


def test_the_key_is_released_after_100_ms(tmp_path: Path) -> None:
    notes = [int.from_bytes(word, "little") for word in recorded(tmp_path / "run")]
    levels, times = notes[::2], notes[1::2]
    assert levels == [8, 0, 8, 0]
    pressed = times[1] - times[0], times[3] - times[2]
    assert all(abs(ticks - 6_250_000) < 100 for ticks in pressed)  # at 62.5 MHz


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_recorded_key_is_pressed_again_at_its_instruction(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    recorded(tmp_path / "run")
    recording = read_recording(str(tmp_path / "run"))
    assert [item.arrival for item in recording.arrivals] == [Arrival(POWER_KEY, b"")] * 2
    if tier == "reference":  # which is slow
        recording = read_recording(str(tmp_path / "run"))
        fuel = recording.arrivals[0].time + 1000
        with made() as machine, made("threaded") as other:
            for each in (machine, other):
                each.attach_input(Replay(recording, identify(each, "")))
                each.run(fuel=fuel)
            assert state_hash(machine) == state_hash(other)
        return
    with made(tier, jit) as machine:
        replay = Replay(recording, identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None)), pytest.fail)


def test_a_machine_that_is_restored_in_the_middle_gets_the_rest(tmp_path: Path) -> None:
    recorded(tmp_path / "run")
    recording = read_recording(str(tmp_path / "run"))
    first, second = (item.time for item in recording.arrivals)
    for stop in (first - 1, first, first + 1, second):
        with made("threaded") as machine:
            machine.attach_input(Replay(recording, identify(machine, "")))
            machine.run(fuel=stop)
            with machine.save() as state, Machine.restore(state, tier="threaded", console=CaptureConsole()) as again:
                replay = Replay(recording, identify(again, ""))
                again.attach_input(replay)
                replay.compare(again, again.run(fuel=replay.fuel(again.icount, None)), pytest.fail)


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_guest_that_waits_is_woken(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    """By the press and by the release, to which time jumps. Then it waits for ever."""
    path = str(tmp_path / "run")
    with made(waits=True) as machine:
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        machine.run(fuel=10)
        machine.press_power_key()
        result = machine.run()
        assert result.reason is StopReason.HALTED and machine.r[9] == 2
        recorder.end(machine, result)
    with made(tier, jit, waits=True) as machine:
        replay = Replay(read_recording(path), identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None)), pytest.fail)


def test_the_way_back_presses_the_key_again() -> None:
    with made("threaded") as machine:
        history = machine.begin_history()
        machine.run(fuel=5000)
        machine.press_power_key()
        machine.run(fuel=5000)
        wanted = state_hash(machine)
        assert machine.board.bus.read(0x09030020, 4) == 8  # type: ignore[arg-type]
        history.close()
    with made("threaded") as machine:
        machine.run(fuel=10_000)
        assert state_hash(machine) != wanted


def test_what_nobody_receives_is_refused() -> None:
    with (
        Machine(1 << 20, console=CaptureConsole()) as machine,
        pytest.raises(ValueError, match="versatile has no"),
    ):
        machine.press_power_key()
    with made() as machine:
        machine._parts.mailbox.post(Arrival("doorbell", b""))
        with pytest.raises(RecordingError, match="something comes for 'doorbell'"):
            machine.run(fuel=100)


@pytest.mark.parametrize(
    ("by_level", "both", "high", "raised"),
    [(0, 0, 0, (0, 8)), (0, 0, 8, (8, 8)), (0, 8, 0, (8, 8)), (8, 0, 8, (8, 8)), (8, 0, 0, (8, 8)), (0, 8, 8, (8, 8))],
)
def test_edges_and_levels_of_an_input(by_level: int, both: int, high: int, raised: tuple[int, int]) -> None:
    """What GPIORIS says after the input has risen, and after it has fallen (DDI 0190, 3.3.8 to 3.3.10)."""
    lines: list[bool] = []
    device = Pl061(lines.append)
    for offset, value in ((0x404, by_level), (0x408, both), (0x40C, high), (0x410, 8)):
        device.write_word(offset, value)
    found = []
    for level in (True, False):
        device.drive(3, level)
        found.append(device.read_word(0x414))
    assert tuple(found) == raised and lines[-1] == bool(raised[1])


def test_an_output_is_not_driven_from_outside() -> None:
    device = Pl061(lambda level: None)
    device.write_word(0x400, 8)
    device.drive(3, True)
    assert device.read_word(0x3FC) == 0
