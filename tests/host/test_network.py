"""Network ends of the host: hubs and sockets, and two machines' cards at one hub."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt.host.net_option import Net
from dbt.host.network import HubEnd, NetworkError, SocketEnd, open_end


@pytest.fixture
def server(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "net"))
        listening.listen()
        yield listening


def test_a_hub_sends_to_all_others() -> None:
    ends = [open_end(Net("hub:a")), open_end(Net("hub:a")), open_end(Net("hub:a")), open_end(Net("hub:b"))]
    ends[0].send(b"frame")
    ends[1].send(b"other")
    assert [end.receive() for end in ends] == [[b"other"], [b"frame"], [b"frame", b"other"], []]
    for end in ends:
        end.close()
    assert not HubEnd._hubs


def test_frames_at_a_socket(server: socket.socket, tmp_path: Path) -> None:
    end = SocketEnd(str(tmp_path / "net"))
    peer, _ = server.accept()
    end.send(b"hello, world!!")
    assert peer.recv(100) == b"\0\0\0\x0ehello, world!!"
    assert end.receive() == []
    peer.sendall(b"\0\0\0\3abc\0\0\0\2x")
    assert end.receive() == [b"abc"]
    peer.sendall(b"y\0\0\0\0")
    assert end.receive() == [b"xy", b""]
    assert len(end.descriptors()) == 1
    peer.close()
    assert end.receive() == [] and end.descriptors() == ()
    end.send(b"lost")
    end.close()


def test_what_is_no_frame_ends_the_connection(server: socket.socket, tmp_path: Path) -> None:
    end = SocketEnd(str(tmp_path / "net"))
    peer, _ = server.accept()
    peer.sendall(b"\0\0\0\1a" + b"HTTP/1.1")
    assert end.receive() == [b"a"] and end.descriptors() == ()
    peer.close()


def test_a_peer_that_does_not_read_loses_frames(server: socket.socket, tmp_path: Path) -> None:
    end = SocketEnd(str(tmp_path / "net"))
    peer, _ = server.accept()
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
    end.close()
    peer.close()


def test_what_cannot_be_reached(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"unix:.*No such file"):
        open_end(Net(f"unix:{tmp_path}/none"))
    with pytest.raises(NetworkError, match="use none, hub:NAME or unix:PATH"):
        open_end(Net("tap:x"))
