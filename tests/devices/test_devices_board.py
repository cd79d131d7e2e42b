"""The system registers, and the board as a whole, without a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dbt.abi.addresses import Gpa
from dbt.board import versatile
from dbt.board.board import Board, BoardWiring, Inputs, InterruptTaken
from dbt.board.versatile import (
    ETHERNET,
    FLASH,
    GPIO,
    INTERRUPT_CONTROLLER,
    SECONDARY_CONTROLLER,
    SERIAL_BUS,
    SYSTEM_REGISTERS,
    TIMER01,
    TIMER23,
    UART0,
    UART1,
    UART2,
    UART3,
    WATCHDOG,
    build_board,
)
from dbt.memory.ram import RamLayout
from tests.devices.virtual_time import Line, VirtualTime

EPOCH = 1_767_225_600
LOCK, RESETCTL, PCICTL, CLCD, COUNTER_100HZ, COUNTER_24MHZ = 0x20, 0x40, 0x44, 0x50, 0x24, 0x5C


@dataclass
class Rig:
    """A board with nothing but instruments around it."""

    ram_size: int = 128 << 20
    time: VirtualTime = field(default_factory=VirtualTime)
    irq: Line = field(default_factory=Line)
    fiq: Line = field(default_factory=Line)
    sent: bytearray = field(default_factory=bytearray)
    resets: list[int] = field(default_factory=list)
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        def reset() -> None:
            self.resets.append(self.time.tick)

        ram = RamLayout.of(self.ram_size)
        wiring = BoardWiring(self.sent.append, ram, self.time.timeline, self.irq, self.fiq, reset, EPOCH)
        self.board = build_board(wiring)

    def read(self, gpa: int) -> int:
        return self.board.bus.read(Gpa(gpa), 4)

    def write(self, gpa: int, value: int) -> None:
        self.board.bus.write(Gpa(gpa), 4, value)


def test_the_board_is_a_versatile_pb() -> None:
    rig = Rig()
    assert rig.read(SYSTEM_REGISTERS) == 0x41007004
    assert rig.read(SYSTEM_REGISTERS + PCICTL) == 1 and rig.read(SYSTEM_REGISTERS + CLCD) == 0x1F00
    assert rig.read(SYSTEM_REGISTERS + 0x84) == 0x02000000 and rig.read(SYSTEM_REGISTERS + 0x88) == 0xFF000000


def test_the_counters_are_exact() -> None:
    rig = Rig()
    for tick, fast, slow in ((0, 0, 0), (4, 0, 0), (5, 1, 0), (999_999, 239_999, 0), (1_000_000, 240_000, 1)):
        rig.time.tick = tick
        assert rig.read(SYSTEM_REGISTERS + COUNTER_24MHZ) == fast
        assert rig.read(SYSTEM_REGISTERS + COUNTER_100HZ) == slow
    rig.time.tick = 10**8 * 1000  # It wraps after three minutes.
    assert rig.read(SYSTEM_REGISTERS + COUNTER_24MHZ) == 24 * 10**9 % 2**32


def test_flags_are_set_and_cleared() -> None:
    rig = Rig()
    for set_, clear in ((0x30, 0x34), (0x38, 0x3C)):
        rig.write(SYSTEM_REGISTERS + set_, 0xF0)
        rig.write(SYSTEM_REGISTERS + set_, 0x0F)
        rig.write(SYSTEM_REGISTERS + clear, 0x18)
        assert rig.read(SYSTEM_REGISTERS + set_) == 0xE7


def test_a_reset_needs_the_lock_opened() -> None:
    rig = Rig()
    rig.write(SYSTEM_REGISTERS + RESETCTL, 0x105)
    assert not rig.resets and rig.read(SYSTEM_REGISTERS + RESETCTL) == 0
    rig.write(SYSTEM_REGISTERS + LOCK, 0xA05F)
    rig.write(SYSTEM_REGISTERS + RESETCTL, 0x005)
    assert not rig.resets and rig.read(SYSTEM_REGISTERS + RESETCTL) == 5
    rig.write(SYSTEM_REGISTERS + RESETCTL, 0x105)
    assert rig.resets == [0]


def test_interrupts_arrive_where_the_board_says() -> None:
    rig = Rig()
    rig.write(INTERRUPT_CONTROLLER + 0x10, 0xFFFFFFFF)
    for base, number in ((TIMER01, 4), (TIMER23, 5)):
        rig.write(base, 7)
        rig.write(base + 8, 0xA3)
        rig.time.advance(700)
        assert rig.irq.level and rig.read(INTERRUPT_CONTROLLER) == 1 << number
        rig.write(base + 8, 0)
        rig.write(base + 0xC, 0)
        assert not rig.irq.level
    for base, number in ((UART0, 12), (UART1, 13), (UART2, 14), (UART3, 31)):
        rig.write(SECONDARY_CONTROLLER + 8, 0xFFFFFFFF)
        rig.write(base + 0x38, 0x20)
        rig.write(base, ord("a"))
        assert rig.irq.level and rig.read(INTERRUPT_CONTROLLER) == 1 << number
        rig.write(base + 0x44, 0x20)
        assert not rig.irq.level
    assert rig.sent == b"a"


def test_an_interrupt_has_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a guest ever accesses the other one, which is made only then, or not."""
    monkeypatch.setattr(versatile, "GPIO", (*GPIO, Gpa(0x101F5000)))
    with pytest.raises(InterruptTaken, match="GPIO 4: input 10 of the primary interrupt controller is that of clock"):
        Rig()


