"""A program's streams at a terminal, or at standard input and output."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from dbt.cli.service import send_input

_PIECE: Final = 1 << 16
_HEADER: Final = 8


class Frames:
    """Writes docker's multiplexed streams to standard output and standard error."""

    def __init__(self) -> None:
        self._data = b""

    def take(self, data: bytes) -> None:
        """Write what is complete."""
        self._data += data
        while len(self._data) >= _HEADER:
            size = int.from_bytes(self._data[4:_HEADER], "big")
            if len(self._data) < _HEADER + size:
                return
            stream, piece = self._data[0], self._data[_HEADER : _HEADER + size]
            self._data = self._data[_HEADER + size :]
            write(2 if stream == 2 else 1, piece)


def write(descriptor: int, data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(descriptor, data) :]


def carry(connection: socket.socket, early: bytes, has_input: bool, has_terminal: bool) -> None:
    """Carry a program's streams until its output ends. When standard input ends, output goes on."""
    frames = Frames()

    def take(data: bytes) -> None:
        if has_terminal:
            write(1, data)
        else:
            frames.take(data)

    take(early)
    inputs: list[socket.socket | int] = [connection, 0] if has_input else [connection]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if connection in ready:
            data = connection.recv(_PIECE)
            if not data:
                return
            take(data)
        if 0 in ready and not send_input(connection, os.read(0, _PIECE)):
            inputs.remove(0)


@contextmanager
def terminal(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Let standard input be a raw terminal, and tell of its size, in rows and columns, now and when it changes."""
    from dbt.host.terminal import raw_terminal

    def tell(*_: object) -> None:
        size = os.get_terminal_size(0)
        if size.lines and size.columns:  # otherwise the terminal does not know it either
            threading.Thread(target=resize, args=(size.lines, size.columns)).start()

    before = signal.signal(signal.SIGWINCH, tell)
    with ExitStack() as opened:
        opened.callback(signal.signal, signal.SIGWINCH, before)
        opened.enter_context(raw_terminal(0))
        tell()
        yield
