"""A bare-metal guest of the board virt that makes a list of accesses, and the accesses of a disk's driver."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.assembler import assemble
from tests.vm.programs import EXIT

ORIGIN = 0x41000000
TRANSPORT = 0x0A000000 + 31 * 0x200
_DESC, _AVAIL, _USED = 0x41300000, 0x41301000, 0x41302000
_HEADER, _STATUS, DATA = 0x41310000, 0x41311000, 0x41320000
_WRITE, _POLL = 1, 2
SECTOR = 512

#: R4 goes through words (kind, address, value), which a 0 ends. Then the guest exits with R2, the last status.
_PROGRAM = f"""
    ldr r4, =0x41040000
next:
    ldmia r4!, {{r0, r1, r3}}
    cmp r0, #1 ; streq r3, [r1] ; beq next
    cmp r0, #2 ; bne done
poll:
    ldr r2, [r1] ; cmp r2, r3 ; bne poll
    b next
done:
    ldr r1, ={_STATUS:#x} ; ldrb r2, [r1]
    {EXIT}
"""


class Guest:
    """The accesses of a driver: call the methods, then :meth:`image`. It accepts these of the first 32 features."""

    def __init__(self, features: int = 1 << 9, transport: int = TRANSPORT) -> None:
        self._transport = transport
        self._accesses: list[tuple[int, int, int]] = []
        self._answered = 0
        self._start(features)

    def _write(self, address: int, *values: int) -> None:
        for at, value in enumerate(values):
            self._accesses.append((_WRITE, address + 4 * at, value))

    def _start(self, features: int) -> None:
        registers = [(0x70, 3), (0x24, 0), (0x20, features), (0x24, 1), (0x20, 1), (0x70, 11), (0x30, 0), (0x38, 8)]
        registers += [(0x80, _DESC), (0x90, _AVAIL), (0xA0, _USED), (0x44, 1), (0x70, 15)]
        for offset, value in registers:
            self._write(self._transport + offset, value)

    def await_value(self, address: int, value: int) -> None:
        """Wait until a word has a value."""
        self._accesses.append((_POLL, address, value))

    def request(self, kind: int, sector: int, size: int, place: int, writable: bool) -> None:
        """Send a request for data at ``place``, and wait for the answer."""
        self._write(_HEADER, kind, 0, sector, 0)
        self._write(_STATUS, 0xFF)
        self._write(_DESC, _HEADER, 0, 16, 0x10001)
        self._write(_DESC + 16, place, 0, size, 0x20001 | (2 if writable else 0))
        self._write(_DESC + 32, _STATUS, 0, 1, 2)
        self._answered += 1
        self._write(_AVAIL, self._answered << 16)
        self._write(self._transport + 0x50, 0)
        self._accesses.append((_POLL, _USED, self._answered << 16))
        self._write(self._transport + 0x64, 1)

    def read(self, sector: int, size: int, place: int = DATA) -> None:
        self.request(0, sector, size, place, writable=True)

    def write(self, sector: int, size: int, place: int = DATA) -> None:
        self.request(1, sector, size, place, writable=False)

    def flush(self) -> None:
        self.request(4, 0, SECTOR, DATA, writable=True)

    def image(self) -> bytes:
        """Return the flat image, for ORIGIN."""

        def words() -> Iterator[bytes]:
            for access in self._accesses:
                yield struct.pack("<3I", *access)
            yield bytes(12)

        return assemble(_PROGRAM, ORIGIN).ljust(0x40000, b"\0") + b"".join(words())


def copier(count: int = 8, transport: int = TRANSPORT) -> bytes:
    """A guest that copies each of the first ``count`` sectors to ``count`` sectors later, through its RAM."""
    guest = Guest(transport=transport)
    for sector in range(count):
        guest.read(sector, SECTOR, DATA + SECTOR * sector)
        guest.write(sector + count, SECTOR, DATA + SECTOR * sector)
    return guest.image()
