"""The block back end: requests, grants that end, rings that no front end would write, batches, and states."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from random import Random
from typing import Any

import pytest

from dbt.devices.medium import DirectMedium, OverlaidMedium
from dbt.devices.state import StateError
from dbt.hypervisor.xen.back_ends.back_end import Phase
from dbt.hypervisor.xen.back_ends.block import BlockBackEnd, disk_number
from tests.devices.virtio.disks import a_file
from tests.xen.block_front_end import (
    BARRIER,
    DISCARD,
    ERROR,
    FLUSH,
    INDIRECT,
    OK,
    READ,
    SECTORS,
    SEGMENT,
    UNSUPPORTED,
    WRITE,
    Disk,
    discard,
    ignored,
    request,
)
from tests.xen.front_ends import DATA, FIRST_GRANT, PERMIT, READ_ONLY, READING, RING, Bench, FrontEnd, Ring


@pytest.fixture(params=[DirectMedium, OverlaidMedium])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    one = Disk(request.param)
    yield one
    one.bench.close()


def test_it_says_what_it_is(disk: Disk) -> None:
    front = disk.front
    assert front.phase == Phase.CONNECTED
    assert front.said("sectors") == str(SECTORS).encode()
    assert (front.said("sector-size"), front.said("info"), front.said("mode")) == (b"512", b"0", b"w")
    assert front.said("feature-max-indirect-segments") == b"256"
    assert [disk_number(index) for index in (0, 1, 15, 16)] == [51712, 51728, 51952, 1 << 28 | 16 << 8]


def test_sectors_are_read_and_written(disk: Disk) -> None:
    model, random = bytearray(disk.file.data), Random(3)
    for number in range(200):
        segments, sizes = [], []
        for index in range(random.randrange(1, 12)):
            first = random.randrange(8)
            last = random.randrange(first, 8)
            segments.append((disk.page(index), first, last))
            sizes.append(512 * (last - first + 1))
        size = sum(sizes)
        sector = random.randrange(SECTORS + 1 - size // 512)
        places = [DATA + (index << 12) + 512 * one[1] for index, one in enumerate(segments)]
        if number % 2:
            data = random.randbytes(size)
            for place, length in zip(places, sizes, strict=True):
                disk.bench.write(place, data[:length])
                model[512 * sector : 512 * sector + length] = data[:length]
                sector, data = sector + length // 512, data[length:]
            assert disk.do(request(WRITE, sector - size // 512, segments)) == [OK]
        else:
            assert disk.do(request(READ, sector, segments)) == [OK]
            read = b"".join(disk.bench.read(place, length) for place, length in zip(places, sizes, strict=True))
            assert read == model[512 * sector :][:size]


def test_a_response_has_nothing_in_its_padding(disk: Disk) -> None:
    disk.bench.write(RING + 64, b"\xee" * 112)
    sent = request(READ, segments=[(disk.page(0), 0, 7)])
    assert disk.do(sent) == [OK]
    answer = disk.bench.read(RING + 64, 112)
    assert answer[:16] == (1).to_bytes(8, "little") + bytes(8) and answer[16:] == sent[16:]


def test_indirect_requests(disk: Disk) -> None:
    tables = [DATA + 0x40000, DATA + 0x41000]
    for number, table in enumerate(tables):
        disk.bench.grant(100 + number, table, READ_ONLY | PERMIT)
    for count in (1, 12, 32):
        segments = b"".join(SEGMENT.pack(disk.page(index), 0, 7) for index in range(count))
        disk.bench.write(tables[0], segments)
        body = struct.pack("<HxxIIxxxx", 0, 100, 101)
        head = struct.pack("<BBHxxxxQQ", INDIRECT, READ, count, 9, 0)
        assert disk.do((head + body).ljust(112, b"\0")) == [OK]
        assert disk.bench.read(DATA, count << 12) == disk.file.data[: count << 12]
    for operation, count in ((READ, 0), (READ, 257), (FLUSH, 1), (INDIRECT, 1), (DISCARD, 1)):
        head = struct.pack("<BBHxxxxQQ", INDIRECT, operation, count, 9, 0)
        assert disk.do((head + body).ljust(112, b"\0")) == [ERROR]
    head = struct.pack("<BBHxxxxQQ", INDIRECT, READ, 1, 9, 0)
    assert disk.do((head + struct.pack("<HxxI", 0, 99)).ljust(112, b"\0")) == [ERROR]  # a table that is not granted


def test_flush_and_discard(disk: Disk) -> None:
    flushes = disk.file.flushes
    before = bytes(disk.file.data)
    assert disk.do(request(FLUSH), discard(8, 16)) == [OK, OK]
    assert disk.do(discard(SECTORS, 1), discard(1 << 63, 1 << 63)) == [ERROR, ERROR]
    assert disk.do(discard(0, 1, flags=1), request(BARRIER), request(4), request(77)) == [UNSUPPORTED] * 4
    assert disk.file.data == before
    assert disk.file.flushes == flushes + isinstance(disk.front.back_end.medium, DirectMedium)  # type: ignore[attr-defined]


def test_what_is_no_request(disk: Disk) -> None:
    before, page = bytes(disk.file.data), disk.page(0)
    for segments in ([(page, 5, 4)], [(page, 0, 8)], [(page, 7, 255)], [], [(page, 0, 7)] * 12):
        for kind in (READ, WRITE):
            assert disk.do(request(kind, 0, segments[:11], flags=len(segments))) == [ERROR]
    for sector in (SECTORS - 7, SECTORS, 1 << 55, (1 << 64) - 8):
        assert disk.do(request(READ, sector, [(page, 0, 7)]), request(WRITE, sector, [(page, 0, 7)])) == [ERROR] * 2
    assert disk.file.data == before


def test_access_ends_with_the_grant(disk: Disk) -> None:
    """Nothing is transferred if one of the pages is not granted, as it is when the request is done."""
    disk.bench.write(DATA, b"\x55" * 8192)
    before = bytes(disk.file.data)
    good, bad = disk.page(0), disk.page(1)
    segments = [(good, 0, 7), (bad, 0, 7)]
    for flags, domain, page in ((0, 0, DATA), (PERMIT, 5, DATA), (PERMIT | READ_ONLY, 0, DATA), (PERMIT, 0, 0x8000)):
        disk.bench.grant(bad, page, flags, domain)
        if not flags & READ_ONLY:
            assert disk.do(request(WRITE, 0, segments)) == [ERROR]
        assert disk.do(request(READ, 0, segments)) == [ERROR]
    for reference in (512, 1 << 20, (1 << 32) - 1):
        assert disk.do(request(READ, 0, [(good, 0, 7), (reference, 0, 7)])) == [ERROR]
    assert disk.bench.read(DATA, 8192) == b"\x55" * 8192 and disk.file.data == before
    disk.page(1)
    disk.ring.put(request(READ, 0, segments))
    assert disk.bench.caller.events(4, "I", disk.front.port) == 0
    disk.bench.grant(bad, DATA, 0)  # while the request is being served
    disk.bench.time.advance(1_000_000)
    assert [one[10:12] for one in disk.ring.take()] == [b"\xff\xff"]
    assert disk.bench.read(DATA, 8192) == b"\x55" * 8192


def test_a_disk_that_can_only_be_read() -> None:
    disk = Disk(DirectMedium, read_only=True)
    assert (disk.front.said("mode"), disk.front.said("info"), disk.front.said("feature-discard")) == (b"r", b"4", b"0")
    page = disk.page(0)
    assert disk.do(request(READ, 0, [(page, 0, 7)]), request(WRITE, 0, [(page, 0, 7)])) == [OK, ERROR]
    assert disk.do(discard(0, 8)) == [UNSUPPORTED]
    disk.bench.close()


def test_the_host_fails() -> None:
    disk = Disk(DirectMedium)
    page = disk.page(0)
    disk.file.fails = True
    assert disk.do(request(READ, 0, [(page, 0, 7)]), request(WRITE, 0, [(page, 0, 7)])) == [ERROR, ERROR]
    disk.bench.close()


@pytest.mark.parametrize("persistent", [0, 1])
def test_persistent_grants_stay_in_use(persistent: int) -> None:
    disk = Disk(DirectMedium, persistent=persistent)
    page = disk.page(0)
    assert disk.do(request(READ, 0, [(page, 0, 7)])) == [OK]
    assert bool(disk.bench.flags(page) & READING) == bool(persistent)
    assert disk.bench.flags(FIRST_GRANT) & READING  # the ring
    disk.bench.grant(page, DATA, 0)
    assert disk.do(request(READ, 0, [(page, 0, 7)])) == [ERROR]  # in use, and nevertheless ended by the guest
    disk.front.say("state", Phase.CLOSING)
    assert disk.front.phase == Phase.CLOSING
    assert not disk.bench.flags(page) & READING and not disk.bench.flags(FIRST_GRANT) & READING
    disk.bench.close()


def test_a_batch_is_one_event_in_each_direction(disk: Disk) -> None:
    page, counts = disk.page(0), disk.front.back_end.counts
    for _ in range(10):
        before = counts.requests, counts.batches, counts.notifications
        assert disk.do(*(request(READ, index, [(page, 0, 0)], index) for index in range(32))) == [OK] * 32
        after = counts.requests, counts.batches, counts.notifications
        assert [new - old for old, new in zip(before, after, strict=True)] == [32, 1, 1]


def test_requests_that_come_meanwhile_need_no_event(disk: Disk) -> None:
    """They are the next batch. A front end that asks for no event gets none."""
    page, counts = disk.page(0), disk.front.back_end.counts
    assert disk.ring.put(request(READ, 0, [(page, 0, 7)]))
    assert disk.bench.caller.events(4, "I", disk.front.port) == 0
    disk.ring.put(request(READ, 0, [(page, 0, 7)]))
    disk.bench.write(RING + 12, struct.pack("<I", 100))  # the response that it wants an event for
    disk.bench.time.advance(1_000_000)
    assert len(disk.ring.take()) == 2 and (counts.batches, counts.notifications) == (2, 0)


@pytest.mark.parametrize("index", [33, 1 << 31, (1 << 32) - 1])
def test_a_ring_with_impossible_indices_is_given_up(disk: Disk, index: int) -> None:
    disk.bench.write(RING, struct.pack("<I", index))
    disk.front.kick()
    assert disk.front.phase == Phase.CLOSING
    disk.front.kick()  # which nobody hears
    error = f"/local/domain/0/error/backend/vbd/1/{disk_number(0)}/error"
    domain = disk.bench.board.hypervisor
    assert domain is not None and b"entries" in domain.store.server.tree.values[error]


def test_a_ring_that_is_not_granted_any_more_is_given_up(disk: Disk) -> None:
    page = disk.page(0)
    disk.ring.put(request(READ, 0, [(page, 0, 7)]))
    assert disk.bench.caller.events(4, "I", disk.front.port) == 0
    disk.bench.grant(FIRST_GRANT, RING, 0)
    before = disk.bench.read(RING, 4096)
    disk.bench.time.advance(1_000_000)
    assert disk.front.phase == Phase.CLOSING and disk.bench.read(RING, 4096) == before


@pytest.mark.parametrize(
    "nodes",
    [
        {"ring-ref": 77},
        {"ring-ref": "x"},
        {"ring-ref": 1 << 40},
        {"ring-ref": ""},
        {"ring-ref": FIRST_GRANT, "event-channel": 1},
        {"ring-ref": FIRST_GRANT, "event-channel": 1023},
        {"ring-ref": FIRST_GRANT, "protocol": "x86_32-abi"},
    ],
)
def test_a_front_end_that_makes_no_sense(nodes: dict[str, object]) -> None:
    medium = DirectMedium(a_file(), False)
    bench = Bench(partial(BlockBackEnd, number=disk_number(0), medium=medium, failed=ignored))
    front = FrontEnd(bench)
    bench.grant(FIRST_GRANT, RING)
    front.connect(nodes)
    assert front.phase == Phase.CLOSING
    assert not bench.flags(FIRST_GRANT) & READING
    bench.close()


def test_it_comes_and_goes_again(disk: Disk) -> None:
    for _ in range(3):
        disk.front.say("state", Phase.CLOSING)
        disk.front.say("state", Phase.CLOSED)
        assert disk.front.phase == Phase.CLOSED
        disk.front.say("state", Phase.INITIALISING)
        assert disk.front.phase == Phase.INIT_WAIT
        disk.ring = Ring(disk.bench, RING, FIRST_GRANT, 112, 16)
        disk.front.connect({"ring-ref": FIRST_GRANT})
        assert disk.do(request(READ, 0, [(disk.page(0), 0, 7)])) == [OK]


def test_a_state_in_the_middle_of_a_batch(disk: Disk) -> None:
    """Requests have been copied: what the guest writes to its ring afterwards changes nothing."""
    page = disk.page(0)
    disk.ring.put(request(READ, 8, [(page, 0, 7)], number=5))
    assert disk.bench.caller.events(4, "I", disk.front.port) == 0
    state = disk.bench.board.save()
    disk.bench.write(RING + 64, b"\xff" * 112)
    for _ in range(2):
        disk.bench.write(DATA, bytes(4096))
        disk.bench.time.advance(1_000_000)
        assert disk.bench.read(DATA, 4096) == disk.file.data[8 * 512 : 16 * 512]
        assert disk.bench.read(RING + 64, 16) == struct.pack("<QBxh4x", 5, READ, OK)
        disk.bench.board.restore(state)


def test_states_that_cannot_be() -> None:
    disk = Disk(DirectMedium, persistent=1)
    assert disk.do(request(READ, 0, [(disk.page(0), 0, 7)])) == [OK]
    state = disk.bench.board.save()
    domain = disk.bench.board.hypervisor
    assert domain is not None
    changes: list[Callable[[Any], None]] = [
        lambda one: one["back_ends"][0]["persistent"].update({77: 1}),
        lambda one: one["back_ends"][0]["ring"][0].update(reference=9, is_open=False),
        lambda one: one["back_ends"][0].update(batch=[b"short"]),
        lambda one: one["back_ends"][0].update(batch=[bytes(112)] * 33),
        lambda one: one["back_ends"][0]["ring"][0].update(taken=100),
        lambda one: one["grants"][0]["held"].update({9: 2}),
        lambda one: one["grants"][0]["held"].update({1 << 20: 1}),
    ]
    for change in changes:
        wrong = deepcopy(state.devices["Xen"])
        change(wrong)
        with pytest.raises(StateError):
            domain.restore(wrong)
    disk.bench.board.restore(state)
    disk.bench.close()
