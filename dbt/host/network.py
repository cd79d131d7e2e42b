"""Where a machine's network cards end on the host: nowhere, at a hub of this process, at a socket, or at a tap
interface (:mod:`dbt.host.tap`).

A socket carries frames as QEMU's ``-netdev stream`` does: four bytes with the length, the highest first, and the frame.
What comes from it is checked before it is used. Once an end is open, nothing waits for it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Final, NamedTuple, Protocol

from dbt.host.net_option import NOWHERE, USER, Net, NetworkError, lost_text

_SIZE: Final = struct.Struct(">I")
_LENGTH: Final = _SIZE.size
_LONGEST_FRAME: Final = 65_535
#: Frames that wait at a hub, and bytes that wait to be taken by a socket, at most. What is sent then is lost.
_MOST_FRAMES: Final = 1024
_MOST_BYTES: Final = 1 << 20


class Handover(NamedTuple):
    """An end of a network card that another process on this host is to go on with.

    ``descriptor`` is its socket or tap interface. ``received`` is the beginning of a frame of which the rest is still
    to come, and ``waiting`` what the guest has sent and the other side has not taken.
    """

    descriptor: int
    received: bytes = b""
    waiting: bytes = b""


class NetworkEnd(Protocol):
    """An end of a network card."""

    def send(self, *frames: bytes) -> None:
        """Send frames, or lose them."""

    def receive(self) -> list[bytes]:
        """Return the frames that have come since the last call."""

    def descriptors(self) -> Sequence[int]:
        """Return the file descriptors at which something may arrive."""

    def hand_over(self) -> Handover | None:
        """Return what another process needs to go on with the connection, or None if none can. The end stays open, but
        must not be used any more.
        """

    def close(self) -> None: ...


class Nowhere:
    """An end at which nobody is."""

    def send(self, *frames: bytes) -> None:
        pass

    def receive(self) -> list[bytes]:
        return []

    def descriptors(self) -> Sequence[int]:
        return ()

    def hand_over(self) -> Handover | None:
        return None

    def close(self) -> None:
        pass


class HubEnd:
    """A port of the hub of that name, which all machines of the process share: each frame goes to all other ports."""

    _hubs: Final[dict[str, list[HubEnd]]] = {}
    _lock: Final = Lock()

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames: deque[bytes] = deque(maxlen=_MOST_FRAMES)
        #: Readable while there are frames, so that a machine that waits hears of them at once.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with self._lock:
            self._hubs.setdefault(name, []).append(self)

    def send(self, *frames: bytes) -> None:
        with self._lock:
            for port in self._hubs.get(self._name, ()):
                if port is not self and frames:
                    port._frames.extend(frames)
                    os.eventfd_write(port._wake, 1)

    def receive(self) -> list[bytes]:
        if not self._frames:
            return []
        with self._lock:
            if self._wake >= 0:
                os.eventfd_read(self._wake)
            frames = list(self._frames)
            self._frames.clear()
        return frames

    @property
    def has_frames(self) -> bool:
        """True if frames have come that were not received."""
        return bool(self._frames)

    def descriptors(self) -> Sequence[int]:
        return () if self._wake < 0 else (self._wake,)

    def hand_over(self) -> Handover | None:
        return None  # the hub is of this process

    def close(self) -> None:
        with self._lock:
            ports = self._hubs.get(self._name, [])
            if self in ports:
                ports.remove(self)
                os.close(self._wake)
                self._wake = -1
            if not ports:
                self._hubs.pop(self._name, None)


class SocketEnd:
    """A unix stream socket at which somebody is. It is an end at which nobody is, once that has gone."""

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        notice: Callable[[str], None],
        received: bytes = b"",
        waiting: bytes = b"",
    ) -> None:
        """Take over a connection. ``notice`` is told if the other side ends it, which is called ``name``.

        ``received`` and ``waiting`` are of another process that had it (:class:`Handover`).
        """
        self._socket: socket.socket | None = connection
        self._name, self._notice = name, notice
        self._received, self._waiting = received, bytearray(waiting)
        self._ready = select.poll()
        self._ready.register(connection, select.POLLIN)
        if connection.gettimeout() is not None:
            connection.setblocking(False)  # which a jailed process cannot do

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            if len(self._waiting) < _MOST_BYTES:
                self._waiting += _SIZE.pack(len(frame)) + frame
        self._push()

    def _push(self) -> None:
        while self._waiting and self._socket is not None:
            try:
                del self._waiting[: self._socket.send(self._waiting, socket.MSG_DONTWAIT)]
            except OSError as error:
                self._failed(error)
                return

    def _failed(self, error: OSError) -> None:
        if error.errno not in (errno.EAGAIN, errno.EINTR):
            self._lost(str(error.strerror))

    def _lost(self, why: str) -> None:
        if self._socket is not None:
            self._notice(lost_text(self._name, why))
        self.close()

    def receive(self) -> list[bytes]:
        self._push()
        if self._socket is not None and self._ready.poll(0):  # mostly not, and an exception takes four times as long
            try:
                data = self._socket.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
            except OSError as error:
                self._failed(error)
            else:
                frames = self._frames(self._received + data if self._received else data)
                if not data:
                    self._lost("the other side has ended the connection")
                return frames
        return []

    def _frames(self, received: bytes) -> list[bytes]:
        """Return the complete frames of what was received, and keep the rest."""
        frames: list[bytes] = []
        at, end = 0, len(received)
        while (first := at + _LENGTH) <= end:
            (size,) = _SIZE.unpack_from(received, at)
            if size > _LONGEST_FRAME:  # The other side speaks something else.
                self._lost(f"it sent a frame of {size} bytes, and the longest has {_LONGEST_FRAME}")
                return frames
            if first + size > end:
                break
            frames.append(received[first : first + size])
            at = first + size
        self._received = received[at:]
        return frames

    def descriptors(self) -> Sequence[int]:
        return () if self._socket is None else (self._socket.fileno(),)

    def hand_over(self) -> Handover | None:
        if self._socket is None:
            return None
        return Handover(self._socket.fileno(), self._received, bytes(self._waiting))

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._received = b""
        self._waiting.clear()


def open_end(net: Net, notice: Callable[[str], None]) -> NetworkEnd:
    """Return the end of a network card. Raise NetworkError if it cannot be reached.

    ``notice`` is given a line of text when somebody at the other side has gone.
    """
    kind, _, name = net.end.partition(":")
    if net.forwards and net.end != USER:
        raise NetworkError(f"the network {net.end} forwards no ports: {USER} does")
    match kind:
        case _ if net.end == NOWHERE:
            return Nowhere()
        case _ if net.end == USER:
            from dbt.host.passt import start_passt

            return SocketEnd(start_passt(net.forwards), f"{USER} (passt)", notice)
        case "hub" if name:
            return HubEnd(name)
        case "unix" if name:
            return SocketEnd(_connect(name), net.end, notice)
        case "tap" if name:
            from dbt.host.tap import TapEnd

            return TapEnd(name, notice)
        case _:
            raise NetworkError(f"there is no network {net.end!r}: use user, unix:PATH, tap:NAME, hub:NAME or none")


def adopt_end(net: Net, handed: Handover, notice: Callable[[str], None]) -> NetworkEnd:
    """Return the end of a network card with which another process has begun. Its descriptor is this end's from now on.

    Raise NetworkError if it is none of this kind of network.
    """
    kind, _, name = net.end.partition(":")
    try:
        if kind == "tap":
            from dbt.host.tap import TapEnd

            return TapEnd(name, notice, handed.descriptor)
        if kind not in (USER, "unix"):
            raise NetworkError(f"the network {net.end} is no connection that one process hands over to another")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, handed.descriptor)
        found = [connection.getsockopt(socket.SOL_SOCKET, one) for one in (socket.SO_DOMAIN, socket.SO_TYPE)]
    except OSError as error:
        os.close(handed.descriptor)
        raise NetworkError(f"what was handed over as the network {net.end} is no socket: {error.strerror}") from None
    except NetworkError:
        os.close(handed.descriptor)
        raise
    if found != [socket.AF_UNIX, socket.SOCK_STREAM]:
        connection.close()
        raise NetworkError(f"what was handed over as the network {net.end} is no stream socket of this host")
    return SocketEnd(connection, net.end, notice, handed.received, handed.waiting)


def plugged_end(descriptor: int, name: str, notice: Callable[[str], None]) -> NetworkEnd:
    """Return the end of a network card at a unix stream socket, which is this end's from now on. ``name`` is the
    network's, for ``notice``. It needs no calls that a jailed process does not have.
    """
    return SocketEnd(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor), name, notice)


def _connect(path: str) -> socket.socket:
    """Return a socket that is connected to who listens at a path."""
    from dbt.host.endpoint import Endpoint

    try:
        return Endpoint(path=path).connect()
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise NetworkError(f"cannot connect the network to unix:{path}: {why}") from None
