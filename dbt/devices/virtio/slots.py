"""The slots for virtio devices: ranges of 512 bytes in a row, each with a transport (virtio 1.2, section 4.2).

Native code answers what a driver accesses with each interrupt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dbt.devices.receivers import Receive, numbered, one_by_one
from dbt.devices.registers import WordRegisters
from dbt.devices.shared import in_python, shared
from dbt.devices.state import Part, Wiring
from dbt.devices.virtio.attached import SLOT_SIZE, SLOTS, Attached, limits_name
from dbt.devices.virtio.device import VirtioDevice
from dbt.devices.virtio.interrupt import InterruptStatus
from dbt.devices.virtio.transport import (
    CONFIG,
    INTERRUPT_ACK,
    INTERRUPT_STATUS,
    MAGIC,
    VENDOR,
    VERSION,
    Transport,
)
from dbt.devices.wiring import Line, Time, unconnected

_SLOT_SHIFT: Final = SLOT_SIZE.bit_length() - 1
_REGISTER: Final = SLOT_SIZE - 1

#: MagicValue, Version and VendorID of a transport without a device, whose DeviceID is 0.
_EMPTY: Final = {0x000: MAGIC, 0x004: VERSION, 0x00C: VENDOR}


@shared
@dataclass(eq=False)
class VirtioSlots(WordRegisters):
    """Slots from 0 on. ``transports`` are those that are not empty, and ``places`` their slots in the same order.

    ``interrupts`` are those of all slots, and ``silent`` those of the empty ones.
    """

    places: Wiring[tuple[int, ...]]
    transports: Part[list[Transport]]
    by_place: Wiring[dict[int, Transport]] = field(init=False)
    silent: Part[list[InterruptStatus]] = field(init=False)
    interrupts: Wiring[list[InterruptStatus]] = field(init=False, metadata={"count": SLOTS})

    def __post_init__(self) -> None:
        self.by_place = dict(zip(self.places, self.transports, strict=True))
        self.silent = [InterruptStatus(unconnected) for _ in range(SLOTS - len(self.places))]
        silent = iter(self.silent)
        self.interrupts = [
            self.by_place[place].interrupt if place in self.by_place else next(silent) for place in range(SLOTS)
        ]

    def find(self, device: VirtioDevice) -> Transport:
        """Return the transport of a device that is in a slot."""
        return next(one for one in self.transports if one.device is device)

    def receivers(self) -> dict[str, Receive]:
        """Return what takes things from outside, by name: the name of the device, and its number if there are more.

        What limits a device is ``limits N``, where N counts all devices in their order.
        """
        found = numbered((one.device.receiver, one.receive) for one in self.transports)
        limited = ((at, one) for at, one in enumerate(self.transports) if one.device.limited)
        return found | {limits_name(at): one_by_one(one.set_limits) for at, one in limited}

    def read(self, offset: int, size: int) -> int:
        return self.read_word(offset) if size == 4 else self._read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 4:
            self.write_word(offset, value)
        else:
            self._write(offset, size, value)

    def read_word(self, offset: int) -> int:
        if offset & _REGISTER == INTERRUPT_STATUS:
            return self.interrupts[offset >> _SLOT_SHIFT].read()
        return self._read(offset, 4)

    def write_word(self, offset: int, value: int) -> None:
        if offset & _REGISTER == INTERRUPT_ACK:
            self.interrupts[offset >> _SLOT_SHIFT].acknowledge(value)
        else:
            self._write(offset, 4, value)

    @in_python
    def _read(self, offset: int, size: int) -> int:
        register = offset & _REGISTER
        transport = self.by_place.get(offset >> _SLOT_SHIFT)
        if transport is not None:
            return transport.read(register, size)
        return _EMPTY.get(register, 0) if size == 4 and register < CONFIG else 0

    @in_python
    def _write(self, offset: int, size: int, value: int) -> None:
        transport = self.by_place.get(offset >> _SLOT_SHIFT)
        if transport is not None:
            transport.write(offset & _REGISTER, size, value)


def make_slots(attached: Attached | None, time: Time, line: Callable[[int], Line]) -> VirtioSlots:
    """Return the slots with these devices, or without any. The first device is in the highest slot, as in QEMU.

    ``line`` returns the interrupt of a slot.
    """
    devices = () if attached is None else attached.devices
    places = tuple(SLOTS - 1 - number for number in range(len(devices)))
    transports = [
        Transport(attached.dma, time, line(place), place, device)
        for place, device in zip(places, devices, strict=True)
        if attached is not None
    ]
    return VirtioSlots(places, transports)
