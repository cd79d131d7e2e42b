"""What a guest sends is hostile until it is checked: what the agent would not send ends the VM, and nothing else."""

from __future__ import annotations

import asyncio
import struct
from random import Random
from typing import Any

import pytest

from dbt.containers.runtime.port import SESSIONS, AgentPort
from dbt.containers.runtime.resync import Resync
from dbt.containers.runtime.session import WINDOW, Session
from dbt.containers.runtime.spec import RuntimeFailure, VmEnded
from dbt.hypervisor.console_ring import ConsoleFull
from dbt.hypervisor.port_ring import PieceRing, PortRing
from dbt.linux.container_request import ContainerRequest
from dbt.linux.protocol import FRAME_MOST, INPUT_MOST, FromGuest, ProtocolError


def from_guest(kind: FromGuest, value: bytes = b"", session: int = 0, stream: int = 0) -> bytes:
    return struct.pack("<BBHI", kind, stream, session, len(value)) + value


def word(value: int) -> bytes:
    return value.to_bytes(4, "little")


STARTED = from_guest(FromGuest.STARTED, word(30))
FULL = [from_guest(FromGuest.OUTPUT, bytes(FRAME_MOST), stream=1)] * (WINDOW // FRAME_MOST)


def opened() -> tuple[AgentPort, Session, list[bytes]]:
    sent: list[bytes] = []
    port = AgentPort(sent.append)
    return port, port.open(ContainerRequest()), sent


@pytest.mark.parametrize(
    "frames",
    [
        [from_guest(FromGuest.READY)],
        [from_guest(FromGuest.STARTED, word(1), session=1)],
        [STARTED, STARTED],
        [from_guest(FromGuest.OUTPUT, b"early", stream=1)],
        [STARTED, *FULL, from_guest(FromGuest.OUTPUT, b"x", stream=2)],
        [STARTED, from_guest(FromGuest.OUTPUT, b"x", stream=3)],
        [STARTED, from_guest(FromGuest.TAKEN, word(1))],
        [from_guest(FromGuest.ENDED, word(0))],
        [STARTED, from_guest(FromGuest.ENDED, word(0)), from_guest(FromGuest.ENDED, word(0))],
        [STARTED, from_guest(FromGuest.FAILED, bytes(12))],
        [struct.pack("<BBHI", 99, 0, 0, 0)],
        [struct.pack("<BBHI", FromGuest.OUTPUT, 1, 0, FRAME_MOST + 1)],
    ],
)
def test_what_the_agent_does_not_send(frames: list[bytes]) -> None:
    async def run() -> None:
        port, _, _ = opened()
        for one in frames[:-1]:
            port.feed(one)
        with pytest.raises(ProtocolError):
            port.feed(frames[-1])

    asyncio.run(run())


def test_credit_follows_what_is_read() -> None:
    async def run() -> None:
        port, session, sent = opened()
        port.feed(b"".join([STARTED, *FULL]))
        sent.clear()
        for _ in FULL:
            assert await session.read() == (1, bytes(FRAME_MOST))
        granted = sum(int.from_bytes(one[8:12], "little") for one in sent)
        assert granted == WINDOW
        port.feed(b"".join(FULL))

    asyncio.run(run())


def test_input_waits_for_room() -> None:
    async def run() -> None:
        port, session, sent = opened()
        port.feed(STARTED)
        sent.clear()
        writing = asyncio.ensure_future(session.write(bytes(INPUT_MOST + 1)))
        await asyncio.sleep(0)
        assert sum(len(one) - 8 for one in sent) == INPUT_MOST and not writing.done()
        port.feed(from_guest(FromGuest.TAKEN, word(100)))
        await writing
        assert sum(len(one) - 8 for one in sent) == INPUT_MOST + 1

    asyncio.run(run())


def test_the_end_of_a_vm_ends_everything_that_waits() -> None:
    async def run() -> None:
        port, session, _ = opened()
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(session.started()), asyncio.create_task(session.wait())]
        await asyncio.sleep(0)
        port.end("it was switched off")
        for task in tasks:
            with pytest.raises(VmEnded, match="it was switched off"):
                await task
        assert await session.read() is None
        await session.write(b"nobody reads it")
        with pytest.raises(VmEnded):
            port.open(ContainerRequest())

    asyncio.run(run())


def test_there_are_only_so_many_sessions() -> None:
    async def run() -> None:
        port = AgentPort(lambda data: None)
        for _ in range(SESSIONS):
            port.open(ContainerRequest())
        with pytest.raises(RuntimeFailure, match="64 programs"):
            port.open(ContainerRequest())

    asyncio.run(run())


