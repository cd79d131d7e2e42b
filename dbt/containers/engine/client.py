"""The other end of the engine's socket, for the command and for another engine."""

from __future__ import annotations

import socket
from typing import Final

from dbt.daemon.client import Client

_API: Final = "/v1.47"


class EngineClient(Client):
    """One connection to an engine, for one request: one that there is, or a new one to the unix socket at a path. Raise
    OSError if there is none.
    """

    def __init__(self, connection: str | socket.socket) -> None:
        super().__init__(connection, "engine", _API, "message")
