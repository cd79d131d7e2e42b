"""What can go wrong with a migration, as its users see it."""

from __future__ import annotations


class MigrationError(Exception):
    """Raised if a migration has failed. The machine runs where it ran before, or it says so. One paragraph."""


class PeerGone(MigrationError):
    """Raised if the other side does not answer. ``has_ended`` is True if it has certainly closed the connection."""

    def __init__(self, text: str, has_ended: bool) -> None:
        super().__init__(text)
        self.has_ended = has_ended


class Refused(MigrationError):
    """Raised with the reason of the other side."""


class ProtocolError(MigrationError):
    """Raised for what the other side must not send."""


class Undecided(MigrationError):
    """Raised at a side that cannot know whether the other one's machine runs. Its own stays paused."""
