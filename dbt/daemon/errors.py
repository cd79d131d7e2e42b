"""What goes wrong when somebody asks the daemon for something. Each text is one paragraph for a person."""

from __future__ import annotations

from typing import ClassVar


class RequestError(Exception):
    """Raised for a request that cannot be carried out. ``status`` is that of its HTTP answer."""

    status: ClassVar[int] = 400


class DefinitionError(RequestError):
    """Raised for a definition of a virtual machine that is wrong. The text names the field."""

    status = 422


class NotFound(RequestError):
    """Raised for a domain, a snapshot or a path that there is none of."""

    status = 404


class Conflict(RequestError):
    """Raised for what the present state does not allow."""

    status = 409


class HostFailed(RequestError):
    """Raised if the host refuses what the request needs: a file, memory, a process."""

    status = 500
