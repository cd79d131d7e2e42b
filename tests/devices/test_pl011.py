"""The UART, against its manual (DDI 0183) and QEMU's."""

from __future__ import annotations

import pytest

from dbt.devices.pl011 import ConsoleUart, Pl011
from dbt.devices.wiring import unconnected
from tests.devices.virtual_time import Line, VirtualTime

DR, RSR, FR, IBRD, FBRD, LCR_H = 0x00, 0x04, 0x18, 0x24, 0x28, 0x2C
CR, IMSC, RIS, MIS, ICR = 0x30, 0x38, 0x3C, 0x40, 0x44
RX, TX, RT, BE, OE = 1 << 4, 1 << 5, 1 << 6, 1 << 9, 1 << 10
FIFO, LOOPBACK = 1 << 4, 1 << 7


def make_uart(received: bytes = b"") -> tuple[Pl011, bytearray]:
    sent = bytearray()
    uart = Pl011(VirtualTime().named(), sent.append, unconnected)
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
    uart.push(bytes(range(16)))
    assert uart.room == 0 and uart.read(FR, 4) == 0xC0
    assert [uart.read(DR, 4) for _ in range(16)] == list(range(16))
    uart.write(LCR_H, 4, 0x60)
    assert uart.room == 1
    uart.push(b"x")
    assert uart.read(FR, 4) == 0xC0 and uart.read(DR, 4) == ord("x") and uart.read(FR, 4) == 0x90


def test_turning_the_fifo_off_empties_it_and_turning_it_on_does_not() -> None:
    uart, _ = make_uart(b"abc")
    uart.write(LCR_H, 4, FIFO | 0x60)
    assert uart.room == 13
    uart.write(LCR_H, 4, 0x60)
    assert uart.room == 1 and uart.read(FR, 4) == 0x90 and uart.read(RIS, 4) == 0
    uart.push(b"d")
    uart.write(LCR_H, 4, FIFO | 0x60)
    assert uart.room == 15 and uart.read(DR, 4) == ord("d")


def test_the_receive_interrupt_lasts_until_nothing_is_left_or_it_is_cleared() -> None:
    levels: list[bool] = []
    uart = Pl011(VirtualTime().named(), lambda _: None, levels.append)
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
    uart.push(b"d")
    assert levels[-1]


def timed_uart() -> tuple[Pl011, VirtualTime, Line]:
    """A UART with its FIFO, and the receive time-out interrupt alone enabled."""
    time, line = VirtualTime(), Line()
    uart = Pl011(time.named(), lambda _: None, line)
    uart.write(LCR_H, 4, FIFO)
    uart.write(IMSC, 4, RT)
    return uart, time, line


@pytest.mark.parametrize(
    ("integer", "fraction", "period"),
    [(0, 0, 27_777), (0, 63, 27_777), (13, 1, 27_766), (1, 0, 2133), (65535, 0, 139_808_000)],
)
def test_the_receive_timeout_comes_after_32_bit_periods(integer: int, fraction: int, period: int) -> None:
    """At 24 MHz / (16 * (integer + fraction / 64)), in ticks of 10 ns; at 115,200 bits a second if that is none."""
    uart, time, line = timed_uart()
    uart.write(IBRD, 4, integer)
    uart.write(FBRD, 4, fraction)
    uart.push(b"a")
    time.advance(period - 1)
    assert not line.level and uart.read(RIS, 4) == RX
    time.advance(1)
    assert line.level and uart.read(RIS, 4) == RX | RT and uart.read(MIS, 4) == RT


def test_each_character_begins_the_receive_timeout_anew() -> None:
    uart, time, line = timed_uart()
    uart.write(IBRD, 4, 1)
    for _ in range(3):
        uart.push(b"a")
        time.advance(2000)
    assert not line.level
    time.advance(133)
    assert line.level


def test_the_receive_timeout_is_over_when_the_fifo_is_empty() -> None:
    uart, time, line = timed_uart()
    uart.push(b"ab")
    time.advance(10**6)
    uart.read(DR, 4)
    assert line.level
    uart.read(DR, 4)
    assert not line.level and uart.read(RIS, 4) == 0
    uart.push(b"c")
    uart.read(DR, 4)
    time.advance(10**6)
    assert line.rises == 1 and uart.read(RIS, 4) == 0 and time.timeline.next_tick is None


