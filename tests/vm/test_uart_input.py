"""Input by the UART in every tier: no driver loses a byte, and where a byte arrives is decided by the program."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dbt import Machine
from dbt.host.console import CaptureConsole
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import StopReason
from dbt.vm.state import state_hash
from tests.assembler import assemble
from tests.vm.lines import Line, Trickle
from tests.vm.programs import EXIT, MODES, RT, RX, interrupt_driven

_NOP = 0xE320F000

#: Enables the FIFO, then polls and echoes until a Q comes.
_POLLS = f"""
    ldr r1, =0x101f1000 ; mov r0, #0x70 ; str r0, [r1, #0x2c]
l:  ldr r0, [r1, #0x18] ; tst r0, #0x10 ; bne l
    ldr r0, [r1] ; str r0, [r1] ; cmp r0, #0x51 ; bne l
    mov r2, #0 ; {EXIT}
"""


def run(code: bytes, console: Any, tier: Any, jit: Any, base: int) -> Machine:
    machine = Machine(1 << 20, tier=tier, jit=jit, console=console)
    machine.load_bytes(code, base)
    return machine


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_input_that_is_there_before_the_fifo_is_enabled_arrives(tier: Any, jit: Any) -> None:
    console = CaptureConsole(b"abQ")
    assert run(assemble(_POLLS, 0x10000), console, tier, jit, 0x10000).run(fuel=10_000).exit_code == 0
    assert console.output == b"abQ"


@pytest.mark.parametrize("mask", [RX, RT, RX | RT])
@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_byte_between_emptying_and_clearing_is_not_lost(tier: Any, jit: Any, mask: int) -> None:
    """With the time-out interrupt alone at once; with the receive interrupt alone, when the next one comes."""
    console = Line(b"A")
    machine = run(interrupt_driven(mask), console, tier, jit, 0)
    while not (machine.r[5] == 1 and machine.peek_word(machine.r[15]) == _NOP):
        assert machine.run(fuel=1).icount < 30_000
    console.input = b"B"
    uart = machine.board.console_uart
    assert uart is not None
    uart.refill()
    assert uart.held == 1 and uart.received[0] == ord("B")
    machine.run(fuel=20_000)
    assert machine.r[5] == (2 if mask & RT else 1)
    console.input = b"CZ"
    assert machine.run(fuel=20_000).exit_code == 0 and machine.r[5] == 4


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tier", ["reference", "threaded", "auto"])
def test_input_comes_where_a_replay_finds_the_place(tier: Any, seed: int, tmp_path: Path) -> None:
    """An exception is entered in no time, so its tick does not tell whether it has been entered already. Here slices
    end with exceptions only.
    """
    code = bytearray(interrupt_driven(RX, wait="udf #0"))
    code[4:8] = assemble("movs pc, lr", 4)
    made = run(bytes(code), Trickle(b"abcdefgh" * 10 + b"Z", seed), tier, "async", 0)
    recorder = Recorder(made.input_source, str(tmp_path / "run"), identify(made, ""))
    made.attach_input(recorder)
    result = made.run(timeout=60)
    recorder.end(made, result)
    assert result.exit_code == 0 and made.r[5] == 81, result.message
    for other in ("threaded", "stitched"):
        again = run(bytes(code), CaptureConsole(), other, "off", 0)
        replay = Replay(read_recording(str(tmp_path / "run")), identify(again, ""))
        again.attach_input(replay)
        assert replay.compare(again, again.run(timeout=60), pytest.fail).exit_code == 0


@pytest.mark.parametrize("mask", [RT, RX | RT])
@pytest.mark.parametrize("tier", ["threaded", "stitched", "auto"])
def test_all_of_a_long_input_arrives_and_can_be_replayed(tier: Any, mask: int, tmp_path: Path) -> None:
    data = bytes(random.Random(mask).choices(b"abcdefgh", k=2_000)) + b"Z"
    code = interrupt_driven(mask)
    made = run(code, Trickle(data, mask), tier, "async", 0)
    recorder = Recorder(made.input_source, str(tmp_path / "run"), identify(made, ""))
    made.attach_input(recorder)
    result = made.run(timeout=60)
    recorder.end(made, result)
    assert result.exit_code == 0 and made.r[5] == len(data), result.message
    again = run(code, CaptureConsole(), "threaded", "off", 0)
    replay = Replay(read_recording(str(tmp_path / "run")), identify(again, ""))
    again.attach_input(replay)
    assert replay.compare(again, again.run(timeout=60), pytest.fail).exit_code == 0
    assert state_hash(again) == state_hash(made)


@pytest.mark.parametrize("trigger", [0, 2, 4])
@pytest.mark.parametrize("mask", [RX, RT, RX | RT])
def test_input_that_is_there_arrives_at_the_same_instructions_in_every_tier(mask: int, trigger: int) -> None:
    """However the run is cut into slices."""
    data = bytes(range(1, 80)) + b"Z"
    ends = set()
    for tier, jit in MODES:
        for fuel in (1 << 40, 997, 61):
            machine = run(interrupt_driven(mask, trigger), Line(data), tier, jit, 0)
            while (result := machine.run(fuel=fuel, timeout=60)).reason is StopReason.FUEL:
                pass
            assert result.exit_code == 0 and machine.r[5] == len(data), result.message
            ends.add((result.icount, machine.r[7], state_hash(machine)))
    assert len(ends) == 1
