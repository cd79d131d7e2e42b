"""``dbt vm console``: the terminal, or standard input and output, as the console of a domain."""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack
from typing import Final

from dbt.cli.report import say
from dbt.cli.service import send_input
from dbt.cli.status import Status
from dbt.cli.vm.connection import as_command_error, connect, of_domain
from dbt.daemon.client import RequestFailed

#: Ctrl-], which ends the connection, as in virsh.
_ESCAPE: Final = b"\x1d"
_PIECE: Final = 1 << 16


def attach(name: str, everything: bool) -> int:
    """Connect the console until its machine ends or Ctrl-] is typed. With ``everything``, what the guest has written
    before is shown first, as far as it is kept.
    """
    is_terminal = os.isatty(0)
    with connect() as client, ExitStack() as opened:
        try:
            position = 0 if everything else client_position(name)
            early = client.hijack(of_domain(name, "console"), position=position)
        except RequestFailed as error:
            raise as_command_error(error) from None
        if is_terminal:
            from dbt.host.terminal import raw_terminal

            say(f"this is the console of {name}; Ctrl-] ends the connection")
            opened.enter_context(raw_terminal(0))
        _write(early)
        if _carry(client.socket, is_terminal):
            connect(starts=False).close()  # which says that the daemon has ended, and not the machine
    return Status.DONE


def client_position(name: str) -> int:
    """Return how much the guest has written so far."""
    from dbt.cli.vm.connection import ask

    written = ask("GET", of_domain(name, "stats"))["console_bytes"]
    assert isinstance(written, int)
    return written


def _carry(connection: socket.socket, is_terminal: bool) -> bool:
    """Carry bytes both ways. When standard input ends, output goes on. Return False if Ctrl-] ends it."""
    inputs: list[socket.socket | int] = [connection, 0]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if connection in ready:
            data = _received(connection)
            if not data:
                return True
            _write(data)
        if 0 in ready:
            keys = os.read(0, _PIECE)
            if is_terminal and _ESCAPE in keys:
                return False
            if not send_input(connection, keys):
                inputs.remove(0)


def _received(connection: socket.socket) -> bytes:
    """Return what has come, and nothing if there is nobody any more."""
    try:
        return connection.recv(_PIECE)
    except ConnectionError:
        return b""


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
