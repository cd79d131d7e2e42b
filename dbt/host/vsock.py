"""The host's end of a machine's socket device: unix sockets, in the manner of Firecracker.

Who connects to the socket PATH and sends a line ``CONNECT PORT`` is connected to that port of the guest. The answer is
a line ``OK HOST_PORT``, and the stream follows; if the guest refuses, the connection is closed. Where the guest
connects to a port of the host, the end connects to the socket ``PATH_PORT``.

What comes from clients is checked before it is used. Nothing here waits, and nobody can have more memory than
:data:`dbt.devices.virtio.vsock_packet.BUFFER` bytes in each direction.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from typing import Final, NamedTuple, Protocol

from dbt.devices.virtio.vsock_packet import BOTH, BUFFER, NO_RECEIVE, NO_SEND, Kind, Message
from dbt.engine.descriptors import is_ready, ready
from dbt.host.endpoint import Endpoint, WrongEndpoint, accepted
from dbt.host.vsock_option import Vsock

#: The bytes of the longest line that asks for a connection.
_LONGEST_LINE: Final = 32
_LAST_PORT: Final = (1 << 32) - 2
#: Clients that have not sent their line, and streams that the guest has closed and whose clients have yet to take the
#: last bytes, at most. The oldest has to go.
_MOST_GREETINGS: Final = 32
_MOST_CLOSING: Final = 64
#: Clients that are accepted at a time.
_MOST_ACCEPTED: Final = 16
#: Ports that the host's side of a connection has.
_FIRST_HOST_PORT, _END_OF_HOST_PORTS = 1 << 30, 1 << 31


class VsockError(ValueError):
    """Raised for an end that cannot be there. The text says why."""


class VsockEnd(Protocol):
    """An end of a socket device."""

    def take(self, message: Message) -> None:
        """Take what the device says."""

    def poll(self) -> list[Message]:
        """Return what there is for the device. Do not wait."""

    def forget(self) -> None:
        """Close all connections."""

    def events(self) -> dict[int, int]:
        """Return the file descriptors at which something may happen, each with POLLIN, POLLOUT, both or 0."""

    def close(self) -> None: ...


class Nowhere:
    """An end at which nobody is, and that refuses all connections."""

    def __init__(self) -> None:
        self._refused: list[Message] = []

    def take(self, message: Message) -> None:
        if message.kind == Kind.CONNECT:
            self._refused.append(Message(Kind.RESET, message.guest_port, message.host_port))

    def poll(self) -> list[Message]:
        refused, self._refused = self._refused, []
        return refused

    def forget(self) -> None:
        self._refused.clear()

    def events(self) -> dict[int, int]:
        return {}

    def close(self) -> None:
        self._refused.clear()


class _Ports(NamedTuple):
    """The ports of a connection."""

    guest: int
    host: int


class _Greeting:
    """A client that has not sent its line yet."""

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self._line = b""

    def read(self) -> tuple[int, bytes] | None:
        """Return the port that the client wants and what it has sent behind the line, or None if the line is not
        complete. Raise ValueError for what is no such line, and OSError.
        """
        try:
            data = self.socket.recv(_LONGEST_LINE)
        except BlockingIOError:
            return None
        line, found, rest = (self._line + data).partition(b"\n")
        if len(line) > _LONGEST_LINE or not data:
            raise ValueError("no line")
        if not found:
            self._line = line
            return None
        word, _, digits = line.rstrip(b"\r").partition(b" ")
        if word.upper() != b"CONNECT" or not digits.isdigit() or int(digits) > _LAST_PORT:
            raise ValueError("another line")
        return int(digits), rest


class _Stream:
    """A connection of the guest's to a socket. ``unsent`` has come from it and goes to the guest first.

    ``room`` is how many bytes may be sent to the guest, ``taken`` how many of the guest's the socket has taken since
    this was reported. ``end`` has the directions that the socket's other side has closed, ``told_end`` those that were
    reported, ``guest_end`` those that the guest has closed.
    """

    def __init__(self, connection: socket.socket, is_open: bool, unsent: bytes = b"") -> None:
        self.socket = connection
        self.is_open = is_open
        self.unsent = unsent
        self.output = bytearray()
        self.room = BUFFER
        self.taken = self.end = self.told_end = self.guest_end = 0

    @property
    def events(self) -> int | None:
        """What the socket is looked at for, or None if it need not be."""
        reads = self.is_open and self.room > 0 and not (self.end & NO_SEND or self.guest_end & NO_RECEIVE)
        events = (select.POLLIN if reads else 0) | (select.POLLOUT if self.output else 0)
        if events or not self.is_open:  # A client that goes before it is connected is to be noticed.
            return events
        return 0 if self.end == NO_SEND else None

    def flush(self) -> None:
        """Send what waits for the client. To one that takes no more it is as if it did."""
        while self.output:
            try:
                sent = self.socket.send(self.output, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except OSError:
                sent = len(self.output)
                self.end |= NO_RECEIVE
            self.taken += sent
            del self.output[:sent]
        if self.guest_end & NO_SEND:
            self._shut(socket.SHUT_WR)

    def close_directions(self, guest_end: int) -> None:
        """Close the directions that the guest has closed; that of its bytes when they have been sent."""
        if guest_end & ~self.guest_end & NO_RECEIVE:
            self._shut(socket.SHUT_RD)
        self.guest_end |= guest_end
        self.flush()

    def _shut(self, direction: int) -> None:
        with contextlib.suppress(OSError):  # There is no other side any more.
            self.socket.shutdown(direction)

    def read(self) -> bytes:
        """Return what the client has sent, as much as there is room for. Raise OSError if it has broken off."""
        data = self.unsent
        self.unsent = b""
        if not data:
            try:
                data = self.socket.recv(self.room)
            except BlockingIOError:
                return b""
            if not data:
                self.end |= NO_SEND
        self.room -= len(data)
        return data

    def look_for_end(self) -> None:
        """Notice that the other side has closed both directions."""
        if self.end & NO_SEND and is_ready(self.socket.fileno(), 0, 0):
            self.end = BOTH


class UnixEnd:
    """An end that listens at the socket ``path``, and connects to those named ``path_PORT``."""

    def __init__(self, path: str) -> None:
        """Listen. Raise VsockError if that cannot be."""
        try:
            self._listener = Endpoint.parse(f"unix:{path}").listen()
        except WrongEndpoint as error:
            raise VsockError(str(error)) from None
        except OSError as error:
            raise VsockError(f"the socket device cannot listen at unix:{path}: {error.strerror}") from None
        self._listener.setblocking(False)
        self._path = path
        self._greetings: list[_Greeting] = []
        self._streams: dict[_Ports, _Stream] = {}
        self._closing: list[_Stream] = []
        self._messages: list[Message] = []
        self._next_port = _FIRST_HOST_PORT

    # -- from the device -----------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """See :class:`VsockEnd`. What the device says of a connection that is not there is answered with RESET."""
        ports = _Ports(message.guest_port, message.host_port)
        stream = self._streams.get(ports)
        if message.kind == Kind.RESET:
            if stream is not None:
                self._drop(ports)
        elif message.kind == Kind.CONNECT:
            self._connect(ports)
        elif stream is None:
            self._messages.append(Message(Kind.RESET, *ports))
        else:
            self._continue(ports, stream, message)

    def _continue(self, ports: _Ports, stream: _Stream, message: Message) -> None:
        match message.kind:
            case Kind.ACCEPT:
                stream.is_open = True
                with contextlib.suppress(OSError):  # Then the client has gone, which is noticed later.
                    stream.socket.send(b"OK %d\n" % ports.host, socket.MSG_NOSIGNAL)
            case Kind.DATA:
                stream.output += message.data
                stream.flush()
            case Kind.CREDIT:
                stream.room += message.number
            case Kind.END:
                stream.close_directions(message.number)
                if message.number == BOTH:
                    self._close_later(ports)

    def _connect(self, ports: _Ports) -> None:
        """Connect to the socket of a port, or refuse."""
        path = f"{self._path}_{ports.host}"
        # A jailed process cannot make it one that does not wait later.
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            connection.connect(path)
        except (OSError, ValueError):  # also if nobody accepts, and if the path is too long
            connection.close()
            self._messages.append(Message(Kind.RESET, *ports))
            return
        if ports in self._streams:
            self._drop(ports)
        self._streams[ports] = _Stream(connection, is_open=True)
        self._messages.append(Message(Kind.ACCEPT, *ports))

    def _drop(self, ports: _Ports) -> None:
        self._streams.pop(ports).socket.close()

    def _close_later(self, ports: _Ports) -> None:
        """Close a connection when the client has taken the rest."""
        stream = self._streams.pop(ports)
        if not stream.output:
            stream.socket.close()
            return
        self._closing.append(stream)
        if len(self._closing) > _MOST_CLOSING:
            self._closing.pop(0).socket.close()

    # -- to the device -------------------------------------------------------------------------

    def events(self) -> dict[int, int]:
        found = {self._listener.fileno(): select.POLLIN}
        found.update((one.socket.fileno(), select.POLLIN) for one in self._greetings)
        for stream in (*self._streams.values(), *self._closing):
            if (events := stream.events) is not None:
                found[stream.socket.fileno()] = events
        return found

    def poll(self) -> list[Message]:
        found = ready(self.events(), 0)
        if found:
            self._look(found)
        for ports, stream in list(self._streams.items()):
            self._report(ports, stream)
        messages, self._messages = self._messages, []
        return messages

    def _look(self, found: set[int]) -> None:
        """Do what is to be done at descriptors that are ready."""
        for ports, stream in list(self._streams.items()):
            if stream.socket.fileno() in found:
                self._serve(ports, stream)
        for stream in [one for one in self._closing if one.socket.fileno() in found]:
            stream.flush()
            if not stream.output:
                stream.socket.close()
                self._closing.remove(stream)
        for one in [one for one in self._greetings if one.socket.fileno() in found]:
            self._greet(one)
        if self._listener.fileno() in found:
            self._accept()

    def _serve(self, ports: _Ports, stream: _Stream) -> None:
        """Send to a client, and read from it."""
        if not stream.is_open:
            if is_ready(stream.socket.fileno(), 0, 0):  # It has not waited for the answer.
                self._lose(ports)
            return
        stream.flush()
        reads = stream.events
        if reads is not None and reads & select.POLLIN:
            try:
                data = stream.read()
            except OSError:
                self._lose(ports)
                return
            if data:
                self._messages.append(Message(Kind.DATA, *ports, 0, data))
        stream.look_for_end()

    def _lose(self, ports: _Ports) -> None:
        self._drop(ports)
        self._messages.append(Message(Kind.RESET, *ports))

    def _report(self, ports: _Ports, stream: _Stream) -> None:
        """Tell the device what has become of its bytes, and what the client has closed."""
        if stream.is_open and stream.unsent:
            self._messages.append(Message(Kind.DATA, *ports, 0, stream.read()))
        if stream.taken:
            self._messages.append(Message(Kind.CREDIT, *ports, stream.taken))
            stream.taken = 0
        if stream.end != stream.told_end:
            self._messages.append(Message(Kind.END, *ports, stream.end))
            stream.told_end = stream.end

    def _greet(self, one: _Greeting) -> None:
        """Read the line of a client, and ask the guest for a connection if it is complete."""
        try:
            wanted = one.read()
        except (OSError, ValueError):
            self._greetings.remove(one)
            one.socket.close()
            return
        if wanted is None:
            return
        self._greetings.remove(one)
        port, rest = wanted
        ports = _Ports(port, self._free_port(port))
        self._streams[ports] = _Stream(one.socket, is_open=False, unsent=rest)
        self._messages.append(Message(Kind.CONNECT, *ports))

    def _free_port(self, guest_port: int) -> int:
        """Return a port for the host's side of a new connection. There are more than there are connections."""
        while True:
            port = self._next_port
            self._next_port = _FIRST_HOST_PORT if port + 1 == _END_OF_HOST_PORTS else port + 1
            if (guest_port, port) not in self._streams:
                return port

    def _accept(self) -> None:
        for _ in range(_MOST_ACCEPTED):
            try:
                client = accepted(self._listener)
            except OSError:
                return
            self._greetings.append(_Greeting(client))
            if len(self._greetings) > _MOST_GREETINGS:
                self._greetings.pop(0).socket.close()

    # -- the end -------------------------------------------------------------------------------

    def forget(self) -> None:
        for stream in (*self._streams.values(), *self._closing):
            stream.socket.close()
        self._streams.clear()
        self._closing.clear()
        self._messages.clear()

    def close(self) -> None:
        """Stop listening, and close all connections. A second call does nothing."""
        self.forget()
        for one in self._greetings:
            one.socket.close()
        self._greetings.clear()
        self._listener.close()


def open_end(option: Vsock) -> VsockEnd:
    """Return the end of a socket device. Raise VsockError."""
    kind, _, path = option.end.partition(":")
    if kind == "unix" and path:
        return UnixEnd(os.fspath(path))
    if option.end == "none":
        return Nowhere()
    raise VsockError(f"there is no end {option.end!r} of a socket device: use unix:PATH or none")
