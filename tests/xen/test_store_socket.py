"""XenStore at a unix socket: the wire protocol, changes as input, watches, and what is no request."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest

from dbt import Machine
from dbt.host.journal import HostJournal
from dbt.host.store_socket import StoreSocket, StoreSocketError
from dbt.hypervisor.xen.store.server import Type
from dbt.vm.recording import Recorder, identify, read_recording
from dbt.vm.replay import Replay
from dbt.vm.state import state_hash
from tests.waiting import BOUND_S
from tests.xen.guests import RAM, Caller, domain_machine
from tests.xen.store_client import HOME

HEADER = struct.Struct("<IIII")
#: Makes one hypercall (console_io), so that the domain is on, and counts for ever.
GUEST = struct.pack("<6I", 0xE3A0C012, 0xE3A00000, 0xE3A01000, 0xE140EA71, 0xE2844001, 0xEAFFFFFD)


class Program:
    """A program that is connected to the socket, beside the thread that runs the machine."""

    def __init__(self, path: str) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(BOUND_S)
        self.connection.connect(path)

    def send(self, kind: int, payload: bytes, transaction: int = 0) -> None:
        self.connection.sendall(HEADER.pack(kind, 9, transaction, len(payload)) + payload)

    def receive(self) -> tuple[int, bytes]:
        head = self.connection.recv(HEADER.size, socket.MSG_WAITALL)
        kind, _, _, size = HEADER.unpack(head)
        return kind, self.connection.recv(size, socket.MSG_WAITALL) if size else b""

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> tuple[int, bytes]:
        self.send(kind, payload, transaction)
        return self.receive()


class Running:
    """A machine that is run by another thread until :meth:`end`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.thread = threading.Thread(target=machine.run, kwargs={"timeout": 4 * BOUND_S})

    def __enter__(self) -> Running:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.machine.interrupt()
        self.thread.join()


def started(place: str) -> Machine:
    machine = domain_machine("threaded", xenstore=f"unix:{place}")
    machine.load_bytes(GUEST, RAM)
    machine.run(fuel=100)
    return machine


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_nodes(place: str) -> None:
    with started(place) as machine, Running(machine):
        program = Program(place)
        assert program.ask(Type.READ, b"domid\0") == (Type.READ, b"1")
        assert program.ask(Type.DIRECTORY, b"/local\0") == (Type.DIRECTORY, b"domain\0")
        assert program.ask(Type.GET_DOMAIN_PATH, b"1\0") == (Type.GET_DOMAIN_PATH, HOME.encode() + b"\0")
        assert program.ask(Type.WRITE, b"/tool/a/b\0value") == (Type.WRITE, b"OK\0")
        assert program.ask(Type.READ, b"/tool/a/b\0") == (Type.READ, b"value")
        assert program.ask(Type.SET_PERMS, b"/tool/a\0n0\0r1\0") == (Type.SET_PERMS, b"OK\0")
        assert program.ask(Type.GET_PERMS, b"/tool/a\0") == (Type.GET_PERMS, b"n0\0r1\0")
        assert program.ask(Type.MKDIR, b"data/x\0") == (Type.MKDIR, b"OK\0")
        assert program.ask(Type.DIRECTORY, b"data\0") == (Type.DIRECTORY, b"x\0")
        assert program.ask(Type.RM, b"/tool/a\0") == (Type.RM, b"OK\0")
        for kind, payload, name in (
            (Type.READ, b"/tool/a\0", b"ENOENT\0"),
            (Type.READ, b"a b\0", b"EINVAL\0"),
            (Type.RM, b"/\0", b"EINVAL\0"),
            (Type.TRANSACTION_START, b"\0", b"ENOSYS\0"),
            (99, b"", b"ENOSYS\0"),
        ):
            assert program.ask(kind, payload) == (Type.ERROR, name)
        assert program.ask(Type.WRITE, b"/a\0b", transaction=3) == (Type.ERROR, b"ENOSYS\0")


def test_watches(place: str) -> None:
    """A program hears of what another one changes, and the guest's own toolstack."""
    with started(place) as machine, Running(machine):
        program, other = Program(place), Program(place)
        assert program.ask(Type.WATCH, b"data\0token\0") == (Type.WATCH, b"OK\0")
        assert program.receive() == (Type.WATCH_EVENT, b"data\0token\0")
        assert program.ask(Type.WATCH, b"data\0token\0") == (Type.ERROR, b"EEXIST\0")
        assert other.ask(Type.WRITE, b"data/x\0one") == (Type.WRITE, b"OK\0")
        assert program.receive() == (Type.WATCH_EVENT, f"{HOME}/data/x\0token\0".encode())
        machine.write_store("data/y", "two")
        assert program.receive() == (Type.WATCH_EVENT, f"{HOME}/data/y\0token\0".encode())
        assert program.ask(Type.UNWATCH, b"data\0token\0") == (Type.UNWATCH, b"OK\0")
        assert other.ask(Type.RM, b"data/x\0") == (Type.RM, b"OK\0")
        assert program.ask(Type.READ, b"data/y\0") == (Type.READ, b"two")
        for node in (b"data/y", b"data/z"):
            assert program.ask(Type.WATCH, node + b"\0token\0") == (Type.WATCH, b"OK\0")
            assert program.receive() == (Type.WATCH_EVENT, node + b"\0token\0")
        assert other.ask(Type.RM, b"data\0") == (Type.RM, b"OK\0")
        assert program.receive() == (Type.WATCH_EVENT, f"{HOME}/data/y\0token\0".encode()), "removed with its parent"
        assert program.ask(Type.DIRECTORY, b"/local\0") == (Type.DIRECTORY, b"domain\0"), "z was not there"


