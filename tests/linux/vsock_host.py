"""The host's side of ``vsock_guest.c``: programs that connect to the guest, and one that the guest connects to."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from pathlib import Path
from threading import Thread

from dbt.host.console import CaptureConsole
from tests.linux.debian import TIMEOUT

#: The source of the guest's program.
GUEST = Path(__file__).with_name("vsock_guest.c")


class Host:
    """The programs of the host: one echoes what the guest sends to port 52, others connect to the guest's ports."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self.got: list[bytes] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"{path}_52")
        self._listener.listen()
        self._threads = [Thread(target=self._echo, daemon=True)]
        self._threads[0].start()

    def _echo(self) -> None:
        with closing(self._listener), self._listener.accept()[0] as client:
            while data := client.recv(10_000):
                client.sendall(data)

    def call(self, port: int, data: bytes) -> None:
        """Connect to a port of the guest, send something, and keep what comes back."""
        self._threads.append(Thread(target=self._call, args=(port, data), daemon=True))
        self._threads[-1].start()

    def _call(self, port: int, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(self._path)
            client.sendall(b"CONNECT %d\n" % port)
            sender = Thread(target=self._send, args=(client, data), daemon=True)
            sender.start()
            answer = b""
            while piece := client.recv(1 << 16):
                answer += piece
            sender.join(TIMEOUT)
            self.got.append(answer)

    @staticmethod
    def _send(client: socket.socket, data: bytes) -> None:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()


class Caller(CaptureConsole):
    """A console that lets the host connect when the guest listens."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._called: set[int] = set()

    def write(self, data: bytes) -> None:
        super().write(data)
        for port in map(int, re.findall(rb"listening (\d+)\r", bytes(self.output))):
            if port not in self._called:
                self._called.add(port)
                self._host.call(port, b"%d " % port * 40_000)
