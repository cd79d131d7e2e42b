"""NOR flash with Intel's command set and the Common Flash Interface (JEDEC JESD68.01), as drivers find it.

It is 64 MiB in blocks of 256 KiB on a bus of 32 bits, blank and write-protected: programming and erasing end
with the errors that a locked block gives, so it needs no memory of the host. Blank reads as zero, as QEMU's.
"""

from __future__ import annotations

from dataclasses import dataclass

from dbt.devices.device import Device
from dbt.devices.state import Byte, Word

_READY, _ERASE_FAILED, _PROGRAM_FAILED, _LOCKED = 0x80, 0x20, 0x10, 0x02
_READ_ARRAY, _READ_STATUS, _READ_IDENTIFIER, _QUERY = 0xFF, 0x70, 0x90, 0x98

#: The query structure from its address 0x10 on, in words of the bus.
_CFI = bytes((
    *b"QRY",
    0x01, 0x00,  # Intel's extended command set
    0x31, 0x00,  # whose table is at 0x31
    0x00, 0x00, 0x00, 0x00,  # and no other
    0x45, 0x55, 0x00, 0x00,  # 4.5 to 5.5 V, no programming voltage
    0x07, 0x07, 0x0A, 0x00,  # typical times: word, buffer, block, no chip erase
    0x04, 0x04, 0x04, 0x00,  # their maxima
    0x1A,  # 2 ** 26 bytes
    0x02, 0x00,  # 8 or 16 bits wide
    0x0B, 0x00,  # buffer of 2 ** 11 bytes
    0x01,  # one erase region:
    0xFF, 0x00, 0x00, 0x04,  # 255 + 1 blocks of 0x400 * 256 bytes
    *b"PRI10",
    0x00, 0x00, 0x00, 0x00,  # no optional features
    0x00, 0x00, 0x00,  # nothing while suspended, no lock bits
    0x00, 0x00,
    0x01,  # one protection field
))  # fmt: skip


@dataclass(eq=False)
class Flash(Device):
    """What software has asked for, and what the chips answer."""

    #: What reads give: the last of the four commands above.
    mode: Byte = _READ_ARRAY
    status: Byte = _READY
    #: Writes that belong to the command before them, and the errors that it ends with.
    operands: Word = 0
    errors: Byte = 0
    counting: bool = False

    def is_possible(self) -> bool:
        return self.mode in (_READ_ARRAY, _READ_STATUS, _READ_IDENTIFIER, _QUERY)

    def read(self, offset: int, size: int) -> int:
        word = self._read_word(offset & ~3) >> 8 * (offset & 3)
        return word & (1 << 8 * size) - 1

    def _read_word(self, offset: int) -> int:
        match self.mode:
            case 0x70:
                return self.status | self.status << 16
            case 0x98:
                place = (offset >> 2 & 0x3F) - 0x10
                return _CFI[place] if 0 <= place < len(_CFI) else 0
            case _:  # The array, and identifiers, of which it has none: as in QEMU, they read as zero.
                return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if self.counting:  # The number of words in the buffer less one; then they come, then the confirmation.
            self.counting, self.operands = False, (value & 0xFFFF) + 2
        elif self.operands:
            self.operands -= 1
            if not self.operands:
                self.status |= self.errors
        else:
            self._command(value & 0xFF)

    def _command(self, command: int) -> None:
        """Begin ``command``; others, such as those of other makers' flash, which drivers try first, change nothing."""
        match command:
            case 0x70 | 0x90 | 0x98:
                self.mode = command
            case 0x50:  # Clear the status register
                self.status, self.mode = _READY, _READ_ARRAY
            case 0x10 | 0x40:  # Program a word
                self._begin(1, _PROGRAM_FAILED | _LOCKED)
            case 0x20:  # Erase a block
                self._begin(1, _ERASE_FAILED | _LOCKED)
            case 0x60:  # Set or clear lock bits
                self._begin(1, 0)
            case 0xE8:  # Program the buffer
                self._begin(0, _PROGRAM_FAILED | _LOCKED)
                self.counting = True
            case 0xFF:
                self.mode = _READ_ARRAY

    def _begin(self, operands: int, errors: int) -> None:
        self.mode, self.operands, self.errors = _READ_STATUS, operands, errors
