"""Who runs the machine that is migrated: what a migration needs of a domain, or of a program with one machine."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from dbt.hypervisor.migration.leaving import OwnLeaving

if TYPE_CHECKING:
    from dbt.hypervisor.migration.leaving import Leaving
    from dbt.vm.machine import Machine


class Subject(Protocol):
    """A machine that somebody runs, at the source. Its methods are called by the thread that migrates it."""

    @property
    def name(self) -> str:
        """What its user calls it."""

    @property
    def is_paused(self) -> bool:
        """True if its user has paused the guest, which is to stay paused at the destination."""

    def held(self) -> AbstractContextManager[Leaving]:
        """Keep the guest from executing, and give the machine. Raise MigrationError if it is not there any more, or
        another one than before.
        """

    def throttle(self, part: float | None) -> None:
        """Let the guest have no more than this part of a core, or as much as before."""

    def suspend(self) -> None:
        """Do not let the guest go on. It is called while the machine is held."""

    def go_on(self) -> None:
        """Let the guest go on, or be paused, as before :meth:`suspend`: the migration has failed."""

    def doubt(self, why: str) -> None:
        """Keep the machine, which must not run: the other side may have it. ``why`` is for the user."""

    def give_up(self) -> None:
        """Close the machine: it runs at the destination."""


class OwnMachine:
    """A machine of this thread that nobody runs while it is migrated. It is the simplest subject."""

    def __init__(self, machine: Machine, name: str = "machine") -> None:
        self.machine, self.name, self.is_paused = machine, name, False
        self._leaving: Leaving = OwnLeaving(machine)
        #: Why it is not known whether the machine may run, if that is so.
        self.doubts = ""

    def held(self) -> AbstractContextManager[Leaving]:
        from contextlib import nullcontext

        return nullcontext(self._leaving)

    def throttle(self, part: float | None) -> None:
        """Nothing runs."""

    def suspend(self) -> None:
        """Nothing runs."""

    def go_on(self) -> None:
        """Its user runs it."""

    def doubt(self, why: str) -> None:
        self.doubts = why

    def give_up(self) -> None:
        self.machine.close()
