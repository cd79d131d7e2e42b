"""The zygote's process, which is started when the first machine needs it, or in advance.

A command that will certainly have machines starts it before it imports what it needs itself (:func:`begin_zygote`), and
both import at the same time. So this module imports little.
"""

from __future__ import annotations

import socket
import subprocess
from typing import Final, NamedTuple

from dbt.codecache.interpreter import python_command, python_environment

_MAIN: Final = "from dbt.hypervisor.process.zygote import main; main({})"


class ZygoteProcess(NamedTuple):
    """A zygote, and the socket at which it hears what to do. When that is closed, it ends."""

    process: subprocess.Popen[bytes]
    connection: socket.socket


#: The one that was started in advance, until somebody takes it.
_begun: list[ZygoteProcess] = []


def begin_zygote() -> None:
    """Start a zygote for the first carrier of this process. It prepares at once for all machines, by the path that this
    interpreter has begun with, and hurries with the first one. Raise OSError if the host refuses.
    """
    _begun.append(_start(hurries=True))


def take_zygote() -> ZygoteProcess:
    """Return the zygote that was started in advance, or a new one. It belongs to the caller. Raise OSError."""
    return _begun.pop() if _begun else _start(hurries=False)


def _start(hurries: bool) -> ZygoteProcess:
    ours, theirs = socket.socketpair()
    with theirs:
        command = python_command(_MAIN.format(hurries))
        return ZygoteProcess(subprocess.Popen(command, stdin=theirs.fileno(), env=python_environment()), ours)
