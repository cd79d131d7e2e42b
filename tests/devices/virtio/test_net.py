"""The network device: frames in both directions, filters, and commands."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from dbt.abi.addresses import Gpa
from dbt.devices.ethernet import MOST_FRAMES
from tests.devices.virtio.driver import BASE, EVENT_IDX, F_VERSION_1, SIZE, Rig
from tests.devices.virtio.every_device import network_card

MERGEABLE, CONTROL_VLAN = 1 << 15, 1 << 19
RECEIVE, TRANSMIT, CONTROL = range(3)
MAC = b"\x52\x54\0\x12\x34\x56"
OTHER, MULTICAST, BROADCAST = b"\x52\x54\0\1\2\3", b"\x01\0\x5e\0\0\1", b"\xff" * 6


def frame(target: bytes, size: int = 60, kind: bytes = b"\x08\0") -> bytes:
    return (target + OTHER + kind).ljust(size, b"d")


@pytest.fixture
def sent() -> list[bytes]:
    return []


@pytest.fixture
def rig(sent: list[bytes]) -> Iterator[Rig]:
    one = Rig(network_card(sent), size=64)
    yield one
    one.close()


def command(rig: Rig, kind: int, number: int, data: bytes) -> int:
    return rig.ask(CONTROL, [bytes((kind, number)) + data], [1])[1][0]


def waiting(rig: Rig) -> int:
    """How many frames wait for a buffer."""
    frames = rig.device.save()["frames"]
    assert isinstance(frames, list)
    return len(frames)


def is_wanted(rig: Rig, one: bytes) -> bool:
    before = waiting(rig)
    rig.transport.receive([one])
    return waiting(rig) > before


def test_a_frame_is_sent(rig: Rig, sent: list[bytes]) -> None:
    rig.start()
    rig.ask(TRANSMIT, [bytes(12), frame(OTHER)], [])
    rig.ask(TRANSMIT, [bytes(20) + b"x" * 52], [])
    assert sent == [frame(OTHER), bytes(8) + b"x" * 52]
    rig.ask(TRANSMIT, [bytes(12)], [])
    assert len(sent) == 2


def test_a_frame_arrives(rig: Rig) -> None:
    rig.transport.receive([frame(MAC)])
    rig.start()
    [place] = rig.chain(RECEIVE, [], [1526])
    rig.make_available(RECEIVE, 0)
    rig.notify(RECEIVE)
    assert not rig.used(RECEIVE)  # nobody was there when it came
    rig.transport.receive([frame(MAC)])
    assert rig.used(RECEIVE) == [(0, 72)] and rig.line.level
    assert rig.read(place, 72) == struct.pack("<10xH", 1) + frame(MAC)


def test_a_large_frame_is_spread_over_buffers(rig: Rig) -> None:
    rig.start(F_VERSION_1 | MERGEABLE)
    places = [rig.chain(RECEIVE, [], [500], head)[0] for head in range(5)]
    rig.make_available(RECEIVE, 0, 1)
    rig.transport.receive([frame(MAC, 1514)])
    assert not rig.used(RECEIVE) and waiting(rig) == 1
    rig.make_available(RECEIVE, 2, 3, 4)
    rig.notify(RECEIVE)
    assert rig.used(RECEIVE) == [(0, 500), (1, 500), (2, 500), (3, 26)]
    data = b"".join(rig.read(place, 500) for place in places)
    assert data[:1526] == struct.pack("<10xH", 4) + frame(MAC, 1514)


def test_frames_that_nobody_takes_are_lost(rig: Rig) -> None:
    rig.start()
    for size in (0, 13, 14, 65_535, 65_536):
        rig.transport.receive([bytes(size)])
    assert waiting(rig) == 2
    for _ in range(2 * MOST_FRAMES):
        rig.transport.receive([frame(MAC)])
    assert waiting(rig) == MOST_FRAMES
    rig.transport.restore(rig.transport.save())


@pytest.mark.parametrize("features", [0, EVENT_IDX, EVENT_IDX | MERGEABLE])
@pytest.mark.parametrize("buffers", [0, 3, 63])
def test_frames_that_come_together_come_as_if_one_by_one(features: int, buffers: int) -> None:
    frames = [frame(MAC, 60 + number) for number in range(MOST_FRAMES + 20)]
    seen = []
    for groups in ([[one] for one in frames], [frames], [frames[:40], frames[40:]]):
        rig = Rig(network_card([]), size=64)
        rig.start(F_VERSION_1 | features)
        for head in range(buffers):
            rig.chain(RECEIVE, [], [100], head)
        rig.make_available(RECEIVE, *range(buffers))
        rig.notify(RECEIVE)
        event = rig.place(RECEIVE)[1] + 4 + 2 * rig.size
        rig.write(event, struct.pack("<H", buffers // 2))
        for group in groups:
            rig.transport.receive(group)
        seen.append((rig.transport.save(), rig.memory.read_ram(Gpa(BASE), SIZE), rig.line.level))
        rig.close()
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][2] == bool(buffers)


def test_the_guest_gets_what_it_wants(rig: Rig) -> None:
    rig.start()
    assert is_wanted(rig, frame(OTHER))
    assert command(rig, 0, 0, b"\0") == 0
    assert [is_wanted(rig, frame(one)) for one in (MAC, OTHER, MULTICAST, BROADCAST)] == [True, False, False, True]
    table = struct.pack("<I", 1) + OTHER + struct.pack("<I", 1) + MULTICAST
    assert command(rig, 1, 0, table) == 0
    assert is_wanted(rig, frame(OTHER)) and is_wanted(rig, frame(MULTICAST))
    assert command(rig, 1, 0, struct.pack("<II", 0, 65) + bytes(6 * 65)) == 0
    assert not is_wanted(rig, frame(OTHER)) and is_wanted(rig, frame(MULTICAST))
    for number, target in ((3, MULTICAST), (4, MAC), (5, BROADCAST)):
        assert command(rig, 0, number, b"\1") == 0
        assert not is_wanted(rig, frame(target))
    assert command(rig, 1, 1, OTHER) == 0
    assert rig.r(0x100) == int.from_bytes(OTHER[:4], "little")


def test_vlans(rig: Rig) -> None:
    rig.start(F_VERSION_1 | CONTROL_VLAN)
    tagged = frame(MAC, kind=b"\x81\0\0\5")
    assert command(rig, 0, 0, b"\0") == 0
    assert not is_wanted(rig, tagged)
    assert command(rig, 2, 0, struct.pack("<H", 5)) == 0
    assert is_wanted(rig, tagged)
    assert command(rig, 2, 1, struct.pack("<H", 5)) == 0
    assert not is_wanted(rig, tagged)


@pytest.mark.parametrize(
    ("kind", "number", "data"),
    [
        *((0, 6, b"\1"), (0, 0, b""), (1, 0, bytes(3)), (1, 0, b"\xff" * 8), (1, 0, bytes(9)), (1, 1, bytes(5))),
        *((1, 2, bytes(6)), (2, 0, b"\1"), (2, 0, b"\0\x10"), (3, 0, b"\0"), (4, 0, b"\1\0"), (5, 0, b"\1" + bytes(7))),
        (77, 0, b"\0"),
    ],
)
def test_a_command_that_cannot_be_done(rig: Rig, kind: int, number: int, data: bytes) -> None:
    rig.start()
    assert command(rig, kind, number, data) == 1
