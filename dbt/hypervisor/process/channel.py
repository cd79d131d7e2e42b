"""A socket between two processes of one host that carries messages, and files with them.

A message is four bytes with its length, the highest first, and its MessagePack. A file comes with the first byte of the
message that it belongs to. What comes is checked: see :class:`WrongMessage`.
"""

from __future__ import annotations

import array
import os
import select
import socket
from collections.abc import Sequence
from functools import cache
from threading import Lock
from time import monotonic
from typing import Any, Final, Generic, TypeVar

import msgspec

from dbt.host.passed_descriptors import passed_descriptors
from dbt.hypervisor.process.messages import LONGEST, MOST_FILES, encode

_LENGTH: Final = 4
_ANCILLARY: Final = socket.CMSG_SPACE(MOST_FILES * array.array("i").itemsize)
_PIECE: Final = 1 << 16

Received = TypeVar("Received")


@cache
def _decoder_of(received: object) -> Any:
    """Return what decodes messages of a type. To make it takes memory, which forked processes share in this way."""
    return msgspec.msgpack.Decoder(received)


class ChannelEnded(Exception):
    """Raised if the other side has gone."""


class WrongMessage(Exception):
    """Raised for what is no message, or one too long, or with too many files. The text says what is wrong."""


class Late(Exception):
    """Raised if no message has come in time."""


class Channel(Generic[Received]):
    """One side. ``received`` is the type of what may come, as a type of msgspec's.

    One thread may receive, while others send.
    """

    def __init__(self, connection: socket.socket, received: object) -> None:
        self._socket = connection
        if connection.gettimeout() is not None:
            connection.setblocking(True)  # which a jailed process cannot do
        self._decoder: msgspec.msgpack.Decoder[Received] = _decoder_of(received)
        self._pending = bytearray()
        self._files: list[int] = []
        self._sending = Lock()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: msgspec.Struct, files: Sequence[int] = ()) -> None:
        """Send a message, with copies of open files. Raise ChannelEnded."""
        body = encode(message)
        if len(body) > LONGEST:
            raise ValueError(f"a message of {len(body)} bytes, and the longest has {LONGEST}")
        data = memoryview(len(body).to_bytes(_LENGTH, "big") + body)
        try:
            with self._sending:
                sent = socket.send_fds(self._socket, [data], list(files)) if files else self._socket.send(data)
                while sent < len(data):
                    sent += self._socket.send(data[sent:])
        except OSError as error:
            raise ChannelEnded(f"it does not listen any more: {error.strerror}") from None

    def has_data(self, seconds: float = 0.0) -> bool:
        """Return True if something has come, or the other side has gone, within so many seconds."""
        return bool(self._pending) or bool(self._poll.poll(1000 * seconds))

    def receive(self, deadline: float | None = None) -> Received:
        """Return the next message. Raise ChannelEnded, WrongMessage, or Late after the time ``deadline`` of the clock
        ``monotonic``.
        """
        while (message := self.receive_pending()) is None:
            self._fill(deadline)
        return message

    def receive_pending(self) -> Received | None:
        """Return the next message if it has been read together with the last one: nobody hears of it at the socket any
        more. Raise WrongMessage.
        """
        body = self._take()
        if body is None:
            return None
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise WrongMessage(f"it sent a message that is none: {error}") from None
        except (RecursionError, UnicodeDecodeError) as error:
            raise WrongMessage(f"it sent a message that is none: {type(error).__name__}") from None

    def _take(self) -> bytes | None:
        pending = self._pending
        if len(pending) < _LENGTH:
            return None
        length = int.from_bytes(pending[:_LENGTH], "big")
        if length > LONGEST:
            raise WrongMessage(f"it sent a message of {length} bytes, and the longest has {LONGEST}")
        end = _LENGTH + length
        if len(pending) < end:
            return None
        body = bytes(pending[_LENGTH:end])
        del pending[:end]
        return body

    def _fill(self, deadline: float | None) -> None:
        if deadline is not None and not self._poll.poll(max(1000 * (deadline - monotonic()), 0)):
            raise Late("it has not answered in time")
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(self._wanted(), _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise ChannelEnded(f"its socket has failed: {error.strerror}") from None
        self._files += passed_descriptors(ancillary)
        if flags & socket.MSG_CTRUNC or len(self._files) > MOST_FILES:
            raise WrongMessage("it sent more files than a message has")
        if not data:
            raise ChannelEnded("its socket is closed")
        self._pending += data

    def _wanted(self) -> int:
        """Return how many bytes are taken at once: all that are known to come."""
        pending = self._pending
        length = int.from_bytes(pending[:_LENGTH], "big") if len(pending) >= _LENGTH else 0
        return max(_LENGTH + length - len(pending), _PIECE)

    @property
    def has_files(self) -> bool:
        """True if files have come that were not taken."""
        return bool(self._files)

    def take_files(self, count: int) -> list[int]:
        """Return the files that came with the last message, which the caller closes. Raise WrongMessage, and close
        them, if they are not so many.
        """
        files, self._files = self._files, []
        if len(files) != count:
            for file in files:
                os.close(file)
            raise WrongMessage(f"it sent {len(files)} files with a message that has {count}")
        return files

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._socket.close()
