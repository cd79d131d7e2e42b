"""The board: where the devices of an ARM Versatile/PB (ARM DUI 0224) sit."""

from __future__ import annotations

from dbt.devices.pl011 import Pl011
from dbt.machine.bus import DeviceBus, Window
from dbt.machine.console import Console

UART0 = 0x101F1000
#: A larger RAM hides devices beneath it. Versatile/PB itself decodes at most this much, in bytes.
BOARD_MEMORY = 0x10000000


def build_bus(console: Console, ram_size: int) -> DeviceBus:
    """The board's devices, except those that a RAM of ``ram_size`` bytes at address 0 hides."""
    windows = [
        Window(UART0, 0x1000, Pl011(console.write, console.arrived, console.read), "UART0"),
    ]
    return DeviceBus(window for window in windows if window.base >= ram_size)
