"""Network ends of the host: hubs and sockets."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dbt.host.console import CaptureConsole
from dbt.host.net_option import Forward, Net, NetworkError
from dbt.host.network import HubEnd, NetworkEnd, SocketEnd, open_end
from dbt.vm.input import Arrival, Mailbox
from tests.waiting import BOUND_S


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "net"))
        listening.listen()
        yield listening


def opened(end: str) -> NetworkEnd:
    return open_end(Net(end), pytest.fail)


def test_a_hub_sends_to_all_others() -> None:
    ends = [opened("hub:a"), opened("hub:a"), opened("hub:a"), opened("hub:b")]
    ends[0].send(b"frame")
    ends[1].send(b"other")
    assert [end.receive() for end in ends] == [[b"other"], [b"frame"], [b"frame", b"other"], []]
    for end in ends:
        end.close()
        assert end.receive() == [] and end.descriptors() == ()
    assert not HubEnd._hubs


def test_who_waits_at_a_hub_hears_of_frames() -> None:
    one, other = HubEnd("a"), HubEnd("a")
    try:
        assert not select.select(other.descriptors(), [], [], 0)[0]
        one.send(b"first", b"second")
        one.send(b"third")
        assert select.select(other.descriptors(), [], [], 0)[0] and not select.select(one.descriptors(), [], [], 0)[0]
        assert other.receive() == [b"first", b"second", b"third"]
        assert not select.select(other.descriptors(), [], [], 0)[0] and other.receive() == []
    finally:
        one.close()
        other.close()


def test_frames_at_a_socket(server: socket.socket, tmp_path: Path) -> None:
    said: list[str] = []
    end = open_end(Net(f"unix:{tmp_path}/net"), said.append)
    peer, _ = server.accept()
    end.send(b"hello, world!!")
    assert peer.recv(100) == b"\0\0\0\x0ehello, world!!"
    assert end.receive() == []
    peer.sendall(b"\0\0\0\3abc\0\0\0\2x")
    assert end.receive() == [b"abc"]
    peer.sendall(b"y\0\0\0\0")
    assert end.receive() == [b"xy", b""]
    assert len(end.descriptors()) == 1 and not said
    peer.close()
    assert end.receive() == [] and end.descriptors() == ()
    assert said == [
        f"the network unix:{tmp_path}/net is gone: the other side has ended the connection. "
        "The guest's card is connected to nothing now"
    ]
    end.send(b"lost")
    end.close()
    assert end.receive() == [] and len(said) == 1


@pytest.fixture
def pair() -> Iterator[tuple[SocketEnd, socket.socket, list[str]]]:
    """An end, who is at the other side, and what the user is told."""
    ours, theirs = socket.socketpair()
    said: list[str] = []
    end = SocketEnd(ours, "x", said.append)
    yield end, theirs, said
    end.close()
    theirs.close()


Pair = tuple[SocketEnd, socket.socket, list[str]]


@pytest.mark.parametrize("size", [65536, 1 << 31, 0x48545450])
def test_what_is_no_frame_ends_the_connection(pair: Pair, size: int) -> None:
    end, peer, said = pair
    peer.sendall(b"\0\0\0\1a" + size.to_bytes(4, "big") + bytes(100))
    assert end.receive() == [b"a"] and end.descriptors() == ()
    assert said == [f"the network x is gone: it sent a frame of {size} bytes, and the longest has 65535. "
                    "The guest's card is connected to nothing now"]  # fmt: skip
    end.send(b"lost")
    assert end.receive() == []


def test_frames_in_pieces(pair: Pair) -> None:
    """Frames of any length arrive, wherever the pieces end in which they come."""
    end, peer, said = pair
    choose = random.Random(5)
    frames = [choose.randbytes(choose.choice((0, 1, 3, 14, 1500, 65535))) for _ in range(60)]
    sent = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    received, at = [], 0
    while at < len(sent):
        at += peer.send(sent[at : at + choose.choice((1, 2, 3, 5, 1000, 50_000))])
        received += end.receive()
    assert received == frames and not said


@pytest.mark.parametrize("left", [b"", b"\0\0", b"\0\0\0\x20", b"\0\0\0\x20half"])
def test_a_peer_that_dies_in_the_middle(pair: Pair, left: bytes) -> None:
    end, peer, said = pair
    peer.sendall(b"\0\0\0\2ok" + left)
    peer.close()
    assert end.receive() == [b"ok"]
    assert end.receive() == [] and end.descriptors() == () and len(said) == 1


def test_a_peer_that_is_gone_when_something_is_sent(pair: Pair) -> None:
    end, peer, said = pair
    peer.close()
    end.send(b"lost")
    assert end.receive() == [] and end.descriptors() == () and len(said) == 1


class _OneEnd:
    """What a machine with one card is connected to."""

    def __init__(self, end: NetworkEnd) -> None:
        self._end = end

    def arrivals(self) -> list[Arrival]:
        return [Arrival("net", frame) for frame in self._end.receive()]

    def events(self) -> dict[int, int]:
        return dict.fromkeys(self._end.descriptors(), select.POLLIN)


def test_waiting_with_a_high_descriptor(high: Callable[[int], int]) -> None:
    """A process that has many files open has the network at a descriptor over 1023."""
    ours, theirs = socket.socketpair()
    connection = socket.socket(fileno=high(ours.detach()))
    end = SocketEnd(connection, "x", pytest.fail)
    assert end.descriptors()[0] > 1023
    mailbox = Mailbox(_OneEnd(end))
    mailbox.wait(CaptureConsole(), 0.01)
    assert mailbox.take() == ()
    sender = threading.Thread(target=lambda: theirs.sendall(b"\0\0\0\2hi"))
    sender.start()
    mailbox.wait(CaptureConsole(), BOUND_S)
    assert mailbox.take() == [Arrival("net", b"hi")]
    sender.join()
    theirs.close()
    connection.detach()


def test_a_peer_that_does_not_read_loses_frames(pair: Pair) -> None:
    end, peer, _ = pair
    for number in range(3000):
        end.send(bytes([number % 256]) * 1500)
    peer.setblocking(False)
    data = bytearray()
    for _ in range(10_000):
        end.receive()
        try:
            data += peer.recv(1 << 20)
        except BlockingIOError:
            break
    size = 1504
    assert len(data) % size == 0 and 0 < len(data) // size < 3000
    assert all(data[at : at + 4] == b"\0\0\5\xdc" for at in range(0, len(data), size))


@pytest.mark.parametrize(
    ("net", "text"),
    [
        (Net("unix:/none/x"), "unix:/none/x: No such file"),
        (Net("unix:/" + 200 * "x"), "AF_UNIX path too long"),
        (Net("unix:a\0b"), "unix:a\0b: "),
        (Net("unix:"), "use user, unix:PATH, tap:NAME, hub:NAME or none"),
        (Net("user:x"), "use user, unix:PATH, tap:NAME, hub:NAME or none"),
        (Net("hub:x", forwards=(Forward("tcp", "127.0.0.1", 1, 1),)), "hub:x forwards no ports"),
    ],
)
def test_what_cannot_be_reached(net: Net, text: str) -> None:
    with pytest.raises(NetworkError, match=text):
        open_end(net, pytest.fail)
