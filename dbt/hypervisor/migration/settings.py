"""What a user chooses for a migration, and what is known of one that is under way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple


class Settings(NamedTuple):
    """How a machine is migrated.

    - ``downtime_s``: the guest is stopped when what is left of its pages can be sent in so many seconds.
    - ``rounds``: after so many rounds it is stopped in any case, or, with ``throttles``, made slower first.
    - ``throttles``: whether a guest that changes pages faster than they can be sent gets less of a core.
    - ``bandwidth``: the bytes that are sent in a second at most, while the guest runs.
    - ``by_descriptor``: whether memory is passed as a descriptor where the other side is on this host.
    - ``copies_storage``: whether disks are copied. Otherwise both sides have the same files.
    - ``asking_s``: how long a destination is asked again that was lost while it was told to run the machine.
    """

    downtime_s: float = 0.004
    rounds: int = 30
    throttles: bool = True
    bandwidth: int | None = None
    by_descriptor: bool = True
    copies_storage: bool = False
    asking_s: float = 10.0


DEFAULT_SETTINGS: Final = Settings()


class Status(Enum):
    """How far a migration is, by QEMU's names, and what it has none for."""

    SETUP = "setup"
    ACTIVE = "active"
    #: The guest is stopped, and its machine is still the source's.
    DEVICE = "device"
    COMPLETED = "completed"
    #: The guest runs where it ran.
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: Nobody knows which side has the machine. It runs at neither of them by itself.
    UNDECIDED = "undecided"


@dataclass
class Progress:
    """What is known of a migration. Any thread may read it.

    Times are in seconds. ``downtime_s`` is from the guest's stop to the acknowledgement. ``dirty_pages`` are those that
    the guest has changed since the present round began, ``storage_bytes`` are those of disks that were sent, and
    ``part`` is the part of a core that the guest may use.
    """

    status: Status = Status.SETUP
    rounds: int = 0
    pages: int = 0
    sent_bytes: int = 0
    storage_bytes: int = 0
    dirty_pages: int = 0
    dirty_rate: float = 0.0
    bandwidth: float = 0.0
    part: float = 1.0
    began_s: float = 0.0
    total_s: float = 0.0
    downtime_s: float = 0.0
    error: str = ""
