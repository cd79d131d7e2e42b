"""What a domain has to be moved to another host while its guest runs: :mod:`dbt.hypervisor.moving` does it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from dbt.hypervisor.lifecycle import DomainState

if TYPE_CHECKING:
    from dbt.hypervisor.carrier import Vm
    from dbt.hypervisor.domain import DomainHost
    from dbt.hypervisor.limits import Limits
    from dbt.hypervisor.migration import Entrance, Place, Point, Progress, Settings
    from dbt.hypervisor.moving import Move
    from dbt.vm.options import HostOptions


class MovableDomain(ABC):
    """What :class:`dbt.hypervisor.domain.Domain` has for migrations."""

    def __init__(self, host: DomainHost) -> None:
        self._host = host
        self._moves: Move | None = None

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """Its share of the host."""

    @abstractmethod
    def _to(self, state: DomainState) -> None:
        """Go over to a state."""

    @abstractmethod
    def _become(self, vm: Vm | None, reason: str = "") -> None:
        """Have another machine, or none any more, because of ``reason``."""

    @property
    def _move(self) -> Move:
        if self._moves is None:
            from dbt.hypervisor.domain import Domain
            from dbt.hypervisor.moving import Move  # which few domains need

            assert isinstance(self, Domain)
            self._moves = Move(self, self._host, self._to, self._become)
        return self._moves

    def migrate(
        self,
        place: Place,
        settings: Settings | None = None,
        progress: Progress | None = None,
        reached: Callable[[Point], None] | None = None,
        about: bytes = b"",
        number: bytes | None = None,
    ) -> None:
        """Move the machine to where somebody receives it, while its guest runs. The domain is only defined then.

        ``place`` is where :meth:`receive` listens. Raise MigrationError if the machine goes on here, and Undecided if
        it is not known whether it runs there: see :meth:`resume`. ``progress`` is kept up meanwhile, and ``reached`` is
        told of the points of the protocol. ``about`` is what a host of the destination is told of the domain, and
        ``number`` that of the migration, by which it can be asked for: 16 random bytes.
        """
        self._move.migrate(place, settings, progress, reached, about, number)

    def receive(
        self,
        place: Place | Entrance,
        timeout: float | None = None,
        options: HostOptions | None = None,
        reached: Callable[[Point], None] | None = None,
        listening: Callable[[str], None] | None = None,
    ) -> None:
        """Wait at ``place`` for a machine that is moved here, and run it. The domain has to be one that is defined.

        ``options`` are what the machine has of this host. ``listening`` is told where the source finds this side. Raise
        TimeoutError if nobody has begun within so many seconds, MigrationError if nothing has come of it, and Undecided
        as :meth:`migrate`.
        """
        self._move.receive(place, timeout, options or {}, reached, listening)

    @property
    def share(self) -> Limits:
        """What the host gives it: its limits, or less of a core while it is moved and changes memory too fast."""
        part = None if self._moves is None else self._moves.part
        limits = self.limits
        if part is None:
            return limits
        return limits._replace(cap=part if limits.cap is None else min(limits.cap, part))

    def _end_move(self) -> None:
        """Forget an undecided migration."""
        if self._moves is not None:
            self._moves.close()

    def refuse(self) -> None:
        """Let nobody begin to move a machine here any more: :meth:`receive`, in which another thread waits, raises
        OSError. A migration that has begun goes on.
        """
        self._move.refuse()
