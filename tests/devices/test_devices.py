"""The bus and the devices on it, without a CPU."""

from __future__ import annotations

import pytest

from dbt.board.bus import BusError, DeviceBus, Window
from dbt.devices.pl011 import Pl011
from dbt.devices.wiring import unconnected

DR, FR, LCR_H, CR, IMSC, RIS, MIS, ICR = 0x00, 0x18, 0x2C, 0x30, 0x38, 0x3C, 0x40, 0x44
RX, TX = 1 << 4, 1 << 5
FIFO, LOOPBACK = 1 << 4, 1 << 7


def make_uart(received: bytes = b"") -> tuple[Pl011, bytearray]:
    sent = bytearray()
    uart = Pl011(sent.extend, unconnected)
    uart.write(LCR_H, 4, FIFO)
    uart.push(received)
    return uart, sent


def test_the_uart_sends_the_low_byte_of_what_is_written() -> None:
    uart, sent = make_uart()
    for size, value in ((1, 0x41), (2, 0x1042), (4, 0xFFFFFF43)):
        uart.write(DR, size, value)
    assert sent == b"ABC"


def test_the_uart_is_always_ready_to_send_and_has_received_nothing() -> None:
    uart, _ = make_uart()
    assert uart.read(FR, 4) == 0x90
    assert uart.read(DR, 4) == 0


def test_the_uart_receives_what_is_on_the_line() -> None:
    uart, _ = make_uart(b"a\xff")
    assert [uart.read(FR, 4), uart.read(DR, 4)] == [0x80, ord("a")]
    assert [uart.read(FR, 4), uart.read(DR, 1)] == [0x80, 0xFF]
    assert [uart.read(FR, 4), uart.read(DR, 4)] == [0x90, 0]


def test_the_uart_receives_as_much_as_its_fifo_holds() -> None:
    uart, _ = make_uart()
    assert uart.room == 16
    uart.push(bytes(range(20)))
    assert uart.room == 0 and uart.read(FR, 4) == 0xC0
    assert [uart.read(DR, 4) for _ in range(16)] == list(range(16))
    uart.write(LCR_H, 4, 0x60)
    assert uart.room == 1
    uart.push(b"xy")
    assert uart.read(FR, 4) == 0xC0 and uart.read(DR, 4) == ord("x") and uart.read(FR, 4) == 0x90


def test_turning_the_fifo_on_or_off_empties_it() -> None:
    uart, _ = make_uart(b"abc")
    uart.write(LCR_H, 4, FIFO | 0x60)
    assert uart.room == 13
    uart.write(LCR_H, 4, 0x60)
    assert uart.room == 1 and uart.read(FR, 4) == 0x90


def test_the_receive_interrupt_lasts_until_nothing_is_left_or_it_is_cleared() -> None:
    levels: list[bool] = []
    uart = Pl011(lambda _: None, levels.append)
    uart.write(LCR_H, 4, FIFO)
    uart.write(IMSC, 4, RX)
    uart.push(b"ab")
    assert levels[-1] and uart.read(MIS, 4) == RX
    uart.read(DR, 4)
    assert levels[-1]
    uart.read(DR, 4)
    assert not levels[-1] and uart.read(RIS, 4) == 0
    uart.push(b"c")
    uart.write(ICR, 4, RX)
    assert not levels[-1] and uart.read(FR, 4) == 0x80
    uart.push(b"d")  # Not the first character: as in QEMU, no new interrupt.
    assert not levels[-1]


def test_loopback_receives_what_is_sent_and_nothing_else() -> None:
    uart, sent = make_uart()
    uart.write(CR, 4, 0x300 | LOOPBACK | 1 << 11)
    uart.push(b"x")
    assert uart.room == 0 and uart.read(FR, 4) == 0x91
    uart.write(DR, 4, ord("y"))
    assert uart.read(FR, 4) == 0x81 and uart.read(DR, 4) == ord("y")
    assert not sent and uart.read(RIS, 4) == TX


def test_the_uart_identifies_itself() -> None:
    uart, _ = make_uart()
    identification = [uart.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert identification == [0x11, 0x10, 0x14, 0x00, 0x0D, 0xF0, 0x05, 0xB1]


def test_the_uart_keeps_its_settings() -> None:
    uart, _ = make_uart()
    for offset, value in ((0x24, 0x1234), (0x28, 0x3F), (LCR_H, 0x70), (CR, 0x301), (0x34, 0x12), (IMSC, 0x7FF)):
        uart.write(offset, 4, value)
        assert uart.read(offset, 4) == value
    assert uart.read(CR, 1) == 0x01 and uart.read(CR + 1, 1) == 0x03


def test_the_transmit_interrupt_is_raised_masked_and_cleared() -> None:
    uart, _ = make_uart()
    uart.write(DR, 1, 0)
    assert uart.read(RIS, 4) == TX and uart.read(MIS, 4) == 0
    uart.write(IMSC, 4, TX)
    assert uart.read(MIS, 4) == TX
    uart.write(ICR, 4, 0x7FF)
    assert uart.read(RIS, 4) == 0


@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_place_of_the_uart_can_be_accessed(size: int) -> None:
    uart, _ = make_uart()
    for offset in range(0, 0x1000, size):
        uart.write(offset, size, (1 << 8 * size) - 1)
        assert 0 <= uart.read(offset, size) < 1 << 8 * size


def test_a_device_is_addressed_from_its_own_beginning() -> None:
    uart, sent = make_uart()
    bus = DeviceBus([Window(0x1000, 0x1000, uart, "uart")])
    bus.write(0x1000, 1, 0x41)
    assert sent == b"A" and bus.read(0x1018, 4) == 0x90


def test_an_access_must_lie_within_one_device() -> None:
    bus = DeviceBus([Window(0x1000, 0x1000, make_uart()[0], "uart")])
    assert bus.covers(0x1000, 4) and bus.covers(0x1FFC, 4) and bus.covers(0x1FFF, 1)
    assert not bus.covers(0xFFF, 1) and not bus.covers(0x1FFE, 4) and not bus.covers(0x2000, 1)
    with pytest.raises(LookupError):
        bus.read(0x2000, 4)


def test_windows_do_not_overlap() -> None:
    uart, _ = make_uart()
    with pytest.raises(BusError, match=r"one .* two"):
        DeviceBus([Window(0x1000, 0x1000, uart, "two"), Window(0x1FFF, 1, uart, "one")])


def test_a_device_is_made_when_it_is_accessed_first() -> None:
    made: list[Pl011] = []

    def make() -> Pl011:
        made.append(make_uart()[0])
        return made[-1]

    bus = DeviceBus([Window.later(0x1000, 0x1000, make, "uart")])
    assert bus.covers(0x1000, 4) and not made
    bus.write(0x1024, 4, 0x12)
    assert bus.read(0x1024, 4) == 0x12 and bus.windows[0].device is made[0] and len(made) == 1
