"""A bare-metal guest of the board virt that asks a shared directory, one message after the other."""

from __future__ import annotations

import struct

from dbt.host.ninep import messages as m
from tests.devices.virtio.guest import _AVAIL, _DESC, _HEADER, _POLL, _USED, DATA, TRANSPORT, Guest
from tests.host.ninep.client import NOFID, ROOT, long, text, words

#: Bytes of an answer at most, and how far apart the answers are in RAM, from DATA on.
ROOM = 0x1000


class NinePGuest(Guest):
    """Call :meth:`ask` and then :meth:`image`. ``count`` messages were sent, which begin a session."""

    def __init__(self) -> None:
        super().__init__(features=1)
        self.count = 0
        self.ask(m.TVERSION, words(8192) + text("9P2000.L"))
        self.ask(m.TATTACH, words(ROOT, NOFID) + text("user") + text("") + words(0))

    def ask(self, kind: int, body: bytes) -> int:
        """Send a message, and return the number of its answer."""
        message = m.message(kind, self.count, body)
        assert len(message) <= ROOM
        self._write(
            _HEADER, *struct.unpack(f"<{-(-len(message) // 4)}I", message.ljust(-(-len(message) // 4) * 4, b"\0"))
        )
        self._write(_DESC, _HEADER, 0, len(message), 0x10001)
        self._write(_DESC + 16, DATA + ROOM * self.count, 0, ROOM, 2)
        self._answered += 1
        self._write(_AVAIL, self._answered << 16)
        self._write(TRANSPORT + 0x50, 0)
        self._accesses.append((_POLL, _USED, self._answered << 16))
        self._write(TRANSPORT + 0x64, 1)
        self.count += 1
        return self.count - 1

    def walk(self, fid: int, *names: str) -> int:
        body = words(ROOT, fid) + struct.pack("<H", len(names)) + b"".join(map(text, names))
        return self.ask(m.TWALK, body)

    def open(self, fid: int, flags: int) -> int:
        return self.ask(m.TLOPEN, words(fid, flags))

    def read_at(self, fid: int, offset: int, count: int) -> int:
        return self.ask(m.TREAD, words(fid) + long(offset) + words(count))

    def write_at(self, fid: int, offset: int, data: bytes) -> int:
        return self.ask(m.TWRITE, words(fid) + long(offset) + words(len(data)) + data)
