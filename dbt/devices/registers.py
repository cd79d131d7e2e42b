"""Word registers: how narrow accesses reach them, and the identification that every PrimeCell has."""

from __future__ import annotations

from dbt.devices.device import Device

_CELL_ID = 0xB105F00D


def identification(peripheral_id: int) -> dict[int, int]:
    """Return PeriphID0 to 3 and PCellID0 to 3 by their offsets, 0xFE0 to 0xFFC. A word has one byte of an identifier.

    ``peripheral_id``: bits 11:0 part number, 19:12 designer (0x41 is ARM), 23:20 revision, 31:24 configuration.
    """
    values = (peripheral_id >> shift & 0xFF for shift in range(0, 32, 8))
    cell = (_CELL_ID >> shift & 0xFF for shift in range(0, 32, 8))
    return dict(zip(range(0xFE0, 0x1000, 4), (*values, *cell), strict=True))


class WordRegisters(Device):
    """A device whose registers are words.

    A narrow read gives that part of the word. A write counts if it is to a word's first byte, and then its
    value is the register's: other bytes of the word are taken as zero.
    """

    def read(self, offset: int, size: int) -> int:
        if size == 4 and not offset & 3:
            return self.read_word(offset)
        return self.read_word(offset & ~3) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if not offset & 3:
            self.write_word(offset, value)

    def read_word(self, offset: int) -> int:
        """Return the register at ``offset``, a multiple of 4. Reserved places read as zero."""
        raise NotImplementedError

    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset``. Reserved places and registers that can only be read ignore it."""
        raise NotImplementedError
