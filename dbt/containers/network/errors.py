"""What goes wrong with networks and volumes. Where docker has a text for it, that is the text."""

from __future__ import annotations

from typing import ClassVar


class NetworkFailure(Exception):
    """Raised for what cannot be done with a network or volume. ``status`` is that of the answer of Docker's API."""

    status: ClassVar[int] = 500


class Invalid(NetworkFailure):
    """Raised for a name, an address or an option that makes no sense."""

    status = 400


class Forbidden(NetworkFailure):
    """Raised for what is not allowed, such as removing a network that is used."""

    status = 403


class NotFound(NetworkFailure):
    """Raised for a network or a volume that does not exist."""

    status = 404


class Conflict(NetworkFailure):
    """Raised for a name that is taken, and for a volume that is used."""

    status = 409