def test_what_is_no_request(place: str) -> None:
    """Who sends it is sent away. Others are not disturbed."""
    with started(place) as machine, Running(machine):
        good, bad, silent = Program(place), Program(place), Program(place)
        silent.connection.sendall(b"\1\0\0")
        bad.connection.sendall(HEADER.pack(Type.READ, 1, 0, 1 << 30) + bytes(100))
        assert bad.connection.recv(1) == b""
        assert good.ask(Type.READ, b"domid\0") == (Type.READ, b"1")
        many = b"".join(HEADER.pack(Type.WRITE, 1, 0, 9) + b"data/x\0" + b"%02d" % number for number in range(50))
        good.connection.sendall(many)
        assert [good.receive() for _ in range(50)] == [(Type.WRITE, b"OK\0")] * 50
        assert good.ask(Type.READ, b"data/x\0") == (Type.READ, b"49")


def test_who_leaves_in_the_middle_leaves_nothing(place: str) -> None:
    """There is room for as many programs as before, and what was asked for as a whole is answered."""
    with started(place) as machine, Running(machine):
        for _ in range(20):
            half = Program(place)
            assert half.ask(Type.READ, b"domid\0") == (Type.READ, b"1")
            half.connection.sendall(b"\1\0\0")
            half.connection.close()
        good = Program(place)
        asked = HEADER.pack(Type.WRITE, 1, 0, 9) + b"data/x\0" + b"42" + HEADER.pack(Type.READ, 1, 0, 7) + b"data/x\0"
        good.connection.sendall(asked + b"\1\0\0")
        good.connection.shutdown(socket.SHUT_WR)
        assert [good.receive() for _ in range(2)] == [(Type.WRITE, b"OK\0"), (Type.READ, b"42")]
        assert good.connection.recv(1) == b""


def test_who_takes_nothing_gets_little(tmp_path: Path) -> None:
    """A program that asks for much and reads nothing of it is sent away before all is answered."""
    socket_ = StoreSocket(f"unix:{tmp_path}/store", HostJournal())
    with domain_machine(notice=lambda _: None) as machine:
        domain = Caller(machine).domain
        assert Caller(machine).call(17, 0) == 0x40011
        domain.store.write("/large", bytes(4096))
        socket_.follow(domain.store)
        greedy = Program(f"{tmp_path}/store")
        greedy.connection.sendall((HEADER.pack(Type.READ, 1, 0, 7) + b"/large\0") * 2000)
        assert len(socket_.events()) == 1
        tracemalloc.start()
        assert list(socket_.poll()) == [] and len(socket_.events()) == 1, "only who wants to connect"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        size = 0
        while piece := greedy.connection.recv(1 << 16):
            size += len(piece)
        assert 0 < size < 1 << 20
        socket_.close()


def test_changes_are_input(place: str, tmp_path: Path) -> None:
    """They are recorded, and the replay needs no socket."""
    path = str(tmp_path / "recording")
    with domain_machine("threaded", xenstore=f"unix:{place}") as machine:
        machine.load_bytes(GUEST, RAM)
        recorder = Recorder(machine.input_source, path, identify(machine, ""))
        machine.attach_input(recorder)
        with Running(machine):
            program = Program(place)
            assert program.ask(Type.WRITE, b"data/x\0value") == (Type.WRITE, b"OK\0")
        result = machine.run(fuel=1000)
        recorder.end(machine, result)
        end = machine.icount, state_hash(machine)
    recording = read_recording(path)
    assert [item.arrival.receiver for item in recording.arrivals] == ["store request"]
    with domain_machine("threaded") as again:
        again.load_bytes(GUEST, RAM)
        replay = Replay(recording, identify(again, ""))
        again.attach_input(replay)
        replay.compare(again, again.run(fuel=replay.fuel(0, None)), pytest.fail)
        assert (again.icount, state_hash(again)) == end


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    for text in ("12345", "unix:", f"unix:{tmp_path}/no/such"):
        with pytest.raises(StoreSocketError):
            StoreSocket(text, HostJournal())
    with pytest.raises(ValueError, match="no XenStore"):
        Machine(xenstore=f"unix:{tmp_path}/x")


def test_the_command(place: str) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "dbt", "xenstore", f"unix:{place}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=BOUND_S, check=False)

    with started(place) as machine, Running(machine):
        assert run("write", "data/x", "a value").returncode == 0
        assert run("read", "data/x").stdout == "a value\n"
        assert run("ls", "data").stdout == "x\n"
        assert run("rm", "data/x").returncode == 0
        failed = run("read", "data/x")
        assert failed.returncode == 125 and "ENOENT" in failed.stderr
        others = []
        for _ in range(16):
            others.append(Program(place))
            assert others[-1].ask(Type.READ, b"domid\0") == (Type.READ, b"1")
        failed = run("ls", "data")
        assert failed.returncode == 125 and "EBUSY: as many programs are connected as can be" in failed.stderr
        for other in others:
            other.connection.close()
        watching = subprocess.Popen(
            [sys.executable, "-m", "dbt", "xenstore", place, "watch", "data"], stdout=subprocess.PIPE, text=True
        )
        assert watching.stdout is not None
        assert watching.stdout.readline() == "data\n"
        machine.write_store("data/z", "1")
        assert watching.stdout.readline() == f"{HOME}/data/z\n"
    assert watching.wait(BOUND_S) is not None
    watching.stdout.close()
    assert run("ls", "data").returncode == 125
