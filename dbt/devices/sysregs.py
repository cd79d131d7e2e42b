"""The status and system control registers of Versatile/PB (ARM DUI 0224, chapter of that name).

The oscillators' registers read as zero, as in QEMU: nobody makes a clock from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import gcd

from dbt.devices.registers import WordRegisters
from dbt.devices.shared import in_python, shared
from dbt.devices.state import Wiring, Word
from dbt.devices.wiring import Time

#: What SYS_ID, SYS_PROCID0 and SYS_PROCID1 are on a Versatile/PB926EJ-S.
_BOARD, _CORE_MODULE, _LOGIC_MODULE = 0x41007004, 0x02000000, 0xFF000000
#: The frequencies of SYS_100HZ and SYS_24MHz.
_SLOW_HZ, _FAST_HZ = 100, 24_000_000
_UNLOCK = 0xA05F
_RESET = 1 << 8
#: SYS_CLCD: the display identifier in bits 12:8 says VGA.
_DISPLAY, _DISPLAY_MASK = 0x1F00, 0x3F00


@shared
@dataclass(eq=False)
class SystemRegisters(WordRegisters):
    """The registers. ``reset`` is called when the guest asks for a reset of the board."""

    time: Wiring[Time]
    reset: Wiring[Callable[[], None]]
    leds: Word = 0
    lock: Word = 0
    cfgdata1: Word = 0
    cfgdata2: Word = 0
    flags: Word = 0
    nvflags: Word = 0
    resetctl: Word = 0
    clcd: Word = _DISPLAY
    #: SYS_24MHz advances by ``fast_counts`` every ``fast_ticks`` ticks. It is a fraction in its lowest terms.
    fast_counts: Wiring[int] = field(init=False)
    fast_ticks: Wiring[int] = field(init=False)

    def __post_init__(self) -> None:
        common = gcd(_FAST_HZ, self.time.ticks_per_second)
        self.fast_counts, self.fast_ticks = _FAST_HZ // common, self.time.ticks_per_second // common

    def read_word(self, offset: int) -> int:
        match offset:
            case 0x24:  # SYS_100HZ
                return self.time.now // (self.time.ticks_per_second // _SLOW_HZ) & 0xFFFFFFFF
            case 0x5C:  # SYS_24MHz
                return self.time.now * self.fast_counts // self.fast_ticks & 0xFFFFFFFF
            case 0x00:  # SYS_ID
                return _BOARD
            case 0x08:
                return self.leds
            case 0x20:
                return self.lock
            case 0x28:
                return self.cfgdata1
            case 0x2C:
                return self.cfgdata2
            case 0x30:
                return self.flags
            case 0x38:
                return self.nvflags
            case 0x40:
                return self.resetctl
            case 0x44:  # SYS_PCICTL: the PCI backplane is there
                return 1
            case 0x50:
                return self.clcd
            case 0x84:  # SYS_PROCID0
                return _CORE_MODULE
            case 0x88:  # SYS_PROCID1
                return _LOGIC_MODULE
            case _:  # SYS_SW, SYS_OSC, SYS_MCI (no card), SYS_FLASH, SYS_MISC and others
                return 0

    def write_word(self, offset: int, value: int) -> None:
        match offset:
            case 0x08:
                self.leds = value
            case 0x20:  # SYS_LOCK
                self.lock = value if value == _UNLOCK else value & 0x7FFF
            case 0x28:
                self.cfgdata1 = value
            case 0x2C:
                self.cfgdata2 = value
            case 0x30:  # SYS_FLAGSSET
                self.flags |= value
            case 0x34:  # SYS_FLAGSCLR
                self.flags &= ~value
            case 0x38:  # SYS_NVFLAGSSET
                self.nvflags |= value
            case 0x3C:  # SYS_NVFLAGSCLR
                self.nvflags &= ~value
            case 0x40:  # SYS_RESETCTL
                self._write_resetctl(value)
            case 0x50:  # SYS_CLCD
                self.clcd = self.clcd & _DISPLAY_MASK | value & ~_DISPLAY_MASK

    @in_python
    def _write_resetctl(self, value: int) -> None:
        if self.lock == _UNLOCK:
            self.resetctl = value
            if value & _RESET:
                self.reset()
