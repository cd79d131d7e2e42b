"""A connection between the two sides of a migration, which carries messages and, on one host, descriptors."""

from __future__ import annotations

import array
import contextlib
import os
import socket
import ssl
from time import monotonic
from typing import Final

from dbt.host.passed_descriptors import passed_descriptors
from dbt.hypervisor.migration.errors import MigrationError, PeerGone, ProtocolError, Refused
from dbt.hypervisor.migration.messages import HEADER, LIMITS, Kind
from dbt.memory.closing import Closing
from dbt.snapshot.plain import NotPlain, decode, encode

#: The seconds in which the other side has to go on.
TIMEOUT_S: Final = 30.0
#: Descriptors that come with one message, at most.
_MOST_DESCRIPTORS: Final = 32
#: Bytes a second that a message has to come with at least, besides the time until it is given up.
_LEAST_RATE: Final = 1 << 14
#: So many bytes wait in the sockets.
_BUFFER: Final = 4 << 20


class Channel(Closing):
    """Messages over a connected socket, of TCP, of TLS or of this host. ``timeout`` is in seconds.

    Methods raise PeerGone if the other side is not there any more, and ProtocolError for what it must not send.
    """

    def __init__(self, connection: socket.socket, timeout: float = TIMEOUT_S) -> None:
        self._socket, self._timeout = connection, timeout
        connection.settimeout(timeout)
        #: Whether the other side is a process of this host, to which descriptors can be passed.
        self.is_local = connection.family == socket.AF_UNIX
        if not self.is_local:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # which is a matter of speed alone
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        #: Descriptors that have come with the last message. Whoever uses one takes it out of the list.
        self.descriptors: list[int] = []
        self.sent = self.received = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def peer(self) -> str:
        """The address of the other side's host, if this is TCP."""
        try:
            return "" if self.is_local else str(self._socket.getpeername()[0])
        except OSError as error:
            raise MigrationError(f"the connection is lost: {error.strerror}") from None

    # -- sending -------------------------------------------------------------------------------

    def send(self, kind: Kind, value: object = None, descriptors: tuple[int, ...] = ()) -> None:
        """Send a message whose body is a plain value, with copies of ``descriptors``."""
        self.send_raw(kind, (encode(value),), descriptors)

    def send_raw(
        self, kind: Kind, body: tuple[bytes | memoryview[int], ...], descriptors: tuple[int, ...] = ()
    ) -> None:
        """Send a message whose body is in several parts."""
        head = HEADER.pack(kind, sum(map(len, body)))
        try:
            if descriptors:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
                self._socket.sendmsg([head], rights)
            else:
                body = (head + bytes(body[0]), *body[1:])
            for part in body:
                self._socket.sendall(part)
                self.sent += len(part)
        except OSError as error:
            raise _gone(error) from None

    # -- receiving -----------------------------------------------------------------------------

    def receive(self, *kinds: Kind) -> tuple[Kind, memoryview[int]]:
        """Return the next message, which must be one of these ``kinds``. Raise Refused if the other side refuses."""
        self._drop_descriptors()
        kind, size = HEADER.unpack(self._receive(HEADER.size, with_descriptors=self.is_local))
        if kind not in (*kinds, Kind.REFUSED, Kind.ABORT):
            wanted = " or ".join(one.name for one in kinds)
            raise ProtocolError(f"the other side has sent a message of kind {kind} and not {wanted}")
        if size > LIMITS[Kind(kind)]:
            raise ProtocolError(f"the other side has sent {size:,} bytes as {Kind(kind).name}, which is too much")
        body = self._receive(size)
        if kind in (Kind.REFUSED, Kind.ABORT) and kind not in kinds:
            raise Refused(_reason(body))
        return Kind(kind), body

    def last_word(self, error: BaseException) -> BaseException:
        """Return why the other side has refused, if that is why it is not there any more, or else the ``error``."""
        if not isinstance(error, PeerGone) or not error.has_ended:
            return error
        try:
            self.receive()
        except Refused as refused:
            return refused
        except MigrationError:
            pass
        return error

    def _receive(self, size: int, with_descriptors: bool = False) -> memoryview[int]:
        view = memoryview(bytearray(size))
        at = 0
        end = monotonic() + self._timeout + size / _LEAST_RATE
        while at < size:
            try:
                self._wait_until(end)
                if with_descriptors:
                    got = self._receive_with_descriptors(view[at:])
                else:
                    got = self._socket.recv_into(view[at:])
            except OSError as error:
                raise _gone(error) from None
            if not got:
                raise PeerGone("the other side has closed the connection", has_ended=True)
            at += got
            self.received += got
        self._socket.settimeout(self._timeout)
        return view

    def _wait_until(self, end: float) -> None:
        """Let the next call wait up to a time: who sends a byte now and then does not go on, either."""
        left = end - monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, self._timeout))

    def _receive_with_descriptors(self, view: memoryview[int]) -> int:
        room = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
        got, ancillary, flags, _ = self._socket.recvmsg_into([view], room, socket.MSG_CMSG_CLOEXEC)
        self.descriptors += passed_descriptors(ancillary)
        if flags & socket.MSG_CTRUNC or len(self.descriptors) > _MOST_DESCRIPTORS:
            raise ProtocolError(f"the other side has sent more than {_MOST_DESCRIPTORS} descriptors")
        return got

    def _drop_descriptors(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._drop_descriptors()
        self._socket.close()


def _gone(error: OSError) -> PeerGone:
    if isinstance(error, TimeoutError):
        return PeerGone("the other side does not go on", has_ended=False)
    ended = isinstance(error, (BrokenPipeError, ConnectionResetError)) and not isinstance(error, ssl.SSLError)
    return PeerGone(f"the connection is lost: {error.strerror or error}", has_ended=ended)


def _reason(body: memoryview[int]) -> str:
    """Return the reason that the other side gives, of which nothing is printed that a terminal would obey."""
    try:
        text = decode(bytes(body))
    except NotPlain:
        text = None
    if not isinstance(text, str):
        raise ProtocolError("the other side refuses, and its reason cannot be read")
    return "".join(letter if letter.isprintable() else "?" for letter in text[:2000])
