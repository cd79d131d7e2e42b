"""A client of the remote protocol that is not gdb, and servers for tests."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

from dbt import Machine
from dbt.gdb.packets import PacketReader, Signal, framed
from dbt.vm.result import RunResult

TIMEOUT_S = 20.0


class RemoteClient:
    """Sends packets and returns answers. It acknowledges nothing, which the server does not need."""

    def __init__(self, place: str) -> None:
        if place.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(place)
        else:
            host, _, port = place.rpartition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(TIMEOUT_S)
        self._reader = PacketReader()
        self._packets: list[bytes] = []
        self.raw = b""  # all that has come

    def __enter__(self) -> RemoteClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    def ask(self, body: bytes | str) -> str:
        """Return the answer to a packet."""
        self.send(body)
        return self.packet()

    def send(self, body: bytes | str) -> None:
        self.socket.sendall(framed(body.encode() if isinstance(body, str) else body))

    def packet(self) -> str:
        """Return the next packet; an empty text also at the end of the connection."""
        while not self._packets:
            data = self.socket.recv(65536)
            self.raw += data
            if not data:
                raise EOFError(f"the server has closed the connection after {self.raw!r}")
            self._packets += [found for found in self._reader.feed(data) if not isinstance(found, Signal)]
        return self._packets.pop(0).decode("latin-1")

    def monitor(self, command: str) -> str:
        """Return what the server prints for a command of the user."""
        self.send("qRcmd," + command.encode().hex())
        lines = ""
        while (packet := self.packet()) != "OK":
            assert packet.startswith("O"), packet
            lines += bytes.fromhex(packet[1:]).decode()
        return lines

    def is_closed(self) -> bool:
        """Return True if the server closes the connection without a further packet."""
        try:
            self.packet()
        except (EOFError, ConnectionError):
            return True
        return False


class Service:
    """A machine that is served by a thread. ``result`` waits for its end."""

    def __init__(self, machine: Machine, endpoint: str = "0", wait: bool = True, history: bool = False) -> None:
        self._place: queue.Queue[str] = queue.Queue()
        self._result: list[RunResult] = []
        self._errors: list[BaseException] = []
        self.machine = machine

        def serve() -> None:
            try:
                self._result.append(machine.serve_gdb(endpoint, wait, announce=self._place.put, history=history))
            except BaseException as error:
                self._errors.append(error)
                self._place.put("")

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        self.place = self._place.get(timeout=TIMEOUT_S)

    def client(self) -> RemoteClient:
        return RemoteClient(self.place)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> RunResult:
        """Wait for the end of the run and return its result."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "the run goes on"
        for error in self._errors:
            raise error
        return self._result[0]


@contextlib.contextmanager
def served(machine: Machine, endpoint: str = "0", wait: bool = True, history: bool = False) -> Iterator[Service]:
    """Serve a machine while the block runs. Afterwards the guest is killed, unless it has ended."""
    service = Service(machine, endpoint, wait, history)
    try:
        yield service
    finally:
        while not service.is_over:
            with contextlib.suppress(OSError, EOFError), service.client() as client:
                client.send("k")
                service._thread.join(0.2)
        machine.close()
