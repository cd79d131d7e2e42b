"""Finding one's place in what a guest sends, when another process has heard the beginning.

The agent is sent bytes that nobody could foresee, and its answer has them. If it is known up to where the other process
has taken the stream, what comes between there and the answer is not lost: the machine's process keeps that much. What
goes to the guest needs nothing of the kind: it is sent in whole pieces.
"""

from __future__ import annotations

import secrets
import struct
from contextlib import suppress
from typing import Final, NamedTuple

from dbt.hypervisor.port_ring import PORT_RING
from dbt.linux.protocol import Frame, FrameReader, FromGuest, ProtocolError, ToGuest, frame

#: The session of the container's own program.
MAIN: Final = 0
#: How much is kept while the answer is looked for.
_MOST: Final = 2 * PORT_RING
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
    """The search for the answer to :attr:`question`. ``place`` is the position in the guest's stream, which counts all
    bytes, up to which another process has taken frames.
    """

    def __init__(self, place: int | None = None) -> None:
        self._sign = secrets.token_bytes(_SIGN)
        self._data = bytearray()
        self._end = 0  # the position behind it
        self._place = place
        self.question = frame(ToGuest.SYNC, value=self._sign)
        #: What the container's own program has written between the place and the answer, with the numbers of streams.
        self.output: list[tuple[int, bytes]] = []

    def feed(self, data: bytes, end: int) -> bytes | None:
        """Return what has come from the answer on, or None as long as there is none. ``end`` is the position behind
        ``data``.
        """
        if end - len(data) != self._end:
            self._data.clear()  # something is missing before
        searched = max(len(self._data) - _SIGN, 0)
        self._data += data
        self._end = end
        at = self._data.find(self._sign, searched)
        if at < 0:
            if self._place is None or len(self._data) > _MOST:
                del self._data[: -(_HEADER + _SIGN)]
            return None
        begin = at - _HEADER
        if begin < 0 or self._data[begin] != FromGuest.SYNCED:
            raise ProtocolError("the guest does not answer the question that it was asked")
        self._find_output(begin)
        return bytes(self._data[begin:])

    def _find_output(self, end: int) -> None:
        """Read the frames between the place and ``end``, where the answer begins. If these are none, the place was that
        of another stream, and nothing is found.
        """
        begin = -1 if self._place is None else self._place - (self._end - len(self._data))
        if not 0 <= begin <= end:
            return
        reader = FrameReader()
        with suppress(ProtocolError):
            found = list(reader.feed(bytes(self._data[begin:end])))
            if not reader.begun:
                self.output = [
                    (one.stream, one.value) for one in found if one.kind is FromGuest.OUTPUT and one.session == MAIN
                ]

    def sessions(self, answer: Frame) -> Sessions:
        """Return what the answer says. Raise ProtocolError for what is none."""
        value = answer.value
        if not value.startswith(self._sign) or (len(value) - _SIGN - _STATUS.size) % _SUMMARY.size:
            raise ProtocolError("the guest does not say which sessions there are")
        status = _STATUS.unpack_from(value, _SIGN)[0]
        found = [Summary(*one) for one in _SUMMARY.iter_unpack(value[_SIGN + _STATUS.size :])]
        return Sessions(None if status == _NO_STATUS else status & 0xFFFF, found)
