"""Socket devices of machines: unix sockets of the host, recorded and replayed, saved, restored and forked."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dbt import CaptureConsole, Machine
from dbt.devices.state import StateError
from dbt.devices.virtio.vsock_packet import BUFFER, Op
from dbt.engine.tier import JitMode
from dbt.host.vsock import UnixEnd, VsockError
from dbt.host.vsock_option import Vsock
from dbt.vm.input import RecordingError
from dbt.vm.machine import TierName
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.result import RunResult, StopReason
from dbt.vm.state import state_hash
from tests.devices.virtio.guest import DATA, ORIGIN
from tests.devices.virtio.vsock_program import CID, ROOM, VsockProgram, packet
from tests.vm.programs import MODES

_RAM = 32 << 20
#: Instructions between two looks of the tests at the host's sockets, and so many looks are enough.
_PIECE = 2000
_PATIENCE = 2000


def talker() -> bytes:
    """A guest that says hello, gets an answer, and closes."""
    guest = VsockProgram()
    guest.send(Op.REQUEST)
    guest.wait(1)
    guest.send(Op.RW, b"hello")
    guest.wait(2)
    guest.send(Op.RW, b"bye")
    guest.send(Op.SHUTDOWN, flags=3)
    guest.wait(3)
    return guest.image()


def listener() -> bytes:
    """A guest that takes a connection to its port 1000, gets something, and waits for the end."""
    guest = VsockProgram()
    guest.wait(1)
    guest.send(Op.RESPONSE, host_port=1 << 30)
    guest.send(Op.RW, b"welcome", host_port=1 << 30)
    guest.wait(3)
    guest.send(Op.RST, host_port=1 << 30)
    return guest.image()


def loser() -> bytes:
    """A guest that connects, and then waits until it is told that all is lost. It connects again."""
    guest = VsockProgram()
    guest.send(Op.REQUEST)
    guest.wait(1)
    guest.wait_for_event()
    guest.send(Op.RW, b"x")
    guest.send(Op.REQUEST)
    guest.wait(3)
    return guest.image()


def made(image: bytes, end: str, tier: TierName = "threaded", jit: JitMode = "off") -> Machine:
    machine = Machine(_RAM, tier=tier, jit=jit, board="virt", vsock=Vsock(CID, end), console=CaptureConsole())
    machine.load_bytes(image, base=ORIGIN)
    return machine


def got(machine: Machine, count: int) -> list[tuple[Op, bytes]]:
    """The packets that the guest has got."""
    return [packet(machine.read(DATA + ROOM * number, ROOM)) for number in range(count)]


def run_until(machine: Machine, happens: Callable[[], object]) -> RunResult:
    """Let the guest run, piece by piece, until something has happened on the host. It may have ended then."""
    for _ in range(_PATIENCE):
        result = machine.run(fuel=_PIECE)
        if happens():
            return result
        assert result.reason is StopReason.FUEL
    raise AssertionError("it does not happen")


def finish(machine: Machine) -> RunResult:
    """Let the guest run to its end, in pieces, between which things arrive."""
    for _ in range(_PATIENCE):
        result = machine.run(fuel=_PIECE)
        if result.reason is not StopReason.FUEL:
            assert result.exit_code == 0
            return result
    raise AssertionError("it does not end")


class Host:
    """Sockets of the host, none of which waits."""

    def __init__(self, path: Path) -> None:
        self.path = str(path / "vsock")
        self.end = f"unix:{self.path}"
        self._opened = ExitStack()

    def listen(self, port: int = 52) -> socket.socket:
        one = self._opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        one.bind(f"{self.path}_{port}")
        one.listen()
        one.setblocking(False)
        return one

    def accept(self, one: socket.socket) -> socket.socket | None:
        try:
            client = self._opened.enter_context(one.accept()[0])
        except BlockingIOError:
            return None
        client.setblocking(False)
        return client

    def connect(self, line: bytes = b"CONNECT 1000\n") -> socket.socket:
        client = self._opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.connect(self.path)
        client.setblocking(False)
        client.sendall(line)
        return client

    def close(self) -> None:
        self._opened.close()


def received(client: socket.socket) -> bytes | None:
    """What has come; no bytes at the end, and None if nothing has."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return None
    except ConnectionResetError:  # what it has sent was not read
        return b""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with closing(Host(tmp_path)) as one:
        yield one


def meet(machine: Machine, host: Host, listening: socket.socket) -> socket.socket:
    """Return the guest's connection."""
    clients: list[socket.socket] = []

    def comes() -> bool:
        client = host.accept(listening)
        if client is not None:
            clients.append(client)
        return bool(clients)

    run_until(machine, comes)
    return clients[0]


def talk(machine: Machine, host: Host) -> RunResult:
    """Be the host of the talking guest, to its end."""
    client, heard = meet(machine, host, host.listen()), bytearray()

    def hears(wanted: bytes) -> Callable[[], bool]:
        def look() -> bool:
            heard.extend(received(client) or b"")
            return heard == wanted

        return look

    run_until(machine, hears(b"hello"))
    client.sendall(b"and hello to you")
    result = run_until(machine, hears(b"hellobye"))
    if result.exit_code is None:
        result = finish(machine)
    assert received(client) == b""
    return result


