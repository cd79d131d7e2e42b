"""What goes wrong when a client asks for something, with docker's texts and the status of its HTTP answer."""

from __future__ import annotations

from typing import ClassVar

from dbt.containers.images.disk import no_room
from dbt.containers.images.errors import ImageError
from dbt.containers.network.errors import NetworkFailure
from dbt.containers.runtime.spec import RuntimeFailure
from dbt.devices.medium import NO_ROOM
from dbt.linux.images import LinuxGuestError


class EngineError(Exception):
    """Raised for what cannot be done. ``status`` is that of the HTTP answer of Docker's API."""

    status: ClassVar[int] = 500


class NotModified(EngineError):
    """Raised for what is so already."""

    status = 304


class BadParameter(EngineError):
    """Raised for a request that is wrong."""

    status = 400


class NotFound(EngineError):
    """Raised for what there is none of."""

    status = 404


class Conflict(EngineError):
    """Raised for what the present state does not allow."""

    status = 409


class NotImplementedHere(EngineError):
    """Raised for what docker can do and we cannot."""

    status = 501


class Unavailable(EngineError):
    """Raised for what this engine could do only as a part of others."""

    status = 503


def text_of(error: Exception) -> str:
    """Return what a client is told of an error."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return no_room("what was to be written", str(error.filename or "the engine's directory"))
    return str(error)


def status_of(error: Exception) -> int | None:
    """Return the status of the answer for an error that is an answer, or None for one that nobody has foreseen."""
    if isinstance(error, EngineError | ImageError | NetworkFailure):
        return error.status
    return 500 if isinstance(error, RuntimeFailure | LinuxGuestError | OSError) else None
