"""The block device: requests, what is on the medium afterwards, and states."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from random import Random

import pytest

from dbt.devices.medium import BLOCK, DirectMedium, OverlaidMedium
from dbt.devices.state import KeptState, StateError
from dbt.devices.virtio.block import Block
from tests.devices.virtio.disks import MemoryFile, a_file, direct, overlaid
from tests.devices.virtio.driver import F_VERSION_1, SECOND, Rig

IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
FLUSH_BIT, WCE_BIT = 1 << 9, 1 << 11


def header(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


def request(rig: Rig, kind: int, sector: int = 0, data: bytes = b"", room: int = 0) -> tuple[int, bytes]:
    """Return the status and what was read."""
    out = [header(kind, sector)] + ([data] if data else [])
    length, answer = rig.ask(0, out, [*([room] if room else []), 1])
    assert length == room + 1
    return answer[-1], answer[:-1]


@pytest.fixture
def file() -> MemoryFile:
    return a_file()


@pytest.fixture(params=[direct, overlaid], ids=["direct", "overlaid"])
def rig(request: pytest.FixtureRequest, file: MemoryFile) -> Iterator[Rig]:
    one = Rig(request.param(file))
    one.start(F_VERSION_1 | FLUSH_BIT | WCE_BIT)
    yield one
    one.close()


def test_sectors_are_read_and_written(rig: Rig, file: MemoryFile) -> None:
    model, random = bytearray(file.data), Random(3)
    for number in range(200):
        sector = random.randrange(64)
        count = random.randrange(1, 65 - sector)
        if number % 2:
            data = random.randbytes(512 * count) if random.random() < 0.8 else bytes(512 * count)
            model[512 * sector : 512 * (sector + count)] = data
            assert request(rig, OUT, sector, data) == (OK, b"")
        else:
            assert request(rig, IN, sector, room=512 * count) == (OK, bytes(model[512 * sector :][: 512 * count]))


def test_a_write_takes_until_the_host_has_room_if_the_disk_waits_for_it(file: MemoryFile) -> None:
    told: list[int] = []
    block = Block(DirectMedium(file, False), failed=lambda error, _: told.append(error.errno or 0), waits_for_room=True)
    rig = Rig(block)
    rig.start(F_VERSION_1)
    file.fails = True
    (status,) = rig.chain(0, [header(OUT), b"a" * 512], [1])
    rig.make_available(0, 0)
    rig.notify(0)
    rig.time.advance(10 * SECOND)
    assert rig.used(0) == [] and told == [errno.ENOSPC] * len(told) and 50 <= len(told) <= 101
    file.fails = False
    rig.time.advance(SECOND)
    assert rig.used(0) == [(0, 1)] and rig.read(status, 1) == bytes([OK]) and file.data[:512] == b"a" * 512
    file.fails = True
    assert request(rig, IN, room=512)[0] == IOERR  # which is no lack of room
    rig.close()


def test_only_a_direct_medium_changes_the_file(file: MemoryFile) -> None:
    before = bytes(file.data)
    for device, changes in ((overlaid(file), False), (direct(file), True)):
        rig = Rig(device)
        rig.start(F_VERSION_1 | FLUSH_BIT | WCE_BIT)
        assert request(rig, OUT, 1, b"x" * 512)[0] == OK
        assert (bytes(file.data) != before) == changes
        assert file.flushes == 0
        assert request(rig, FLUSH)[0] == OK
        assert file.flushes == int(changes)
        rig.close()


def test_without_a_write_cache_each_write_is_flushed(file: MemoryFile) -> None:
    rig = Rig(direct(file))
    rig.start(F_VERSION_1)
    request(rig, OUT, 1, b"x" * 512)
    assert file.flushes == 1
    rig.start(F_VERSION_1 | FLUSH_BIT | WCE_BIT)
    request(rig, OUT, 1, b"x" * 512)
    assert file.flushes == 1 and rig.r(0x120, 1) == 1
    rig.w(0x120, 0, 1)
    request(rig, OUT, 1, b"x" * 512)
    assert file.flushes == 2 and rig.r(0x120, 1) == 0
    rig.close()


@pytest.mark.parametrize(
    ("kind", "sector", "data", "room", "status"),
    [
        (IN, 64, b"", 512, IOERR),
        (IN, 63, b"", 1024, IOERR),
        (IN, (1 << 64) - 1, b"", 1024, IOERR),
        (IN, 0, b"", 100, IOERR),
        (IN, 64, b"", 0, OK),
        (OUT, 64, bytes(512), 0, IOERR),
        (OUT, 0, bytes(511), 0, IOERR),
        (2, 0, b"", 0, UNSUPP),
        (99, 0, b"", 512, UNSUPP),
        (DISCARD, 0, struct.pack("<QII", 0, 8, 0), 0, OK),
        (DISCARD, 0, struct.pack("<QII", 0, 8, 1), 0, UNSUPP),
        (DISCARD, 0, struct.pack("<QII", 60, 8, 0), 0, IOERR),
        (DISCARD, 0, struct.pack("<QII", 0, 8, 0) * 2, 0, UNSUPP),
        (WRITE_ZEROES, 0, struct.pack("<QII", 0, 8, 2), 0, UNSUPP),
        (WRITE_ZEROES, 0, struct.pack("<QII", 1 << 63, 8, 0), 0, IOERR),
        (WRITE_ZEROES, 0, struct.pack("<QII", 0, 0xFFFFFFFF, 0), 0, IOERR),
    ],
)
def test_what_cannot_be_done_has_a_status(
    rig: Rig, kind: int, sector: int, data: bytes, room: int, status: int
) -> None:
    assert request(rig, kind, sector, data, room)[0] == status


def test_zeros_and_discarded_sectors(rig: Rig, file: MemoryFile) -> None:
    before = bytes(file.data)
    assert request(rig, WRITE_ZEROES, 0, struct.pack("<QII", 3, 17, 1))[0] == OK
    assert request(rig, DISCARD, 0, struct.pack("<QII", 30, 2, 0))[0] == OK
    assert request(rig, IN, 0, room=64 * 512)[1] == before[:1536] + bytes(17 * 512) + before[20 * 512 :]


def test_the_name_of_a_disk(rig: Rig) -> None:
    assert request(rig, GET_ID, room=20) == (OK, b"disk".ljust(20, b"\0"))
    assert request(rig, GET_ID, room=2) == (OK, b"di")


def test_a_read_only_disk_is_not_written(file: MemoryFile) -> None:
    rig = Rig(direct(file, read_only=True))
    assert rig.offered() & 1 << 5
    rig.start()
    before = bytes(file.data)
    assert request(rig, OUT, 0, bytes(512))[0] == IOERR
    assert request(rig, WRITE_ZEROES, 0, struct.pack("<QII", 0, 8, 0))[0] == IOERR
    assert file.data == before
    rig.close()


def test_a_failure_of_the_host_is_an_error_of_the_disk(file: MemoryFile) -> None:
    rig = Rig(direct(file))
    rig.start()
    file.fails = True
    assert request(rig, IN, 0, room=512)[0] == IOERR
    assert request(rig, OUT, 0, bytes(512))[0] == IOERR
    file.fails = False
    assert request(rig, IN, 0, room=512)[0] == OK
    rig.close()


@pytest.mark.parametrize(("out", "room"), [([header(IN)], []), ([header(IN)[:8]], [1]), ([], [1]), ([b"x" * 16], [])])
def test_a_request_without_header_or_status_stops_the_device(rig: Rig, out: list[bytes], room: list[int]) -> None:
    rig.chain(0, out, room)
    rig.make_available(0, 0)
    rig.notify(0)
    rig.time.advance(10**6)
    assert rig.r(0x70) & 64


def test_the_header_may_be_in_pieces(rig: Rig, file: MemoryFile) -> None:
    """A device must not depend on how a request is divided into buffers (virtio 1.2, section 2.7.4)."""
    out = [bytes([byte]) for byte in header(IN, 2)]
    rig.size = 64
    rig.start()
    length, answer = rig.ask(0, out, [100, 400, 13])
    assert length == 513 and answer == bytes(file.data[1024:1536]) + b"\0"


def test_a_file_that_is_no_multiple_of_a_sector(file: MemoryFile) -> None:
    for make in (direct, overlaid):
        rig = Rig(make(MemoryFile(bytearray(b"x" * 700))))
        rig.start()
        assert rig.r(0x100) == 2
        assert request(rig, IN, 0, room=1024) == (OK, b"x" * 700 + bytes(324))
        assert request(rig, OUT, 1, b"y" * 512)[0] == OK
        assert request(rig, IN, 0, room=1024) == (OK, b"x" * 512 + b"y" * 512)
        rig.close()


def test_an_overlay_is_saved_and_restored(file: MemoryFile) -> None:
    rig, again = Rig(overlaid(file)), Rig(overlaid(file))
    rig.start()
    request(rig, OUT, 5, b"z" * 1024)
    again.transport.restore(rig.transport.save())
    again.start()
    assert request(again, IN, 4, room=2048)[1][512:1536] == b"z" * 1024
    request(again, OUT, 5, b"q" * 512)
    assert request(rig, IN, 5, room=512)[1] == b"z" * 512
    for one in (rig, again):
        one.close()


def test_an_overlay_goes_back(file: MemoryFile) -> None:
    rig = Rig(overlaid(file))
    rig.start()
    request(rig, OUT, 5, b"z" * 1024)
    kept, before = KeptState(), rig.transport.save()
    rig.transport.keep(kept)
    request(rig, OUT, 5, b"q" * 1024)
    request(rig, OUT, 40, b"q" * 1024)
    assert rig.transport.save() != before
    kept.put_back()
    assert rig.transport.save() == before
    rig.close()


@pytest.mark.parametrize("changed", [{8: bytes(BLOCK)}, {-1: bytes(BLOCK)}, {0: b"x"}, {0: None}, {"0": bytes(BLOCK)}])
def test_what_is_no_overlay_is_refused(file: MemoryFile, changed: object) -> None:
    medium = OverlaidMedium(file, False)
    with pytest.raises(StateError):
        medium.restore({"sectors": 64, "changed": changed})


def test_another_disk_is_refused(file: MemoryFile) -> None:
    state = Block(OverlaidMedium(a_file(65), False)).save()
    with pytest.raises(StateError):
        overlaid(file).restore(state)
