"""The balloon: what the guest gives away reads as zero, and the guest is told what it shall give."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from dbt.devices.virtio.balloon import Balloon
from tests.devices.virtio.driver import BASE, F_VERSION_1, SIZE, Rig

POISON, REPORTING = 1 << 4, 1 << 5
INFLATE, DEFLATE, STATS, REPORT = range(4)


@pytest.fixture
def rig() -> Iterator[Rig]:
    one = Rig(Balloon)
    one.start(F_VERSION_1 | POISON | REPORTING)
    one.write(BASE + SIZE // 2, b"x" * 0x8000)
    yield one
    one.close()


def page(number: int) -> int:
    return (BASE + SIZE // 2 >> 12) + number


def test_what_is_given_reads_as_zero(rig: Rig) -> None:
    pages = [page(1), page(3), 0, 0xFFFFFFFF, page(-0x200)]
    rig.ask(INFLATE, [struct.pack("<5I", *pages) + b"zzz"], [])
    found = rig.read(BASE + SIZE // 2, 0x8000)
    assert found == b"x" * 0x1000 + bytes(0x1000) + b"x" * 0x1000 + bytes(0x1000) + b"x" * 0x4000
    rig.ask(DEFLATE, [struct.pack("<I", page(1))], [])


def test_free_pages_that_are_reported_read_as_zero(rig: Rig) -> None:
    address = BASE + SIZE // 2
    rig.describe(rig.place(REPORT)[0], 0, address, 0x3000, 2)
    rig.make_available(REPORT, 0)
    rig.notify(REPORT)
    rig.time.advance(10**6)
    assert rig.used(REPORT) == [(0, 0)]
    assert rig.read(address, 0x8000) == bytes(0x3000) + b"x" * 0x5000


def test_pages_with_poison_stay(rig: Rig) -> None:
    rig.w(0x10C, 0xAAAAAAAA)
    rig.ask(INFLATE, [struct.pack("<I", page(1))], [])
    assert rig.read(BASE + SIZE // 2, 0x8000) == b"x" * 0x8000


def test_the_guest_is_told_what_it_shall_give(rig: Rig) -> None:
    assert isinstance(rig.device, Balloon)
    rig.transport.receive([struct.pack("<I", 16)])
    assert rig.r(0x60) == 3 and rig.line.level and rig.r(0xFC) == 1 and rig.r(0x100) == 16
    rig.w(0x64, 3)
    rig.transport.receive([struct.pack("<I", 16)])
    assert rig.r(0x60) == 0
    rig.w(0x104, 7)
    rig.w(0x100, 99)
    assert rig.r(0x104) == 7 and rig.r(0x100) == 16


def test_statistics_wait(rig: Rig) -> None:
    rig.chain(STATS, [bytes(10)], [])
    rig.make_available(STATS, 0)
    rig.notify(STATS)
    rig.time.advance(10**6)
    assert not rig.used(STATS) and rig.r(0x70) == 15
