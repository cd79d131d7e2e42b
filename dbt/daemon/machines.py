"""What the daemon needs of whoever makes machines. The command line does, from the options of ``dbt run``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dbt.daemon.definition import Definition
from dbt.host.console import Console
from dbt.vm.machine import Machine
from dbt.vm.options import HostOptions


class GuestBoot(Protocol):
    """Makes the machine of one domain, as :data:`dbt.hypervisor.carrier.Boot`. It can be pickled.

    ``resume`` is a snapshot from which the next machine goes on; the ones after it are booted. ``xenstore`` is the path
    of the socket at which its XenStore is, if it is a domain of Xen.
    """

    resume: str | None

    @property
    def xenstore(self) -> str | None: ...

    def __call__(self, console: Console) -> Machine:
        """Return the machine, with the guest in it."""


class MachineMaker(Protocol):
    """Knows the options of machines. ``modules`` are those that a :class:`GuestBoot` needs."""

    modules: Sequence[str]

    def check(self, definition: Definition) -> Definition:
        """Return the definition with absolute paths. Raise DefinitionError for options that make no sense.

        Whether files are there is not looked at before the start.
        """

    def copied(self, definition: Definition, name: str) -> Definition:
        """Return a definition of another machine of the same kind, without what is this one's alone, as its UUID is."""

    def with_disks_in(self, directory: str, definition: Definition) -> Definition:
        """Return a definition that was checked, whose disks are copied to this host: files that a guest writes to, and
        others that are not here, are in a directory of the machine's in ``directory``, which is made.
        """

    def boot(self, definition: Definition) -> GuestBoot:
        """Return what makes the machine of a definition that was checked."""

    def options(self, definition: Definition) -> HostOptions:
        """Return what a machine of a definition that was checked has of this host, but for its console. Raise
        DefinitionError for what is not here.
        """

    def option_schemas(self) -> dict[str, object]:
        """Return the JSON schema of each option that a machine can have, by its name."""
