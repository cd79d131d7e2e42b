"""Moving a domain to another host, or having one moved here: what a migration is for the domain's life and share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from dbt.hypervisor.carrier import Name, VmLost
from dbt.hypervisor.lifecycle import SOUND, DomainState, LifecycleError
from dbt.hypervisor.migration import MigrationError, Outgoing, Progress, Receiver, Settings, Undecided, points

if TYPE_CHECKING:
    from dbt.hypervisor.arriving_vm import ArrivingVm
    from dbt.hypervisor.carrier import Vm
    from dbt.hypervisor.domain import Domain, DomainHost
    from dbt.hypervisor.migration import Entrance
    from dbt.hypervisor.migration.leaving import Leaving
    from dbt.hypervisor.migration.points import Reached
    from dbt.hypervisor.migration.transport import Place
    from dbt.vm.options import HostOptions


class Become(Protocol):
    """Lets the domain have a machine, or none any more because of a reason."""

    def __call__(self, vm: Vm | None, reason: str = "") -> None: ...


class Move:
    """The migrations of one domain. To the source of one, this is the subject
    (:class:`dbt.hypervisor.migration.subject.Subject`). ``to`` lets the domain go over to a state.
    """

    def __init__(self, domain: Domain, host: DomainHost, to: Callable[[DomainState], None], become: Become) -> None:
        self._domain, self._host, self._to, self._become = domain, host, to, become
        #: The part of a core that it has at most, while it changes memory too fast to be moved.
        self.part: float | None = None
        self.is_paused = False
        self._vm: Vm | None = None
        self._leaving: Leaving | None = None
        self._receiver: Receiver[ArrivingVm] | None = None
        self._is_busy = False

    @property
    def name(self) -> str:
        return self._domain.name

    # -- away ----------------------------------------------------------------------------------

    def migrate(
        self,
        place: Place,
        settings: Settings | None,
        progress: Progress | None,
        reached: Reached | None,
        about: bytes,
        number: bytes | None,
    ) -> None:
        """See :meth:`dbt.hypervisor.movable.MovableDomain.migrate`."""
        domain = self._domain
        with self._begun(), self._host.held(domain):
            if domain.state not in SOUND:
                raise LifecycleError(f"cannot migrate the domain {self.name}, which is {domain.state.value}")
            self._vm = domain.vm
            self._leaving = self._vm.leaving()
        try:
            told = reached or points.ignore
            Outgoing(self, place.connect, settings or Settings(), told, progress, about, number).run()
        except VmLost as lost:
            raise MigrationError(str(lost)) from None
        finally:
            self._vm, self._leaving, self._is_busy = None, None, False

    @contextmanager
    def _begun(self) -> Iterator[None]:
        """Refuse a second migration at the same time. If what is done here fails, there is none."""
        if self._is_busy:
            raise LifecycleError(f"the domain {self.name} is being migrated already")
        self._is_busy = True
        try:
            yield
        except BaseException:
            self._is_busy = False
            raise

    @contextmanager
    def held(self) -> Iterator[Leaving]:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        with self._host.held(self._domain):
            state = self._domain.state
            if state not in SOUND or self._domain.vm is not self._vm or self._leaving is None:
                raise MigrationError(f"the machine of the domain {self.name} has ended: it is {state.value} now")
            yield self._leaving

    def throttle(self, part: float | None) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`. The cap is exact, as any cap is."""
        if part != self.part:
            with self._host.held(self._domain):
                self.part = part
                self._host.limits_changed(self._domain)

    def suspend(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        self.is_paused = self._domain.state is DomainState.PAUSED
        self._to(DomainState.MIGRATING)

    def go_on(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        with self._host.held(self._domain):
            self._begin_again()

    def _begin_again(self) -> None:
        self._to(DomainState.RUNNING)
        if self.is_paused:
            self._to(DomainState.PAUSED)

    def doubt(self, why: str) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        with self._host.held(self._domain):
            self._domain.reason = why
            self._to(DomainState.UNDECIDED)

    def give_up(self) -> None:
        """See :class:`dbt.hypervisor.migration.subject.Subject`."""
        with self._host.held(self._domain):
            self._become(None, "it was migrated")

    # -- here ----------------------------------------------------------------------------------

    def receive(
        self,
        place: Place | Entrance,
        timeout: float | None,
        options: HostOptions,
        reached: Reached | None,
        listening: Callable[[str], None] | None,
    ) -> None:
        """See :meth:`dbt.hypervisor.movable.MovableDomain.receive`."""
        domain = self._domain
        name = Name(domain.name, domain.uuid)
        with self._begun():
            with self._host.held(domain):
                if domain.state is not DomainState.DEFINED:
                    raise LifecycleError(f"the domain {self.name} is {domain.state.value}, and has a machine")
                self._to(DomainState.MIGRATING)
            try:
                maker = self._host.carrier.arriving(name, options, domain.console, self._host.conduct(domain))
                self._receiver = Receiver(place, maker, reached or points.ignore)
                if listening is not None:
                    listening(self._receiver.address)
                arrived = self._receiver.receive(timeout)
            except Undecided as error:
                assert self._receiver is not None and self._receiver.undecided is not None
                with self._host.held(domain):
                    self._become(self._receiver.undecided.vm)
                    domain.reason = str(error)
                    self._to(DomainState.UNDECIDED)
                raise
            except BaseException:
                with self._host.held(domain):
                    self.close()
                    self._to(DomainState.DEFINED)
                raise
        with self._host.held(domain):
            self.is_paused = self._receiver.is_paused
            self._become(arrived.vm)
            self._begin_again()
            arrived.vm.conduct(self._host.conduct(domain))
        self.close()
        self._is_busy = False

    def refuse(self) -> None:
        """See :meth:`dbt.hypervisor.movable.MovableDomain.refuse`."""
        if self._receiver is not None:
            self._receiver.refuse()

    def force(self) -> None:
        """Let the machine of an undecided migration run here. The domain is held, and its state changes next."""
        if self._receiver is not None and self._receiver.undecided is not None:
            self._receiver.force()
        else:
            leaving = self._domain.vm.leaving()
            leaving.claim()
            leaving.permit()
        self._domain.reason = ""
        self.close()

    def close(self) -> None:
        """Listen no longer, and forget an undecided migration."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None
