"""The other end of the engine's socket, for the command and for another engine."""

from __future__ import annotations

from typing import Final

from dbt.daemon.client import Client

_API: Final = "/v1.47"


class EngineClient(Client):
    """One connection to the engine at the unix socket ``path``, for one request. Raise OSError if there is none."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "engine", _API, "message")
