"""Finding one's place in what a guest sends, when another process has heard the beginning.

The agent is sent bytes that nobody could foresee. What comes before its answer is given up, which is at most what was
on its way and not read. What goes to the guest needs nothing of the kind: it is sent in whole pieces.
"""

from __future__ import annotations

import secrets
import struct
from typing import Final, NamedTuple

from dbt.linux.protocol import Frame, FromGuest, ProtocolError, ToGuest, frame

_SIGN: Final = 16
_HEADER: Final = 8
_STATUS: Final = struct.Struct("<I")
_SUMMARY: Final = struct.Struct("<HBBIII")
_NO_STATUS: Final = 0xFFFFFFFF


class Summary(NamedTuple):
    """What the agent says of a session: its process, how much output it may still send, and how much input waits."""

    number: int
    is_terminal: bool
    has_window: bool
    pid: int
    credit: int
    waiting: int


class Sessions(NamedTuple):
    """What the agent says of all sessions. ``status`` is that of the first one as of wait(2), if it has ended."""

    status: int | None
    sessions: list[Summary]


class Resync:
    """The search for the answer to :attr:`question`."""

    def __init__(self) -> None:
        self._sign = secrets.token_bytes(_SIGN)
        self._data = bytearray()
        self.question = frame(ToGuest.SYNC, value=self._sign)

    def feed(self, data: bytes) -> bytes | None:
        """Return what has come from the answer on, or None as long as there is none."""
        self._data += data
        at = self._data.find(self._sign)
        if at < 0:
            del self._data[: -(_HEADER + _SIGN)]
            return None
        begin = at - _HEADER
        if begin < 0 or self._data[begin] != FromGuest.SYNCED:
            raise ProtocolError("the guest does not answer the question that it was asked")
        return bytes(self._data[begin:])

    def sessions(self, answer: Frame) -> Sessions:
        """Return what the answer says. Raise ProtocolError for what is none."""
        value = answer.value
        if not value.startswith(self._sign) or (len(value) - _SIGN - _STATUS.size) % _SUMMARY.size:
            raise ProtocolError("the guest does not say which sessions there are")
        status = _STATUS.unpack_from(value, _SIGN)[0]
        found = [Summary(*one) for one in _SUMMARY.iter_unpack(value[_SIGN + _STATUS.size :])]
        return Sessions(None if status == _NO_STATUS else status & 0xFFFF, found)
