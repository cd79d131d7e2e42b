"""The messages of 9P2000.L: their numbers, and their fields as bytes (diod's protocol.md, and Linux' net/9p).

A message is its size in four bytes, its type, a tag of two bytes, and fields, all in little-endian order. A request of
an even type N is answered by N + 1, or by :data:`RLERROR`.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

HEADER: Final = struct.Struct("<IBH")
RLERROR: Final = 7
TSTATFS, TLOPEN, TLCREATE, TSYMLINK, TMKNOD, TRENAME, TREADLINK, TGETATTR = 8, 12, 14, 16, 18, 20, 22, 24
TSETATTR, TXATTRWALK, TXATTRCREATE, TREADDIR, TFSYNC, TLOCK, TGETLOCK = 26, 30, 32, 40, 50, 52, 54
TLINK, TMKDIR, TRENAMEAT, TUNLINKAT = 70, 72, 74, 76
TVERSION, TAUTH, TATTACH, TFLUSH, TWALK, TREAD, TWRITE, TCLUNK, TREMOVE = 100, 102, 104, 108, 110, 116, 118, 120, 122

#: A qid: the kind of the file, its version, and 64 bits that tell it from others.
QID: Final = struct.Struct("<BIQ")
QID_DIRECTORY, QID_SYMLINK, QID_FILE = 0x80, 0x02, 0x00

_STRING = struct.Struct("<H")


def failure(code: int) -> OSError:
    """Return the OSError with this error number, to be raised."""
    return OSError(code, os.strerror(code))


class Reader:
    """The fields of a message, one after the other. Raises OSError (EPROTO) where there are not enough bytes."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        """Return the numbers of a layout."""
        return layout.unpack(self.data(layout.size))

    def number(self, size: int) -> int:
        """Return a number of ``size`` bytes."""
        return int.from_bytes(self.data(size), "little")

    def data(self, size: int) -> bytes:
        """Return so many bytes."""
        end = self._at + size
        if end > len(self._data):
            raise failure(errno.EPROTO)
        piece, self._at = self._data[self._at : end], end
        return piece

    def text(self) -> bytes:
        """Return a string. Raise OSError (EINVAL) if there is a zero byte in it, which no name of the host's has."""
        text = self.data(self.number(2))
        if b"\0" in text:
            raise failure(errno.EINVAL)
        return text


def string(text: bytes) -> bytes:
    """Return a string as a field. Precondition: it has less than 2^16 bytes."""
    return _STRING.pack(len(text)) + text


def message(kind: int, tag: int, *body: bytes) -> bytes:
    """Return a whole message. Its body may be given in parts."""
    return b"".join((HEADER.pack(HEADER.size + sum(map(len, body)), kind, tag), *body))


def error_message(tag: int, code: int) -> bytes:
    """Return the answer to a request that has failed with this error number."""
    return message(RLERROR, tag, code.to_bytes(4, "little"))