def test_the_guest_connects(host: Host) -> None:
    with made(talker(), host.end) as machine:
        talk(machine, host)
        assert got(machine, 3) == [(Op.RESPONSE, b""), (Op.RW, b"and hello to you"), (Op.RST, b"")]


def test_nobody_is_there(host: Host) -> None:
    with made(talker(), host.end) as machine:
        machine.run(fuel=100_000)
        assert got(machine, 1) == [(Op.RST, b"")]


def test_the_host_connects(host: Host) -> None:
    with made(listener(), host.end) as machine:
        machine.run(fuel=100_000)
        client = host.connect(b"CONNECT 1000\nearly")
        heard = bytearray()

        def hears() -> bool:
            heard.extend(received(client) or b"")
            return heard == b"OK 1073741824\nwelcome"

        run_until(machine, hears)
        client.shutdown(socket.SHUT_WR)
        finish(machine)
        machine.attachments.arrivals()
        assert got(machine, 3) == [(Op.REQUEST, b""), (Op.RW, b"early"), (Op.SHUTDOWN, b"")]
        assert received(client) == b""


@pytest.mark.parametrize(
    "line",
    [b"x" * 100, b"CONNECT\n", b"CONNECT 4294967295\n", b"CONNECT -1\n", b"HELLO 1\n", b"CONNECT 1 2\n", b"\xff" * 33],
)
def test_who_says_something_else_is_sent_away(host: Host, line: bytes) -> None:
    with made(listener(), host.end) as machine:
        client = host.connect(line)
        run_until(machine, lambda: received(client) == b"")


def test_a_line_comes_in_pieces_and_a_client_goes(host: Host) -> None:
    guest = VsockProgram()
    guest.wait(8)
    with made(guest.image(), host.end) as machine:
        machine.run(fuel=100_000)
        slow, gone = host.connect(b"connect "), host.connect()
        machine.run(fuel=10_000)
        gone.close()
        run_until(machine, lambda: not machine.attachments._sockets.device.connections)  # type: ignore[union-attr]
        assert got(machine, 2)[0] == (Op.REQUEST, b"")
        slow.sendall(b"1000\r\n")
        run_until(machine, lambda: len(machine.attachments._sockets.device.connections))  # type: ignore[union-attr]
        assert got(machine, 3) == [(Op.REQUEST, b""), (Op.RST, b""), (Op.REQUEST, b"")]


def test_the_guest_refuses(host: Host) -> None:
    guest = VsockProgram()
    guest.wait(1)
    guest.send(Op.RST, host_port=1 << 30)
    with made(guest.image(), host.end) as machine:
        machine.run(fuel=100_000)
        client = host.connect()
        run_until(machine, lambda: received(client) == b"")


