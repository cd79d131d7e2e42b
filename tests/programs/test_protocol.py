"""The frames between host and agent, whatever pieces they come in and whatever the guest sends."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbt.linux.protocol import (
    FRAME_MOST,
    Frame,
    FrameReader,
    FromGuest,
    ProtocolError,
    Request,
    RequestError,
    ToGuest,
    frame,
)


def from_guest(kind: int, stream: int, session: int, value: bytes) -> bytes:
    return struct.pack("<BBHI", kind, stream, session, len(value)) + value


SENT = [
    Frame(FromGuest.READY, 0, 0, b""),
    Frame(FromGuest.STARTED, 0, 7, bytes(4)),
    Frame(FromGuest.OUTPUT, 1, 7, b"hello\n" * 100),
    Frame(FromGuest.OUTPUT, 2, 7, b"x"),
    Frame(FromGuest.TAKEN, 0, 7, struct.pack("<I", 300)),
    Frame(FromGuest.ENDED, 0, 7, struct.pack("<I", 0x300)),
]


@given(st.lists(st.integers(1, 200), min_size=1))
def test_frames_come_in_any_pieces(sizes: list[int]) -> None:
    data = b"".join(from_guest(*one) for one in SENT)
    got: list[Frame] = []
    reader, at, turn = FrameReader(), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        got += reader.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert got == SENT


@pytest.mark.parametrize(
    "sent",
    [
        from_guest(0, 0, 0, b""),
        from_guest(7, 0, 0, b""),
        from_guest(FromGuest.READY, 0, 0, b"x"),
        from_guest(FromGuest.TAKEN, 0, 0, b"xyz"),
        from_guest(FromGuest.OUTPUT, 0, 0, b"x"),
        from_guest(FromGuest.OUTPUT, 3, 0, b"x"),
        from_guest(FromGuest.OUTPUT, 1, 0, b""),
        struct.pack("<BBHI", FromGuest.OUTPUT, 1, 0, FRAME_MOST + 1),
        struct.pack("<BBHI", FromGuest.OUTPUT, 1, 0, 0xFFFFFFFF),
    ],
)
def test_what_is_no_frame_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(FrameReader().feed(sent))


@given(st.binary(max_size=400))
def test_a_guest_can_send_anything(data: bytes) -> None:
    try:
        for one in FrameReader().feed(data):
            assert len(one.value) <= FRAME_MOST
    except ProtocolError:
        pass


def test_a_request_is_a_list_of_items_in_frames() -> None:
    request = Request()
    request.become(1000, 100, [100, 27])
    request.program("/bin/cat", ["cat", "-"], {"HOME": "/root"})
    data = request.frames(3)
    kind, _, session, size = struct.unpack_from("<BBHI", data)
    assert (kind, session) == (ToGuest.PREPARE, 3)
    assert data[8 + size :] == frame(ToGuest.START, 3)
    items, at = [], 8
    while at < 8 + size:
        tag, length = struct.unpack_from("<cI", data, at)
        items.append((tag, data[at + 5 : at + 5 + length]))
        at += 5 + length
    assert items == [
        (b"g", struct.pack("<II", 100, 27)),
        (b"o", struct.pack("<II", 1000, 100)),
        (b"a", b"cat\0"),
        (b"a", b"-\0"),
        (b"e", b"HOME=/root\0"),
        (b"p", b"/bin/cat\0"),
    ]


def test_a_long_request_comes_in_several_frames() -> None:
    request = Request()
    request.program("/p", ["x" * 100_000], {})
    data, parts, at = request.frames(0), b"", 0
    while at < len(data):
        kind, _, _, size = struct.unpack_from("<BBHI", data, at)
        assert size <= FRAME_MOST
        parts += data[at + 8 : at + 8 + size] if kind == ToGuest.PREPARE else b""
        at += 8 + size
    assert b"x" * 100_000 + b"\0" in parts


def test_too_many_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="too many arguments"):
        Request().program("/p", ["x"] * 70_000, {})
    with pytest.raises(RequestError, match="too many arguments"):
        Request().program("/p", ["x" * (3 << 20)], {})
