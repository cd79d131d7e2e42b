"""A console that is a connection: a unix socket or TCP, to which somebody connects, or which connects to somebody.

Nobody at the other end can hold the guest up. What it sends waits in the host until the guest takes it, as on a line
with flow control. What it does not take waits here up to a bound, and is lost beyond it.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from dbt.engine.descriptors import is_ready
from dbt.host.console import READ_TIMEOUT_S, HostConsole
from dbt.host.endpoint import Endpoint, describe
from dbt.memory.closing import Closing

#: The bytes of output that wait for a client that is slow to read. What comes beyond them is lost.
MOST_WAITING = 16 << 20
#: The bytes of input that are taken from the host before the guest reads them.
_MOST_INPUT = 4096
_LARGE_OUTPUT = 1 << 14
#: The seconds for which the end of a run waits for a client to take the last output.
_CLOSE_TIMEOUT_S = 2.0
_PAUSE_S = 0.1


def _ignore(line: str) -> None:
    """Ignore a notice."""


class SocketConsole(Closing):
    """A console at ``endpoint``, which is ``unix:PATH`` or ``HOST:PORT``.

    With ``server`` it listens there, and has one client at a time: whoever else connects waits until that one has gone.
    The guest runs whether or not there is a client; what it writes while there is none is lost. Otherwise it connects
    when it is made, and its input ends when the other side closes the connection.

    A client that closes its side of the connection, or half of it, has gone. What it has sent still reaches the guest.
    Without a host, TCP is of this host alone, and port 0 is any that is free. What the guest writes to standard error,
    by semihosting, goes to the process's own. ``notice`` is called if output is lost because the client does not read.

    Raise ValueError for an endpoint that is none, and OSError if the host refuses it.
    """

    def __init__(self, endpoint: str, server: bool = True, notice: Callable[[str], None] = _ignore) -> None:
        place = Endpoint.parse(endpoint)
        self._name, self._notice = endpoint, notice
        self._listener = place.listen() if server else None
        self._client: socket.socket | None = None
        self._input, self._output = bytearray(), bytearray()
        self._has_lost = False
        self._standard = HostConsole()
        if self._listener is not None:
            self._listener.setblocking(False)
        else:
            self._meet(place.connect())

    @property
    def address(self) -> str:
        """Where it listens: a path, or a host and a port. Empty if it does not."""
        return "" if self._listener is None else describe(self._listener)

    @property
    def is_connected(self) -> bool:
        """True if somebody is at the other end."""
        self._look()
        return self._client is not None

    def await_client(self, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Return when somebody has connected, or when ``cancelled``, which is asked again and again, returns True."""
        while not self.is_connected and self._listener is not None and not cancelled():
            self._poll(_PAUSE_S)

    # -- what the guest writes -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """See :class:`dbt.host.console.Console`."""
        if self._client is None:
            self._look()
        if self._client is None:
            return
        room = MOST_WAITING - len(self._output)
        self._output += data[:room]
        if len(data) > room and not self._has_lost:
            self._has_lost = True
            self._notice(f"{self._name} does not read the console: what it has not taken beyond 16 MiB is lost")
        if len(self._output) >= _LARGE_OUTPUT:
            self._send()

    def write_error(self, data: bytes) -> None:
        """See :class:`dbt.host.console.Console`."""
        self._standard.write_error(data)

    def flush(self) -> None:
        """See :class:`dbt.host.console.Console`. What the client does not take now is kept for the next time."""
        self._look()
        self._send()

    def _send(self) -> None:
        client = self._client
        try:
            while client is not None and self._output:
                del self._output[: client.send(self._output, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        except OSError:  # It has gone. What it has sent before can still be read.
            self._output.clear()

    # -- what the guest reads ------------------------------------------------------------------

    def read(self, size: int) -> bytes | None:
        """See :class:`dbt.host.console.Console`."""
        self.flush()
        if not self._input and not self.ended:
            self._poll(READ_TIMEOUT_S)
            self._look()
        if not self._input:
            return b"" if self.ended else None
        data = bytes(self._input[:size])
        del self._input[:size]
        return data

    def arrived(self) -> bool:
        """See :class:`dbt.host.console.Console`."""
        if not self._input:
            self._look()
        return bool(self._input)

    @property
    def ended(self) -> bool:
        """See :class:`dbt.host.console.Console`. For a server somebody else may come."""
        return self._listener is None and self._client is None and not self._input

    def wait(self, seconds: float) -> None:
        """See :class:`dbt.host.console.Console`."""
        if self.ended:
            time.sleep(seconds)
        elif not self._input:
            self._poll(seconds)

    def _poll(self, seconds: float) -> None:
        """Wait for somebody to come, or to send something."""
        source = self._client or self._listener
        if source is not None:
            is_ready(source.fileno(), seconds)

    def _look(self) -> None:
        """Take a client that has come, and what it has sent. Do not wait."""
        if self._client is None and self._listener is not None:
            try:
                self._meet(self._listener.accept()[0])
            except OSError:
                return
        if self._client is None or len(self._input) >= _MOST_INPUT:
            return
        try:
            data = self._client.recv(_MOST_INPUT - len(self._input))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._input += data
        if not data:
            self._part()

    def _meet(self, client: socket.socket) -> None:
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client, self._has_lost = client, False

    def _part(self) -> None:
        self._send()
        self._output.clear()
        if self._client is not None:
            self._client.close()
            self._client = None

    # -- the end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Close everything, and remove the path of a unix socket. A client has two seconds to take the last output."""
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        self._send()
        while self._client is not None and self._output and (left := deadline - time.monotonic()) > 0:
            is_ready(self._client.fileno(), left, select.POLLOUT)
            self._send()
        self._part()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