def test_many_clients_cost_little(host: Host) -> None:
    """Clients that say nothing have no more than their places, and those that never read no more than their credit."""
    guest = VsockProgram()
    guest.send(Op.REQUEST)
    guest.wait(1)
    for _ in range(4 * BUFFER // 4000):
        guest.send(Op.RW, bytes(4000))
    with made(guest.image(), host.end) as machine:
        listening = host.listen()
        silent = [host.connect(b"") for _ in range(4)]
        client = meet(machine, host, listening)
        for _ in range(100):
            machine.run(fuel=_PIECE)
            silent.append(host.connect(b"CONN"))
            silent[-5].close()
        machine.run(fuel=10**6)
        end = machine.attachments._sockets._end  # type: ignore[union-attr]
        assert isinstance(end, UnixEnd)
        assert len(end._greetings) <= 32
        assert sum(len(one.output) for one in end._streams.values()) <= BUFFER
        client.close()


@pytest.mark.parametrize(("tier", "jit"), MODES)
def test_a_replay_needs_no_host(host: Host, tmp_path: Path, tier: TierName, jit: JitMode) -> None:
    path = str(tmp_path / "run")
    with made(talker(), host.end) as machine:
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        recorder.end(machine, talk(machine, host))
        wanted = state_hash(machine)
    recording = read_recording(path)
    assert {item.arrival.receiver for item in recording.arrivals} == {"vsock"}
    with made(talker(), "none", tier, jit) as machine:
        replay = Replay(recording, identify(machine, ""))
        machine.attach_input(replay)
        machine.run(fuel=replay.fuel(0, None))
        assert state_hash(machine) == wanted
        assert got(machine, 2)[1] == (Op.RW, b"and hello to you")


def test_a_replay_goes_on_from_the_middle(host: Host, tmp_path: Path) -> None:
    """A replayed machine that is saved and restored has the connections of the recording."""
    path = str(tmp_path / "run")
    with made(talker(), host.end) as machine:
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        talk(machine, host)
        end, wanted = machine.icount, state_hash(machine)
    for part in range(1, 10):
        with made(talker(), "none") as machine:
            machine.attach_input(Replay(read_recording(path), identify(machine, "")))
            machine.run(fuel=end * part // 10)
            with machine.save() as state:
                again = Machine.restore(state, vsock=Vsock(CID, "none"), tier="threaded", console=CaptureConsole())
            with again:
                again.attach_input(Replay(read_recording(path), identify(again, "")))
                again.run(fuel=end - again.icount)
                assert state_hash(again) == wanted


def test_a_restored_guest_is_told_that_its_connections_are_lost(host: Host) -> None:
    with made(loser(), host.end) as machine:
        listening = host.listen()
        client = meet(machine, host, listening)
        machine.run(fuel=10_000)
        assert got(machine, 1) == [(Op.RESPONSE, b"")]
        with machine.fork(console=CaptureConsole()) as fork:
            finish(fork)
            assert got(fork, 3)[1:] == [(Op.RST, b"")] * 2
        machine.run(fuel=10_000)
        assert received(client) is None  # the fork has nothing to do with it
        state = machine.save()
    assert received(client) == b"" and not os.path.exists(host.path)
    with Machine.restore(state, vsock=Vsock(CID, host.end), console=CaptureConsole()) as machine:
        finish(machine)
        assert got(machine, 3)[1:] == [(Op.RST, b""), (Op.RESPONSE, b"")]
    state.close()


def test_a_state_without_connections_goes_on_as_it_was(host: Host) -> None:
    """Nothing arrives then, so the restored machine has the hash of the one that was saved."""
    with made(listener(), host.end) as machine:
        machine.run(fuel=100_000)
        with machine.save() as state:
            machine.run(fuel=100_000)
            with Machine.restore(state, vsock=Vsock(CID, "none"), console=CaptureConsole()) as again:
                again.run(fuel=100_000)
                assert state_hash(again) == state_hash(machine)


def test_a_rolled_back_guest_is_told_too(host: Host) -> None:
    with made(loser(), host.end) as machine:
        listening = host.listen()
        checkpoints = [machine.checkpoint()]
        client = meet(machine, host, listening)
        machine.run(fuel=10_000)
        assert got(machine, 1) == [(Op.RESPONSE, b"")]
        checkpoints.append(machine.checkpoint())
        machine.rollback(checkpoints[0])
        other = meet(machine, host, listening)  # the first one is closed, and nobody is told of it
        assert received(client) == b""
        other.send(b"x")
        run_until(machine, lambda: got(machine, 2)[1] == (Op.RW, b"x"))
        machine.rollback(checkpoints[1])
        finish(machine)
        assert received(other) == b""
        assert got(machine, 3)[1:] == [(Op.RST, b""), (Op.RESPONSE, b"")]


def test_a_history_says_nothing_twice(host: Host) -> None:
    with made(talker(), host.end) as machine, closing(machine.begin_history()) as history:
        talk(machine, host)
        wanted, end = state_hash(machine), machine.icount
        for icount in (end // 2, 1000, end * 3 // 4):
            history.run_to(icount)
            history.run_to(end)
            assert state_hash(machine) == wanted


def test_what_makes_no_sense_is_refused(host: Host, tmp_path: Path) -> None:
    for vsock, message in (
        (Vsock(2, "none"), "CID of a guest is a number from 3"),
        (Vsock(True, "none"), "CID of a guest"),
        ((3, "none"), "is no Vsock"),
    ):
        with pytest.raises(ValueError, match=message):
            Machine(_RAM, board="virt", vsock=vsock)  # type: ignore[arg-type]
    missing, long = f"unix:{tmp_path}/none/x", "unix:" + "x" * 200
    for end, message in (("tcp:1", "no end 'tcp:1'"), (missing, "No such"), (long, "a name of 1 to 80 bytes")):
        with pytest.raises(VsockError, match=message):
            Machine(_RAM, board="virt", vsock=Vsock(3, end))
    with made(talker(), host.end) as machine:
        with pytest.raises(VsockError, match="cannot listen"):
            made(talker(), host.end)
        with machine.save() as state:
            for other in (None, Vsock(4, "none")):
                with pytest.raises(StateError, match="socket device of the machine had the CID 3 when it was saved"):
                    Machine.restore(state, vsock=other)


def test_a_damaged_recording_does_no_harm(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with made(talker(), host.end) as machine:
        recorder = Recorder(machine.input_source, str(path), identify(machine, ""))
        machine.attach_input(recorder)
        recorder.end(machine, talk(machine, host))
    lines = path.read_text().splitlines(keepends=True)
    damaged = [line.replace("and hello", "AND HELLO") for line in lines]
    assert damaged != lines
    path.write_text("".join(damaged))
    with made(talker(), "none") as machine:
        replay = Replay(read_recording(str(path)), identify(machine, ""))
        machine.attach_input(replay)
        machine.run(fuel=10**6)
        assert got(machine, 2)[1] == (Op.RW, b"AND HELLO to you")
    path.write_text("".join(line.replace('"vsock"', '"none"') for line in lines))
    with made(talker(), "none") as machine, pytest.raises(RecordingError, match="comes for 'none'"):
        machine.attach_input(Replay(read_recording(str(path)), identify(machine, "")))
        machine.run(fuel=10**6)