def test_an_input_is_connected_once_and_exists() -> None:
    driven: list[tuple[int, bool]] = []
    inputs = Inputs("the controller", lambda number: lambda level: driven.append((number, level)))
    inputs.connect(31, "a device")(True)
    assert driven == [(31, True)]
    with pytest.raises(InterruptTaken, match=r"is that of a device; not connected yet are 0, .*, 30$"):
        inputs.connect(31, "a device")
    for number in (-1, 32):
        with pytest.raises(InterruptTaken, match=f"has no input {number}; they are 0 to 31"):
            inputs.connect(number, "a device")


def test_the_console_is_at_the_first_uart() -> None:
    rig = Rig()
    assert rig.board.console_uart is not None
    rig.board.console_uart.push(b"k")
    assert rig.read(UART0) == ord("k") and rig.read(UART0 + 0x1000) == 0


def test_a_large_ram_hides_devices() -> None:
    rig = Rig(ram_size=UART3)
    assert rig.board.bus.covers(Gpa(UART3), 4) and not rig.board.bus.covers(Gpa(SYSTEM_REGISTERS), 4)
    assert not Rig(ram_size=1 << 31).board.bus.windows


def test_flash_blank_and_locked_takes_no_writes() -> None:
    rig = Rig()
    for command, operands in ((0x40, (0x1234,)), (0xE8, (1, 0x11, 0x22, 0xD0)), (0x20, (0xD0,))):
        rig.write(FLASH, 0x50)
        for value in (command, *operands):
            assert rig.read(FLASH) & 0x7F == 0  # No error yet.
            rig.write(FLASH + 0x1000, value)
        assert rig.read(FLASH) & 0xFF == (0x92 if command != 0x20 else 0xA2)
        rig.write(FLASH, 0xFF)
        assert rig.read(FLASH + 0x1000) == 0


def test_the_watchdog_resets_the_board() -> None:
    rig = Rig()
    rig.write(INTERRUPT_CONTROLLER + 0x10, 1)
    rig.write(WATCHDOG, 100)
    rig.write(WATCHDOG + 8, 3)
    rig.time.advance(100 * 100)
    assert rig.irq.level
    rig.time.advance(100 * 100)
    assert rig.resets == [2 * 100 * 100]


def test_the_ethernet_controller_loses_what_it_sends_and_says_it_is_sent() -> None:
    rig = Rig()
    bus = rig.board.bus
    rig.write(SECONDARY_CONTROLLER + 0x20, 1 << 25)
    for offset, value in ((0xE, 2), (0xD, 0x02), (0x0, 0x20), (0x2, 0), (0x0, 0xC0)):
        bus.write(Gpa(ETHERNET + offset), 1, value)
    assert bus.read(Gpa(ETHERNET + 0xC), 1) & 0x02 and bus.read(Gpa(ETHERNET + 0x4), 1) == 0
    assert rig.read(INTERRUPT_CONTROLLER + 8) == 1 << 25
    bus.write(Gpa(ETHERNET + 0xC), 1, 0x02)
    assert rig.read(INTERRUPT_CONTROLLER + 8) == 0
    for offset, size, value in ((0xE, 1, 1), (0xC, 2, 0x1A10), (0xE, 1, 2), (0x0, 1, 0xC0)):  # With automatic release
        bus.write(Gpa(ETHERNET + offset), size, value)
    assert not bus.read(Gpa(ETHERNET + 0xC), 1) & 0x02


def test_a_chip_sends_nothing_after_a_byte_that_is_not_acknowledged() -> None:
    rig = Rig()

    def set_wires(clock: int, data: int) -> None:
        rig.write(SERIAL_BUS + 4, 3 & ~(clock | data << 1))
        rig.write(SERIAL_BUS, clock | data << 1)

    def exchange(byte: int, acknowledge: int) -> int:
        answer = 0
        for data in (*(byte >> bit & 1 for bit in range(7, -1, -1)), acknowledge):
            set_wires(0, data)
            set_wires(1, data)
            answer = answer << 1 | rig.read(SERIAL_BUS) >> 1
            set_wires(0, data)
        return answer >> 1

    for wires in ((1, 1), (1, 0), (0, 0)):  # The start
        set_wires(*wires)
    exchange(0xD1, 1)
    assert exchange(0xFF, 0) == 0x00 and exchange(0xFF, 1) == 0x00 and exchange(0xFF, 1) == 0xFF


def test_every_place_of_the_board_can_be_accessed() -> None:
    rig = Rig()
    for window in rig.board.bus.windows:
        for size in (1, 2, 4):
            for offset in range(0, 0x1000, size):
                assert 0 <= rig.board.bus.read(Gpa(window.base + offset), size) < 1 << 8 * size, window.name
                rig.board.bus.write(Gpa(window.base + offset), size, (1 << 8 * size) - 1)
    rig.time.advance(10**9)
