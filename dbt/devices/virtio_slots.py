"""The slots for virtio devices: register pages of 512 bytes in a row, each of a transport (virtio 1.2, 4.2.2)."""

from __future__ import annotations

from dataclasses import dataclass

from dbt.devices.registers import WordRegisters

SLOTS, SLOT_SIZE = 32, 0x200
SIZE = SLOTS * SLOT_SIZE
#: MagicValue, Version, DeviceID and VendorID of a transport without a device. The vendor is QEMU.
_EMPTY = {0x000: 0x74726976, 0x004: 2, 0x008: 0, 0x00C: 0x554D4551}


@dataclass(eq=False)
class VirtioSlots(WordRegisters):
    """Slots that are all empty: a driver finds the magic number and no device.

    Registers are words; a narrow read gives zero, as in QEMU.
    """

    def read(self, offset: int, size: int) -> int:
        return self.read_word(offset) if size == 4 else 0

    def read_word(self, offset: int) -> int:
        return _EMPTY.get(offset % SLOT_SIZE, 0)

    def write_word(self, offset: int, value: int) -> None:
        pass