def test_characters_that_are_left_when_interrupts_are_cleared_are_told_of_again() -> None:
    """Before the time-out and after it: else a guest that clears after it has emptied the FIFO could lose one."""
    for before in (10, 10**6):
        uart, time, line = timed_uart()
        uart.push(b"a")
        time.advance(before)
        uart.write(ICR, 4, 0x7FF)
        assert not line.level and uart.read(RIS, 4) == 0
        time.advance(27_777)
        assert line.level and uart.read(DR, 4) == ord("a")


def test_a_receive_timeout_that_interrupts_nobody_is_no_event() -> None:
    """So it ends no slice; but it is there when the guest looks."""
    uart, time, line = timed_uart()
    uart.write(IMSC, 4, 0)
    uart.push(b"a")
    assert time.timeline.next_tick is None
    time.advance(27_777)
    assert uart.read(RIS, 4) == RX | RT and not line.level
    uart.write(IMSC, 4, RT)
    assert line.level


def test_a_full_receiver_is_overrun() -> None:
    """DDI 0183, 2.4.3 and 3.3.2: the FIFO keeps what it has, and the next character that it takes tells of the loss."""
    uart, _ = make_uart()
    uart.write(CR, 4, 0x300 | LOOPBACK)
    for character in range(18):
        uart.write(DR, 4, character)
    assert uart.read(RSR, 4) == 8 and uart.read(RIS, 4) == RX | TX | OE
    assert uart.read(DR, 4) == 0
    uart.write(DR, 4, 0x55)
    assert [uart.read(DR, 4) for _ in range(16)] == [*range(1, 16), 0x855]
    assert uart.read(RSR, 4) == 8
    uart.write(RSR, 4, 0)
    assert uart.read(RSR, 4) == 0 and uart.read(RIS, 4) == TX | OE


def test_a_break_in_loopback_is_received_once() -> None:
    uart, _ = make_uart()
    uart.write(CR, 4, 0x300 | LOOPBACK)
    for _ in range(2):
        uart.write(LCR_H, 4, FIFO | 1)
    assert uart.read(RIS, 4) == RX | BE and uart.read(DR, 4) == 0x400 and uart.read(RSR, 4) == 4
    assert uart.read(FR, 4) & 0x10


def console_uart(console: bytearray) -> ConsoleUart:
    """A UART whose input comes from ``console``."""

    def refill() -> None:
        data = bytes(console[: uart.room])
        del console[: len(data)]
        uart.push(data)

    uart = ConsoleUart(VirtualTime().named(), lambda _: None, unconnected, refill=refill)
    return uart


def test_input_waits_until_the_guest_looks_for_it() -> None:
    """So nothing that sets up the UART, in whatever order, loses it."""
    uart = console_uart(bytearray(b"abQ"))
    for offset, value in ((CR, 0), (IBRD, 13), (FBRD, 1), (LCR_H, 0x70), (LCR_H, 0), (LCR_H, 0x70), (CR, 0x301)):
        uart.write(offset, 4, value)
        uart.read(offset, 4)
    assert uart.read(FR, 4) == 0x80
    assert [uart.read(DR, 4) for _ in range(4)] == [*b"abQ", 0]


def test_input_that_the_guest_saw_before_it_turned_the_fifo_on_is_not_lost() -> None:
    uart = console_uart(bytearray(b"abQ"))
    assert uart.read(FR, 4) == 0xC0
    uart.write(LCR_H, 4, 0x70)
    assert [uart.read(DR, 4) for _ in range(4)] == [*b"abQ", 0]


def test_input_arrives_at_once_where_the_guest_enables_its_interrupt_or_makes_room() -> None:
    console = bytearray(range(40))
    uart = console_uart(console)
    uart.write(LCR_H, 4, 0x70)
    uart.write(DR, 4, 0)
    assert len(console) == 40
    uart.write(IMSC, 4, RX)
    assert len(console) == 24
    assert uart.read(DR, 4) == 0 and len(console) == 23


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
