"""The packets of gdb's remote protocol: ``$data#checksum``, and what lies between them.

What comes from the other side is hostile: it is bounded, and everything that is no packet is skipped. See "Overview"
in the appendix "GDB Remote Serial Protocol" of gdb's manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

#: The longest packet that is taken, in bytes between ``$`` and ``#``. gdb is told of it.
MAX_PACKET = 16384
_INTERRUPT = 0x03
_START, _END, _ESCAPE = b"$#}"
_ESCAPED = re.compile(rb"[#$}*]")
_HEX = frozenset(b"0123456789abcdefABCDEF")


class Signal(Enum):
    """What is no packet, but means something."""

    INTERRUPT = "interrupt"  # the byte 0x03: stop the guest
    RESEND = "resend"  # "-": the last packet did not arrive
    DAMAGED = "damaged"  # a packet with a wrong checksum, or one that is too long


class PacketReader:
    """Finds the packets in a stream of bytes. It keeps one packet at most, which may not be whole yet."""

    def __init__(self) -> None:
        self._packet = bytearray()
        self._inside = False  # "$" has come, and its "#" with the checksum has not
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[bytes | Signal]:
        """Yield the packets, without frame and checksum, and the signals that end with ``data``."""
        for byte in data:
            if not self._inside:
                yield from self._between(byte)
            elif byte == _START:
                self._begin()  # the rest of the packet before is lost
            else:
                yield from self._within(byte)

    def _between(self, byte: int) -> Iterator[Signal]:
        if byte == _START:
            self._begin()
        elif byte == _INTERRUPT:
            yield Signal.INTERRUPT
        elif byte == ord("-"):
            yield Signal.RESEND

    def _begin(self) -> None:
        self._packet.clear()
        self._inside, self._too_long = True, False

    def _within(self, byte: int) -> Iterator[bytes | Signal]:
        self._packet.append(byte)
        if self._packet[-3:-2] == b"#":
            self._inside = False
            yield self._finished()
        elif len(self._packet) > MAX_PACKET + 3:
            self._too_long = True
            del self._packet[:-3]

    def _finished(self) -> bytes | Signal:
        body, digits = bytes(self._packet[:-3]), self._packet[-2:]
        self._packet.clear()
        if self._too_long or len(body) > MAX_PACKET or not _HEX.issuperset(digits) or int(digits, 16) != checksum(body):
            return Signal.DAMAGED
        return body


def checksum(body: bytes) -> int:
    """Return the checksum of a packet's body."""
    return sum(body) & 0xFF


def framed(body: bytes) -> bytes:
    """Return a packet as it is sent."""
    return b"$%b#%02x" % (body, checksum(body))


def escaped(data: bytes) -> bytes:
    """Return binary data as it stands in a packet."""
    return _ESCAPED.sub(lambda found: bytes((_ESCAPE, found[0][0] ^ 0x20)), data)


def unescaped(data: bytes) -> bytes:
    """Return the binary data of which :func:`escaped` made ``data``. An escape at the end is dropped."""
    found = bytearray()
    rest = iter(data)
    for byte in rest:
        if byte != _ESCAPE:
            found.append(byte)
        elif (following := next(rest, None)) is not None:
            found.append(following ^ 0x20)
    return bytes(found)
