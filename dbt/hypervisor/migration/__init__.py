"""Live migration: a machine that runs is moved to another process or host, and the guest does not notice.

:class:`Outgoing` and :class:`Receiver` are the two sides. docs/migration.md has the protocol, and how it is used.
"""

from dbt.hypervisor.migration.arriving import OwnMachines
from dbt.hypervisor.migration.entrance import Entrance
from dbt.hypervisor.migration.errors import MigrationError, Undecided
from dbt.hypervisor.migration.points import Point
from dbt.hypervisor.migration.receiver import Receiver
from dbt.hypervisor.migration.settings import Progress, Settings, Status
from dbt.hypervisor.migration.source import Outgoing
from dbt.hypervisor.migration.subject import OwnMachine, Subject
from dbt.hypervisor.migration.transport import Place

__all__ = [
    "Entrance",
    "MigrationError",
    "Outgoing",
    "OwnMachine",
    "OwnMachines",
    "Place",
    "Point",
    "Progress",
    "Receiver",
    "Settings",
    "Status",
    "Subject",
    "Undecided",
]
