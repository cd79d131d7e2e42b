"""Consoles that are files and sockets: what arrives, what is lost, and who cannot hold the guest up."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dbt import FileConsole, NullConsole, SocketConsole
from dbt.host.endpoint import Endpoint, Listener, WrongEndpoint
from dbt.host.serial import SerialLine
from dbt.host.socket_console import MOST_WAITING
from tests.waiting import wait_until

Connect = Callable[[], socket.socket]


@pytest.fixture
def console(tmp_path: Path) -> Iterator[SocketConsole]:
    with SocketConsole(f"unix:{tmp_path}/line") as made:
        yield made


@pytest.fixture
def connect(console: SocketConsole) -> Iterator[Connect]:
    made: list[socket.socket] = []

    def come() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(console.address)
        made.append(client)
        return client

    yield come
    for client in made:
        client.close()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stdio", SerialLine("stdio")),
        ("null", SerialLine("null")),
        ("file:a,b", SerialLine("file", "a,b")),
        ("unix:p", SerialLine("unix", "unix:p")),
        ("unix:p,server", SerialLine("unix", "unix:p", True, True)),
        ("unix:p,server=on,wait=off", SerialLine("unix", "unix:p", True, False)),
        ("unix:p,server,nowait", SerialLine("unix", "unix:p", True, False)),
        ("unix:p,server=off", SerialLine("unix", "unix:p")),
        ("unix:p,,q,server", SerialLine("unix", "unix:p,q", True, True)),
        ("tcp:localhost:4444", SerialLine("tcp", "localhost:4444")),
        ("tcp::4444,server,nowait,nodelay", SerialLine("tcp", ":4444", True, False)),
        ("tcp:[::1]:4444,server", SerialLine("tcp", "[::1]:4444", True, True)),
    ],
)
def test_a_line_is_read_as_qemu_reads_it(text: str, line: SerialLine) -> None:
    assert SerialLine.parse(text) == line


@pytest.mark.parametrize(
    "text",
    [
        *("", "nul", "stdio:", "file:", "unix:", "tcp:", "tcp:host", "tcp:1:2:3", "tcp:h:65536", "pty", "telnet:h:1"),
        *("unix:p,serve", "unix:p,server=maybe", "unix:p,wait", "unix:p,nowait", "unix:p,server,reconnect=1"),
        *("unix:p,noserver=on", "tcp::0", f"unix:{'p' * 108}", "null,server", "unix:p,server,nodela"),
    ],
)
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(WrongEndpoint) as caught:
        SerialLine.parse(text)
    assert str(caught.value).startswith(text) and "\n" not in str(caught.value)


def test_loopback_unless_told_otherwise() -> None:
    with SocketConsole(":0") as console:
        assert console.address.startswith("127.0.0.1:")


def test_a_client_reads_and_writes(console: SocketConsole, connect: Connect) -> None:
    assert not console.arrived() and not console.ended and console.read(1) is None
    client = connect()
    client.sendall(b"abc")
    wait_until(console.arrived, "input")
    assert console.read(2) == b"ab" and console.read(9) == b"c" and console.read(1) is None
    console.write(b"out")
    console.flush()
    assert client.recv(9) == b"out"


def test_output_is_lost_while_nobody_is_connected(console: SocketConsole, connect: Connect) -> None:
    console.write(b"lost")
    console.flush()
    client = connect()
    console.write(b"kept")
    console.flush()
    assert client.recv(9) == b"kept"


def test_input_of_clients_that_have_gone_arrives_in_order(console: SocketConsole, connect: Connect) -> None:
    for number in range(3):  # the second and third connect while the first one's input is unread
        with closing(connect()) as client:
            client.sendall(b"%d" % number * 3000)
    taken = bytearray()
    while len(taken) < 9000:
        wait_until(console.arrived, "input")
        taken += console.read(100) or b""
    assert taken == b"0" * 3000 + b"1" * 3000 + b"2" * 3000
    assert not console.arrived() and not console.ended


def test_further_clients_wait_for_the_first_to_go(console: SocketConsole, connect: Connect) -> None:
    first = connect()
    assert console.is_connected
    second = connect()
    console.write(b"one")
    console.flush()
    assert first.recv(9) == b"one"
    first.shutdown(socket.SHUT_WR)  # half a connection is none
    console.flush()
    assert first.recv(9) == b""
    console.write(b"two")
    console.flush()
    assert second.recv(9) == b"two"


def test_who_does_not_read_costs_a_bounded_amount_and_no_time(tmp_path: Path) -> None:
    notices: list[str] = []
    piece = bytes(range(256)) * 4096
    with SocketConsole(f"unix:{tmp_path}/line", notice=notices.append) as console, socket.socket(socket.AF_UNIX) as one:
        one.connect(console.address)
        before = time.monotonic()
        for _ in range(24):
            console.write(piece)
            console.flush()
        assert time.monotonic() - before < 10
        assert len(notices) == 1 and "16 MiB" in notices[0]
        one.setblocking(False)
        taken = bytearray()
        while len(taken) < MOST_WAITING:
            console.flush()
            try:
                taken += one.recv(1 << 20)
            except BlockingIOError:
                continue
        assert taken.startswith(piece * 16)  # what was taken has no gap


def test_a_client_that_does_not_read_does_not_hold_the_end_up(console: SocketConsole, connect: Connect) -> None:
    connect()
    console.write(bytes(8 << 20))
    before = time.monotonic()
    console.close()
    assert time.monotonic() - before < 10
    assert not os.path.lexists(console.address or "nothing")


def test_the_last_output_reaches_a_client_that_reads(console: SocketConsole, connect: Connect) -> None:
    client = connect()
    console.write(b"x" * 50_000)
    console.close()
    taken = bytearray()
    while data := client.recv(1 << 16):
        taken += data
    assert taken == b"x" * 50_000


def test_a_line_that_connects_ends_with_its_connection(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/there")
        listener.listen()
        with SocketConsole(f"unix:{tmp_path}/there", server=False) as console:
            peer, _ = listener.accept()
            peer.sendall(b"last")
            assert not console.ended
            peer.close()
            wait_until(console.arrived, "input")
            assert console.read(9) == b"last"
            assert console.read(9) == b"" and console.ended
            console.write(b"nobody")
            console.flush()


def test_nobody_to_connect_to_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        SocketConsole(f"unix:{tmp_path}/nobody", server=False)


# -- the socket's path -----------------------------------------------------------------------------


def test_the_socket_is_this_users_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "line"
    before = os.umask(0)
    try:
        with SocketConsole(f"unix:{path}"):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not os.path.lexists(path)


def test_a_socket_that_nobody_listens_at_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(path)
    with SocketConsole(f"unix:{path}") as console, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        assert console.is_connected


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    with SocketConsole(f"unix:{path}") as console, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError):
            SocketConsole(f"unix:{path}")
        client.connect(path)
        wait_until(lambda: console.is_connected, "the client")


def test_a_socket_whose_queue_is_full_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "line")
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(path)
        busy.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(path)
        with pytest.raises(OSError):
            SocketConsole(f"unix:{path}")
        for client in waiting:
            client.close()


@pytest.mark.parametrize("is_link", [False, True])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, is_link: bool) -> None:
    path, other = tmp_path / "line", tmp_path / "other"
    if is_link:
        path.symlink_to(other)
    else:
        path.write_text("precious")
    with pytest.raises(OSError):
        SocketConsole(f"unix:{path}")
    assert path.is_symlink() if is_link else path.read_text() == "precious"
    assert not other.exists()


def test_a_path_that_is_somebody_elses_by_then_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "line"
    console = SocketConsole(f"unix:{path}")
    path.unlink()
    path.write_text("another")
    console.close()
    assert path.read_text() == "another"


# -- without input ---------------------------------------------------------------------------------


def test_a_file_gets_the_output_and_has_no_input(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("what was there before")
    with FileConsole(path) as console:
        console.write(b"a")
        console.write(b"b")
        assert console.ended and not console.arrived() and console.read(5) == b""
        assert path.read_bytes() == b"ab"
        console.write(b"c")
    assert path.read_bytes() == b"abc"


def test_null_takes_everything() -> None:
    console = NullConsole()
    console.write(bytes(1 << 20))
    console.flush()
    assert console.ended and console.read(1) == b""


def test_a_file_that_is_no_socket_stays_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("dear")
    with pytest.raises(FileExistsError, match="there is a file of that name, which is no socket"):
        Endpoint.parse(f"unix:{path}").listen()
    assert path.read_text() == "dear"


def test_many_may_connect_at_once(tmp_path: Path) -> None:
    """One with a timeout would be refused at once by a unix socket where nobody else may wait."""
    place = Endpoint(path=str(tmp_path / "door"))
    with place.listen(), ExitStack() as opened:
        for _ in range(100):
            client = opened.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(1)
            client.connect(place.path)


def test_of_two_that_begin_at_once_one_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket is at its path when it listens: before, the other one would take it for one that was abandoned."""
    place = Endpoint(path=str(tmp_path / "door"))
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(place.path)
    listen, others = Listener.listen, list[Listener]()

    def meanwhile(listener: Listener, backlog: int) -> None:
        monkeypatch.setattr(Listener, "listen", listen)
        others.append(place.listen())
        listener.listen(backlog)

    monkeypatch.setattr(Listener, "listen", meanwhile)
    with pytest.raises(OSError) as failure:
        place.listen()
    assert failure.value.errno == errno.EADDRINUSE
    assert os.listdir(tmp_path) == ["door"]
    place.connect().close()
    others[0].close()
    assert not os.listdir(tmp_path)


def test_tcp_may_stand_before_as_for_qemu() -> None:
    assert Endpoint.parse("tcp:[::1]:7") == Endpoint("::1", 7) and Endpoint.parse("tcp::7") == Endpoint(port=7)
