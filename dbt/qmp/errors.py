"""How commands of the monitor fail, in QEMU's classes."""

from __future__ import annotations

NOT_FOUND, GENERIC, NOT_ACTIVE = "CommandNotFound", "GenericError", "DeviceNotActive"


class QmpError(Exception):
    """Raised if a command fails. ``kind`` is QEMU's class of the error; the message is for people."""

    def __init__(self, message: str, kind: str = GENERIC) -> None:
        super().__init__(message)
        self.kind = kind
