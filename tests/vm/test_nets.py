"""Network cards of machines: frames are input that is recorded and replayed, and states have the cards."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dbt import Machine
from dbt.abi.addresses import Gpa
from dbt.devices.state import StateError
from dbt.engine.descriptors import is_ready
from dbt.engine.tier import JitMode
from dbt.host.console import CaptureConsole
from dbt.host.net_option import Net
from dbt.host.network import HubEnd
from dbt.vm.machine import TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from tests.assembler import assemble
from tests.vm.ping_pong import BASE, CODE, FRAME, FRAME_AT
from tests.vm.programs import MODES
from tests.waiting import BOUND_S


def made(tier: TierName, jit: JitMode, end: str) -> Machine:
    machine = Machine(
        1 << 20, tier=tier, jit=jit, console=CaptureConsole(), cpu="cortex-a15", devices=["balloon"], nets=[Net(end)]
    )
    machine.load_bytes(assemble(CODE, BASE), BASE)
    machine.write(FRAME_AT, FRAME.ljust(60, b"\0"))
    return machine


def recorded(path: Path) -> None:
    """Two machines at a hub, of which the first is recorded."""
    with made("threaded", "off", "hub:test") as machine, made("threaded", "off", "hub:test") as other:
        recorder = Recorder(machine.input_source, str(path), identify(machine, ""))
        machine.attach_input(recorder)
        ends: list[int | None] = [None, None]
        while None in ends:
            for number, one in enumerate((machine, other)):
                if ends[number] is None:
                    result = one.run(fuel=20_000)
                    ends[number] = result.exit_code
                    if number == 0 and result.exit_code is not None:
                        recorder.end(machine, result)
        assert ends == [20, 20]


@pytest.mark.parametrize(("tier", "jit"), MODES[1:])
def test_frames_between_machines_are_replayed(tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    recorded(tmp_path / "run")
    recording = read_recording(str(tmp_path / "run"))
    assert len(recording.arrivals) > 5 and all(item.arrival.receiver == "net" for item in recording.arrivals)
    with made(tier, jit, "none") as machine:
        replay = Replay(recording, identify(machine, ""))
        machine.attach_input(replay)
        replay.compare(machine, machine.run(fuel=replay.fuel(0, None)), pytest.fail)


def test_a_state_wants_its_cards() -> None:
    with made("threaded", "off", "none") as machine:
        machine.run(fuel=1000)
        with machine.save() as state, machine.fork(console=CaptureConsole()) as fork:
            assert fork.run(fuel=1000).icount == 2000
            with pytest.raises(StateError, match="had 1 network card when it was saved, and is given 0"):
                Machine.restore(state, console=CaptureConsole())
            Machine.restore(state, nets=[Net("hub:x")], console=CaptureConsole()).close()
    assert not HubEnd._hubs


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(BOUND_S)
        yield server


def test_a_restored_machine_connects_anew_and_a_fork_does_not(tmp_path: Path) -> None:
    """The guest, which was saved while it waited for an answer, gets it from whom the restored machine is connected to,
    and who has been told of it. A fork and the first machine's connection see nothing of that.
    """
    with (
        listening(tmp_path / "one") as first,
        listening(tmp_path / "two") as second,
        made("threaded", "off", f"unix:{tmp_path}/one") as machine,
        first.accept()[0] as old,
    ):
        machine.run(fuel=20_000)
        assert len(old.recv(1000)) == 4 + 60
        with (
            machine.save() as state,
            machine.fork(console=CaptureConsole()) as fork,
            Machine.restore(state, nets=[Net(f"unix:{tmp_path}/two")], console=CaptureConsole()) as restored,
            second.accept()[0] as new,
        ):
            announced = new.recv(1000)
            assert announced[4:20] == b"\xff" * 6 + FRAME[:6] + bytes.fromhex("80350001") and len(announced) == 64
            fork.run(fuel=20_000)
            assert restored.run(fuel=20_000).exit_code is None and not _has_come(new)
            for count in range(1, 20):
                new.sendall((60).to_bytes(4, "big") + FRAME + bytes([count]) + bytes(45))
                results = (restored.run(fuel=20_000) for _ in range(100))
                result = next(one for one in results if one.exit_code is not None or _has_come(new))
                assert result.exit_code == 20 if count == 19 else new.recv(1000)[18] == count + 1
        assert machine.run(fuel=20_000).exit_code is None and not _has_come(old)


def _has_come(connection: socket.socket) -> bool:
    return is_ready(connection.fileno(), 0)


def test_the_balloon_is_asked_from_outside() -> None:
    with made("threaded", "off", "none") as machine:
        machine.ask_for_memory(1 << 16)
        machine.run(fuel=1000)
        assert machine.board.bus.read(_balloon_target(), 4) == 16
    with (
        Machine(1 << 20, board="virt", console=CaptureConsole()) as machine,
        pytest.raises(ValueError, match="no balloon"),
    ):
        machine.ask_for_memory(1 << 16)


def _balloon_target() -> Gpa:
    return Gpa(0x0A000000 + 30 * 0x200 + 0x100)
