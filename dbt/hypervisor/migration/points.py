"""The points of the migration protocol: what either side has just done, in order.

docs/migration.md says which machine may run if a side fails at each of them. Tests kill either side at every one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Point(Enum):
    """A step of the protocol that has been made. Its name says of which side it is."""

    SOURCE_CONNECTED = "the source has connected"
    SOURCE_OFFERED = "the source has said what machine it is"
    SOURCE_ACCEPTED = "the source has heard that the destination takes it"
    SOURCE_SENT_DISKS = "the source has sent its disks once, while the guest runs"
    SOURCE_SENT_ROUND = "the source has sent a round of pages, while the guest runs"
    SOURCE_HAS_LITTLE_LEFT = "the source has said that little is left, while the guest runs"
    SOURCE_STOPPED = "the source has stopped the guest"
    SOURCE_RELEASED = "the source has given its disks and networks back"
    SOURCE_SENT_LAST_BLOCKS = "the source has sent what the guest has written to disks since"
    SOURCE_SENT_STATE = "the source has sent the last pages and the state"
    SOURCE_SENT_ROOT = "the source has sent the hash"
    SOURCE_HEARD_VOTE = "the source has heard that the destination has the same state"
    SOURCE_DECIDED = "the source has decided to commit: its guest runs here again only if it certainly cannot run there"
    SOURCE_COMMITTED = "the source has sent the decision"
    SOURCE_HEARD_ACKNOWLEDGEMENT = "the source has heard that the machine runs at the destination"
    SOURCE_DISCARDED = "the source has given its machine up"

    DESTINATION_CONNECTED = "somebody has connected to the destination"
    DESTINATION_HEARD_OFFER = "the destination has heard what machine it is"
    DESTINATION_MADE_DISKS = "the destination has made files for the disks that are copied"
    DESTINATION_PREPARED = "the destination has made a machine and said so"
    DESTINATION_HEARD_BLOCKS = "the destination has some of a disk"
    DESTINATION_HEARD_ROUND = "the destination has a round of pages"
    DESTINATION_HOLDS_MEMORY = "the machine of the destination has the memory that has come"
    DESTINATION_HEARD_STATE = "the destination has the state"
    DESTINATION_VERIFIED_DISKS = "the destination has the same disks"
    DESTINATION_VERIFIED = "the destination has the same hash"
    DESTINATION_CLAIMED = "the destination is in the same state, and has the disks and networks"
    DESTINATION_VOTED = "the destination has said that it can run the machine"
    DESTINATION_HEARD_COMMIT = "the destination has heard the decision"
    DESTINATION_KEPT_DISKS = "the destination's disks are ordinary files"
    DESTINATION_RUNNABLE = "the destination's machine may run"
    DESTINATION_ACKNOWLEDGED = "the destination has said so"

    @property
    def is_of_copies(self) -> bool:
        """True if it is reached only where disks are copied."""
        return "DISKS" in self.name or "BLOCKS" in self.name

    @property
    def is_of_source(self) -> bool:
        return self.name.startswith("SOURCE")


#: Is told of each point as it is reached.
Reached = Callable[[Point], None]


def ignore(point: Point) -> None:
    """Do nothing at a point."""
