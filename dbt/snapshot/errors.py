"""The error of this room. Its text is one paragraph for the user: it names the file, what is wrong, and the remedy."""

from __future__ import annotations


class SnapshotError(Exception):
    """Raised for a file that is no snapshot, that cannot be used or written, or that does not belong to its parent."""


def reason_of(error: OSError | ValueError) -> str:
    """Return what the host says of a file that it refuses."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


class SnapshotNotWritten(SnapshotError):
    """Raised for a snapshot that cannot be written. What was there before stays."""

    @classmethod
    def of(cls, path: str, error: OSError | ValueError) -> SnapshotNotWritten:
        """Return the error for what the host says of the file."""
        remedy = "Give the name of a file that can be written, or make room for it"
        return cls(f"{path}: the snapshot cannot be written: {reason_of(error)}. {remedy}")
