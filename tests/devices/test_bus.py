"""The bus, and where a device on it is."""

from __future__ import annotations

import pytest

from dbt.abi.addresses import Gpa
from dbt.board.bus import BusError, Deferred, DeviceBus, Window
from dbt.devices.pl011 import Pl011
from dbt.devices.wiring import unconnected
from tests.devices.virtual_time import VirtualTime


def make_uart() -> tuple[Pl011, bytearray]:
    sent = bytearray()
    return Pl011(VirtualTime().named(), sent.append, unconnected), sent


def test_a_device_is_addressed_from_its_own_beginning() -> None:
    uart, sent = make_uart()
    bus = DeviceBus([Window(Gpa(0x1000), 0x1000, uart, "uart")])
    bus.write(Gpa(0x1000), 1, 0x41)
    assert sent == b"A" and bus.read(Gpa(0x1018), 4) == 0x90


def test_an_access_must_lie_within_one_device() -> None:
    bus = DeviceBus([Window(Gpa(0x1000), 0x1000, make_uart()[0], "uart")])
    assert bus.covers(Gpa(0x1000), 4) and bus.covers(Gpa(0x1FFC), 4) and bus.covers(Gpa(0x1FFF), 1)
    assert not bus.covers(Gpa(0xFFF), 1) and not bus.covers(Gpa(0x1FFE), 4) and not bus.covers(Gpa(0x2000), 1)
    with pytest.raises(LookupError):
        bus.read(Gpa(0x2000), 4)


def test_windows_do_not_overlap() -> None:
    uart, _ = make_uart()
    with pytest.raises(BusError, match=r"one .* two"):
        DeviceBus([Window(Gpa(0x1000), 0x1000, uart, "two"), Window(Gpa(0x1FFF), 1, uart, "one")])
    with pytest.raises(BusError, match=r"0x3000 .* 0x1000 .* uart"):
        DeviceBus([Window(Gpa(0x1000), 0x1000, uart, "uart"), Window(Gpa(0x3000), 0x1000, uart, "uart")])


def test_a_device_is_made_when_it_is_accessed_first() -> None:
    made: list[Pl011] = []

    def make() -> Pl011:
        made.append(make_uart()[0])
        return made[-1]

    bus = DeviceBus([Window(Gpa(0x1000), 0x1000, Deferred(make), "uart")])
    assert bus.covers(Gpa(0x1000), 4) and not made
    bus.write(Gpa(0x1024), 4, 0x12)
    assert bus.read(Gpa(0x1024), 4) == 0x12 and bus.windows[0].device is made[0] and len(made) == 1


def test_holes_read_zero_where_the_board_says_so() -> None:
    bus = DeviceBus([Window(Gpa(0x1000), 0x1000, make_uart()[0], "uart")], holes_read_zero=True)
    for gpa, size in ((0x0FFC, 4), (0x2000, 1), (0xFFFFFFFE, 2), (0x1FFE, 4)):
        assert bus.covers(Gpa(gpa), size) and not bus.has_device(Gpa(gpa), size)
        bus.write(Gpa(gpa), size, 0x55)
        assert bus.read(Gpa(gpa), size) == 0
    assert bus.native_device(Gpa(0x2000)) is None
    assert bus.has_device(Gpa(0x1018), 4) and bus.read(Gpa(0x1018), 4) == 0x90


def test_a_device_does_not_answer_in_its_gaps() -> None:
    gaps = (range(0x1000, 0x3000), range(0x4000, 0x5000))
    bus = DeviceBus([Window(Gpa(0x1000), 0x5000, make_uart()[0], "uart", gaps)])
    for gpa, there in ((0x1018, True), (0x2018, False), (0x3018, False), (0x4018, True), (0x5018, False)):
        for _ in range(2):
            assert bus.covers(Gpa(0x1018), 4) and bus.covers(Gpa(gpa), 4) == there