def test_finding_ones_place_in_any_pieces() -> None:
    random = Random(4)
    for _ in range(50):
        resync = Resync()
        sign = resync.question[8:]
        answer = from_guest(FromGuest.SYNCED, sign + word(0xFFFFFFFF) + struct.pack("<HBBIII", 0, 0, 1, 30, 5, 6))
        behind = from_guest(FromGuest.TAKEN, word(6))
        data = random.randbytes(random.randrange(100)) + answer + behind
        found, at = None, 0
        while found is None:
            size = random.randrange(1, 40)
            piece = data[at : at + size]
            at += len(piece)
            found = resync.feed(piece, at)
        assert (found + data[at:]) == answer + behind


def _output(text: bytes, session: int = 0, stream: int = 1) -> bytes:
    return from_guest(FromGuest.OUTPUT, text, session, stream)


@pytest.mark.parametrize(
    ("place", "found"),
    [
        (1000, [(1, b"one"), (2, b"two")]),
        (1011, [(2, b"two")]),
        (1000 + 11 + 11 + 13 + 12, []),
        (999, []),  # it is not kept so far back
        (1001, []),  # where no frame begins
        (5000, []),  # of another guest
        (None, []),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_came_between_the_place_and_the_answer_is_found(
    place: int | None, found: list[tuple[int, bytes]], size: int
) -> None:
    """Output of other programs than the container's own is for nobody any more."""
    resync = Resync(place)
    answer = from_guest(FromGuest.SYNCED, resync.question[8:] + word(0xFFFFFFFF))
    before = _output(b"one") + _output(b"two", stream=2) + _output(b"other", 1) + from_guest(FromGuest.TAKEN, word(6))
    data, said = before + answer + b"behind", None
    for at in range(0, len(data), size):
        piece = data[at : at + size]
        if (said := resync.feed(piece, 1000 + at + len(piece))) is not None:
            assert (said + data[at + size :]) == answer + b"behind"
            break
    assert said is not None
    assert resync.output == found


def test_what_came_before_a_gap_is_not_taken_for_what_came_behind_it() -> None:
    resync = Resync(1000)
    assert resync.feed(_output(b"one"), 1011) is None
    answer = from_guest(FromGuest.SYNCED, resync.question[8:] + word(0xFFFFFFFF))
    assert resync.feed(_output(b"two") + answer, 2000) == answer
    assert resync.output == []


def test_output_that_is_found_gives_no_credit_and_comes_first() -> None:
    async def run() -> None:
        port, session, sent = opened()
        port.feed(STARTED)
        session.find([(1, b"found"), (2, b"more")])
        port.feed(b"".join(FULL))
        sent.clear()
        assert session.read_to is None  # there is no place in the middle of it
        assert [await session.read(), await session.read()] == [(1, b"found"), (2, b"more")]
        assert not sent
        for number in range(1, len(FULL) + 1):
            await session.read()
            assert session.read_to == len(STARTED) + number * len(FULL[0])
        assert sum(int.from_bytes(one[8:12], "little") for one in sent) == WINDOW

    asyncio.run(run())


@pytest.mark.parametrize("value", [b"", b"other sign 12345", "short", "uneven"])
def test_an_answer_that_is_none(value: bytes | str) -> None:
    from dbt.linux.protocol import Frame

    resync = Resync()
    sign = resync.question[8:]
    data = {"short": sign, "uneven": sign + bytes(9)}[value] if isinstance(value, str) else value
    with pytest.raises(ProtocolError):
        resync.sessions(Frame(FromGuest.SYNCED, 0, 0, data))


def test_pieces_arrive_as_a_whole() -> None:
    ring = PieceRing()
    for size in (10, 20, 30):
        ring.send(bytes(size))
    assert [len(ring.read(size) or b"") for size in (5, 35, 29, 30, 99)] == [0, 30, 0, 30, 0]
    with pytest.raises(ConsoleFull):
        for _ in range(1000):
            ring.send(bytes(1 << 15))


def test_messages_of_the_kernel_are_not_in_the_stream() -> None:
    ring = PortRing()
    ring.write(b"frames")
    ring.write_error(b"Oops")
    ring.write(b" more")
    assert (ring.read_from(0), ring.log) == ((b"frames more", 11), "Oops")
    ring.forget(6)
    assert ring.read_from(0) == (b" more", 11)
